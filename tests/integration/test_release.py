"""Releases on a real API server with its controllers; the kubelet is simulated."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.release import record as records
from ansible_collections.groundwork.platform.plugins.module_utils.release.engine import Outcome, Releases, Wanted
from ansible_collections.groundwork.platform.plugins.module_utils.release.failing import handle
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record, Store
from ansible_collections.groundwork.platform.plugins.module_utils.release.rollout import DEPLOYMENTS, Settings
from tests.support import kubelet
from tests.support.kubelet import Kubelet, wait_until

SECRET = "recognisable-hunter2"
SYSTEM = "shop"
SERVICES = "v1", "Service"


def manifests(version: str, replicas: int | None = 2, **settings: str) -> list[Object]:
    """A shop: an api with its Service and settings."""
    count = f"replicas: {replicas}" if replicas is not None else ""
    objects = load(f"""
kind: ConfigMap
apiVersion: v1
metadata: {{name: settings}}
data: {{version: "{version}"}}
---
kind: Deployment
apiVersion: apps/v1
metadata: {{name: api}}
spec:
  {count}
  selector: {{matchLabels: {{app: api}}}}
  template:
    metadata: {{labels: {{app: api}}}}
    spec:
      containers: [{{name: api, image: "shop/api:{version}", ports: [{{name: http, containerPort: 8000}}]}}]
---
kind: Service
apiVersion: v1
metadata: {{name: api}}
spec: {{selector: {{app: api}}, ports: [{{port: 80, targetPort: http}}]}}
""")
    for name, value in settings.items():
        container = objects[1]["spec"]["template"]["spec"]["containers"][0]
        container.setdefault("env", []).append({"name": name, "value": value})
    return objects


def wanted(objects: list[Object], **more: Any) -> Wanted:
    return Wanted({"components": objects}, **more)


def healthy(broken: str = "") -> Callable[[Object], dict[str, Any] | None]:
    """Pods get ready, except those of one version, whose image is not there."""
    missing = kubelet.waiting("ErrImagePull", "not found")

    def behave(pod: Object) -> dict[str, Any] | None:
        image = pod["spec"]["containers"][0]["image"]
        return missing(pod) if broken and image.endswith(broken) else kubelet.ready(pod)

    return behave


class Shop:
    """The releases of one test's namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def releases(self, check_mode: bool = False, **settings: Any) -> Releases:
        return Releases(
            self.cluster,
            self.namespace,
            SYSTEM,
            Settings(Options(timeout=240, **settings)),
            check_mode=check_mode,
            lock_timeout=240,
        )

    def release(self, objects: list[Object], **more: Any) -> Outcome:
        return self.releases().release(wanted(objects, **more))

    @property
    def store(self) -> Store:
        return Store(self.cluster, self.namespace, SYSTEM)

    def outcomes(self) -> dict[int, str]:
        return {item.number: item.outcome for item in self.store.list()}

    def get(self, api_version: str, kind: str, name: str) -> Object | None:
        return self.cluster.get(self.cluster.resource(api_version, kind), name, self.namespace)

    def image(self, name: str = "api") -> str:
        live = self.cluster.get(DEPLOYMENTS, name, self.namespace)
        assert live is not None
        return str(live["spec"]["template"]["spec"]["containers"][0]["image"])

    def replicas(self, name: str) -> int | None:
        live = self.cluster.get(DEPLOYMENTS, name, self.namespace)
        return int(live["spec"]["replicas"]) if live else None

    def selector(self, name: str = "api") -> dict[str, str]:
        live = self.get("v1", "Service", name)
        assert live is not None
        return dict(live["spec"]["selector"])

    def secrets(self) -> list[Object]:
        return self.cluster.list(records.SECRETS, self.namespace).items


