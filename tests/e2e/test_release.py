"""Releases on the whole cluster: what fails goes back by itself, and nobody's request is lost to any of it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record, Store
from tests.support.deployment import NAMESPACE, Deployment, Run, eventually

SYSTEM = "medical_inventory"
ONE = f"--limit={SYSTEM}"


class Load:
    """Requests through the proxy to the api and its database, for as long as something is done."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        photograph, _truth = deployment.photograph(seed=time.monotonic_ns() % 2**31, items=2)
        self.path = f"/detections/{deployment.http('/detections', photograph).json['id']}"
        self.sent = 0
        self.lost: list[tuple[float, str]] = []
        self._done = threading.Event()

    @contextlib.contextmanager
    def on(self) -> Iterator[Load]:
        """While the block runs."""
        threads = [threading.Thread(target=self._send) for _number in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def _send(self) -> None:
        while not self._done.wait(0.05):
            try:
                status = self.deployment.http(self.path).status
                problem = "" if status == 200 else f"status {status}"
            except OSError as error:
                problem = str(error)
            self.sent += 1
            if problem:
                self.lost.append((time.time(), problem))


@pytest.fixture
def store(deployment: Deployment) -> Iterator[Store]:
    """The record, read by the collection's own code."""
    context = yaml.safe_load(deployment.kubeconfig.read_text())["contexts"][0]["name"]
    cluster = Cluster(ClusterAuth(kubeconfig=str(deployment.kubeconfig), context=context))
    yield Store(cluster, NAMESPACE, SYSTEM)
    cluster.close()


@pytest.fixture(scope="module", autouse=True)
def as_declared(deployment: Deployment) -> Iterator[None]:
    """Every test begins with whatever the one before left; at the end the declared release serves."""
    deployment.play("site.yml", ONE)
    yield
    deployment.play("site.yml", ONE)
    assert deployment.play("site.yml", ONE).changed == 0


def released(deployment: Deployment, expect: int = 0, **overrides: Any) -> Run:
    run = deployment.play("site.yml", ONE, f"--extra-vars={json.dumps({'system_overrides': overrides})}", expect=expect)
    print(f"{overrides}: {run.recap} in {run.seconds:.0f} s")
    return run


def serving(store: Store) -> Record:
    record = store.current()
    assert record is not None
    return record


def words(run: Run) -> str:
    return " ".join(run.output.split())


def test_the_declared_release_is_recorded(deployment: Deployment, store: Store) -> None:
    record = store.load(serving(store))
    assert record.gate["verdict"] == "healthy"
    assert record.collection
    assert record.source.startswith("sha256:")
    api = next(obj for obj in record.objects() if obj["kind"] == "Deployment" and obj["metadata"]["name"] == "api")
    image = api["spec"]["template"]["spec"]["containers"][0]["image"]
    assert record.images[image].startswith("sha256:")
    secrets = deployment.secret_values()
    text = json.dumps([record.summary(), record.stages])
    assert not [value for value in secrets if value in text], "a secret is in the record"
    history = deployment.play("playbooks/history.yml", ONE)
    assert f"{record.number} deployed" in words(history)


def test_a_broken_image_goes_back_by_itself(deployment: Deployment, store: Store) -> None:
    before = serving(store)
    images = {pod["spec"]["containers"][0]["image"] for pod in deployment.pods("api")}
    load = Load(deployment)
    with load.on():
        # The api rolls well and has to be taken back; the other one never starts.
        run = released(
            deployment,
            expect=2,
            components={"api": {"env": {"E2E": "bad"}}, "websocket": {"image": "medical-inventory/api:not-there"}},
        )
    said = words(run)
    assert f"release {before.number} serves again" in said, run.output[-4000:]
    assert {pod["spec"]["containers"][0]["image"] for pod in deployment.pods("api")} == images
    names = {item["name"] for pod in deployment.pods("api") for item in pod["spec"]["containers"][0]["env"]}
    assert "E2E" not in names
    print(f"{load.sent} requests, lost: {load.lost}")
    assert load.sent > 50
    assert load.lost == []
    assert serving(store).restores == before.number
    assert deployment.play("site.yml", ONE).changed == 0, "what the files say is what was gone back to"


def test_the_rollback_playbook(deployment: Deployment, store: Store) -> None:
    before = serving(store)
    released(deployment, components={"api": {"env": {"E2E": "good"}}})
    planned = deployment.play("playbooks/rollback.yml", ONE, "--check", "--diff")
    assert "E2E" in planned.output
    load = Load(deployment)
    with load.on():
        run = deployment.play("playbooks/rollback.yml", ONE)
    print(f"rollback: {run.recap} in {run.seconds:.0f} s, {load.sent} requests, lost: {load.lost}")
    assert serving(store).effective == before.effective
    assert load.lost == []
    names = {item["name"] for pod in deployment.pods("api") for item in pod["spec"]["containers"][0]["env"]}
    assert "E2E" not in names


def test_a_return_that_the_schema_forbids_is_refused(deployment: Deployment, store: Store) -> None:
    before = serving(store)
    # The same image by another name: to return is to bring other images back, and then the schema counts.
    image = deployment.pods("websocket")[0]["spec"]["containers"][0]["image"].replace("@", ":e2e@")
    released(deployment, components={"websocket": {"image": image}})
    newer, older = serving(store), next(item for item in store.list() if item.number == before.number)
    now = newer.schema["revision"]
    # The database itself is asked where it is, and the record how it got there.
    played = (
        (older, {**older.schema, "revision": "e2e"}),
        (newer, {**newer.schema, "revision_before": "e2e", "action": "run", "destructive": ["DROP TABLE detections"],
                 "restore_point": "dump-e2e"}),
    )  # fmt: skip
    were = [dict(record.schema) for record, _schema in played]
    for record, schema in played:
        record.schema = schema
        store.save(record)
    try:
        said = words(
            deployment.play("playbooks/rollback.yml", ONE, f"--extra-vars=rollback_to={before.number}", expect=2)
        )
        assert f"brought it to revision {now} by DROP TABLE detections" in said
        assert "dump-e2e" in said
        assert serving(store).number == newer.number
    finally:
        for (record, _schema), was in zip(played, were, strict=True):
            record.schema = was
            store.save(record)


@pytest.mark.parametrize(
    "strategy", [{"type": "blue_green", "keep_old": "5s"}, {"type": "canary", "steps": [50, 100], "pause": "5s"}]
)
def test_strategies_of_the_api(deployment: Deployment, strategy: dict[str, Any]) -> None:
    kind = strategy["type"]
    released(deployment, components={"api": {"strategy": strategy}})
    load = Load(deployment)
    with load.on():
        run = released(deployment, components={"api": {"strategy": strategy, "env": {"E2E": kind}}})
        failed = released(
            deployment, expect=2,
            components={"api": {"strategy": strategy, "env": {"E2E": "bad"}, "health": {"ready": "/not-there"},
                                "image": "medical-inventory/api:not-there"}},
            migration={"component": "websocket"},
        )  # fmt: skip
    print(f"{kind}: {load.sent} requests, lost: {load.lost}")
    assert "serves again" in words(failed) or "goes on serving" in words(failed), failed.output[-4000:]
    assert load.lost == []
    names = {
        (item["name"], item.get("value"))
        for pod in deployment.pods("api")
        for item in pod["spec"]["containers"][0]["env"]
    }
    assert ("E2E", kind) in names
    assert run.changed >= 1
    assert released(deployment, components={"api": {"strategy": strategy, "env": {"E2E": kind}}}).changed == 0
    workloads = {item["metadata"]["name"]: item["spec"]["replicas"] for item in deployment.get("deployments")}
    print(workloads)
    if kind == "blue_green":
        assert sorted(count > 0 for name, count in workloads.items() if name in ("api-blue", "api-green")) == [
            False,
            True,
        ]
    else:
        assert "api-canary" not in workloads
    eventually("the api answers", lambda: deployment.http("/readyz").status == 200)
