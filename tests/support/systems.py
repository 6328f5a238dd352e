"""The five reference systems compiled, for tests of the model and the compiler."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system
from ansible_collections.groundwork.platform.plugins.module_utils.model.system import load
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import System

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "systems"
PINS = yaml.safe_load((ROOT / "roles/components/vars/main.yml").read_text())["components"]
SYSTEMS = tuple(sorted(file.parent.name for file in FOLDER.glob("*/system.yml")))
ENVIRONMENTS = ("local", "dev", "staging", "prod")
EACH = [(name, environment) for name in SYSTEMS for environment in ENVIRONMENTS]


@functools.cache
def system(name: str, environment: str) -> System:
    """A system as the compiler sees it."""
    return load(name, [FOLDER], environment).system


def compiled(name: str, environment: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """What becomes of it."""
    return compile_system(name, [FOLDER], environment, overrides, {}, PINS)


@functools.cache
def shared(name: str, environment: str) -> dict[str, Any]:
    """A compilation that nobody changes."""
    return compiled(name, environment)
