# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one merge of a system's layers: base, environment, overrides."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node

# Below a patch null means "remove this field from the object", so it is a value there and no instruction to the merge.
_KEEPS_NULL = "patches"


def merge(*layers: Node) -> Node:
    """Merge layers, later ones winning: maps merge, lists and scalars replace, null removes."""
    merged = layers[0]
    for layer in layers[1:]:
        merged = _over(merged, layer, ())
    return _without_nulls(merged, ())


def _over(base: Node, layer: Node, path: tuple[str, ...]) -> Node:
    if not isinstance(base.value, dict) or not isinstance(layer.value, dict):
        return layer
    children = dict(base.value)
    for key, child in layer.value.items():
        children[key] = _over(children[key], child, (*path, key)) if key in children else child
    return Node(children, base.place, base.key_place)


def _without_nulls(node: Node, path: tuple[str, ...]) -> Node:
    if not isinstance(node.value, dict):
        return node
    keep = len(path) >= 2 and path[0] == _KEEPS_NULL
    children = {
        key: _without_nulls(child, (*path, key)) for key, child in node.value.items() if keep or child.value is not None
    }
    return Node(children, node.place, node.key_place)
