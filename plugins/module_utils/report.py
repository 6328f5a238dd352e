# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where: a system's workloads, pods and addresses, read once and told for programs and for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError

# Kind -> the list of it in a namespace. One request each, whatever the number of pods.
LISTS: dict[str, str] = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{namespace}/statefulsets",
    "Cluster": "/apis/postgresql.cnpg.io/v1/namespaces/{namespace}/clusters",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Node": "/api/v1/nodes",
}

Objects = Mapping[str, Sequence[Mapping[str, Any]]]


class Requests(Protocol):
    """The part of a Transport that reading needs."""

    def request(self, method: str, path: str) -> Any:
        """Send one request and return the decoded answer."""


@dataclasses.dataclass
class Workload:
    """One component or store as it runs.

    :param ready: pods that are ready now.
    :param wanted: pods that are asked for now, by the manifest or by an autoscaler.
    :param pods: each pod's name, node, readiness and restarts.
    :param note: what its own status says in words, where it says something.
    """

    name: str
    kind: str
    ready: int
    wanted: int
    pods: list[dict[str, Any]]
    note: str = ""

    @property
    def healthy(self) -> bool:
        """All wanted pods are ready."""
        return self.ready >= self.wanted

    def line(self, width: int) -> str:
        """The workload in one line: name, ready of wanted, and on which nodes."""
        nodes = ", ".join(sorted({pod["node"] for pod in self.pods if pod["node"]}))
        where = f" on {nodes}" if nodes else ""
        restarts = sum(int(pod["restarts"]) for pod in self.pods)
        after = f", {restarts} restart{'s' if restarts != 1 else ''}" if restarts else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.name:<{width}} {self.ready}/{self.wanted} ready{where}{after}{note}"


@dataclasses.dataclass
class Report:
    """All of a system: its workloads and how to reach it."""

    namespace: str
    workloads: list[Workload]
    addresses: list[dict[str, str]]

    @property
    def lines(self) -> list[str]:
        """The report for people, one workload or address a line."""
        if not self.workloads:
            return [f"nothing runs in namespace {self.namespace}"]
        width = max(
            len(name) for name in [item.name for item in self.workloads] + [item["name"] for item in self.addresses]
        )
        lines = [item.line(width) for item in self.workloads]
        return lines + [f"{address['name']:<{width}} {address['url']}" for address in self.addresses]

    def _names(self) -> list[str]:
        return [item.name for item in self.workloads] + [address["name"] for address in self.addresses]

    def as_dict(self) -> dict[str, Any]:
        """The report as a module returns it."""
        return {
            "components": [dataclasses.asdict(item) | {"healthy": item.healthy} for item in self.workloads],
            "addresses": self.addresses,
            "healthy": bool(self.workloads) and all(item.healthy for item in self.workloads),
            "lines": self.lines,
        }


def read(requests: Requests, namespace: str) -> dict[str, list[Mapping[str, Any]]]:
    """Read all that a report needs.

    :raises ApiError: the server refused to list something that a report can't do without.
    """
    objects: dict[str, list[Mapping[str, Any]]] = {}
    for kind, path in LISTS.items():
        try:
            answer = requests.request("GET", path.format(namespace=namespace))
        except ApiError as error:
            # No such API, or nodes that a namespaced account may not see: the report does without.
            if error.status not in (403, 404) or kind not in ("Cluster", "Node"):
                raise
            answer = {}
        objects[kind] = list((answer or {}).get("items") or [])
    return objects


def build(namespace: str, objects: Objects, public: Iterable[Mapping[str, Any]] = ()) -> Report:
    """Put a report together from the lists of :func:`read`.

    :param public: what compile_system says is public: each with a ``name`` and, where known beforehand, a ``url``.
    """
    pods = [pod for pod in objects.get("Pod", ()) if not pod["metadata"].get("deletionTimestamp")]
    workloads = [_workload(item, "Deployment", pods) for item in objects.get("Deployment", ())]
    workloads += [_workload(item, "StatefulSet", pods) for item in objects.get("StatefulSet", ())]
    workloads += [_postgres(item, pods) for item in objects.get("Cluster", ())]
    workloads.sort(key=lambda item: (item.kind != "Deployment", item.name))
    return Report(namespace, workloads, _addresses(objects, public))


def _workload(item: Mapping[str, Any], kind: str, pods: Sequence[Mapping[str, Any]]) -> Workload:
    labels = ((item.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    own = [pod for pod in pods if labels and labels.items() <= (pod["metadata"].get("labels") or {}).items()]
    return Workload(
        name=item["metadata"]["name"],
        kind=kind,
        ready=int((item.get("status") or {}).get("readyReplicas") or 0),
        wanted=int(item["spec"].get("replicas", 1)),
        pods=[_pod(pod) for pod in own],
    )


def _postgres(item: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Workload:
    name, status = item["metadata"]["name"], item.get("status") or {}
    own = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get("cnpg.io/cluster") == name]
    # A Job that initialises or joins an instance carries the same label but is no instance.
    own = [pod for pod in own if "cnpg.io/jobRole" not in pod["metadata"]["labels"]]
    primary = status.get("currentPrimary")
    return Workload(
        name=name,
        kind="Cluster",
        ready=int(status.get("readyInstances") or 0),
        wanted=int(item["spec"].get("instances", 1)),
        pods=[_pod(pod) for pod in own],
        note=f"primary {primary}" if primary else str(status.get("phase") or ""),
    )


def _pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    status = pod.get("status") or {}
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    return {
        "name": pod["metadata"]["name"],
        "node": str(pod["spec"].get("nodeName") or ""),
        "ready": conditions.get("Ready") == "True",
        "phase": str(status.get("phase") or ""),
        "restarts": sum(int(item.get("restartCount") or 0) for item in status.get("containerStatuses") or ()),
    }


def _addresses(objects: Objects, public: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    found = [{"name": str(item.get("name", "url")), "url": str(item["url"])} for item in public if item.get("url")]
    named = {item["name"] for item in found}
    node = _node_address(objects.get("Node", ()))
    for service in objects.get("Service", ()):
        name = service["metadata"]["name"]
        if name in named:
            continue
        found += [{"name": name, "url": url} for url in _service_urls(service, node)]
    return found


def _service_urls(service: Mapping[str, Any], node: str) -> list[str]:
    """How to reach a Service from outside of the cluster: nothing for one that is inside only."""
    spec, urls = service["spec"], []
    for port in spec.get("ports") or ():
        scheme = "https" if port.get("name") == "https" or port.get("port") in (443, 8443) else "http"
        if spec.get("type") == "NodePort" and node and port.get("nodePort"):
            urls.append(f"{scheme}://{node}:{port['nodePort']}")
        if spec.get("type") == "LoadBalancer":
            ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            urls += [f"{scheme}://{entry.get('hostname') or entry.get('ip')}:{port['port']}" for entry in ingress]
    return urls


def _node_address(nodes: Sequence[Mapping[str, Any]]) -> str:
    """An address of the first node: one that outsiders see where it has one."""
    for kind in ("ExternalIP", "InternalIP"):
        for node in nodes:
            for address in (node.get("status") or {}).get("addresses") or ():
                if address.get("type") == kind:
                    return str(address["address"])
    return ""
