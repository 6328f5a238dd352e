# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns which field of an object: the trees of ``metadata.managedFields``, as data.

A tree is what the API calls FieldsV1. Its keys are ``f:<field>``, ``k:<keys of a list's item as JSON>``, ``v:<value of
a set as JSON>`` and ``.`` for the thing itself; a node without children is a field that is owned as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

Tree = Mapping[str, Any]
Entry = Mapping[str, Any]


def entries(obj: Mapping[str, Any]) -> list[Entry]:
    """All entries of managedFields."""
    return list((obj.get("metadata") or {}).get("managedFields") or [])


def applied_by(obj: Mapping[str, Any], manager: str) -> list[Entry]:
    """A manager's entries made by server-side apply to the object itself; one at most, unless versions differ."""
    return [
        entry
        for entry in entries(obj)
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource")
    ]


def owned(obj: Mapping[str, Any], manager: str) -> Tree:
    """What a manager owns by server-side apply; empty if nothing."""
    tree: Tree = {}
    for entry in applied_by(obj, manager):
        tree = union(tree, entry.get("fieldsV1") or {})
    return tree


def taken_over(obj: Mapping[str, Any], managers: Collection[str], successor: str) -> list[Entry]:
    """The entries that somebody who takes over from these managers replaces: those of the object itself."""
    return [
        entry
        for entry in entries(obj)
        if entry.get("manager") in managers
        and not entry.get("subresource")
        and not (entry.get("manager") == successor and entry.get("operation") == "Apply")
    ]


def handed_over(obj: Mapping[str, Any], managers: Collection[str], successor: str) -> list[dict[str, Any]]:
    """The managedFields of an object after ``successor`` has taken over what ``managers`` own.

    Their fields become fields that the successor applied, so that those that it does not apply again vanish. An entry
    of another version of the API is dropped, since its paths may mean nothing in this version; so does kubectl.
    """
    leaving = taken_over(obj, managers, successor)
    version = str(obj.get("apiVersion"))
    own = applied_by(obj, successor)
    base: dict[str, Any] = (
        dict(own[0])
        if own
        else {"manager": successor, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1"}
    )
    tree: Tree = base.get("fieldsV1") or {}
    for entry in leaving:
        if entry.get("apiVersion") == base["apiVersion"]:
            tree = union(tree, entry.get("fieldsV1") or {})
    base["fieldsV1"] = tree
    kept = [dict(entry) for entry in entries(obj) if entry not in leaving and entry not in own]
    return [base, *kept]


def union(one: Tree, other: Tree) -> Tree:
    """What either owns."""
    return {key: _united(one.get(key), other.get(key)) for key in {**one, **other}}


def _united(one: Tree | None, other: Tree | None) -> Tree:
    if one is None or other is None:
        return dict(one or other or {})
    if one and other:
        return union(one, other)
    # A node without children owns itself, which it would no longer say once it has some.
    return {".": {}, **one, **other} if one or other else {}


def without(tree: Tree, others: Tree) -> Tree:
    """What a tree owns that the other one does not."""
    left: dict[str, Any] = {}
    for key, node in tree.items():
        if key not in others:
            left[key] = node
        elif key != "." and node:
            rest = without(node, others[key]) if others[key] else {k: v for k, v in node.items() if k != "."}
            if rest:
                left[key] = rest
    return left


def at(tree: Tree, path: tuple[str, ...]) -> Tree | None:
    """The node under a path of keys; None when there is none."""
    for key in path:
        if key not in tree:
            return None
        tree = tree[key]
    return tree


def remove(obj: Any, tree: Tree) -> None:
    """Take the fields of a tree out of an object, in place."""
    for key, node in tree.items():
        kind, _colon, rest = key.partition(":")
        if kind == "f" and isinstance(obj, dict) and rest in obj:
            if not node:
                del obj[rest]
                continue
            remove(obj[rest], node)
            if "." in node and obj[rest] in ({}, []):
                del obj[rest]
        elif kind == "k" and isinstance(obj, list):
            for item in [item for item in obj if matches(item, json.loads(rest))]:
                if not node or "." in node:
                    obj.remove(item)
                else:
                    remove(item, node)
        elif kind == "v" and isinstance(obj, list):
            value = json.loads(rest)
            obj[:] = [item for item in obj if item != value]


def matches(item: Any, keys: Mapping[str, Any]) -> bool:
    """Whether an item of a list is the one with these keys."""
    return isinstance(item, Mapping) and all(name in item and item[name] == value for name, value in keys.items())
