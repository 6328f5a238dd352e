# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches, the way out for what the model has no key for: a map is a strategic merge, a list a JSON patch (RFC 6902).

What does nothing is a mistake, and not only a patch whose object is not there: so is removing what is not there, or a
path that leads nowhere. Each is told with the place where it was written and the name that was probably meant.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import Manifest
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Problem, join, listing, nearest
from ansible_collections.groundwork.platform.plugins.module_utils.model.source import Node

Patch: TypeAlias = "dict[str, Any] | list[dict[str, Any]]"
Steps: TypeAlias = "tuple[str | int, ...]"
"""Keys and indexes from the root of a patch."""

# By the name of a list: the keys by which its entries are told apart, as in Kubernetes' own types. Others are replaced.
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "ports": ("containerPort", "port"),
}
DIRECTIVE = "$patch"
DELETE_VALUES = "$deleteFromPrimitiveList/"
RETAIN = "$retainKeys"
_ROOT = "the object itself, which a patch can't replace"


@dataclasses.dataclass(frozen=True, slots=True)
class Miss:
    """What of a patch can't be done.

    :param at: where in the patch; the rest is as in a Problem.
    """

    at: Steps
    found: str
    expected: str
    nearest: str = ""


def apply_patches(
    objects: Iterable[Manifest], patches: Mapping[str, Patch], tree: Node
) -> tuple[dict[str, Manifest], list[Problem]]:
    """Patch objects by ``Kind/name``.

    :param tree: the system's files, for the places of complaints.
    :returns: the patched objects by ``Kind/name``, and all that is wrong with the patches.
    """
    known = {key_of(one): one for one in objects}
    done: dict[str, Manifest] = {}
    problems: list[Problem] = []
    for key, patch in sorted(patches.items()):
        misses: list[Miss] = []
        if key not in known:
            problems.append(_unmatched(tree, key, list(known)))
            continue
        done[key] = patched(known[key], patch, misses)
        if not misses and _identity(done[key]) != _identity(known[key]):
            misses.append(Miss((), "a change of kind, name or namespace", "changes of the object itself only"))
        problems += [_located(tree, key, miss) for miss in misses]
    return done, problems


def key_of(manifest: Manifest) -> str:
    """How a patch names an object."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def patched(target: Manifest, patch: Patch, misses: list[Miss]) -> Manifest:
    """A copy of the target with the patch applied; what can't be done is added to misses."""
    if isinstance(patch, list):
        return _json_patched(target, patch, misses)
    result: Manifest = merged(target, patch, misses)
    return result


def merged(target: Any, patch: Any, misses: list[Miss], at: Steps = ()) -> Any:
    """The target with a strategic merge patch applied: maps merge, null removes, known lists merge by their key."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != DIRECTIVE}
    if directive not in (None, "merge"):
        misses.append(Miss((*at, DIRECTIVE), f'"{directive}"', "merge, replace or delete of an entry"))
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        below = (*at, key)
        if key.startswith("$"):
            _direct(result, key, value, misses, below)
        elif value is None or _deletes(value):
            if key not in result and isinstance(target, Mapping):
                misses.append(Miss(below, "a removal of what is not there", _one_of(result), nearest(key, result)))
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _merged_list(key, result.get(key), value, misses, below)
        else:
            result[key] = merged(result.get(key), value, misses, below)
    return result


def _direct(result: Manifest, key: str, value: Any, misses: list[Miss], at: Steps) -> None:
    """Follow a directive beside the keys of a map."""
    if key == DIRECTIVE:
        return
    if key == RETAIN and isinstance(value, list):
        for name in [name for name in result if name not in value]:
            del result[name]
        return
    name = key.removeprefix(DELETE_VALUES)
    if name == key or not isinstance(value, list):
        known = [DIRECTIVE, RETAIN, f"{DELETE_VALUES}<list>"]
        misses.append(Miss(at, f"the directive {key}", listing(known), nearest(key, known)))
        return
    present = result.get(name) or []
    for index, one in enumerate(value):
        if one not in present:
            misses.append(Miss((*at, index), "a removal of what is not there", _one_of(present)))
    result[name] = [one for one in present if one not in value]


def _merged_list(name: str, target: Any, patch: list[Any], misses: list[Miss], at: Steps) -> list[Any]:
    merge_key = _merge_key(name, target)
    if merge_key is not None and {DIRECTIVE: "replace"} not in patch:
        return _merged_entries(name, target, patch, merge_key, misses, at)
    result = []
    for index, entry in enumerate(patch):
        if _deletes(entry):
            misses.append(Miss((*at, index), "a removal of an entry", f"entries that replace all of {name}"))
        elif entry != {DIRECTIVE: "replace"}:
            result.append(merged(None, entry, misses, (*at, index)))
    return result


def _merged_entries(
    name: str, target: list[Any], patch: list[Any], merge_key: str, misses: list[Miss], at: Steps
) -> list[Any]:
    result = list(target)
    for index, entry in enumerate(patch):
        below = (*at, index)
        if not isinstance(entry, Mapping) or merge_key not in entry:
            expected = f"{merge_key}, by which entries of {name} are told apart"
            misses.append(Miss(below, f"an entry without {merge_key}", expected))
            continue
        called = entry[merge_key]
        same = [number for number, one in enumerate(result) if one[merge_key] == called]
        if _deletes(entry):
            if not same:
                present = [str(one[merge_key]) for one in result]
                found = f"a removal of {called}, which is not there"
                misses.append(Miss(below, found, _one_of(present), nearest(str(called), present)))
            result = [one for one in result if one[merge_key] != called]
        elif same:
            result[same[0]] = merged(result[same[0]], entry, misses, below)
        else:
            result.append(merged(None, entry, misses, below))
    return result


def _merge_key(name: str, target: Any) -> str | None:
    """The key by which the entries of a list are told apart; None where a patch replaces it."""
    if not isinstance(target, list) or not target:
        return None
    keys = MERGE_KEYS.get(name, ())
    return next((key for key in keys if all(isinstance(one, Mapping) and key in one for one in target)), None)


def _deletes(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get(DIRECTIVE) == "delete"


def _json_patched(target: Manifest, operations: list[dict[str, Any]], misses: list[Miss]) -> Manifest:
    """The target after all operations, or after those ahead of the first that can't be done."""
    document = copy.deepcopy(target)
    for index, operation in enumerate(operations):
        try:
            _operate(document, operation)
        except _Nowhere as error:
            misses.append(Miss((index, *error.at), error.found, error.expected, error.nearest))
            break
    return document


