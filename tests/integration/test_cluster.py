"""Access to a real API server: what it answers, what it refuses, and what happens when it goes away."""

from __future__ import annotations

import queue
import time
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    ClusterAuth,
    Unreachable,
    Watcher,
    WatchEvent,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from tests.support.control_plane import ControlPlane


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def next_event(events: queue.Queue[WatchEvent], *types: str, timeout: float = 30) -> WatchEvent:
    deadline = time.monotonic() + timeout
    while True:
        event = events.get(timeout=max(deadline - time.monotonic(), 0.01))
        if event.type in types:
            return event


def test_applies_lists_in_pages_and_deletes(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.groundwork.platform.plugins.module_utils.cluster.PAGE", 2)
    maps = cluster.resource("v1", "ConfigMap")
    for number in range(5):
        cluster.apply(maps, config_map(namespace, f"m{number}"))
    names = [item["metadata"]["name"] for item in cluster.list(maps, namespace).items]
    assert sorted(name for name in names if name.startswith("m")) == ["m0", "m1", "m2", "m3", "m4"]
    assert cluster.delete(maps, "m0", namespace)
    assert cluster.get(maps, "m0", namespace) is None
    assert not cluster.delete(maps, "m0", namespace)


def test_a_kind_that_is_not_served_is_named(cluster: Cluster) -> None:
    with pytest.raises(Failure) as caught:
        cluster.resource("example.com/v1", "Nothing")
    assert caught.value.code == "unknown_kind"


def test_a_watch_goes_on_after_the_api_server_was_killed(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    maps = cluster.resource("v1", "ConfigMap")
    events: queue.Queue[WatchEvent] = queue.Queue()
    watcher = Watcher(cluster, maps, events.put, namespace).start()
    try:
        next_event(events, "SYNC")
        cluster.apply(maps, config_map(namespace, "before"))
        assert next_event(events, "ADDED").objects[0]["metadata"]["name"] == "before"
        control_plane.kill("kube-apiserver")
        assert next_event(events, "LOST").error is not None
        control_plane.start_api_server()
        # The write itself is retried until the server is back.
        cluster.apply(maps, config_map(namespace, "after"))
        seen: set[str] = set()
        while "after" not in seen:
            event = next_event(events, "ADDED", "SYNC")
            seen |= {obj["metadata"]["name"] for obj in event.objects}
    finally:
        watcher.stop(2)
        control_plane.kill("kube-apiserver")
        control_plane.revive()


def test_an_expired_version_is_listed_anew(cluster: Cluster, namespace: str) -> None:
    maps = cluster.resource("v1", "ConfigMap")
    watcher = Watcher(cluster, maps, lambda event: None, namespace)
    try:
        assert watcher._follow("1") == ""
    except ApiError as error:
        assert error.status == 410


def test_wrong_connections_are_named(control_plane: ControlPlane) -> None:
    def failure(**options: Any) -> Failure:
        with pytest.raises(Failure) as caught:
            cluster = Cluster(ClusterAuth(**options))
            cluster.list(cluster.resource("v1", "Secret"), "kube-system")
        return caught.value

    good = str(control_plane.kubeconfig)
    assert failure(kubeconfig="/does/not/exist").code == "kubeconfig_not_found"
    missing = failure(kubeconfig=good, context="elsewhere")
    assert missing.code == "context_not_found"
    assert "test" in missing.evidence
    untrusted = failure(host=control_plane.server)
    assert untrusted.code == "tls"
    unauthorised = failure(kubeconfig=str(control_plane.user_kubeconfig("nobody", token="wrong")))
    assert unauthorised.code == "unauthorised"
    assert "wrong" not in unauthorised.sentence
    forbidden = failure(kubeconfig=str(control_plane.user_kubeconfig("reader")))
    assert forbidden.code == "forbidden"
    assert 'cannot list resource "secrets"' in forbidden.sentence


def test_nothing_listens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport"
    monkeypatch.setattr(f"{module}.FIRST_PATIENCE", 0.2)
    cluster = Cluster(ClusterAuth(host="https://127.0.0.1:9"))
    with pytest.raises(Unreachable) as caught:
        cluster.version()
    assert caught.value.code == "unreachable"
    assert "https://127.0.0.1:9" in caught.value.sentence
