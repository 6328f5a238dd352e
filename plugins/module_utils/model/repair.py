# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts stand-ins where a tree is malformed, so that cross-references of all the rest are checked in the same run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Problem, join
from ansible_collections.groundwork.platform.plugins.module_utils.model.schema import SCHEMA
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node

_ENTRIES: dict[str, Any] = {
    "components": {"image": "stand-in", "port": 1},
    "stores": {"type": "stand-in"},
    "volumes": {"size": "1Gi"},
    "patches": {},
    "secrets": {"keys": {"stand-in": {}}},
    "outside": {"host": "stand-in.example"},
    "metrics": {"query": "stand-in"},
}
_VALUES: dict[str, Any] = {
    "capabilities": {"all": True},
    "domain": "stand-in.example",
    "image": "stand-in",
}


def repaired(tree: Node, problems: Iterable[Problem]) -> tuple[Node, list[str]] | None:
    """The tree with stand-ins, and the paths where they are; None where too much is missing to check anything.

    :param problems: all that the schema has against the tree.
    """
    paths = [problem.path for problem in problems]
    if not isinstance(tree.value, dict) or "components" not in tree.value:
        return None
    children: dict[str, Node] = {}
    replaced: list[str] = []
    for key, child in tree.value.items():
        if not _damaged(key, paths):
            children[key] = child
        elif key in _ENTRIES:
            if not isinstance(child.value, dict) or not child.value:
                return None
            children[key] = _with_stand_ins(key, child, paths, replaced)
        else:
            replaced.append(key)
            if key in _VALUES and key in SCHEMA["properties"]:
                children[key] = _stand_in(_VALUES[key], child)
    return Node(children, tree.place, tree.key_place), replaced


def concerns(problem: Problem, paths: Iterable[str]) -> bool:
    """Whether a problem is at or below one of the paths."""
    return any(_damaged(path, [problem.path]) for path in paths)


def _with_stand_ins(section: str, node: Node, paths: list[str], replaced: list[str]) -> Node:
    if not isinstance(node.value, dict):
        raise TypeError(f"{section} is no mapping")
    entries = {}
    for name, entry in node.value.items():
        path = join(section, name)
        if _damaged(path, paths):
            replaced.append(path)
            entries[name] = _stand_in(_ENTRIES[section], entry)
        else:
            entries[name] = entry
    return Node(entries, node.place, node.key_place)


def _stand_in(value: Any, node: Node) -> Node:
    if isinstance(value, dict):
        return Node({key: _stand_in(child, node) for key, child in value.items()}, node.place, node.key_place)
    return Node(value, node.place, node.key_place)


def _damaged(path: str, paths: Iterable[str]) -> bool:
    return any(one == path or one.startswith((path + ".", path + "[")) for one in paths)
