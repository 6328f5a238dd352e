"""The report: what runs where, from recorded lists of objects."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError
from ansible_collections.groundwork.platform.plugins.module_utils.report import build, read


def pod(name: str, labels: dict[str, str], ready: bool = True, restarts: int = 0) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": "node"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


def deployment(name: str, replicas: int, ready: int) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}},
        "status": {"readyReplicas": ready} if ready else {},
    }


OBJECTS: dict[str, list[dict[str, Any]]] = {
    "Deployment": [deployment("proxy", 2, 2), deployment("api", 2, 1)],
    "StatefulSet": [],
    "Cluster": [
        {
            "metadata": {"name": "postgres"},
            "spec": {"instances": 2},
            "status": {"readyInstances": 2, "currentPrimary": "postgres-1"},
        }
    ],
    "Pod": [
        pod("api-a", {"app.kubernetes.io/name": "api"}),
        pod("api-b", {"app.kubernetes.io/name": "api"}, ready=False, restarts=3),
        pod("postgres-1", {"cnpg.io/cluster": "postgres"}),
        pod("postgres-2-join-x", {"cnpg.io/cluster": "postgres", "cnpg.io/jobRole": "join"}),
    ],
    "Service": [
        {
            "metadata": {"name": "proxy"},
            "spec": {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
        },
        {"metadata": {"name": "api"}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}},
    ],
    "Node": [{"status": {"addresses": [{"type": "InternalIP", "address": "10.213.7.2"}]}}],
}


def test_components_come_first_and_stores_after_them() -> None:
    report = build("shop", OBJECTS)
    assert [item.name for item in report.workloads] == ["api", "proxy", "postgres"]
    assert [item.healthy for item in report.workloads] == [False, True, True]
    assert report.as_dict()["healthy"] is False


def test_a_line_says_ready_where_and_what_restarted() -> None:
    lines = build("shop", OBJECTS).lines
    assert lines[0] == "api      1/2 ready on node, 3 restarts"
    assert lines[2] == "postgres 2/2 ready on node (primary postgres-1)"
    assert lines[3] == "proxy    http://10.213.7.2:30080"


def test_jobs_of_the_operator_are_no_instances() -> None:
    postgres = build("shop", OBJECTS).workloads[-1]
    assert [item["name"] for item in postgres.pods] == ["postgres-1"]


def test_a_public_url_that_is_known_beforehand_wins() -> None:
    report = build("shop", OBJECTS, [{"name": "proxy", "url": "https://shop.example"}, {"name": "later"}])
    assert report.addresses == [{"name": "proxy", "url": "https://shop.example"}]


def test_a_load_balancer_is_reached_by_what_it_was_given() -> None:
    service = {
        "metadata": {"name": "proxy"},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "https", "port": 443}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}},
    }
    assert build("shop", {"Service": [service]}).addresses == [{"name": "proxy", "url": "https://192.0.2.7:443"}]


def test_an_empty_namespace_is_said_to_be_empty() -> None:
    report = build("shop", {})
    assert report.lines == ["nothing runs in namespace shop"]
    assert report.as_dict()["healthy"] is False


class Refusing:
    """Answers every list but those that are refused."""

    def __init__(self, refused: dict[str, int]) -> None:
        self._refused = refused

    def request(self, method: str, path: str) -> Any:
        for part, status in self._refused.items():
            if part in path:
                raise ApiError("refused", path, "is refused", status=status)
        return {"items": [{"path": path}]}


def test_a_cluster_without_the_operator_and_with_hidden_nodes_is_read() -> None:
    objects = read(Refusing({"postgresql.cnpg.io": 404, "/nodes": 403}), "shop")
    assert objects["Cluster"] == objects["Node"] == []
    assert len(objects["Pod"]) == 1


def test_other_refusals_are_told() -> None:
    with pytest.raises(ApiError):
        read(Refusing({"/pods": 403}), "shop")