@pytest.fixture
def shop(cluster: Cluster, namespace: str) -> Iterator[Shop]:
    with Kubelet(cluster, namespace, healthy()) as nodes:
        made = Shop(cluster, namespace)
        made.nodes = nodes  # type: ignore[attr-defined]
        yield made


def behave(shop: Shop, broken: str) -> None:
    shop.nodes.now_behave(healthy(broken))  # type: ignore[attr-defined]


def test_a_release_is_recorded_once(shop: Shop) -> None:
    first = shop.release(manifests("1"), schema={"revision": "a1", "action": "run", "destructive": []}, source="abc")
    assert (first.number, first.action, first.changed) == (1, "deployed", True)
    before = [(item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in shop.secrets()]
    again = shop.release(manifests("1"))
    assert (again.number, again.action, again.changed) == (1, "unchanged", False)
    assert [(item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in shop.secrets()] == before
    (record,) = shop.store.list()
    assert record.outcome == "deployed"
    assert record.schema["revision"] == "a1"
    assert record.source == "abc"
    assert record.by["user"]
    assert record.gate["verdict"] == "healthy"
    assert {item["object"].split()[0] for item in record.gate["objects"]} == {"ConfigMap", "Deployment", "Service"}
    head = next(item for item in shop.secrets() if item["metadata"]["name"] == "groundwork-release-shop-1")
    assert head["metadata"]["labels"]["groundwork.platform/outcome"] == "deployed"
    placed = [{**obj, "metadata": {**obj["metadata"], "namespace": shop.namespace}} for obj in manifests("1")]
    assert shop.store.load(record).stages == {"components": placed}


def test_check_mode_writes_nothing_and_is_right(shop: Shop) -> None:
    planned = shop.releases(check_mode=True).release(wanted(manifests("1")))
    assert (planned.number, planned.action, planned.changed) == (1, "deployed", True)
    assert shop.secrets() == []
    assert shop.get("v1", "ConfigMap", "settings") is None
    shop.release(manifests("1"))
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}, "data": {"a": "b"}}
    shop.release([*manifests("1"), extra])
    planned = shop.releases(check_mode=True).release(wanted(manifests("2")))
    assert (planned.number, planned.action) == (3, "deployed")
    assert [item.name.split("/")[-1] for item in planned.removed] == ["extra"]
    assert shop.get("v1", "ConfigMap", "extra") is not None
    same = shop.releases(check_mode=True).release(wanted([*manifests("1"), extra]))
    assert (same.number, same.changed) == (2, False)
    back = shop.releases(check_mode=True).rollback()
    assert (back.action, back.restores) == ("rolled_back", 1)
    assert shop.outcomes() == {1: "superseded", 2: "deployed"}


def test_a_rollback_brings_back_and_removes(shop: Shop) -> None:
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}, "data": {"a": "b"}}
    new = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"a": "b"}}
    claim = load("""
kind: PersistentVolumeClaim
apiVersion: v1
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}
""")
    shop.release([*manifests("1"), old])
    assert shop.get("v1", "ConfigMap", "old") is not None
    applied = shop.releases().release(Wanted({"foundation": [], "components": [*manifests("2"), new]}))
    assert [item.name.split("/")[-1] for item in applied.removed] == ["old"]
    assert shop.image() == "shop/api:2"
    for one in claim:
        shop.cluster.apply(
            shop.cluster.resource("v1", "PersistentVolumeClaim"),
            {**one, "metadata": {**one["metadata"], "namespace": shop.namespace}},
        )
    back = shop.releases().rollback()
    assert (back.number, back.restores, back.action) == (3, 1, "rolled_back")
    assert shop.image() == "shop/api:1"
    assert shop.get("v1", "ConfigMap", "old") is not None
    assert shop.get("v1", "ConfigMap", "new") is None
    assert shop.get("v1", "PersistentVolumeClaim", "data") is not None
    assert shop.outcomes() == {1: "superseded", 2: "rolled_back", 3: "deployed"}
    # The files of release 1 are what serves: nothing is left to do.
    assert shop.release([*manifests("1"), old]).changed is False
    with pytest.raises(Failure) as caught:
        shop.releases().rollback()
    assert caught.value.code == "no_release"
    again = shop.releases().rollback(to=2)
    assert shop.image() == "shop/api:2"
    assert (again.number, again.restores) == (4, 2)


