# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks an object against the schema that the API server publishes, or that a CustomResourceDefinition carries.

This is for check mode only, where the server itself can't judge an object whose Namespace or definition is not
there yet. It finds wrong types, unknown fields, missing ones and values outside of an enumeration, and knows
nothing of admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object, Resource

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
DEPTH = 60


class Schemas:
    """Schemas of one cluster, fetched as they are needed.

    :param cluster: asked for ``/openapi/v3``.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._documents: dict[str, dict[str, Any] | None] = {}

    def problems(
        self, obj: Object, resource: Resource | None, definition: Mapping[str, Any] | None
    ) -> list[str] | None:
        """What is wrong with an object; None when no schema of its kind can be had.

        :param definition: the CustomResourceDefinition of the batch that defines the kind, if there is one.
        """
        if definition is not None:
            schema = _of_definition(definition, obj["apiVersion"])
            components: dict[str, Any] = {}
        elif resource is not None:
            components = self._components(resource.api_version)
            schema = _of_kind(components, resource)
        else:
            return None
        if not schema:
            return None
        found: list[str] = []
        body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
        properties = schema.get("properties") or {}
        for key, value in body.items():
            if key in properties:
                _check(value, properties[key], components, f".{key}", found, DEPTH)
            elif not _open(schema):
                found.append(f".{key} is unknown")
        found += [f".{key} is missing" for key in schema.get("required") or [] if key not in obj]
        return found

    def _components(self, api_version: str) -> dict[str, Any]:
        path = f"/openapi/v3/apis/{api_version}" if "/" in api_version else f"/openapi/v3/api/{api_version}"
        if path not in self._documents:
            try:
                self._documents[path] = self._cluster.transport.request("GET", path)
            except ApiError:
                self._documents[path] = None
        document = self._documents[path] or {}
        return dict((document.get("components") or {}).get("schemas") or {})


def _of_definition(definition: Mapping[str, Any], api_version: str) -> dict[str, Any] | None:
    wanted = api_version.rpartition("/")[2]
    for version in (definition.get("spec") or {}).get("versions") or []:
        if version.get("name") == wanted:
            return (version.get("schema") or {}).get("openAPIV3Schema")
    return None


def _of_kind(components: Mapping[str, Any], resource: Resource) -> dict[str, Any] | None:
    for schema in components.values():
        for mark in schema.get("x-kubernetes-group-version-kind") or []:
            if (mark.get("group"), mark.get("version"), mark.get("kind")) == (
                resource.group,
                resource.version,
                resource.kind,
            ):
                return dict(schema)
    return None


def _open(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("additionalProperties"))


def _check(
    value: Any, schema: Mapping[str, Any], components: Mapping[str, Any], path: str, found: list[str], depth: int
) -> None:
    if value is None or depth == 0:
        return
    if "$ref" in schema:
        schema = components.get(str(schema["$ref"]).rpartition("/")[2]) or {}
    for part in schema.get("allOf") or []:
        _check(value, part, components, path, found, depth - 1)
    if schema.get("x-kubernetes-int-or-string") or schema.get("oneOf") or schema.get("anyOf"):
        return
    kind = schema.get("type")
    if kind in _TYPES and (not isinstance(value, _TYPES[kind]) or (kind != "boolean" and isinstance(value, bool))):
        found.append(f"{path} is {type(value).__name__}, not {kind}")
        return
    if schema.get("enum") and value not in schema["enum"]:
        found.append(f"{path} is none of {', '.join(map(str, schema['enum']))}")
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, item in enumerate(value):
            _check(item, schema["items"], components, f"{path}[{index}]", found, depth - 1)
    if isinstance(value, dict):
        _check_mapping(value, schema, components, path, found, depth)


def _check_mapping(
    value: dict[str, Any],
    schema: Mapping[str, Any],
    components: Mapping[str, Any],
    path: str,
    found: list[str],
    depth: int,
) -> None:
    properties = schema.get("properties")
    rest = schema.get("additionalProperties")
    for key, item in value.items():
        if properties and key in properties:
            _check(item, properties[key], components, f"{path}.{key}", found, depth - 1)
        elif isinstance(rest, Mapping):
            _check(item, rest, components, f"{path}.{key}", found, depth - 1)
        elif properties and not _open(schema):
            found.append(f"{path}.{key} is unknown")
    found += [f"{path}.{key} is missing" for key in schema.get("required") or [] if key not in value]
