"""Gates against an API server that is in trouble: nothing is lost, and no verdict is false."""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health import watching
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, GateFailed, Verdict
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from tests.support.fake_api import FakeApi, Handler, Proxy
from tests.support.kubelet import wait_until
from tests.support.objects import container, crashing, pod, ready_pod, replica_set, waiting, workload

API = workload("api")
READY = workload("api", ready=True)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi(API, replica_set(API), pod(API)) as server:
        yield server


class Running:
    """A gate that runs in a thread."""

    def __init__(self, cluster: Cluster, timeout: float = 90.0, policy: Policy | None = None) -> None:
        self.cluster = cluster
        self._outcome: list[Any] = []
        gate = Gate(cluster, [API], timeout, policy=policy, existing=True)
        self._thread = threading.Thread(target=self._run, args=(gate,))
        self._thread.start()

    def _run(self, gate: Gate) -> None:
        try:
            self._outcome.append(gate.run())
        except Failure as failure:
            self._outcome.append(failure)

    @property
    def over(self) -> bool:
        return bool(self._outcome)

    def verdict(self) -> Any:
        self._thread.join(100)
        self.cluster.close()
        return self._outcome[0]


def start(
    api: FakeApi, tmp_path: Path, port: int = 0, user: dict[str, Any] | None = None, policy: Policy | None = None
) -> Running:
    """A gate that has read everything and watches."""
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig", port, user)
    gate = Running(Cluster(ClusterAuth(kubeconfig=kubeconfig)), policy=policy)
    wait_until(lambda: watches(api) >= 4, 60)
    return gate


def watches(api: FakeApi, kind: str = "") -> int:
    return len([line for line in api.requests if f"/{kind}" in line and " from " in line])


def lists(api: FakeApi, kind: str) -> int:
    return len([line for line in api.requests if line.endswith(f"/{kind}")])


def heal(api: FakeApi) -> None:
    api.put(ready_pod(API))
    api.put(READY)


def healthy(gate: Running) -> bool:
    found = gate.verdict()
    if not isinstance(found, Verdict):
        raise found
    return found.healthy


GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


def test_a_watch_that_has_expired_is_begun_anew_from_a_list(api: FakeApi, tmp_path: Path) -> None:
    gate = start(api, tmp_path)
    before = lists(api, "deployments")
    api.break_watches(GONE)
    wait_until(lambda: lists(api, "deployments") > before)
    heal(api)
    assert healthy(gate)


def test_what_happens_between_two_watches_is_not_lost(api: FakeApi, tmp_path: Path) -> None:
    gate = start(api, tmp_path)
    before = lists(api, "deployments")
    api.break_watches()
    heal(api)
    assert healthy(gate)
    # The watch went on where it had been.
    assert lists(api, "deployments") == before


class Throttle:
    """Refuses the first so many requests about deployments, and notes who comes back too early."""

    def __init__(self, times: int, seconds: float) -> None:
        self.refused, self.early = 0, 0
        self._times, self._seconds, self._until = times, seconds, 0.0

    def __call__(self, handler: Handler, path: str, query: dict[str, str]) -> bool:
        if not path.endswith("/deployments"):
            return False
        self.early += time.monotonic() < self._until
        if self.refused >= self._times:
            return False
        self.refused, self._until = self.refused + 1, time.monotonic() + self._seconds
        handler.refuse(429, "TooManyRequests", "slow down", Retry_After=f"{self._seconds:g}")
        return True


def test_throttling_is_obeyed(api: FakeApi, tmp_path: Path) -> None:
    api.fault = throttle = Throttle(2, 1)
    gate = Running(Cluster(ClusterAuth(kubeconfig=api.kubeconfig(tmp_path / "kubeconfig"))))
    wait_until(lambda: watches(api, "namespaces/n/deployments") >= 1, 60)
    heal(api)
    assert healthy(gate)
    assert (throttle.refused, throttle.early) == (2, 0)


@pytest.mark.parametrize("late", [False, True])
def test_a_token_that_is_renewed_in_its_file(api: FakeApi, tmp_path: Path, late: bool) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    gate = start(api, tmp_path, user={"tokenFile": str(token)})
    before = len(api.requests)
    api.token = "renewed"
    api.break_watches()
    if late:
        # Each watch has been refused by now, twice.
        wait_until(lambda: len(api.requests) >= before + 8, 60)
    token.write_text("renewed")
    heal(api)
    assert healthy(gate)