def test_what_belongs_to_the_data_is_left_alone_by_a_rollback(shop: Shop) -> None:
    def setup(name: str, image: str) -> Object:
        return load(f"""
kind: Job
apiVersion: batch/v1
metadata: {{name: {name}, annotations: {{groundwork.platform/on-rollback: stays}}}}
spec:
  suspend: true
  template: {{spec: {{restartPolicy: Never, containers: [{{name: setup, image: "{image}"}}]}}}}
""")[0]

    def jobs() -> set[str]:
        found = shop.cluster.list(shop.cluster.resource("batch/v1", "Job"), shop.namespace).items
        return {job["metadata"]["name"] for job in found}

    shop.release([*manifests("1"), setup("first", "setup:1"), setup("common", "setup:1")])
    shop.release([*manifests("2"), setup("second", "setup:2"), setup("common", "setup:1")])
    assert jobs() == {"second", "common"}
    shop.releases().rollback()
    assert shop.image() == "shop/api:1"
    assert jobs() == {"common"}, "the first one would bring the data back to what it was"


def test_a_failed_release_goes_back_by_itself(shop: Shop) -> None:
    shop.release(manifests("1"))
    behave(shop, ":2")
    with pytest.raises(Failure) as caught:
        shop.release(manifests("2"))
    assert shop.outcomes() == {1: "deployed", 2: "failed"}
    handled = handle(shop.releases(), wanted(manifests("2")), caught.value, "rollback")
    assert handled.action == "rolled_back", handled.sentence
    assert handled.sentence.startswith(caught.value.sentence)
    assert "release 1 serves again, recorded as release 3" in handled.sentence
    assert shop.image() == "shop/api:1"
    assert shop.outcomes() == {1: "superseded", 2: "rolled_back", 3: "deployed"}
    assert shop.store.list()[1].failure["code"] == "image_not_found"


def test_a_first_release_is_kept(shop: Shop) -> None:
    behave(shop, ":1")
    with pytest.raises(Failure) as caught:
        shop.release(manifests("1"))
    handled = handle(shop.releases(), wanted(manifests("1")), caught.value, "rollback")
    assert handled.action == "kept"
    assert "no earlier good one" in handled.sentence
    assert shop.outcomes() == {1: "failed"}
    behave(shop, "")
    assert shop.release(manifests("1")).number == 2


def test_a_schema_that_forbids_it_keeps_and_says_so(shop: Shop) -> None:
    shop.release(manifests("1"), schema={"revision": "a", "action": "run", "destructive": []})
    behave(shop, ":2")
    schema = {"revision": "b", "action": "run", "destructive": ["DROP COLUMN price"], "restore_point": "dump-7"}
    with pytest.raises(Failure) as caught:
        shop.release(manifests("2"), schema=schema)
    handled = handle(shop.releases(), wanted(manifests("2"), schema=schema), caught.value, "rollback")
    assert handled.action == "kept"
    assert "DROP COLUMN price" in handled.sentence
    assert "dump-7" in handled.sentence
    assert shop.image() == "shop/api:2"
    with pytest.raises(Failure) as caught:
        shop.releases().rollback(to=1)
    assert caught.value.code == "schema_newer"


