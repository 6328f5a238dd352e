# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says of an object, without asking the server, that applying it would change nothing.

That is certain when the fields that we own, by managedFields, are exactly those of the object, and each has the very
value that is there. Whatever is not certain counts as doubtful: a value that the server may only have written in
another way (``1000m`` for ``1``), a null, a list whose items come in another order, an older version of the API. The
caller lets the server judge those by a dry run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply import fields
from ansible_collections.groundwork.platform.plugins.module_utils.apply.fields import Tree

# Where a key of a list's items may be left out: ports, whose protocol is TCP then. In a CustomResourceDefinition the
# default of a key may have changed since.
_DEFAULTED_KEYS = ("", "apps", "batch")


def certainly_unchanged(obj: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> bool:
    """Whether applying ``obj`` as ``manager`` changes neither a value of ``live`` nor who owns it.

    :param live: as the API server returns it in the version of ``obj``, with its managedFields.
    """
    own = fields.applied_by(live, manager)
    if len(own) > 1:
        return False
    entry = own[0] if own else {"apiVersion": obj["apiVersion"], "fieldsType": "FieldsV1", "fieldsV1": {}}
    if entry.get("apiVersion") != obj["apiVersion"] or entry.get("fieldsType") != "FieldsV1":
        return False
    group = str(obj["apiVersion"]).rpartition("/")[0]
    others = [other.get("fieldsV1") or {} for other in fields.entries(live) if other not in own]
    return _Comparison(others, group in _DEFAULTED_KEYS).mapping(entry.get("fieldsV1") or {}, _body(obj), live, ())


def _body(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an object that somebody can own."""
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("name", "namespace")}
    return {**body, "metadata": metadata} if metadata else body


class _Comparison:
    """Walks the tree of owned fields, the object and what is there side by side."""

    def __init__(self, others: list[Tree], defaulted_keys: bool) -> None:
        self._others = others
        self._defaulted_keys = defaulted_keys

    def mapping(self, tree: Tree, wanted: Mapping[str, Any], live: Any, path: tuple[str, ...]) -> bool:
        children = tree.keys() - {"."}
        if not isinstance(live, dict) or children != {f"f:{name}" for name in wanted}:
            return False
        return all(
            name in live and self._value(tree[f"f:{name}"], value, live[name], (*path, f"f:{name}"))
            for name, value in wanted.items()
        )

    def _value(self, tree: Tree, wanted: Any, live: Any, path: tuple[str, ...]) -> bool:
        if not tree.keys() - {"."}:
            return identical(wanted, live) and self._owned_whole(wanted, path)
        if isinstance(wanted, dict):
            return self.mapping(tree, wanted, live, path)
        if isinstance(wanted, list):
            return self._list(tree, wanted, live, path)
        return False

    def _owned_whole(self, wanted: Any, path: tuple[str, ...]) -> bool:
        """Whether a field without owned children is atomic, rather than one that was applied empty until now."""
        if not isinstance(wanted, (dict, list)) or not wanted:
            return True
        return not any(fields.at(tree, path) for tree in self._others)

    def _list(self, tree: Tree, wanted: list[Any], live: Any, path: tuple[str, ...]) -> bool:
        children = [key for key in tree if key != "."]
        if not isinstance(live, list) or not len(children) == len(wanted) == len(live):
            return False
        if all(key.startswith("v:") for key in children):
            # Serialised alike on both sides: what only looks different is doubtful.
            return identical(wanted, live) and {_canonical(key[2:]) for key in children} == {
                json.dumps(value, sort_keys=True) for value in wanted
            }
        if not all(key.startswith("k:") for key in children):
            return False
        keys = [(key, json.loads(key[2:])) for key in children]
        for one, other in zip(wanted, live, strict=True):
            found = [(key, values) for key, values in keys if fields.matches(other, values)]
            if len(found) != 1 or not isinstance(one, dict):
                return False
            key, values = found[0]
            if not self._same_keys(one, values) or not self._value(tree[key], one, other, (*path, key)):
                return False
        return True

    def _same_keys(self, item: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        return all(
            identical(item[name], value) if name in item else self._defaulted_keys for name, value in values.items()
        )


def _canonical(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def identical(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; 1, 1.0 and true are three, and null is never certain."""
    if one is None or type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(identical, one, other))
    return bool(one == other)
