"""Every connection that the kernel has seen is one that the NetworkPolicies allow."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections import Counter

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import POD_CIDR
from tests.support.deployment import NAMESPACE, Deployment
from tests.support.flows import Flow, Policies, parse

# What a system that has just counted a photograph must have been seen doing.
EXPECTED = {
    ("proxy", "api", 8000),
    ("proxy", "websocket", 8000),
    ("api", "postgres", 5432),
    ("api", "redis", 6379),
    ("websocket", "redis", 6379),
}


def policies(deployment: Deployment) -> Policies:
    """All policies, pods and namespaces of the cluster."""

    def all_of(kind: str) -> list[dict[str, object]]:
        items: list[dict[str, object]] = json.loads(deployment.kubectl("get", kind, "-A", "-o", "json"))["items"]
        return items

    return Policies(all_of("networkpolicies"), all_of("pods"), all_of("namespaces"))


def test_no_connection_breaks_a_policy(deployment: Deployment) -> None:
    photograph, _truth = deployment.photograph(seed=11, items=4)
    for _ in range(6):
        assert deployment.http("/detections", photograph).status in {200, 201}
        # Not a WebSocket, so refused; but it takes the proxy to the component.
        deployment.http("/ws")
    command = ["ip", "netns", "exec", deployment.name, "conntrack", "-L"]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rules = policies(deployment)
    flows = {flow for flow in parse(seen) if rules.concerns(flow, NAMESPACE)}
    edges = Counter((rules.name(flow.client), rules.name(flow.server), flow.port) for flow in flows)
    for (client, server, port), count in sorted(edges.items()):
        print(f"{client} -> {server}:{port} x{count}")
    assert set(edges) >= EXPECTED, f"not seen: {EXPECTED - set(edges)}"
    # The kernel remembers connections to pods that are gone for days, and whose they were cannot be told any more.
    pods = ipaddress.ip_network(POD_CIDR)
    gone = {
        flow for flow in flows if ipaddress.ip_address(flow.server) in pods and rules.name(flow.server) == flow.server
    }
    print(f"to pods that are gone: {len(gone)}")
    refused = [flow for flow in flows - gone if not rules.allow(flow)]
    assert not refused, [f"{rules.name(flow.client)} -> {rules.name(flow.server)}:{flow.port}" for flow in refused]


def test_what_nobody_asked_for_would_be_refused(deployment: Deployment) -> None:
    rules = policies(deployment)
    address = {name: deployment.pods(name)[0]["status"]["podIP"] for name in ("proxy", "api", "websocket", "redis")}
    address["postgres"] = deployment.get(f"pod/{deployment.primary()}")["status"]["podIP"]
    for client, server, port in [
        ("proxy", "postgres", 5432),
        ("proxy", "redis", 6379),
        ("redis", "api", 8000),
        ("api", "websocket", 8000),
        ("postgres", "redis", 6379),
        ("api", "postgres", 8000),
    ]:
        flow = Flow(address[client], address[server], port, "TCP")
        assert not rules.allow(flow), f"{client} may reach {server}:{port}"
    assert not rules.allow(Flow(address["api"], "192.0.2.1", 443, "TCP")), "api may reach the internet"