def test_a_paused_release_goes_on_with_the_next(shop: Shop) -> None:
    shop.release(manifests("1"))
    behave(shop, ":2")
    with pytest.raises(Failure) as caught:
        shop.release(manifests("2"))
    handled = handle(shop.releases(), wanted(manifests("2")), caught.value, "pause")
    assert handled.action == "paused"
    assert "kubectl --namespace" in handled.sentence
    live = shop.cluster.get(DEPLOYMENTS, "api", shop.namespace)
    assert live and live["spec"]["paused"] is True
    behave(shop, "")
    shop.release(manifests("3"))
    live = shop.cluster.get(DEPLOYMENTS, "api", shop.namespace)
    assert live and not live["spec"].get("paused")
    assert shop.image() == "shop/api:3"


def test_a_failure_before_the_components_is_recorded_and_returned_from(shop: Shop) -> None:
    shop.release(manifests("1"))
    failure = Failure("migration_failed", "Job shop/migrate-1", "failed")
    unknown = {"action": "failed"}
    handled = handle(shop.releases(), wanted(manifests("2"), schema=unknown), failure, "rollback")
    # The images that run stay as they are, so the schema is no question.
    assert handled.action == "rolled_back"
    assert "goes on serving" in handled.sentence
    assert shop.outcomes() == {1: "deployed", 2: "failed"}
    assert shop.release(manifests("2")).number == 3


def test_what_judged_nothing_changes_nothing(shop: Shop) -> None:
    shop.release(manifests("1"))
    failure = Failure("unreachable", "API server", "does not answer")
    handled = handle(shop.releases(), wanted(manifests("2")), failure, "rollback")
    assert (handled.action, handled.number) == ("kept", 0)
    assert shop.outcomes() == {1: "deployed"}


def test_nothing_secret_is_recorded(shop: Shop) -> None:
    secret = load(f"kind: Secret\napiVersion: v1\nmetadata: {{name: s}}\nstringData: {{password: {SECRET}-1}}")
    objects = [
        *manifests("1", DB_PASSWORD=f"{SECRET}-2", URL=f"postgres://user:{SECRET}-3@db/x"),
        *secret,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "annotations": {}},
         "data": {"api_token": f"{SECRET}-4", "file": f"a = 1\nurl = https://me:{SECRET}-5@host/\n"}},
    ]  # fmt: skip
    shop.release(objects)
    shop.release([*manifests("2"), *objects[3:]])
    back = shop.releases
    with pytest.raises(Failure) as caught:
        back().rollback()
    assert caught.value.code == "sealed_value"
    assert SECRET not in caught.value.sentence
    shop.release([*manifests("3", DB_PASSWORD=f"{SECRET}-2", URL=f"postgres://user:{SECRET}-3@db/x"), *objects[3:]])
    outcome = back().rollback(to=1)
    assert shop.image() == "shop/api:1"
    container = shop.cluster.get(DEPLOYMENTS, "api", shop.namespace)["spec"]["template"]["spec"]["containers"][0]  # type: ignore[index]
    assert {item["name"]: item["value"] for item in container["env"]} == {
        "DB_PASSWORD": f"{SECRET}-2", "URL": f"postgres://user:{SECRET}-3@db/x"
    }  # fmt: skip
    texts = [json.dumps([item.summary(), shop.store.load(item).stages]) for item in shop.store.list()]
    texts += [
        base64.b64decode(value).decode("latin-1")
        for item in shop.secrets()
        if item["metadata"]["name"].startswith("groundwork-release")
        for value in item["data"].values()
    ]
    texts.append(json.dumps([item.report() for item in outcome.brought.objects()]))
    encoded = base64.b64encode(SECRET.encode()).decode()[:-4]
    for text in texts:
        assert SECRET not in text
        assert encoded not in text


def test_three_megabytes_are_split_and_read_again(shop: Shop) -> None:
    """Text that does not compress well, so that the record has several parts of their full size."""
    objects: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"c{number}"},
            "data": {"text": base64.b64encode(random.Random(number).randbytes(600_000)).decode()},  # noqa: S311
        }
        for number in range(4)
    ]
    assert len(json.dumps(objects)) > 3_000_000
    store = Store(shop.cluster, shop.namespace, "big")
    big = store.begin(Record(number=1, content="x", stages={"components": objects}, started="now"))
    assert len(big.parts) > 3
    (read,) = store.list()
    assert store.load(read).stages == {"components": objects}
    shop.cluster.delete(records.SECRETS, big.parts[1], shop.namespace)
    (read,) = store.list()
    with pytest.raises(Failure) as caught:
        store.load(read)
    assert caught.value.code == "record_damaged"


