"""The judge of NetworkPolicies, which an end-to-end test holds against real connections."""

from __future__ import annotations

from typing import Any

from tests.support.flows import Flow, Policies, parse

CONNTRACK = """\
tcp      6 86392 ESTABLISHED src=10.244.0.5 dst=10.96.7.7 sport=40000 dport=80 src=10.244.0.6 dst=10.244.0.5 sport=8000 dport=40000 [ASSURED] mark=0 use=1
udp      17 20 src=10.244.0.5 dst=10.96.0.10 sport=5000 dport=53 src=10.244.0.2 dst=10.244.0.5 sport=1053 dport=5000 mark=0 use=1
icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1 mark=0 use=1
"""  # noqa: E501


def pod(name: str, address: str, namespace: str = "shop", phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}-x", "namespace": namespace, "labels": {"app.kubernetes.io/name": name}},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8000}]}]},
        "status": {"podIP": address, "phase": phase},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app.kubernetes.io/name": name}} if name else {}
    return {"metadata": {"namespace": "shop"}, "spec": {"podSelector": selector, **spec}}


def by_name(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}}


PODS = [
    pod("proxy", "10.244.0.5"),
    pod("api", "10.244.0.6"),
    pod("dns", "10.244.0.2", namespace="kube-system"),
    pod("stranger", "10.244.0.9", namespace="else"),
    pod("gone", "10.244.0.6", phase="Succeeded"),
]
NAMESPACES = [{"metadata": {"name": name, "labels": {"name": name}}} for name in ("shop", "kube-system", "else")]
DENY = policy("", policyTypes=["Ingress", "Egress"])
OUT = policy("proxy", policyTypes=["Egress"], egress=[{"to": [by_name("api")], "ports": [{"port": "http"}]}])
IN = policy("api", policyTypes=["Ingress"], ingress=[{"from": [by_name("proxy")], "ports": [{"port": 8000}]}])


def allowed(flow: Flow, *policies: dict[str, Any]) -> bool:
    return Policies(policies, PODS, NAMESPACES).allow(flow)


PROXY_TO_API = Flow("10.244.0.5", "10.244.0.6", 8000, "TCP")


def test_the_one_who_answers_is_the_server() -> None:
    assert parse(CONNTRACK) == {PROXY_TO_API, Flow("10.244.0.5", "10.244.0.2", 1053, "UDP")}


def test_without_policies_all_is_allowed() -> None:
    assert allowed(PROXY_TO_API)


def test_both_ends_have_to_allow_it() -> None:
    assert not allowed(PROXY_TO_API, DENY)
    assert not allowed(PROXY_TO_API, DENY, OUT)
    assert not allowed(PROXY_TO_API, DENY, IN)
    assert allowed(PROXY_TO_API, DENY, OUT, IN)


def test_the_port_counts() -> None:
    assert not allowed(Flow("10.244.0.5", "10.244.0.6", 22, "TCP"), DENY, OUT, IN)
    assert not allowed(Flow("10.244.0.5", "10.244.0.6", 8000, "UDP"), DENY, OUT, IN)


def test_a_selector_without_namespace_means_its_own() -> None:
    stranger = Flow("10.244.0.9", "10.244.0.6", 8000, "TCP")
    anyone = policy("api", policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {}}]}])
    assert not allowed(stranger, anyone)
    everywhere = policy("api", policyTypes=["Ingress"], ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert allowed(stranger, everywhere)


def test_blocks_of_addresses() -> None:
    out = policy("proxy", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}])
    assert allowed(Flow("10.244.0.5", "10.1.2.3", 443, "TCP"), DENY, out)
    assert not allowed(Flow("10.244.0.5", "10.2.2.3", 443, "TCP"), DENY, out)


def test_the_node_is_always_let_in_and_the_living_have_the_address() -> None:
    policies = Policies([DENY], PODS, NAMESPACES)
    assert policies.allow(Flow("10.244.0.1", "10.244.0.6", 8000, "TCP"))
    assert policies.name("10.244.0.6") == "api"
    assert policies.concerns(PROXY_TO_API, "shop")
    assert not policies.concerns(Flow("10.244.0.2", "10.244.0.9", 1, "TCP"), "shop")
