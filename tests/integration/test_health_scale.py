"""What a gate costs does not grow with the number of pods; their kubelet is KWOK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate
from tests.support import kwok
from tests.support.control_plane import ControlPlane


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
