"""Which connections NetworkPolicies allow, to hold them against the connections that the kernel has seen.

The bridge of the embedded cluster enforces no policies. So the policies are proven the other way round: every flow that
connection tracking has noted must be one that they allow.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

_PAIR = re.compile(r"\b(src|dst|sport|dport)=(\S+)")

Object = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Flow:
    """A connection: who opened it, and who answers on which port, after all translation of addresses."""

    client: str
    server: str
    port: int
    protocol: str


def parse(text: str) -> set[Flow]:
    """The flows in what ``conntrack -L`` prints; the answering side of an entry says who really serves."""
    flows = set()
    for line in text.splitlines():
        protocol = line.split()[0].upper() if line.split() else ""
        pairs = _PAIR.findall(line)
        if protocol not in ("TCP", "UDP") or len(pairs) != 8:
            continue
        values = [value for _key, value in pairs]
        flows.add(Flow(client=values[0], server=values[4], port=int(values[6]), protocol=protocol))
    return flows


class Policies:
    """The NetworkPolicies of a cluster, with the pods and namespaces that they select from."""

    def __init__(self, policies: Iterable[Object], pods: Iterable[Object], namespaces: Iterable[Object]) -> None:
        self._policies = list(policies)
        self._namespaces = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in namespaces}
        self._pods: dict[str, Object] = {}
        # A finished pod's address may have been given to another meanwhile: the living come last.
        for pod in sorted(pods, key=lambda pod: pod["status"].get("phase") == "Running"):
            if pod["status"].get("podIP"):
                self._pods[pod["status"]["podIP"]] = pod

    def name(self, address: str) -> str:
        """Who has the address: a component, or the address itself."""
        pod = self._pods.get(address)
        if pod is None:
            return address
        labels = pod["metadata"].get("labels") or {}
        name = labels.get("cnpg.io/cluster") or labels.get("app.kubernetes.io/name") or labels.get("k8s-app")
        return str(name or pod["metadata"]["name"])

    def concerns(self, flow: Flow, namespace: str) -> bool:
        """Whether one end of the flow is a pod of the namespace."""
        ends = (self._pods.get(flow.client), self._pods.get(flow.server))
        return any(pod is not None and pod["metadata"]["namespace"] == namespace for pod in ends)

    def allow(self, flow: Flow) -> bool:
        """Whether both ends allow it; an end that no policy selects allows everything."""
        client, server = self._pods.get(flow.client), self._pods.get(flow.server)
        leaves = client is None or self._side(client, "Egress", flow.server, flow)
        # What comes from the node itself, as kubelet's probes do, is always let in.
        enters = server is None or client is None or self._side(server, "Ingress", flow.client, flow)
        return leaves and enters

    def _side(self, pod: Object, direction: str, other: str, flow: Flow) -> bool:
        namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
        chosen = [
            item["spec"]
            for item in self._policies
            if item["metadata"]["namespace"] == namespace
            and direction in item["spec"].get("policyTypes", ["Ingress"])
            and _selects(item["spec"]["podSelector"], labels)
        ]
        if not chosen:
            return True
        rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        server = self._pods.get(flow.server)
        return any(
            self._peers(rule.get(peers), other, namespace) and _ports(rule.get("ports"), flow, server)
            for spec in chosen
            for rule in spec.get(rules) or ()
        )

    def _peers(self, peers: Iterable[Object] | None, address: str, namespace: str) -> bool:
        return not peers or any(self._peer(peer, address, namespace) for peer in peers)

    def _peer(self, peer: Object, address: str, namespace: str) -> bool:
        if "ipBlock" in peer:
            inside = ipaddress.ip_address(address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
            excepted = [ipaddress.ip_network(block) for block in peer["ipBlock"].get("except") or ()]
            return inside and not any(ipaddress.ip_address(address) in block for block in excepted)
        pod = self._pods.get(address)
        if pod is None:
            return False
        where = pod["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            if not _selects(peer["namespaceSelector"], self._namespaces.get(where, {})):
                return False
        elif where != namespace:
            return False
        return _selects(peer.get("podSelector") or {}, pod["metadata"].get("labels") or {})


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if selector.get("matchExpressions"):
        raise NotImplementedError("matchExpressions: nothing that is compiled here uses them")
    return (selector.get("matchLabels") or {}).items() <= labels.items()


def _ports(ports: Iterable[Object] | None, flow: Flow, server: Object | None) -> bool:
    return not ports or any(
        port.get("protocol", "TCP") == flow.protocol and flow.port in _numbers(port.get("port"), server)
        for port in ports
    )


def _numbers(port: int | str | None, server: Object | None) -> set[int] | range:
    if port is None:
        return range(65536)
    if isinstance(port, int):
        return {port}
    containers = server["spec"]["containers"] if server is not None else []
    return {item["containerPort"] for pod in containers for item in pod.get("ports") or () if item.get("name") == port}