class _Nowhere(Exception):
    """An operation that can't be done; see Miss."""

    def __init__(self, key: str, found: str, expected: str, guess: str = "") -> None:
        super().__init__(found)
        self.at: Steps = (key,)
        self.found, self.expected, self.nearest = found, expected, guess


def _operate(document: Manifest, operation: Mapping[str, Any]) -> None:
    name, path = operation["op"], operation["path"]
    if name in ("move", "copy"):
        source = operation.get("from")
        if source is None:
            raise _Nowhere("from", "nothing", f"the path of what {name} takes")
        value = copy.deepcopy(_taken(document, source, "from", remove=name == "move"))
        _put(document, path, value, insert=True)
    elif name == "remove":
        _taken(document, path, "path", remove=True)
    elif "value" not in operation:
        raise _Nowhere("value", "nothing", f"the value for {name}")
    elif name == "test":
        found = _taken(document, path, "path", remove=False)
        if found != operation["value"]:
            raise _Nowhere("value", "another value than the object has", f"{found!r}")
    else:
        _put(document, path, copy.deepcopy(operation["value"]), insert=name == "add")


def _taken(document: Manifest, path: str, key: str, remove: bool) -> Any:
    holder, last = _holder(document, path, key)
    value = _below(holder, last, path, key)
    if remove:
        del holder[int(last) if isinstance(holder, list) else last]
    return value


def _put(document: Manifest, path: str, value: Any, insert: bool) -> None:
    """Set what path leads to.

    :param insert: also where nothing is yet, and in lists ahead of what is there; otherwise something must be there.
    """
    holder, last = _holder(document, path, "path")
    if isinstance(holder, list):
        if insert and last in ("-", str(len(holder))):
            holder.append(value)
            return
        _below(holder, last, path, "path")
        index = int(last)
        holder[index : index + (not insert)] = [value]
    elif isinstance(holder, dict):
        if not insert:
            _below(holder, last, path, "path")
        holder[last] = value
    else:
        _below(holder, last, path, "path")


def _holder(document: Manifest, path: str, key: str) -> tuple[Any, str]:
    """What holds the last step of a path, and that step."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
    if not steps:
        raise _Nowhere(key, _ROOT, "a path that begins with /")
    here: Any = document
    for step in steps[:-1]:
        here = _below(here, step, path, key)
    return here, steps[-1]


def _below(holder: Any, step: str, path: str, key: str) -> Any:
    if isinstance(holder, dict) and step in holder:
        return holder[step]
    if isinstance(holder, list) and step.isdecimal() and int(step) < len(holder):
        return holder[int(step)]
    if isinstance(holder, dict):
        guess = nearest(step, holder)
        right = path.replace(f"/{step}", f"/{guess}", 1) if guess else ""
        raise _Nowhere(key, f'"{path}", which leads nowhere', _one_of(holder), right)
    count = f"an index below {len(holder)}" if isinstance(holder, list) else f"nothing below a value at {step}"
    raise _Nowhere(key, f'"{path}", which leads nowhere', count)


def _one_of(names: Iterable[Any]) -> str:
    known = listing(names)
    return f"what is there ({known})" if known else "something that is there"


def _identity(manifest: Any) -> tuple[Any, ...]:
    metadata = manifest.get("metadata")
    named = (metadata.get("name"), metadata.get("namespace")) if isinstance(metadata, Mapping) else ()
    return manifest.get("apiVersion"), manifest.get("kind"), named


def _unmatched(tree: Node, key: str, known: list[str]) -> Problem:
    kind = key.split("/", 1)[0]
    same = [one for one in known if one.startswith(f"{kind}/")]
    expected = f"an object of the system ({listing(same)})" if same else "an object of the system"
    place = tree.at("patches", key).key_place
    return Problem(place, f"patches.{key}", "a patch that matches nothing", expected, nearest(key, known))


def _located(tree: Node, key: str, miss: Miss) -> Problem:
    path = f"patches.{key}"
    for step in miss.at:
        path = f"{path}[{step}]" if isinstance(step, int) else join(path, step)
    node = tree.at("patches", key, *miss.at)
    return Problem(node.key_place if miss.at else node.place, path, miss.found, miss.expected, miss.nearest)
