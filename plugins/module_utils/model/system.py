# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a system's files, merges them, checks the whole and builds the typed system."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.model import build, source
from ansible_collections.groundwork.platform.plugins.module_utils.model.checks import Checks
from ansible_collections.groundwork.platform.plugins.module_utils.model.merge import merge
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import (
    Problem,
    SystemInvalid,
    listing,
    nearest,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.repair import concerns, repaired
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import System
from ansible_collections.groundwork.platform.plugins.module_utils.model.validate import validate, with_defaults

OVERRIDES = "system_overrides"
"""How complaints call what the inventory merges over the files."""


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A system and what it was read from.

    :param tree: the merged layers, for complaints that come later.
    """

    system: System
    tree: Node


def load(name: str, path: Iterable[str | Path], environment: str, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Load one system for one environment.

    :param name: its folder's name.
    :param path: folders in which systems are looked up, first found wins.
    :param overrides: merged over both files, as the last word.
    :raises Failure: code ``system_not_found`` or ``environment_not_found``.
    :raises SystemInvalid: with every problem of all layers.
    """
    folder = _folder(name, [Path(one) for one in path])
    base, problems = source.read_file(folder / "system.yml", _called(folder / "system.yml"))
    environment_file = _environment_file(name, folder, environment)
    layer, more = source.read_file(environment_file, _called(environment_file))
    over, most = source.from_plain(dict(overrides or {}), OVERRIDES)
    return check(name, environment, merge(base, layer, over), [*problems, *more, *most])


def check(name: str, environment: str, tree: Node, problems: Iterable[Problem] = ()) -> Loaded:
    """Check a merged tree and build the system.

    :param problems: what reading it has found already.
    :raises SystemInvalid: with all of them.
    """
    found = list(problems)
    told = {(problem.place, problem.path) for problem in found}
    found += [problem for problem in validate(tree) if (problem.place, problem.path) not in told]
    sound = tree, list[str]()
    if found:
        stand_in = repaired(tree, found)
        if stand_in is None:
            raise SystemInvalid(subject(name, environment), found)
        sound = stand_in
    data = with_defaults(sound[0].plain())
    checks = Checks(name, environment, sound[0], data)
    found += [problem for problem in checks.problems() if not concerns(problem, sound[1])]
    if found:
        raise SystemInvalid(subject(name, environment), found)
    return Loaded(build.system(name, environment, data), tree)


def subject(name: str, environment: str) -> str:
    """What complaints about a system are about."""
    return f"System {name} ({environment})"


def _folder(name: str, path: list[Path]) -> Path:
    for folder in path:
        if (folder / name / "system.yml").is_file():
            return folder / name
    known = sorted({found.parent.name for folder in path for found in folder.glob("*/system.yml")})
    guess = nearest(name, known)
    raise Failure(
        code="system_not_found",
        object=f"System {name}",
        cause="has no system.yml",
        evidence=f"looked in {listing(_called(folder / name) for folder in path) or 'no folder at all'}",
        hint=f"did you mean {guess}" if guess else "make its folder, or name the folder of systems in system_path",
    )


def _environment_file(name: str, folder: Path, environment: str) -> Path:
    file = folder / "environments" / f"{environment}.yml"
    if file.is_file():
        return file
    known = sorted(found.stem for found in (folder / "environments").glob("*.yml"))
    guess = nearest(environment, known)
    raise Failure(
        code="environment_not_found",
        object=f"System {name}",
        cause=f"has no environment {environment}",
        evidence=f"there is no {_called(file)}; it has {listing(known) or 'none'}",
        hint=f"did you mean {guess}" if guess else "write that file, which may be empty",
    )


def _called(file: Path) -> str:
    """How complaints call a file: from the present folder where that is shorter, as an editor opens it."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative
