"""What goes wrong while a release is made or returned to: nothing is lost or done twice, and the record is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release.failing import handle
from ansible_collections.groundwork.platform.plugins.module_utils.release.rollout import Rollout
from tests.integration.test_release import SYSTEM, Shop, behave, healthy, manifests, wanted
from tests.support import kubelet
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import Kubelet, wait_until

ROOT = Path(__file__).resolve().parents[2]
MODULES = "ansible_collections.groundwork.platform.plugins.modules"
MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", True)


def maps(count: int, value: str = "1") -> list[Object]:
    """So many objects that applying them takes a while."""
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number:03}"}, "data": {"value": value}}
        for number in range(count)
    ]


def slow(version: str) -> Callable[[Object], dict[str, Any] | None]:
    """Pods get ready, except those of one version, which take their time."""
    good = healthy()

    def nodes(pod: Object) -> dict[str, Any] | None:
        image = str(pod["spec"]["containers"][0]["image"])
        return kubelet.running(pod) if image.endswith(f":{version}") else good(pod)

    return nodes


class Site(Shop):
    """A shop whose releases are made by processes that can be killed."""

    def __init__(self, plane: ControlPlane, cluster: Cluster, namespace: str, folder: Path, nodes: Kubelet) -> None:
        super().__init__(cluster, namespace)
        self.plane, self.folder, self.nodes = plane, folder, nodes

    def start(self, module: str, **options: Any) -> subprocess.Popen[str]:
        """A module in a process of its own."""
        given = {
            "name": SYSTEM, "namespace": self.namespace, "kubeconfig": str(self.plane.kubeconfig),
            "wait_timeout": 240, "lock_timeout": 240, **options,
        }  # fmt: skip
        arguments = self.folder / f"{module}-{len(list(self.folder.iterdir()))}.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        return subprocess.Popen(
            [sys.executable, "-m", f"{MODULES}.{module}", str(arguments)], text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def kill(self, victim: subprocess.Popen[str], moment: Callable[[], Any]) -> None:
        """Kill a process at a moment, and let its Lease run out."""
        try:
            wait_until(lambda: moment() or victim.poll() is not None, 120)
            assert victim.poll() is None, victim.communicate()[0]
        finally:
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
        spec = {"leaseDurationSeconds": 1}
        self.cluster.merge(LEASES, f"groundwork-release-{SYSTEM}", self.namespace, {"spec": spec})

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The result of a module."""
        said = process.communicate(timeout=240)[0]
        result: dict[str, Any] = json.loads(said)
        return result

    def pending(self, version: str) -> Any:
        """Whether a release of that version is under way whose pods have come."""
        images = {pod["spec"]["containers"][0]["image"] for pod in self.nodes.pods()}
        applied = self.image() == f"shop/api:{version}" and self.image() in images
        return applied and "pending" in self.outcomes().values()

    def generation(self) -> int:
        """How often the api's spec has been written."""
        live = self.get("apps/v1", "Deployment", "api")
        assert live is not None
        return int(live["metadata"]["generation"])


@pytest.fixture
def site(control_plane: ControlPlane, cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Site]:
    with Kubelet(cluster, namespace, healthy()) as nodes:
        yield Site(control_plane, cluster, namespace, tmp_path, nodes)


# Killed


@pytest.mark.parametrize("again", ["the same", "another"])
def test_killed_while_it_applies(site: Site, again: str) -> None:
    site.release([*manifests("1"), *maps(5)])
    second = [*manifests("2"), *maps(400)]
    site.kill(
        site.start("release", definition=second),
        lambda: len(site.cluster.list(MAPS, site.namespace).items) > 100,
    )
    assert site.outcomes() == {1: "deployed", 2: "pending"}
    if again == "the same":
        outcome = site.release(second)
        assert (outcome.number, outcome.action) == (2, "deployed")
        assert site.outcomes() == {1: "superseded", 2: "deployed"}
        written = site.cluster.list(MAPS, site.namespace).items
        assert len([item for item in written if item["metadata"]["name"].startswith("m")]) == 400
        assert site.generation() == 2
        return
    outcome = site.release([*manifests("3"), *maps(5)])
    assert (outcome.number, outcome.action) == (3, "deployed")
    assert site.outcomes() == {1: "superseded", 2: "failed", 3: "deployed"}
    assert site.store.list()[1].failure["code"] == "interrupted"
    left = {item["metadata"]["name"] for item in site.cluster.list(MAPS, site.namespace).items}
    assert {name for name in left if name.startswith("m")} == {f"m00{number}" for number in range(5)}


