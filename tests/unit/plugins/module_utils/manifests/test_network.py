"""Network policies, judged by a small evaluator of its own: who reaches whom, and nobody else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.support import medical_inventory as support

OWN = "medical-inventory"
OUTSIDE = {
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "operator": ("cnpg-system", {"app.kubernetes.io/name": "cloudnative-pg"}),
    "gateway": ("envoy-gateway-system", {"app": "envoy"}),
    "stranger": ("other", {"app.kubernetes.io/name": "api", "app.kubernetes.io/instance": OWN}),
}
PORTS = (53, 80, 5432, 6379, 8000, 8080)
APPLICATION = {
    ("api", "postgres", 5432),
    ("api", "redis", 6379),
    ("websocket", "postgres", 5432),
    ("websocket", "redis", 6379),
    ("proxy", "api", 8000),
    ("proxy", "websocket", 8000),
    ("migrate", "postgres", 5432),
    ("migrate", "redis", 6379),
    ("operator", "postgres", 8000),
    ("operator", "postgres", 5432),
    ("postgres", "postgres", 5432),
    ("postgres", "postgres", 8000),
}
GPU = {("api-gpu", "postgres", 5432), ("api-gpu", "redis", 6379), ("proxy", "api-gpu", 8000)}


def pods(result: dict[str, Any]) -> dict[str, tuple[str, dict[str, str]]]:
    inside = {
        name.split("/")[1]: template["metadata"]["labels"] for name, template in support.pod_templates(result).items()
    }
    inside["postgres"] = {"cnpg.io/cluster": "postgres"}
    inside["publisher"] = {"app.kubernetes.io/name": "publisher"}
    return {**{name: (OWN, labels) for name, labels in inside.items()}, **OUTSIDE}


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    return selector is not None and all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    )


def peer_matches(peer: dict[str, Any], namespace: str, labels: dict[str, str]) -> bool:
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        home = {"kubernetes.io/metadata.name": namespace}
        return selects(peer["namespaceSelector"], home) and selects(peer.get("podSelector", {}), labels)
    return namespace == OWN and selects(peer["podSelector"], labels)


def allowed(
    policies: list[dict[str, Any]],
    direction: str,
    here: tuple[str, dict[str, str]],
    there: tuple[str, dict[str, str]],
    port: int,
) -> bool:
    if here[0] != OWN:
        return True
    kind, side = ("Ingress", "from") if direction == "ingress" else ("Egress", "to")
    applying = [
        one["spec"]
        for one in policies
        if kind in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], here[1])
    ]
    assert applying, "the denial of everything else selects every pod"
    for rule in itertools.chain.from_iterable(one.get(direction, []) for one in applying):
        if port not in [entry["port"] for entry in rule["ports"]]:
            continue
        if side not in rule or any(peer_matches(peer, *there) for peer in rule[side]):
            return True
    return False


def edges(result: dict[str, Any]) -> set[tuple[str, str, int]]:
    policies = [one for one in support.objects(result) if one["kind"] == "NetworkPolicy"]
    everybody = pods(result)
    found = set()
    for (client, here), (server, there) in itertools.product(everybody.items(), everybody.items()):
        if here[0] != OWN and there[0] != OWN:
            continue
        for port in PORTS:
            if allowed(policies, "egress", here, there, port) and allowed(policies, "ingress", there, here, port):
                found.add((client, server, port))
    return found


def with_dns(expected: set[tuple[str, str, int]], result: dict[str, Any]) -> set[tuple[str, str, int]]:
    return expected | {(name, "dns", 53) for name, (namespace, _) in pods(result).items() if namespace == OWN}


def test_prod_allows_exactly_what_is_declared() -> None:
    prod = support.shared("prod")
    assert edges(prod) == with_dns(APPLICATION | GPU | {("gateway", "proxy", 8080)}, prod)


def test_local_is_open_at_the_proxy_only() -> None:
    local = support.shared("local")
    anybody = {(name, "proxy", 8080) for name in OUTSIDE}
    assert edges(local) == with_dns(APPLICATION | anybody, local)


@pytest.mark.parametrize("environment", support.ENVIRONMENTS)
def test_only_instances_of_postgresql_reach_the_api_server(environment: str) -> None:
    for one in support.objects(support.shared(environment)):
        if one["kind"] != "NetworkPolicy":
            continue
        blocks = [peer for rule in one["spec"].get("egress", []) for peer in rule.get("to", []) if "ipBlock" in peer]
        assert bool(blocks) == (one["metadata"]["name"] == "postgres")
        for rule in one["spec"].get("egress", []):
            assert rule["to"], "a rule without peers would allow everybody"


def test_the_api_server_s_addresses_can_be_told() -> None:
    result = support.compiled("prod", {"network": {"api_server_cidrs": ["10.1.0.0/28"], "api_server_ports": [6443]}})
    rule = support.find(result, "NetworkPolicy", "postgres")["spec"]["egress"][-1]
    assert rule == {"to": [{"ipBlock": {"cidr": "10.1.0.0/28"}}], "ports": [{"port": 6443, "protocol": "TCP"}]}
