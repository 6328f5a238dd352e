# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a located tree against the schema and reports every problem where it was written.

This is the part of JSON Schema that the model uses, and no more: a general validator knows no lines, cannot guess
the key that was meant, and takes longer to import than all of a compilation. A test holds it to jsonschema's verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import Schema
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import (
    Problem,
    join,
    listing,
    nearest,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.schema import SCHEMA
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def validate(node: Node, schema: Schema | None = None, path: str = "") -> Iterator[Problem]:
    """All that keeps node from being what the schema describes; by default that of a system."""
    schema = _resolved(SCHEMA if schema is None else schema)
    branches: Sequence[Schema] = schema.get("anyOf") or schema.get("oneOf") or ()
    if branches:
        yield from _alternatives(node, schema, branches, path)
        return
    value = node.value
    mistyped = "type" in schema and not _is(value, schema["type"])
    if mistyped or ("const" in schema and value != schema["const"]):
        yield _wrong(node, schema, path)
    elif "enum" in schema and value not in schema["enum"]:
        yield _wrong(node, schema, path, nearest(str(value), schema["enum"]))
    elif isinstance(value, str):
        if "pattern" in schema and not _matches(schema["pattern"], value):
            yield _wrong(node, schema, path)
    elif isinstance(value, dict):
        yield from _map(node, value, schema, path)
    elif isinstance(value, list):
        yield from _list(node, value, schema, path)
    elif isinstance(value, (int, float)) and not _in_range(value, schema):
        yield _wrong(node, schema, path)


def with_defaults(value: Any, schema: Schema | None = None) -> Any:
    """Valid plain data with every default of the schema filled in; by default that of a system."""
    schema = _resolved(SCHEMA if schema is None else schema)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        fitting = _branch(value, [_resolved(branch) for branch in branches])
        return value if fitting is None else with_defaults(value, fitting)
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(item, schema["items"]) for item in value]
    if isinstance(value, float) and schema.get("type") == "integer":
        return int(value)  # JSON Schema counts 2.0 among the integers, Kubernetes does not
    if not isinstance(value, dict):
        return value
    properties: dict[str, Schema] = schema.get("properties", {})
    filled = {}
    for key, below in properties.items():
        default = below.get("default", _resolved(below).get("default"))
        if key in value:
            filled[key] = with_defaults(value[key], below)
        elif default is not None:
            filled[key] = with_defaults(default, below)
    more = schema.get("additionalProperties")
    for key, child in value.items():
        if key not in properties:
            filled[key] = with_defaults(child, more) if isinstance(more, dict) else child
    return filled


def _resolved(schema: Schema) -> Schema:
    if "$ref" in schema:
        target: Schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _is(value: Any, names: str | list[str]) -> bool:
    for name in [names] if isinstance(names, str) else names:
        if isinstance(value, bool):
            if name == "boolean":
                return True
        elif isinstance(value, _TYPES[name]) or (name == "integer" and isinstance(value, float) and value.is_integer()):
            return True
    return False


def _matches(pattern: str, text: str) -> bool:
    # In Python "$" also matches ahead of a final newline, which no name may have.
    return "\n" not in text and re.search(pattern, text) is not None


def _in_range(value: float, schema: Schema) -> bool:
    if "minimum" in schema and value < schema["minimum"]:
        return False
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return False
    return not ("maximum" in schema and value > schema["maximum"])


def _alternatives(node: Node, schema: Schema, branches: Sequence[Schema], path: str) -> Iterator[Problem]:
    """Complain as the branch does that was meant; where that is unclear, with the title of the whole."""
    resolved = [_resolved(branch) for branch in branches]
    if any(not list(validate(node, branch, path)) for branch in resolved):
        return
    fitting = _branch(node.plain(), resolved)
    kinds = _kinds(resolved)
    if fitting is not None and isinstance(node.value, (dict, list)):
        yield from validate(node, fitting, path)
    elif kinds and isinstance(node.value, dict):
        kind = node.value.get("type")
        if kind is None:
            yield Problem(node.key_place, join(path, "type"), "nothing", listing(kinds))
        else:
            yield Problem(
                kind.place, join(path, "type"), shown(kind.value), listing(kinds), nearest(str(kind.value), kinds)
            )
    else:
        yield _wrong(node, schema, path)


def _branch(value: Any, branches: Sequence[Schema]) -> Schema | None:
    """The branch that a value means: by its `type`, by its keys, or by being of the one JSON type that fits."""
    if isinstance(value, dict):
        objects = [branch for branch in branches if branch.get("type") == "object"]
        if _kinds(objects):
            return next((one for one in objects if one["properties"]["type"]["const"] == value.get("type")), None)
        return max(objects, key=lambda one: len(set(one.get("properties", ())) & set(value)), default=None)
    for branch in branches:
        if "anyOf" in branch or _is(value, branch.get("type", [])):
            return branch
    return None


def _kinds(branches: Sequence[Schema]) -> list[str]:
    kinds = [branch.get("properties", {}).get("type", {}).get("const") for branch in branches]
    return [kind for kind in kinds if kind is not None]


def _map(node: Node, value: dict[str, Node], schema: Schema, path: str) -> Iterator[Problem]:
    properties: dict[str, Schema] = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            yield Problem(
                node.key_place, join(path, key), "nothing", _resolved(properties[key]).get("title", "a value")
            )
    if len(value) < schema.get("minProperties", 0):
        yield Problem(node.key_place, path, "an empty map", "at least one entry")
    for key, child in value.items():
        below = join(path, key)
        if key in properties:
            yield from validate(child, properties[key], below)
            continue
        more = schema.get("additionalProperties", True)
        if more is False:
            guess = nearest(key, properties)
            expected = "a known key" if guess else "a known key: " + ", ".join(sorted(properties))
            yield Problem(child.key_place, below, f"the key {key}", expected, guess)
            continue
        names = schema.get("propertyNames")
        if names and not _matches(names["pattern"], key):
            yield Problem(child.key_place, below, f"the key {shown(key)}", names["title"])
        if isinstance(more, dict):
            yield from _entry(child, more, below, nearest(key, properties))


def _entry(node: Node, schema: Schema, path: str, guess: str) -> Iterator[Problem]:
    """An entry under a name of the user's; one that is wrong may be a known key, misspelt."""
    problems = list(validate(node, schema, path))
    if problems and guess and not isinstance(node.value, dict):
        yield Problem(node.key_place, path, f"the key {path.rsplit('.', 1)[-1]}", "a known key", guess)
    else:
        yield from problems


def _list(node: Node, value: list[Node], schema: Schema, path: str) -> Iterator[Problem]:
    fewest, most = schema.get("minItems", 0), schema.get("maxItems")
    if len(value) < fewest or (most is not None and len(value) > most):
        count = f"{fewest}" if fewest == most else f"at least {fewest}"
        yield Problem(node.place, path, f"a list of {len(value)}", f"{schema.get('title', 'a list')} with {count}")
    plain = [child.plain() for child in value]
    for index, child in enumerate(value):
        below = f"{path}[{index}]"
        if schema.get("uniqueItems") and plain[index] in plain[:index]:
            yield Problem(child.place, below, f"{shown(child.value)} a second time", "each entry once")
        if "items" in schema:
            yield from validate(child, schema["items"], below)


def _wrong(node: Node, schema: Schema, path: str, guess: str = "") -> Problem:
    return Problem(node.place, path, shown(node.value), schema.get("title", "something else"), guess)


def shown(value: Any) -> str:
    """A value as a complaint quotes it: short, and telling text from numbers."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return '"' + text.replace("\n", "\\n") + '"'
    return str(value)