def test_killed_while_the_gate_watches(site: Site) -> None:
    site.release(manifests("1"))
    site.nodes.now_behave(slow("2"))
    site.kill(site.start("release", definition=manifests("2")), lambda: site.pending("2"))
    generation = site.generation()
    site.nodes.now_behave(healthy())
    outcome = site.release(manifests("2"))
    assert (outcome.number, outcome.action) == (2, "deployed")
    assert site.generation() == generation, "it was applied again"
    assert site.outcomes() == {1: "superseded", 2: "deployed"}
    assert site.release(manifests("2")).changed is False


def test_a_killed_return_is_tried_again_and_not_given_up(site: Site) -> None:
    site.release(manifests("1"))
    site.release(manifests("2"))
    site.nodes.now_behave(slow("1"))
    site.kill(site.start("rollback"), lambda: site.pending("1"))
    assert site.outcomes() == {1: "superseded", 2: "deployed", 3: "pending"}
    site.nodes.now_behave(healthy())
    back = site.ended(site.start("rollback"))
    assert (back["action"], back["restores"], back["number"]) == ("rolled_back", 1, 3), back
    assert site.image() == "shop/api:1"
    assert site.outcomes() == {1: "superseded", 2: "rolled_back", 3: "deployed"}


def test_a_return_that_failed_is_tried_again(site: Site) -> None:
    site.release(manifests("1"))
    site.release(manifests("2"))
    behave(site, ":1")
    with pytest.raises(Failure) as caught:
        site.releases().rollback()
    assert caught.value.code == "image_not_found"
    behave(site, "")
    assert site.releases().rollback().restores == 1
    assert site.outcomes() == {1: "superseded", 2: "rolled_back", 3: "failed", 4: "deployed"}


def test_killed_while_a_failed_release_goes_back(site: Site) -> None:
    site.release(manifests("1"))
    behave(site, ":2")
    failed = site.ended(site.start("release", definition=manifests("2")))
    assert failed["failure"]["release"] == 2
    site.nodes.now_behave(slow("1"))
    given = {"definition": manifests("2"), "state": "failed", "failure": failed}
    site.kill(site.start("release", **given), lambda: site.outcomes().get(3) == "pending" and site.pending("1"))
    assert site.outcomes() == {1: "deployed", 2: "failed", 3: "pending"}
    site.nodes.now_behave(healthy())
    back = site.ended(site.start("rollback"))
    assert back["restores"] == 1
    assert site.image() == "shop/api:1"
    assert site.outcomes() == {1: "superseded", 2: "rolled_back", 3: "deployed"}