def test_a_credential_plugin_is_asked_again_when_its_token_is_refused(api: FakeApi, tmp_path: Path) -> None:
    token, plugin = tmp_path / "token", tmp_path / "plugin"
    token.write_text("right")
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    plugin.write_text(
        f"#!{sys.executable}\nimport json, pathlib\n"
        f"token = pathlib.Path({str(token)!r}).read_text()\n"
        f"print(json.dumps({{**{json.dumps(answer)}, 'status': {{'token': token}}}}))\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    gate = start(api, tmp_path, user=user)
    token.write_text("renewed")
    api.token = "renewed"
    api.break_watches()
    heal(api)
    assert healthy(gate)


def test_credentials_that_stay_refused_end_the_wait_by_name(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RENEWAL", 2.0)
    gate = start(api, tmp_path)
    api.token = "another"
    api.break_watches()
    found = gate.verdict()
    assert found.code == "unauthorised"
    assert "right" not in found.sentence.replace("right now", "")


def test_a_wrong_token_is_said_at_once(api: FakeApi, tmp_path: Path) -> None:
    cluster = Cluster(ClusterAuth(kubeconfig=api.kubeconfig(tmp_path / "kubeconfig", user={"token": "wrong"})))
    with pytest.raises(Failure) as caught:
        Gate(cluster, [API], 60).run()
    assert caught.value.code == "unauthorised"


LACKING = waiting("CreateContainerConfigError", 'secret "x" not found')
PULLING = waiting("ErrImagePull", "dial tcp: i/o timeout")


@pytest.mark.parametrize("trouble", [LACKING, PULLING], ids=["lacking", "pulling"])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_network_that_is_cut_for_ten_seconds(api: FakeApi, tmp_path: Path, dropped: bool, trouble: Any) -> None:
    """What happens meanwhile arrives afterwards, and a grace that seems to have ended condemns nobody."""
    with Proxy(api.port) as proxy:
        gate = start(api, tmp_path, proxy.port, policy=Policy(config=4.0, image=4.0))
        api.put(pod(API, containerStatuses=[container(trouble)]))
        proxy.cut()
        if dropped:
            proxy.drop()
        heal(api)
        time.sleep(10)
        assert not gate.over
        proxy.mend()
        assert healthy(gate)


def forbid(*kinds: str) -> Callable[[Handler, str, dict[str, str]], bool]:
    def fault(handler: Handler, path: str, query: dict[str, str]) -> bool:
        if path.rpartition("/")[2] not in kinds:
            return False
        handler.refuse(403, "Forbidden", f"{path} is forbidden")
        return True

    return fault


def test_permissions_for_some_kinds_only(api: FakeApi, tmp_path: Path) -> None:
    api.fault = forbid("pods", "events", "replicasets", "persistentvolumeclaims", "storageclasses")
    gate = Running(Cluster(ClusterAuth(kubeconfig=api.kubeconfig(tmp_path / "kubeconfig"))))
    wait_until(lambda: watches(api) >= 1, 60)
    heal(api)
    assert healthy(gate)


def test_a_log_that_nobody_gives_out_does_not_hold_up_the_verdict(api: FakeApi, tmp_path: Path) -> None:
    def fault(handler: Handler, path: str, query: dict[str, str]) -> bool:
        if not path.endswith("/log"):
            return False
        handler.refuse(500, "InternalError", "Get https://10.0.0.1:10250: dial tcp: i/o timeout")
        return True

    api.fault = fault
    gate = start(api, tmp_path)
    api.put(pod(API, containerStatuses=[container(waiting("RunContainerError", "executable file not found"))]))
    found = gate.verdict()
    assert isinstance(found, GateFailed)
    assert found.code == "container_start"


def test_a_node_that_is_gone_does_not_hold_up_the_verdict(api: FakeApi, tmp_path: Path) -> None:
    released = threading.Event()

    def fault(handler: Handler, path: str, query: dict[str, str]) -> bool:
        # The API server waits for the kubelet.
        return path.endswith("/log") and released.wait(60)

    api.fault = fault
    gate = start(api, tmp_path)
    api.put(pod(API, phase="Running", containerStatuses=[crashing(5)]))
    found = gate.verdict()
    released.set()
    assert isinstance(found, GateFailed)
    assert found.code == "crash_loop"
