# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order objects go to the cluster: what others need first, what can block others last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

NAMESPACES, DEFINITIONS, ACCESS, CONFIGURATION, NETWORK, WORKLOADS, CUSTOM, ADMISSION = range(8)

_PHASES: dict[int, tuple[str, ...]] = {
    NAMESPACES: ("Namespace",),
    DEFINITIONS: ("CustomResourceDefinition",),
    ACCESS: (
        "PriorityClass",
        "StorageClass",
        "RuntimeClass",
        "IngressClass",
        "GatewayClass",
        "ResourceQuota",
        "LimitRange",
        "ServiceAccount",
        "ClusterRole",
        "Role",
        "ClusterRoleBinding",
        "RoleBinding",
    ),
    CONFIGURATION: (
        "ConfigMap",
        "Secret",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "PodDisruptionBudget",
    ),
    NETWORK: ("Service", "Endpoints", "EndpointSlice"),
    WORKLOADS: (
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "ReplicaSet",
        "ReplicationController",
        "Pod",
        "Job",
        "CronJob",
    ),
    # A webhook refuses while what it asks is not running; an APIService without a backend breaks discovery of
    # its group.
    ADMISSION: (
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "APIService",
    ),
}
_PHASE_OF = {kind: phase for phase, kinds in _PHASES.items() for kind in kinds}
_BUILT_IN_GROUPS = ("", "apps", "batch")

T = TypeVar("T")


def phase_of(obj: Mapping[str, Any]) -> int:
    """The phase in which an object is applied; kinds that are not named anywhere come after the workloads."""
    group = str(obj.get("apiVersion", "")).rpartition("/")[0]
    kind = str(obj.get("kind"))
    # A Service of serving.knative.dev is not that Service.
    own = group in _BUILT_IN_GROUPS or group.endswith("k8s.io") or group == "policy"
    return _PHASE_OF.get(kind, CUSTOM) if own else CUSTOM


def phases(items: Iterable[tuple[int, T]]) -> list[list[T]]:
    """Group by phase, in the order of the phases, each in the given order."""
    grouped: dict[int, list[T]] = {}
    for phase, item in items:
        grouped.setdefault(phase, []).append(item)
    return [grouped[phase] for phase in sorted(grouped)]
