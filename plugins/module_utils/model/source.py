# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System files as trees that remember where each value was written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    import yaml
except ImportError:  # ansible_module.run says so before anything needs it
    yaml = None  # type: ignore[assignment]

from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Place, Problem, join

if TYPE_CHECKING:
    from pathlib import Path

Scalar: TypeAlias = "str | int | float | bool | None"
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}


@dataclasses.dataclass(slots=True)
class Node:
    """A value and where it stands.

    :param key_place: where its key stands, for complaints about the key; the value's own place in a list.
    """

    value: dict[str, Node] | list[Node] | Scalar
    place: Place
    key_place: Place

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def at(self, *path: str | int) -> Node:
        """The deepest node that exists on the way along path: where a complaint about path belongs."""
        node = self
        for step in path:
            below: Node | None = None
            if isinstance(node.value, dict) and isinstance(step, str):
                below = node.value.get(step)
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                below = node.value[step]
            if below is None:
                break
            node = below
        return node


def read_file(file: Path, name: str) -> tuple[Node, list[Problem]]:
    """Read one YAML file.

    :param name: how places call the file.
    :returns: its tree (an empty map where nothing could be read), and all that is wrong with it as YAML.
    """
    try:
        return read_text(file.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError as error:
        return _empty(name), [
            Problem(Place(name, None), "", f"a byte that is not UTF-8 at {error.start}", "UTF-8 text")
        ]
    except OSError as error:
        return _empty(name), [Problem(Place(name, None), "", error.strerror or "an error", "a file that can be read")]


def read_text(text: str, name: str) -> tuple[Node, list[Problem]]:
    """Read YAML from text; see read_file."""
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found = " ".join(str(part) for part in (error.context, error.problem) if part)
        return _empty(name), [Problem(Place(name, mark.line + 1 if mark else None), "", found, "one YAML document")]
    except yaml.YAMLError as error:
        return _empty(name), [Problem(Place(name, None), "", str(error).splitlines()[0], "one YAML document")]
    except RecursionError:
        return _empty(name), [Problem(Place(name, None), "", "thousands of nested levels", "one YAML document")]
    reader = _Reader(text, name)
    if root is None or (root.tag.endswith(":null") and isinstance(root, yaml.ScalarNode)):
        return _empty(name), []
    node = reader.node(root, Place(name, root.start_mark.line + 1), "")
    if not isinstance(node.value, dict):
        return _empty(name), [*reader.problems, Problem(node.place, "", "something else", "a map of keys to values")]
    return node, reader.problems


def from_plain(value: Any, name: str) -> tuple[Node, list[Problem]]:
    """The tree of plain data that has no lines, such as an Ansible variable called name."""
    problems: list[Problem] = []
    node = _from_plain(value, Place(name, None), "", problems)
    return node, problems


def _from_plain(value: Any, place: Place, path: str, problems: list[Problem]) -> Node:
    if isinstance(value, Mapping):
        children = {}
        for key, child in value.items():
            if not isinstance(key, str):
                problems.append(
                    Problem(place, join(path, str(key)), f"the key {key!r}", "a key that is text: quote it")
                )
            children[str(key)] = _from_plain(child, place, join(path, str(key)), problems)
        return Node(children, place, place)
    if isinstance(value, (list, tuple)):
        items = [_from_plain(child, place, f"{path}[{index}]", problems) for index, child in enumerate(value)]
        return Node(items, place, place)
    if isinstance(value, str):
        value = str(value)
        _refuse_jinja(value, place, path, problems)
    elif value is not None and not isinstance(value, (int, float, bool)):
        problems.append(
            Problem(place, path, f"a {type(value).__name__}", "text, a number, true, false, a list or a map")
        )
        value = None
    return Node(value, place, place)


def _empty(name: str) -> Node:
    place = Place(name, 1)
    return Node({}, place, place)


def _refuse_jinja(text: str, place: Place, path: str, problems: list[Problem]) -> None:
    for mark in ("{{", "{%"):
        if mark in text:
            expected = "no Jinja: write the value, or pass what differs in system_overrides"
            problems.append(Problem(place, path, f"a template ({mark})", expected))
            return


def _unclear(value: Scalar, text: str) -> str:
    """What to write instead of a scalar that YAML takes for another than the reader of the file would."""
    if isinstance(value, bool):
        return "" if text.lower() in ("true", "false") else f'true, false or quoted text, "{text}"'
    if isinstance(value, int):
        return "" if text == str(value) else f'a plain decimal number or quoted text, "{text}"'
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    return ""


class _Reader:
    """Turns PyYAML's nodes into ours, collecting what is wrong instead of stopping at the first."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.problems: list[Problem] = []
        self.seen: set[int] = set()
        self.constructor = yaml.constructor.SafeConstructor()

    def node(self, node: yaml.Node, key_place: Place, path: str) -> Node:
        place = Place(self.name, node.start_mark.line + 1)
        if id(node) in self.seen:
            # An alias could make a small file endless, and an override of one of its uses would be a surprise.
            self.problems.append(Problem(key_place, path, "a YAML alias", "the value, written out"))
            return Node(None, place, key_place)
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return Node(self.mapping(node, path), place, key_place)
        if isinstance(node, yaml.SequenceNode):
            children = [
                self.node(child, Place(self.name, child.start_mark.line + 1), f"{path}[{index}]")
                for index, child in enumerate(node.value)
            ]
            return Node(children, place, key_place)
        return Node(self.scalar(node, place, path), place, key_place)

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = Place(self.name, key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                if self.text.startswith("{{", max(node.start_mark.index, 0)):
                    _refuse_jinja("{{", place, path, self.problems)
                else:
                    self.problems.append(Problem(place, path, "a list or a map as a key", "a key that is text"))
                continue
            key = key_node.value
            below = join(path, key)
            if key_node.tag != _TAG + "str":
                self.problems.append(Problem(place, below, f"the key {key}", f'a key that is text: quote it, "{key}"'))
            if key in children:
                first = children[key].key_place
                self.problems.append(
                    Problem(place, below, "the key a second time", f"one, which is in line {first.line}")
                )
                continue
            children[key] = self.node(value_node, place, below)
        return children

    def scalar(self, node: yaml.Node, place: Place, path: str) -> Scalar:
        if node.tag not in _SCALARS:
            implicit = node.tag in (_TAG + "timestamp", _TAG + "merge", _TAG + "value")
            expected = f'text: quote it, "{node.value}"' if implicit else "the value without a tag"
            found = str(node.value) if implicit else f"the YAML tag {node.tag}"
            self.problems.append(Problem(place, path, found, expected))
            return str(node.value)
        if node.tag.endswith(":str"):
            _refuse_jinja(node.value, place, path, self.problems)
            return str(node.value)
        try:
            value: Scalar = self.constructor.construct_object(node)
        except (ValueError, yaml.YAMLError):
            self.problems.append(Problem(place, path, node.value, "a number or quoted text"))
            return None
        expected = _unclear(value, node.value)
        if expected:
            self.problems.append(Problem(place, path, node.value, expected))
            return None
        return value
