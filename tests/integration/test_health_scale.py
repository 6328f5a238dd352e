"""Many pods: what a gate costs does not grow with them, and what controllers write about them is read aright."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress
from tests.support import kubelet, kwok
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import Kubelet, wait_until


@pytest.fixture(scope="module")
def nodes(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    cluster = Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)))
    log: Path = tmp_path_factory.mktemp("kwok") / "log"
    with kwok.Kwok(cluster, control_plane.kubeconfig, log):
        yield
    cluster.close()


class Counting(Cluster):
    """Notes the path of each request, and whether it opens a watch."""

    def __init__(self, kubeconfig: str) -> None:
        super().__init__(ClusterAuth(kubeconfig=kubeconfig))
        self.sent: list[str] = []
        send = self.transport._send

        def noted(method: str, path: str, query: Any, *more: Any, **options: Any) -> Any:
            version = f" from {query['resourceVersion']}" if "watch" in (query or {}) else ""
            self.sent.append(f"{method} {path}{version}")
            return send(method, path, query, *more, **options)

        self.transport._send = noted  # type: ignore[method-assign]


@pytest.mark.usefixtures("nodes")
def test_requests_are_as_many_for_fifty_pods_as_for_five_hundred(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    lists, watches = {}, {}
    for replicas in (50, 500):
        own = Counting(str(control_plane.kubeconfig))
        name = f"many-{replicas}"
        (item,) = Applier(cluster, namespace).run([kwok.deployment(name, replicas)])
        verdict = Gate(own, [item.obj], 500, existing=True).run()
        assert verdict.healthy
        lists[replicas] = sorted(line for line in own.sent if " from " not in line)
        watches[replicas] = {line.partition(" from ")[0] for line in own.sent if " from " in line}
        own.close()
        kwok.remove(cluster, name, namespace)
    # Discovery, one list of each kind, and a watch of each. How often a watch has to be opened again is not for a test:
    # the API server ends those whose reader is slow, as it is on a busy machine.
    assert lists[500] == lists[50]
    assert watches[500] == watches[50]
    assert len(lists[50]) + len(watches[50]) <= 12


class Telling(Progress):
    """Does something once the gate says for the first time what it waits for: it has judged and not condemned."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__("test")
        self._then: Callable[[], object] | None = then

    def update(self, text: str) -> None:
        then, self._then = self._then, None
        if then is not None:
            threading.Thread(target=then).start()


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
        begin = Telling(lambda: nodes.now_behave(kubelet.ready))
        policy = Policy(admission=0.0, schedule=600.0)
        assert Gate(cluster, [item.obj], 300, policy=policy, progress=begin, existing=True).run().healthy