def test_a_run_killed_between_parts_leaves_the_old_record(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(shop.cluster, shop.namespace, "big")
    first = store.begin(Record(number=1, content="a", stages={"components": manifests("1")}, started="1"))
    first.outcome = "deployed"
    store.finish(first)
    written = []
    create = shop.cluster.create

    def killed(resource: Any, obj: Object, dry_run: bool = False) -> Object:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(obj["metadata"]["name"])
        return create(resource, obj, dry_run)

    monkeypatch.setattr(records, "split", lambda data: [data[:50], data[50:100], data[100:]])
    monkeypatch.setattr(shop.cluster, "create", killed)
    with pytest.raises(KeyboardInterrupt):
        store.begin(Record(number=2, content="b", stages={"components": manifests("2")}, started="2"))
    monkeypatch.undo()
    assert [(item.number, item.outcome) for item in store.list()] == [(1, "deployed")]
    second = store.begin(Record(number=2, content="c", stages={"components": manifests("3")}, started="3"))
    second.outcome = "deployed"
    store.finish(second)
    left = {item["metadata"]["name"] for item in shop.secrets()}
    assert not left & set(written), "parts that nobody refers to are left"
    assert [(item.number, item.outcome) for item in store.list()] == [(2, "deployed"), (1, "superseded")]
    assert store.load(store.list()[1]).stages == {"components": manifests("1")}


def test_two_writers_do_not_overwrite_each_other(shop: Shop) -> None:
    store = Store(shop.cluster, shop.namespace, "big")
    mine = store.begin(Record(number=1, content="a", stages={"components": []}, started="1", by={"user": "me"}))
    with pytest.raises(Failure) as caught:
        store.begin(Record(number=1, content="b", stages={"components": []}, started="2", by={"user": "you"}))
    assert caught.value.code == "concurrent_release"
    assert "me" in caught.value.sentence
    (theirs,) = store.list()
    theirs.outcome = "failed"
    store.save(theirs)
    mine.outcome = "deployed"
    with pytest.raises(Failure) as caught:
        store.finish(mine)
    assert caught.value.code == "concurrent_release"
    assert store.list()[0].outcome == "failed"


def test_two_runs_of_one_release_agree(shop: Shop) -> None:
    shop.release(manifests("1"))
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.append(shop.release(manifests("2")))) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((item.number, item.action) for item in found) == [(2, "deployed"), (2, "unchanged")]
    assert shop.outcomes() == {1: "superseded", 2: "deployed"}


def test_a_killed_release_is_gone_on_with(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.release(manifests("1"))
    releases = shop.releases()
    monkeypatch.setattr(releases.store, "finish", lambda record: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        releases.release(wanted(manifests("2")))
    assert shop.outcomes() == {1: "deployed", 2: "pending"}
    again = shop.release(manifests("2"))
    assert (again.number, again.action) == (2, "deployed")
    assert shop.outcomes() == {1: "superseded", 2: "deployed"}


def test_history_is_bounded(shop: Shop) -> None:
    store = Store(shop.cluster, shop.namespace, "big", history=3)
    for number in range(1, 7):
        made = store.begin(Record(number=number, content=str(number), stages={"components": []}, started="1"))
        made.outcome = "deployed"
        store.finish(made)
    assert [item.number for item in store.list()] == [6, 5, 4]
    assert wait_until(lambda: len([item for item in shop.secrets() if "-big-" in item["metadata"]["name"]]) == 6)
