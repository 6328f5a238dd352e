"""The table of keys in docs/system_file.md, from the schema, so that the page can't be wrong about a default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model.schema import SCHEMA

BEGIN, END = "<!-- keys: written by the unit tests -->", "<!-- end of keys -->"


def with_reference(page: str) -> str:
    """The page with its table as it should be."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    rows = "".join(f"| `{path}` | {meaning} | {default} |\n" for path, meaning, default in _rows(SCHEMA, ""))
    return f"{head}{BEGIN}\n| key | meaning | default |\n|---|---|---|\n{rows}{END}{tail}"


def _rows(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    for key, below in schema.get("properties", {}).items():
        yield from _row(below, f"{path}.{key}" if path else key)


def _row(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        schema = {**SCHEMA["$defs"][name], **{key: value for key, value in schema.items() if key != "$ref"}}
    if "const" not in schema:
        default = schema.get("default")
        shown = "" if default in (None, {}, [], "") else f"`{_plain(default)}`"
        allowed = " One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + "." if "enum" in schema else ""
        examples = schema.get("examples", [])
        example = f" Example: `{_plain(examples[0])}`." if examples else ""
        yield path, (schema["description"] + allowed + example).replace("|", "\\|"), shown
    entries = schema.get("additionalProperties")
    if isinstance(entries, dict):
        kinds = entries.get("oneOf")
        for kind in kinds or [entries]:
            place = f"{path}.<{kind['properties']['type']['const']}>" if kinds else f"{path}.<name>"
            if kind.get("properties"):
                yield from _rows(kind, place)
    yield from _rows(schema, path)
    for branch in schema.get("anyOf", []):
        yield from _rows(branch, path)
    for branch in schema.get("items", {}).get("anyOf", []):
        yield from _rows(branch, f"{path}[]")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
