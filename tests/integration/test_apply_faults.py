"""What goes wrong while a batch is applied: nothing is lost, nothing applied twice, nothing said that is not so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.apply.prune import KINDS, PART_OF
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import wait_until

ROOT = Path(__file__).resolve().parents[2]
MODULE = "ansible_collections.groundwork.platform.plugins.modules.apply"
MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", True)
SECRETS = Resource("", "v1", "Secret", "secrets", True)


def batch(maps: int, deployments: int = 0, value: str = "1") -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number:04}"}, "data": {"value": value}}
        for number in range(maps)
    ]
    for number in range(deployments):
        labels = {"app": f"d{number}"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": f"app:{value}"}]}}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        objects.append(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"d{number}"}, "spec": spec}
        )
    return objects


def check(cluster: Cluster, namespace: str, maps: int, deployments: int = 0, value: str = "1") -> None:
    """All of the batch is there, once, and was written once."""
    found = [obj for obj in cluster.list(MAPS, namespace).items if obj["metadata"]["name"].startswith("m")]
    assert len(found) == maps
    assert {obj["data"]["value"] for obj in found} == {value}
    assert {len(obj["metadata"]["managedFields"]) for obj in found} == {1}
    # Each write of a spec counts one up.
    generations = [obj["metadata"]["generation"] for obj in cluster.list(DEPLOYMENTS, namespace).items]
    assert generations == [1] * deployments


def test_the_api_server_is_killed_in_the_middle_of_a_thousand_objects(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    apply, written, lock = cluster.apply, [0], threading.Lock()

    def counting(*arguments: Any, dry_run: bool = False, **options: Any) -> Any:
        with lock:
            written[0] += not dry_run
            kill = written[0] == 300 and not dry_run
        if kill:
            control_plane.kill("kube-apiserver")
            threading.Thread(target=control_plane.revive).start()
        return apply(*arguments, dry_run=dry_run, **options)

    cluster.apply = counting  # type: ignore[method-assign]
    items = Applier(cluster, namespace).run(batch(980, 20))
    assert {item.action for item in items} == {"created"}
    check(cluster, namespace, 980, 20)
    wait_until(lambda: control_plane_is_ready(control_plane))
    assert {item.action for item in Applier(cluster, namespace).run(batch(980, 20))} == {"unchanged"}


def control_plane_is_ready(plane: ControlPlane) -> bool:
    plane.wait_ready()
    return True


def test_an_api_server_that_stays_away_is_said_once_and_soon(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    """Patience counts for the server, not again for each of many objects."""
    impatient = Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)), patience=1)
    apply, gone = impatient.apply, threading.Event()

    def killing(*arguments: Any, dry_run: bool = False, **options: Any) -> Any:
        if not dry_run and not gone.is_set():
            gone.set()
            control_plane.kill("kube-apiserver")
        return apply(*arguments, dry_run=dry_run, **options)

    impatient.apply = killing  # type: ignore[method-assign]
    try:
        with pytest.raises(Failure) as caught:
            Applier(impatient, namespace, patience=1).run(batch(200))
    finally:
        control_plane.revive()
    assert caught.value.code == "unreachable"
    assert "of the 200 objects of this step are written" in caught.value.evidence
    tried = impatient.transport.requests
    assert tried < 200 + 100
    Applier(cluster, namespace).run(batch(200))
    check(cluster, namespace, 200)


class Process:
    """The module in a process of its own."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._plane, self._namespace, self._folder = plane, namespace, folder

    def start(self, objects: list[dict[str, Any]], **options: Any) -> subprocess.Popen[str]:
        given = {
            "definition": objects, "namespace": self._namespace, "kubeconfig": str(self._plane.kubeconfig), **options
        }  # fmt: skip
        arguments = self._folder / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(arguments)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, objects: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        process = self.start(objects, **options)
        said = process.communicate()[0]
        assert process.returncode == 0, said
        result: dict[str, Any] = json.loads(said)
        return result


