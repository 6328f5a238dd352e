# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forgets of an object what no rule reads: of five thousand pods that is nearly everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import Kind

_ROUTINE = ("Scheduled", "Created", "Started", "Pulled", "ScalingReplicaSet", "LeaderElection")
"""Reasons of normal events that say nothing which the pod's status does not."""
_METADATA = (
    "name", "namespace", "uid", "labels", "ownerReferences", "creationTimestamp", "deletionTimestamp",
)  # fmt: skip
_CONTAINER = (
    "name", "image", "command", "args", "env", "envFrom", "readinessProbe", "startupProbe", "restartPolicy",
)  # fmt: skip
_POD_STATUS = (
    "phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses", "nominatedNodeName",
)  # fmt: skip
_CONTAINER_STATUS = ("name", "image", "ready", "started", "restartCount", "state", "lastState")
_SOURCES = ("secret", "configMap", "persistentVolumeClaim", "projected", "ephemeral")
_EVENT = (
    "apiVersion", "kind", "reason", "message", "note", "type", "count", "series", "lastTimestamp", "eventTime",
    "deprecatedLastTimestamp", "deprecatedCount",
)  # fmt: skip


class Slimmer:
    """Makes objects small; equal parts of many pods are kept once."""

    def __init__(self) -> None:
        self._specs: dict[str, dict[str, Any]] = {}

    def slim(self, kind: Kind, obj: Object) -> Object | None:
        """The object with what rules read of it, or None for one that says nothing."""
        if kind == ("", "Pod"):
            return self._pod(obj)
        if kind == ("", "Event"):
            return _event(obj)
        if kind == ("", "Node"):
            return _node(obj)
        if kind == ("apps", "ReplicaSet"):
            obj["metadata"].pop("managedFields", None)
        elif kind == ("discovery.k8s.io", "EndpointSlice"):
            endpoints = [{"conditions": item.get("conditions") or {}} for item in obj.get("endpoints") or []]
            return {**_head(obj), "endpoints": endpoints}
        return obj

    def _pod(self, pod: Object) -> Object:
        spec, status = pod.get("spec") or {}, _only(pod.get("status") or {}, _POD_STATUS)
        for name in ("containerStatuses", "initContainerStatuses"):
            if name in status:
                status[name] = [_only(item, _CONTAINER_STATUS) for item in status[name] or []]
        kept: dict[str, Any] = {"restartPolicy": spec.get("restartPolicy")}
        for name in ("initContainers", "containers"):
            if spec.get(name):
                kept[name] = [_only(item, _CONTAINER) for item in spec[name]]
        volumes = [_only(item, ("name", *_SOURCES)) for item in spec.get("volumes") or [] if _matters(item)]
        if volumes:
            kept["volumes"] = volumes
        shared = self._specs.setdefault(json.dumps(kept, sort_keys=True), kept)
        placed = {"nodeName": spec["nodeName"]} if spec.get("nodeName") else {}
        return {**_head(pod), "spec": {**shared, **placed}, "status": status}


def _head(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _only(obj["metadata"], _METADATA)
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": metadata}


def _only(mapping: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: mapping[name] for name in names if name in mapping}


def _matters(volume: Mapping[str, Any]) -> bool:
    """Whether a volume comes from an object that may be missing; every pod has one with its account's token."""
    if "projected" in volume:
        sources = (volume["projected"] or {}).get("sources") or []
        own = not any("serviceAccountToken" in item for item in sources)
        return any("secret" in item or ("configMap" in item and own) for item in sources)
    return any(name in volume for name in _SOURCES)


def _event(event: Object) -> Object | None:
    if event.get("type") == "Normal" and event.get("reason") in _ROUTINE:
        return None
    about = event.get("involvedObject") or event.get("regarding") or {}
    # An event's own times are of whoever wrote it; the API server notes when it took it in, on the one clock on which
    # it also notes when an object was changed.
    times = [str(entry["time"]) for entry in event["metadata"].get("managedFields") or [] if entry.get("time")]
    return {
        **_only(event, _EVENT),
        **({"recordedTime": max(times)} if times else {}),
        "metadata": _only(event["metadata"], _METADATA),
        "involvedObject": _only(about, ("uid", "fieldPath")),
    }


def _node(node: Object) -> Object:
    status = node.get("status") or {}
    return {**_head(node), "spec": _only(node.get("spec") or {}, ("unschedulable",)),
            "status": _only(status, ("conditions",))}  # fmt: skip
