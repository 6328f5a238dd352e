# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all checks of cross-references share: the data, and how a problem is put to the place where it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from ansible_collections.groundwork.platform.plugins.module_utils.model import build_demands
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import (
    Problem,
    join,
    listing,
    nearest,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node

Plain = dict[str, Any]
Path: TypeAlias = "tuple[str | int, ...]"


class Frame:
    """One system's data.

    :param name: of the system.
    :param environment: for what is good enough in some and not in others.
    :param tree: the merged layers, for places.
    :param data: the same as plain data with defaults.
    """

    def __init__(self, name: str, environment: str, tree: Node, data: Plain) -> None:
        self.name, self.environment, self.tree, self.data = name, environment, tree, data
        self.components: Plain = data["components"]
        self.stores: Plain = data["stores"]
        self.counted_on = build_demands.counted_on(data)

    def _problem(self, path: Path, found: str, expected: str, guess: str = "") -> Problem:
        """A problem at path, or at what of it was written."""
        node = self.tree.at(*path)
        text = ""
        for step in path:
            text = f"{text}[{step}]" if isinstance(step, int) else join(text, step)
        return Problem(node.place, text, found, expected, guess)

    def _unknown(self, path: Path, name: str, known: Iterable[str], what: str) -> Problem:
        names = sorted(known)
        few = names if len(names) <= MOST_NAMES else []
        return self._problem(path, f'"{name}"', f"{what} ({listing(few)})" if few else what, nearest(name, names))

    def _named(self, path: Path, name: str, known: Iterable[str], what: str) -> Iterator[Problem]:
        """A problem unless the name is known."""
        if name not in known:
            yield self._unknown(path, name, known, what)

    def _written(self, *path: str) -> Plain:
        """What the files say at path, without defaults; an empty map where they say nothing."""
        node = self.tree
        for step in path:
            if not isinstance(node.value, dict) or step not in node.value:
                return {}
            node = node.value[step]
        plain = node.plain()
        return plain if isinstance(plain, dict) else {}

    def _has_port(self, name: str) -> bool:
        return "port" in self.components[name] or "proxy" in self.components[name]

    def _stores_of(self, kind: str) -> dict[str, Plain]:
        return {name: store for name, store in self.stores.items() if store["type"] == kind}


MOST_NAMES = 12
"""More than these are not listed in a complaint."""
