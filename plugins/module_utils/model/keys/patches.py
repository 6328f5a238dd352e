# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of patches, the way out for what the model has no key for."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    Schema,
    choice,
    items,
    keys,
    mapping,
    text,
)

TARGET = r"^[A-Z][A-Za-z]*/[a-z0-9][-a-z0-9.]*$"
JSON_POINTER = r"^(/([^/~]|~[01])*)+$"
_TITLE = "a strategic merge patch (a map) or a JSON patch (a list of operations)"


def patches() -> Schema:
    """Patches by the object that they change."""
    either = [{"type": "object", "title": _TITLE}, items(_TITLE, _operation(), _TITLE, minItems=1)]
    return mapping(
        "The way out for what has no key here: Kind/name of an object to a strategic merge patch of it (a map) or a "
        "JSON patch (a list). A patch that matches nothing is refused.",
        {"title": _TITLE, "anyOf": either},
        TARGET,
        "Kind/name, such as Deployment/api",
        default={},
        examples=[
            {"Deployment/api": {"spec": {"template": {"spec": {"priorityClassName": "high"}}}}},
            {"Service/api": [{"op": "add", "path": "/spec/publishNotReadyAddresses", "value": True}]},
        ],
    )


def _operation() -> Schema:
    pointer = "a path such as /spec/replicas"
    return keys(
        "An operation of a JSON patch (RFC 6902).",
        {
            "op": choice("What is done.", "add", "remove", "replace", "move", "copy", "test", examples=["replace"]),
            "path": text(
                "Where. In lists an index, or - for the end.", pointer, JSON_POINTER, examples=["/spec/replicas"]
            ),
            "from": text(
                "What is moved or copied. Default: nothing is.", pointer, JSON_POINTER, examples=["/spec/replicas"]
            ),
            "value": {
                "description": "What is added or put in place, or has to be there. Default: nothing.",
                "title": "a value",
                "examples": [5],
            },
        },
        required=["op", "path"],
    )
