# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of system files: the one place that says which keys there are, what they mean and what they default to.

It is plain JSON Schema (draft 2020-12), published in ``schema/`` for editors. Its parts are in ``keys``;
cross-references, which a schema cannot say, are in ``checks``.
"""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys import access, operations, sight
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import (
    A_NAME,
    DOMAIN,
    IMAGE,
    LABEL,
    NAME,
    Schema,
    choice,
    definitions,
    items,
    keys,
    mapping,
    ref,
    size,
    storage_class,
    switch,
    text,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.components import component
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.patches import patches
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.stores import stores

ADDRESS = "https://raw.githubusercontent.com/groundwork/platform/main/schema/{name}.schema.json"


def _identity() -> Schema:
    return {
        "description": text(
            "What the system is, in a sentence.", default="", examples=["Detects and counts medical items"]
        ),
        "namespace": text(
            "Its namespace. Default: the system's name, with hyphens.",
            "a DNS label",
            LABEL,
            examples=["medical-inventory"],
        ),
        "domain": text(
            "Domain below which its public hosts are; usually the environment's. Default: none, so there are none.",
            "a domain name",
            DOMAIN,
            examples=["clinic.example"],
        ),
        "registry": text(
            "Put in front of images that name no registry of their own. Default: nothing is.",
            "a registry, with a path if need be",
            IMAGE,
            examples=["registry.example"],
        ),
        "image": text(
            "Image of every component that names none. Default: none, so each names its own.",
            "an image reference",
            IMAGE,
            examples=["medical-inventory/api:1.0.0"],
        ),
        "image_pull_policy": choice(
            "Whether nodes ask the registry again. Default: Always for tags, IfNotPresent for digests.",
            "Always",
            "IfNotPresent",
            "Never",
        ),
        "image_pull_secrets": items(
            "Secrets with registry credentials, which exist in the namespace.",
            text("A Secret.", "a name", DOMAIN),
            default=[],
            examples=[["registry"]],
        ),
        "env": ref("env", description="Environment variables of every component, below those of its own."),
    }


def _parts() -> Schema:
    return {
        "components": mapping(
            "Workloads, by name. The name is also that of the Service.",
            component(),
            NAME,
            A_NAME,
            minProperties=1,
            examples=[{"api": {"port": 8000, "args": ["serve"]}}],
        ),
        "stores": stores(),
        "volumes": mapping(
            "Volumes that several components share, by name.",
            keys(
                "A claim.",
                {
                    "size": size("Its size.", examples=["20Gi"]),
                    "access": items(
                        "Access modes of the claim. ReadOnlyMany serves readers; whoever publishes needs another.",
                        choice("A mode.", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce"),
                        "a list of access modes",
                        minItems=1,
                        uniqueItems=True,
                        default=["ReadOnlyMany", "ReadWriteMany"],
                        examples=[["ReadWriteMany"]],
                    ),
                    "writable": switch("Whether components write to it, as to shared logs.", False),
                    "storage_class": storage_class(),
                },
                required=["size"],
            ),
            NAME,
            A_NAME,
            default={},
            examples=[{"models": {"size": "20Gi"}}],
        ),
        "secrets": access.secrets(),
        "outside": access.outside(),
        "migration": operations.migration(),
        "seed": operations.seed(),
        "on_failure": choice(
            "What becomes of a release that fails: the last good one comes back, everything stays as it is, or its "
            "rollouts pause. A first release, and one whose schema forbids a return, stays.",
            "rollback",
            "keep",
            "pause",
            default="rollback",
        ),
    }


def _demands() -> Schema:
    return {
        "tenants": operations.tenants(),
        "logging": sight.logging(),
        "tracing": sight.tracing(),
        "metrics": sight.metrics(),
        "alerts": sight.alerts(),
        "dashboards": sight.dashboards(),
        "objectives": sight.objectives(),
        "monitoring": sight.monitoring(),
        "snapshots": operations.snapshots(),
        "cost": operations.cost(),
        "hibernation": operations.hibernation(),
        "maintenance": operations.maintenance(),
        "compliance": operations.compliance(),
        "requires": operations.requires(),
    }


def _environment() -> Schema:
    return {
        "capabilities": operations.capabilities(),
        "network": access.network(),
        "nodes": operations.nodes(),
        "secret_store": access.secret_store(),
        "object_store": operations.object_store(),
        "quota": operations.quota(),
        "patches": patches(),
    }


def _root() -> Schema:
    return {
        "title": "a system file",
        "description": "One system: its components, stores and migration. Environments and overrides are merged over "
        "it: maps merge, lists and scalars replace, null removes.",
        "type": "object",
        "additionalProperties": False,
        "required": ["components"],
        "properties": {**_identity(), **_parts(), **_demands(), **_environment()},
        "$defs": definitions(),
    }


SCHEMA: Schema = _root()


def published(name: str = "system") -> Schema:
    """The schema as it is published.

    :param name: ``system`` for whole systems; ``environment`` for what is merged over one, where nothing is required
        and null removes.
    """
    schema = copy.deepcopy(SCHEMA)
    if name == "environment":
        schema = _loosened(schema)
        schema["title"] = "an environment's file"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ADDRESS.format(name=name), **schema}


def _loosened(schema: Any) -> Any:
    """What of a schema holds for a layer: no key need be there, and any may be null."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {}
    for key, value in schema.items():
        if key in ("required", "minProperties"):
            continue
        if key == "oneOf":
            loose["anyOf"] = _loosened(value)
        elif key in ("properties", "$defs"):
            loose[key] = {name: _loosened(below) for name, below in value.items()}
            if key == "properties":
                loose[key] = {name: _or_null(below) for name, below in loose[key].items()}
        elif key == "additionalProperties" and isinstance(value, dict):
            loose[key] = _or_null(_loosened(value))
        elif key in ("default", "examples", "enum", "const"):
            loose[key] = value
        else:
            loose[key] = _loosened(value)
    return loose


def _or_null(schema: Schema) -> Schema:
    described: Schema = {key: schema[key] for key in ("description", "default", "examples") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in described}
    return {**described, "anyOf": [rest, {"type": "null"}]}
