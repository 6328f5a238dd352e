# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a release runs, by digest: what a tag names may be another image tomorrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import CONTAINER_LISTS, canonical_image
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource

PODS = Resource("", "v1", "Pod", "pods", True)


def references(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """The images that the pods of objects are given."""
    return {str(container["image"]) for obj in objects for container in _containers(obj) if container.get("image")}


def _containers(obj: Mapping[str, Any]) -> Iterator[Object]:
    spec = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
    if obj.get("kind") == "Pod":
        spec = obj.get("spec") or {}
    for name in CONTAINER_LISTS:
        yield from spec.get(name) or ()


def digests(cluster: Cluster, namespace: str, wanted: Iterable[str]) -> dict[str, str]:
    """Reference -> digest; by what is written in it, else by what the pods that run say, else empty."""
    known = {reference: reference.partition("@")[2] for reference in wanted}
    if all(known.values()):
        return known
    for pod in cluster.list(PODS, namespace).items:
        status = pod.get("status") or {}
        running = {
            item.get("name"): str(item.get("imageID") or "")
            for name in ("containerStatuses", "initContainerStatuses")
            for item in status.get(name) or ()
        }
        for container in _containers({**pod, "kind": "Pod"}):
            digest = running.get(container["name"], "").partition("@")[2]
            if digest and not known.get(container["image"], "present"):
                known[container["image"]] = digest
    return known


def pinned(objects: Iterable[Object], images: Mapping[str, str], live: Mapping[str, set[str]]) -> list[Object]:
    """Objects whose images are named by the digests that were recorded, where a tag might lead elsewhere by now.

    :param live: name of a workload -> images that it has now; one that still has the recorded reference is left alone.
    """
    return [_pinned(obj, images, live.get(f"{obj['kind']}/{obj['metadata']['name']}", set())) for obj in objects]


def _pinned(obj: Object, images: Mapping[str, str], present: set[str]) -> Object:
    changes = {
        reference: f"{canonical_image(reference).rpartition(':')[0]}@{digest}"
        for reference, digest in images.items()
        if digest and "@" not in reference and reference not in present
    }
    used = references([obj]) & set(changes)
    if not used:
        return obj
    spec = dict(obj["spec"])
    template = dict(spec["template"])
    pod = dict(template["spec"])
    for name in CONTAINER_LISTS:
        if pod.get(name):
            pod[name] = [{**item, "image": changes.get(item.get("image", ""), item.get("image"))} for item in pod[name]]
    return {**obj, "spec": {**spec, "template": {**template, "spec": pod}}}
