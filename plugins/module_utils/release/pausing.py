# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops rollouts where they are, so that somebody can look at them, and lets them go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.release.strategy import COMPONENT

PAUSER = "groundwork.platform/pause"
"""Field manager of what stops a rollout: taking that back is applying nothing."""


def pause(cluster: Cluster, namespace: str, objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Stop the rollouts of those workloads among the objects that have not finished; return them as ``Kind/name``."""
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    paused = []
    for kind in ("Deployment", "StatefulSet"):
        for obj in cluster.list(cluster.resource("apps/v1", kind), namespace).items:
            name = obj["metadata"]["name"]
            mine = (kind, name) in names or (kind, (obj["metadata"].get("labels") or {}).get(COMPONENT)) in names
            if mine and not _rolled(obj):
                _set(cluster, namespace, kind, name, _stopped(obj))
                paused.append(f"{kind}/{name}")
    return sorted(paused)


def resume(cluster: Cluster, namespace: str, paused: Sequence[str]) -> None:
    """Take back what :func:`pause` has set; a workload that is gone meanwhile has nothing to resume."""
    for entry in paused:
        kind, _slash, name = entry.partition("/")
        if cluster.get(cluster.resource("apps/v1", kind), name, namespace) is not None:
            _set(cluster, namespace, kind, name, {})


def command(namespace: str, paused: Sequence[str]) -> str:
    """What lets a paused release go on by hand."""
    deployments = [entry.lower() for entry in paused if entry.startswith("Deployment/")]
    return f"kubectl --namespace {namespace} rollout resume {' '.join(deployments)}" if deployments else ""


def _rolled(obj: Object) -> bool:
    spec, status = obj["spec"], obj.get("status") or {}
    wanted = int(spec.get("replicas", 1))
    updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
    done = updated >= wanted and total <= updated
    if obj["kind"] == "StatefulSet":
        done = status.get("currentRevision") == status.get("updateRevision")
    available = int(status.get("availableReplicas") or 0) >= wanted
    return done and available and status.get("observedGeneration") == obj["metadata"].get("generation")


def _stopped(obj: Object) -> dict[str, Any]:
    if obj["kind"] == "Deployment":
        return {"paused": True}
    replicas = int(obj["spec"].get("replicas", 1))
    # Pods below the partition stay as they are: at the number of pods, that is all of them.
    return {"updateStrategy": {"rollingUpdate": {"partition": replicas}}}


def _set(cluster: Cluster, namespace: str, kind: str, name: str, spec: Mapping[str, Any]) -> None:
    patch: Object = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    if spec:
        patch["spec"] = dict(spec)
    cluster.apply(cluster.resource("apps/v1", kind), patch, PAUSER, force=True)
