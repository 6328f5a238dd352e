"""The published schemas are the model's, are sound, and agree with the checks that the model runs."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Place
from ansible_collections.groundwork.platform.plugins.module_utils.model.schema import SCHEMA, published
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node, from_plain
from ansible_collections.groundwork.platform.plugins.module_utils.model.validate import validate, with_defaults
from tests.support import schema_reference

ROOT = Path(__file__).resolve().parents[5]
SYSTEM = yaml.safe_load((ROOT / "systems/medical_inventory/system.yml").read_text())
VALIDATOR = jsonschema.Draft202012Validator(published())


@pytest.mark.parametrize("name", ["system", "environment"])
def test_what_is_published_is_the_model_s(name: str) -> None:
    file = ROOT / "schema" / f"{name}.schema.json"
    text = json.dumps(published(name), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("GROUNDWORK_UPDATE"):
        file.write_text(text)
    assert file.read_text() == text, "run the unit tests once with GROUNDWORK_UPDATE=1, and look at the difference"
    jsonschema.Draft202012Validator.check_schema(published(name))


@pytest.mark.parametrize("environment", ["local", "dev", "staging", "prod"])
def test_editors_accept_our_own_files(environment: str) -> None:
    VALIDATOR.validate(SYSTEM)
    layer = yaml.safe_load((ROOT / f"systems/medical_inventory/environments/{environment}.yml").read_text())
    jsonschema.Draft202012Validator(published("environment")).validate(layer)


def test_a_layer_may_remove_and_need_not_repeat() -> None:
    validator = jsonschema.Draft202012Validator(published("environment"))
    validator.validate({"components": {"api": None, "ws": {"port": None}}, "stores": {"db": {"size": "1Gi"}}})
    assert not validator.is_valid({"stores": {"db": {"siz": "1Gi"}}})


def properties(schema: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(schema, dict):
        for key, below in schema.get("properties", {}).items():
            found.append((f"{path}.{key}", below))
        for key, below in schema.items():
            if key not in ("default", "examples"):
                found += properties(below, f"{path}.{key}")
    elif isinstance(schema, list):
        for below in schema:
            found += properties(below, path)
    return found


@pytest.mark.parametrize(("path", "schema"), properties(SCHEMA))
def test_every_key_is_described_and_its_defaults_and_examples_hold(path: str, schema: dict[str, Any]) -> None:
    whole = {**schema, "$defs": SCHEMA["$defs"]}
    target = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema
    assert schema.get("description") or target.get("description"), path
    validator = jsonschema.Draft202012Validator(whole)
    values = schema.get("examples", []) + ([schema["default"]] if "default" in schema else [])
    for value in values:
        validator.validate(value)


def test_every_key_says_its_unit_what_holds_without_it_and_how_it_looks() -> None:
    wanting = []
    for path, key, schema, required in keys(SCHEMA):
        target = {**SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]], **schema} if "$ref" in schema else schema
        description = target.get("description", "")
        if "const" in target:
            continue
        if (
            "default" not in target
            and not required
            and "Default: " not in description
            and "Without it" not in description
        ):
            wanting.append(f"{path}.{key} says no default")
        branches = [target, *target.get("anyOf", [])]
        if any(one.get("type") in ("integer", "number") for one in branches) and "Unit: " not in description:
            wanting.append(f"{path}.{key} says no unit")
        plain = target.get("type") == "boolean" or "enum" in target or "properties" in target
        if not plain and not target.get("examples"):
            wanting.append(f"{path}.{key} has no example")
    assert not wanting, "\n".join(wanting)


def keys(schema: Any, path: str = "") -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Every key with its schema, and whether it has to be there."""
    if isinstance(schema, dict):
        for key, below in schema.get("properties", {}).items():
            yield path, key, below, key in schema.get("required", ())
        for key, below in schema.items():
            if key not in ("default", "examples"):
                yield from keys(below, path if key in ("properties", "anyOf", "oneOf") else f"{path}.{key}")
    elif isinstance(schema, list):
        for below in schema:
            yield from keys(below, path)


def tree(value: Any) -> Node:
    return from_plain(value, "f")[0]


def test_defaults_are_filled_in_and_nothing_else() -> None:
    data = with_defaults(
        {"components": {"api": {"port": 80, "scale_up": {"policies": [{"pods": 1.0, "every": "1m"}]}}}}
    )
    api = data["components"]["api"]
    assert api["health"] == {"live": "/healthz", "ready": "/readyz", "startup": "2m"}
    assert api["resources"]["cpu"] == ["100m", "500m"]
    assert api["scale_up"] == {"stabilize": "0s", "policies": [{"pods": 1, "every": "1m"}], "select": "max"}
    assert "gpu" not in api
    assert data["capabilities"] == {"all": False}
    assert not list(validate(tree(data)))
    store = with_defaults({"components": {}, "stores": {"r": {"type": "redis"}}})["stores"]["r"]
    assert (store["size"], store["mode"]) == ("1Gi", "standalone")


MUTANTS: list[Any] = [None, "", "x", 0, -1, 1, 2.0, 2.5, True, [], ["x"], [1, 2], {}, {"x": 1}, "1Gi", "5m", ["1", "2"]]


def positions(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in entries:
        found += positions(below, (*path, key))
    return found


def test_our_verdict_is_that_of_a_general_validator() -> None:
    """Hundreds of broken files: what one of the two refuses, the other does as well."""
    chance = random.Random(7)  # noqa: S311 - repeatable on purpose
    places = positions(SYSTEM)
    refused = 0
    for _ in range(400):
        data = copy.deepcopy(SYSTEM)
        path = chance.choice(places)
        holder = data
        for step in path[:-1]:
            holder = holder[step]
        action = chance.choice(["replace", "remove", "rename"])
        if action == "replace" or isinstance(holder, list):
            holder[path[-1]] = copy.deepcopy(chance.choice(MUTANTS))
        elif action == "remove":
            del holder[path[-1]]
        else:
            holder[f"{path[-1]}x"] = holder.pop(path[-1])
        found = list(validate(tree(data)))
        assert bool(found) != VALIDATOR.is_valid(data), (action, path, [str(one) for one in found])
        refused += bool(found)
        assert all(one.place == Place("f", None) and one.path is not None and str(one) for one in found)
    assert 75 < refused < 390


def test_the_page_about_the_system_file_has_every_key() -> None:
    file = ROOT / "docs" / "system_file.md"
    page = schema_reference.with_reference(file.read_text())
    if os.environ.get("GROUNDWORK_UPDATE"):
        file.write_text(page)
    assert file.read_text() == page, "run the unit tests once with GROUNDWORK_UPDATE=1, and look at the difference"