def test_killed_between_the_outcome_and_what_it_supersedes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.release(manifests("1"))
    releases = site.releases()
    save = releases.store.save

    def killed(record: Any) -> Any:
        if record.number == 1:
            raise KeyboardInterrupt
        return save(record)

    monkeypatch.setattr(releases.store, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        releases.release(wanted(manifests("2")))
    assert site.outcomes() == {1: "deployed", 2: "deployed"}
    assert site.release(manifests("2")).changed is False
    assert site.releases().rollback().restores == 1
    assert site.outcomes() == {1: "superseded", 2: "rolled_back", 3: "deployed"}


# Two at once


def test_two_returns_at_once_go_back_once(site: Site) -> None:
    for version in ("1", "2", "3"):
        site.release(manifests(version))
    processes = [site.start("rollback") for _number in range(2)]
    results = [site.ended(process) for process in processes]
    assert sorted(result["action"] for result in results) == ["rolled_back", "unchanged"], results
    assert {result["restores"] for result in results} == {2}
    assert site.image() == "shop/api:2"
    assert site.outcomes() == {1: "superseded", 2: "superseded", 3: "rolled_back", 4: "deployed"}


def test_a_return_during_a_release_takes_that_release_back(site: Site) -> None:
    site.release(manifests("1"))
    site.nodes.now_behave(slow("2"))
    release = site.start("release", definition=manifests("2"))
    wait_until(lambda: site.pending("2"), 120)
    back = site.start("rollback")
    site.nodes.now_behave(healthy())
    assert site.ended(release)["action"] == "deployed"
    result = site.ended(back)
    assert result["restores"] == 1
    assert site.image() == "shop/api:1"


def test_a_return_from_what_nobody_has_seen_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.release(manifests("1"))
    site.release(manifests("2"))
    releases = site.releases()
    alone = releases._alone

    def later() -> Any:
        site.release(manifests("3"))
        return alone()

    monkeypatch.setattr(releases, "_alone", later)
    with pytest.raises(Failure) as caught:
        releases.rollback()
    assert caught.value.code == "concurrent_release"
    assert "3  deployed" in caught.value.evidence
    assert site.image() == "shop/api:3"


def test_two_releases_at_once_are_made_one_after_the_other(site: Site) -> None:
    site.release(manifests("1"))
    processes = [site.start("release", definition=manifests(version)) for version in ("2", "3")]
    results = [site.ended(process) for process in processes]
    assert sorted(result["number"] for result in results) == [2, 3], results
    last = max(results, key=lambda result: int(result["number"]))
    assert site.outcomes() == {1: "superseded", 2: "superseded", 3: "deployed"}
    assert site.image() == f"shop/api:{'23'[results.index(last)]}"


def test_a_failure_that_another_release_has_overtaken_takes_nothing_back(site: Site) -> None:
    site.release(manifests("1"))
    behave(site, ":2")
    with pytest.raises(Failure) as caught:
        site.release(manifests("2"))
    # Before the rescue of that play begins, another one has waited long enough.
    site.release(manifests("3"))
    handled = handle(site.releases(), wanted(manifests("2")), caught.value, "rollback")
    assert handled.number == 2
    assert "Another run has brought in release 3 since, which serves." in handled.sentence
    assert site.outcomes() == {1: "superseded", 2: "failed", 3: "deployed"}
    assert site.release(manifests("3")).changed is False


def test_a_run_whose_place_was_taken_writes_nothing_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.release(manifests("1"))
    releases, gate = site.releases(), Rollout.gate
    taken = threading.Event()

    def away(self: Rollout, *arguments: Any, **options: Any) -> Any:
        verdict = gate(self, *arguments, **options)
        if not taken.is_set():
            taken.set()
            # As if the machine had slept: its Lease runs out, and another run goes on with the same release.
            lock = releases._held
            assert lock is not None
            lock._renewed -= 1000
            name, spec = f"groundwork-release-{SYSTEM}", {"holderIdentity": ""}
            site.cluster.merge(LEASES, name, site.namespace, {"spec": spec})
            assert site.release(manifests("2")).number == 2
        return verdict

    monkeypatch.setattr(Rollout, "gate", away)
    with pytest.raises(Failure) as caught:
        releases.release(wanted(manifests("2")))
    assert caught.value.code == "lock_lost"
    assert handle(site.releases(), wanted(manifests("2")), caught.value, "rollback").action == "kept"
    assert site.outcomes() == {1: "superseded", 2: "deployed"}


# The API server


def test_the_api_server_restarts_while_the_gate_watches_and_while_a_return_is_made(site: Site) -> None:
    site.release(manifests("1"))
    site.nodes.now_behave(slow("2"))
    process = site.start("release", definition=manifests("2"))
    wait_until(lambda: site.pending("2"), 120)
    site.plane.kill("kube-apiserver")
    site.plane.revive()
    site.nodes.now_behave(healthy())
    result = site.ended(process)
    assert (result["action"], result["gate"]["verdict"]) == ("deployed", "healthy"), result
    assert site.outcomes() == {1: "superseded", 2: "deployed"}
    site.nodes.now_behave(slow("1"))
    back = site.start("rollback")
    wait_until(lambda: site.pending("1"), 120)
    site.plane.kill("kube-apiserver")
    site.plane.revive()
    site.nodes.now_behave(healthy())
    assert site.ended(back)["restores"] == 1
    assert site.outcomes() == {1: "superseded", 2: "rolled_back", 3: "deployed"}
    assert site.image() == "shop/api:1"


# Somebody else


def test_somebody_else_changes_an_object_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.release(manifests("1"))
    gate = Rollout.gate

    def meddling(self: Rollout, *arguments: Any, **options: Any) -> Any:
        verdict = gate(self, *arguments, **options)
        patch = {"metadata": {"annotations": {"seen": "by me"}}, "data": {"theirs": "x"}}
        site.cluster.merge(MAPS, "settings", site.namespace, patch, field_manager="somebody")
        return verdict

    monkeypatch.setattr(Rollout, "gate", meddling)
    assert site.release(manifests("2")).action == "deployed"
    monkeypatch.undo()
    live = site.get("v1", "ConfigMap", "settings")
    assert live is not None
    assert live["data"] == {"version": "2", "theirs": "x"}
    assert site.release(manifests("2")).changed is False
    assert site.outcomes() == {1: "superseded", 2: "deployed"}
