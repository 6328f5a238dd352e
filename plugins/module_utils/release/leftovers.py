# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier releases applied and this one does not: removed, unless what can't be had again goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    FIELD_MANAGER,
    Cluster,
    Object,
    describe,
    identity,
)

KEPT = {
    ("", "PersistentVolumeClaim"): "holds data",
    ("", "PersistentVolume"): "holds data",
    ("", "Namespace"): "holds all the rest",
    ("", "Secret"): "holds values that nothing could bring back",
    ("apiextensions.k8s.io", "CustomResourceDefinition"): "defines what others may use",
    ("postgresql.cnpg.io", "Cluster"): "is a database",
}
"""Kinds that are never removed, and why; by group and kind."""


def surplus(earlier: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[Object]:
    """The objects of earlier releases that are not among those of now, each once, as they can be asked for."""
    present = {identity(obj) for obj in now}
    found: dict[tuple[str, str, str, str], Object] = {}
    for obj in earlier:
        if identity(obj) not in present:
            metadata = {key: obj["metadata"][key] for key in ("name", "namespace") if obj["metadata"].get(key)}
            found[identity(obj)] = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    return list(found.values())


def sorted_out(cluster: Cluster, objects: Sequence[Object]) -> tuple[list[Object], list[str]]:
    """Of surplus objects, those to remove, and a sentence about each that is there and stays."""
    remove, notes = [], []
    for obj in objects:
        group, kind, _namespace, _name = identity(obj)
        resource = cluster.find_resource(obj["apiVersion"], obj["kind"])
        live = resource and cluster.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
        if not live or live["metadata"].get("deletionTimestamp"):
            continue
        if (group, kind) in KEPT:
            notes.append(f"{describe(obj)} is no longer part of the release and stays, since it {KEPT[group, kind]}")
        elif not any(entry.get("manager") == FIELD_MANAGER for entry in live["metadata"].get("managedFields") or []):
            notes.append(f"{describe(obj)} is no longer part of the release and stays, since others manage it now")
        else:
            remove.append(obj)
    return remove, notes
