# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches, the way out for what the model has no key for: strategic merge, as kubectl patch does by default."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import Manifest

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
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "ports": ("containerPort", "port"),
}
DIRECTIVE = "$patch"


def apply_patches(objects: list[Manifest], patches: Mapping[str, Manifest]) -> tuple[list[Manifest], list[str]]:
    """Patch objects by ``Kind/name``.

    :returns: the objects, patched ones as copies, and the keys of patches that match nothing.
    """
    left = dict(patches)
    patched = [merged(one, left.pop(key)) if (key := key_of(one)) in left else one for one in objects]
    return patched, sorted(left)


def key_of(manifest: Manifest) -> str:
    """How a patch names an object."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def merged(target: Any, patch: Any) -> Any:
    """The target with a strategic merge patch applied: maps merge, null removes, known lists merge by their key."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    if patch.get(DIRECTIVE) == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != DIRECTIVE}
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if key == DIRECTIVE:
            continue
        if value is None or (isinstance(value, Mapping) and value.get(DIRECTIVE) == "delete"):
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _merged_list(key, result.get(key), value)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _merged_list(name: str, target: Any, patch: list[Any]) -> list[Any]:
    merge_key = next(
        (
            key
            for key in MERGE_KEYS.get(name, ())
            if patch and all(isinstance(one, Mapping) and key in one for one in patch)
        ),
        None,
    )
    if merge_key is None or not isinstance(target, list):
        return [merged(None, one) for one in patch if not _deletes(one)]
    result = list(target)
    for entry in patch:
        same = [index for index, one in enumerate(result) if one.get(merge_key) == entry[merge_key]]
        if _deletes(entry):
            result = [one for index, one in enumerate(result) if index not in same]
        elif same:
            result[same[0]] = merged(result[same[0]], entry)
        else:
            result.append(merged(None, entry))
    return result


def _deletes(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get(DIRECTIVE) == "delete"
