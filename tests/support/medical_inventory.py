"""Medical Inventory compiled, for the tests of the compiler."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system

ROOT = Path(__file__).resolve().parents[2]
PINS = yaml.safe_load((ROOT / "roles/components/vars/main.yml").read_text())["components"]
ENVIRONMENTS = ("local", "dev", "staging", "prod")
Manifest = dict[str, Any]


def compiled(environment: str, overrides: Manifest | None = None, images: dict[str, str] | None = None) -> Manifest:
    return compile_system("medical_inventory", [ROOT / "systems"], environment, overrides, images, PINS)


@functools.cache
def shared(environment: str) -> Manifest:
    """A compilation that nobody changes."""
    return compiled(environment)


def objects(result: Manifest) -> list[Manifest]:
    stages = result["stages"]
    run = [stages["migration"]] if stages["migration"] else []
    return [*stages["foundation"], *stages["stores"], *run, *stages["components"]]


def find(result: Manifest, kind: str, name: str) -> Manifest:
    found = [one for one in objects(result) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind}/{name}: {len(found)}"
    return found[0]


def pod_templates(result: Manifest) -> dict[str, Manifest]:
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["spec"]["template"]
        for one in objects(result)
        if "template" in one.get("spec", {})
    }


def container(result: Manifest, kind: str, name: str) -> Manifest:
    return find(result, kind, name)["spec"]["template"]["spec"]["containers"][0]
