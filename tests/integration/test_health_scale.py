"""Many pods: what a gate costs does not grow with them, and what controllers write about them is read aright."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from tests.support import kubelet, kwok
from tests.support.control_plane import ControlPlane
from tests.support.counting import Counting
from tests.support.kubelet import Kubelet, wait_until
from tests.support.listening import Listener


@pytest.fixture(scope="module")
def nodes(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    cluster = Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)))
    log: Path = tmp_path_factory.mktemp("kwok") / "log"
    with kwok.Kwok(cluster, control_plane.kubeconfig, log):
        yield
    cluster.close()


@pytest.mark.usefixtures("nodes")
def test_requests_are_as_many_for_fifty_pods_as_for_five_hundred(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    asked, watched = {}, {}
    for replicas in (50, 500):
        own = Counting(str(control_plane.kubeconfig))
        name = f"many-{replicas}"
        (item,) = Applier(cluster, namespace).run([kwok.deployment(name, replicas)])
        assert Gate(own, [item.obj], 500, existing=True).run().healthy
        asked[replicas], watched[replicas] = set(own.others), set(own.watches)
        # Discovery, one list of each kind, and a watch of each; both once more where the API server has ended a watch
        # whose reader is slow, as it is on a busy machine.
        assert all(count <= 1 + own.watches[path.partition(" ")[2]] for path, count in own.others.items())
        own.close()
        kwok.remove(cluster, name, namespace)
    assert asked[500] == asked[50]
    assert watched[500] == watched[50]
    assert len(asked[50]) + len(watched[50]) <= 12


def refused_last(cluster: Cluster, namespace: str) -> bool:
    """Whether the events about a ReplicaSet end with a refusal, as far as their times tell."""
    times = {"FailedCreate": "", "SuccessfulCreate": ""}
    for event in cluster.list(kubelet.EVENTS, namespace).items:
        if event["reason"] in times:
            times[event["reason"]] = max(times[event["reason"]], str(event["lastTimestamp"]))
    return bool(times["FailedCreate"]) and times["FailedCreate"] >= times["SuccessfulCreate"]


def test_a_refusal_that_is_over_condemns_nobody_though_no_event_takes_it_back(cluster: Cluster, namespace: str) -> None:
    """A controller writes 25 events about one object, and then one in five minutes: of many pods they tell little."""
    # 22 pods and at least three refusals use those up.
    quotas, sets = cluster.resource("v1", "ResourceQuota"), cluster.resource("apps/v1", "ReplicaSet")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods", "namespace": namespace}}
    cluster.create(quotas, {**quota, "spec": {"hard": {"pods": "22"}}})
    wait_until(lambda: (cluster.get(quotas, "pods", namespace) or {})["status"]["hard"])
    (item,) = Applier(cluster, namespace).run([kwok.deployment("many", 60, node="none")])

    def replica_set() -> Any:
        return cluster.list(sets, namespace).items[0]

    wait_until(lambda: replica_set()["status"]["conditions"][0]["type"] == "ReplicaFailure", 60)
    wait_until(lambda: refused_last(cluster, namespace), 60)
    cluster.merge(quotas, "pods", namespace, {"spec": {"hard": {"pods": "60"}}})
    wait_until(lambda: replica_set()["status"]["replicas"] == 60, 120)
    assert refused_last(cluster, namespace)
    with Kubelet(cluster, namespace, lambda pod: None) as nodes:
        # It has judged, and condemned nobody.
        said = Listener().on("waiting for", lambda: nodes.now_behave(kubelet.ready))
        policy = Policy(admission=0.0, schedule=600.0)
        assert Gate(cluster, [item.obj], 300, policy=policy, progress=said, existing=True).run().healthy