@pytest.fixture
def process(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Process:
    return Process(control_plane, namespace, tmp_path)


def test_a_killed_process_loses_nothing_and_a_rerun_goes_on(cluster: Cluster, namespace: str, process: Process) -> None:
    of_set = {"apply_set": {"name": "shop"}, "prune": True}
    process.run(batch(20), **of_set)
    larger = [obj for obj in batch(600, 20) if obj["metadata"]["name"] != "m0007"]
    victim = process.start(larger, **of_set)
    wait_until(lambda: len(cluster.list(MAPS, namespace, labels=PART_OF).items) > 100, 60)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    there = {obj["metadata"]["name"] for obj in cluster.list(MAPS, namespace, labels=PART_OF).items}
    assert "m0007" in there
    parent = cluster.get(SECRETS, "shop", namespace)
    assert parent is not None
    assert parent["metadata"]["annotations"][KINDS] == "ConfigMap,Deployment.apps"
    done = process.run(larger, **of_set)
    assert [item["name"] for item in done["pruned"]] == ["m0007"]
    actions = {item["name"]: item["action"] for item in done["objects"]}
    assert {actions[name] for name in there if name in actions} == {"unchanged"}
    check(cluster, namespace, 599, 20)
    assert process.run(larger, **of_set)["changed"] is False


def test_two_runs_at_once(control_plane: ControlPlane, cluster: Cluster, namespace: str) -> None:
    outcomes: list[Any] = []

    def run() -> None:
        own = Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)))
        try:
            outcomes.append({item.action for item in Applier(own, namespace).run(batch(280, 20))})
        except Failure as failure:
            outcomes.append(failure)

    threads = [threading.Thread(target=run) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(outcome <= {"created", "changed", "unchanged"} for outcome in outcomes)
    check(cluster, namespace, 280, 20)


class SilentWebhook:
    """Takes connections and never answers."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._name = cluster, namespace
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._hooks = cluster.resource("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration")
        rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]
        hook = {
            "name": "silent.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 1,
            "clientConfig": {"url": f"https://127.0.0.1:{self._socket.getsockname()[1]}/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "rules": rules,
        }  # fmt: skip
        cluster.create(
            self._hooks,
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": namespace},
                "webhooks": [hook],
            },
        )
        wait_until(lambda: not self._admits())

    def _admits(self) -> bool:
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": self._name}}
        try:
            self._cluster.apply(MAPS, probe, dry_run=True)
        except Failure:
            return False
        return True

    def end(self) -> None:
        self._cluster.delete(self._hooks, self._name)
        self._socket.close()


@pytest.fixture
def webhook(cluster: Cluster, namespace: str) -> Iterator[SilentWebhook]:
    silent = SilentWebhook(cluster, namespace)
    yield silent
    silent.end()


def test_a_webhook_that_hangs_is_given_up_once_for_all(
    cluster: Cluster, namespace: str, webhook: SilentWebhook
) -> None:
    began = cluster.transport.requests
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace, patience=2).run(batch(300))
    assert caught.value.code == "webhook_unavailable"
    assert "0 of the 300 objects of this step are written" in caught.value.evidence
    # Its patience is for the webhook: of 300 objects, most were not held up by it one after the other.
    assert cluster.transport.requests - began < 300 * 3
    assert [
        obj["metadata"]["name"] for obj in cluster.list(MAPS, namespace).items if obj.get("data") == {"value": "1"}
    ] == []


def test_a_webhook_that_comes_back_holds_nothing_up_for_ever(
    cluster: Cluster, namespace: str, webhook: SilentWebhook
) -> None:
    threading.Timer(3, webhook.end).start()
    items = Applier(cluster, namespace, patience=60).run(batch(40))
    assert {item.action for item in items} == {"created"}
    check(cluster, namespace, 40)


def test_objects_changed_by_others_meanwhile(control_plane: ControlPlane, cluster: Cluster, namespace: str) -> None:
    """What others set beside ours stays, and is no change of ours."""
    Applier(cluster, namespace).run(batch(200))
    stop, other = threading.Event(), Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)))
    touched: list[str] = []

    def meddle() -> None:
        number = 0
        while not stop.is_set():
            name = f"m{number % 200:04}"
            other.merge(MAPS, name, namespace, {"data": {"theirs": "x"}}, field_manager="somebody")
            touched.append(name)
            number += 7
            time.sleep(0)

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        items = Applier(cluster, namespace).run(batch(200, value="2"))
    finally:
        stop.set()
        thread.join()
    assert {item.action for item in items} == {"changed"}
    found = {obj["metadata"]["name"]: obj["data"] for obj in cluster.list(MAPS, namespace).items}
    assert {found[item.obj["metadata"]["name"]]["value"] for item in items} == {"2"}
    assert touched
    assert {found[name]["theirs"] for name in touched} == {"x"}
    assert {item.action for item in Applier(cluster, namespace).run(batch(200, value="2"))} == {"unchanged"}


def test_objects_deleted_by_others_meanwhile(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run(batch(50))
    apply, deleted = cluster.apply, []

    def deleting(
        resource: Resource, obj: dict[str, Any], *arguments: Any, dry_run: bool = False, **options: Any
    ) -> Any:
        if not dry_run and obj["metadata"]["name"] == "m0001" and not deleted:
            deleted.append(True)
            cluster.delete(MAPS, "m0001", namespace)
        return apply(resource, obj, *arguments, dry_run=dry_run, **options)

    cluster.apply = deleting  # type: ignore[method-assign]
    Applier(cluster, namespace).run(batch(50, value="2"))
    assert deleted
    check(cluster, namespace, 50, value="2")


def test_requests_of_a_large_batch_with_nothing_to_do(cluster: Cluster, namespace: str) -> None:
    """Requests of a run with nothing to do do not grow with the objects, but with the pages of their list."""
    objects = batch(2000)
    Applier(cluster, namespace).run(objects)
    before = cluster.transport.requests
    items = Applier(cluster, namespace).run(objects)
    assert {(item.action, item.checked) for item in items} == {("unchanged", "fields")}
    assert {item.live is None and item.result is None for item in items} == {True}
    assert cluster.transport.requests - before <= 2000 / 500 + 10
