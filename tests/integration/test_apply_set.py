"""Sets on a real API server: what belongs to them, what is pruned, and what kubectl makes of them."""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.apply import prune
from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.apply.prune import SetName
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    Cluster,
    ClusterAuth,
    Resource,
    identity,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import wait_until

MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)
SECRETS = Resource("", "v1", "Secret", "secrets", True)
CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"k": name}}


def service(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}


def claim(name: str) -> dict[str, Any]:
    resources = {"requests": {"storage": "1Gi"}}
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": resources},
    }  # fmt: skip


class Shop:
    """A set in a namespace, applied again and again."""

    def __init__(self, cluster: Cluster, namespace: str, name: str = "shop", **options: Any) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.name = SetName(name, namespace, **options)
        self.applier: Applier

    def apply(self, *objects: dict[str, Any], prune: bool = True, **options: Any) -> list[str]:
        """What was pruned."""
        self.applier = Applier(self.cluster, self.namespace, apply_set=self.name, prune=prune, **options)
        self.items = self.applier.run(list(objects))
        return [item.name.replace(f"{self.namespace}/", "") for item in self.applier.pruned]

    def parent(self) -> dict[str, Any]:
        found = self.cluster.get(SECRETS, self.name.name, self.namespace)
        assert found is not None
        return found["metadata"]

    def kinds(self) -> str:
        return str(self.parent()["annotations"][prune.KINDS])

    def there(self, *names: str) -> list[str]:
        return [name for name in names if self.cluster.get(MAPS, name, self.namespace)]


@pytest.fixture
def shop(cluster: Cluster, namespace: str) -> Shop:
    return Shop(cluster, namespace)


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[str]:
    """A second namespace."""
    name = f"else-{uuid.uuid4().hex[:8]}"
    namespaces = cluster.resource("v1", "Namespace")
    cluster.create(namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete(namespaces, name)


def test_the_id_is_the_specifications() -> None:
    # base64(sha256("shop.demo.Secret.")); kubectl refuses a parent with another one, which the tests with it show.
    assert SetName("shop", "demo").id == "applyset-HExlOfNdfcFQiu4Wt7znmAXtMS3i1Pw_9p5-efVUBWA-v1"


def test_what_a_run_does_not_have_is_deleted(cluster: Cluster, shop: Shop, elsewhere: str) -> None:
    far = config_map("far", namespace=elsewhere)
    assert shop.apply(config_map("a"), config_map("b"), service("s"), far) == []
    assert shop.kinds() == "ConfigMap,Service"
    assert shop.parent()["annotations"][prune.NAMESPACES] == elsewhere
    assert shop.parent()["labels"][prune.ID] == shop.name.id
    bystander = config_map("bystander", namespace=shop.namespace)
    cluster.create(MAPS, bystander)
    assert sorted(shop.apply(config_map("a"), check_mode=True)) == [
        "ConfigMap b",
        f"ConfigMap {elsewhere}/far",
        "Service s",
    ]
    shown = {item.name: item.diff() for item in shop.applier.pruned}[f"ConfigMap {shop.namespace}/b"]
    assert "k: b" in shown["before"]
    assert shown["after"] == ""
    assert shop.there("a", "b", "bystander") == ["a", "b", "bystander"]
    assert len(shop.apply(config_map("a"))) == 3
    assert shop.there("a", "b", "bystander") == ["a", "bystander"]
    assert cluster.get(MAPS, "far", elsewhere) is None
    assert shop.kinds() == "ConfigMap"
    assert prune.RUN not in shop.parent()["annotations"]


def test_a_run_with_nothing_to_do_writes_nothing(shop: Shop) -> None:
    shop.apply(config_map("a"), service("s"))
    version = shop.parent()["resourceVersion"]
    assert shop.apply(config_map("a"), service("s")) == []
    assert {item.action for item in shop.items} == {"unchanged"}
    assert shop.parent()["resourceVersion"] == version


def test_one_applier_may_run_again(cluster: Cluster, shop: Shop) -> None:
    applier = Applier(cluster, shop.namespace, apply_set=shop.name, prune=True)
    for name, pruned in (("a", []), ("b", [f"ConfigMap {shop.namespace}/a"]), ("b", [])):
        applier.run([config_map(name)])
        assert [item.name for item in applier.pruned] == pruned
    assert shop.there("a", "b") == ["b"]


def test_without_prune_the_set_only_grows(shop: Shop) -> None:
    shop.apply(config_map("a"), service("s"))
    assert shop.apply(config_map("b"), prune=False) == []
    assert shop.kinds() == "ConfigMap,Service"
    assert shop.apply(config_map("b")) == ["ConfigMap a", "Service s"]


def test_data_is_kept_unless_told(cluster: Cluster, shop: Shop) -> None:
    shop.apply(config_map("a"), claim("data"))
    assert shop.apply(config_map("a")) == []
    assert [item.name for item in shop.applier.kept] == [f"PersistentVolumeClaim {shop.namespace}/data"]
    assert shop.kinds() == "ConfigMap,PersistentVolumeClaim"
    assert shop.apply(config_map("a"), prune_kinds=["PersistentVolumeClaim"]) == ["PersistentVolumeClaim data"]
    live = cluster.get(CLAIMS, "data", shop.namespace)
    assert live is None or live["metadata"]["deletionTimestamp"]
    assert shop.kinds() == "ConfigMap"


def test_an_empty_run_is_a_mistake(shop: Shop) -> None:
    shop.apply(config_map("a"))
    with pytest.raises(Failure, match="would lose all of its objects"):
        shop.apply()
    assert shop.there("a") == ["a"]


def test_another_sets_objects_are_refused(cluster: Cluster, namespace: str, shop: Shop) -> None:
    shop.apply(config_map("a"), config_map("b"))
    other = Shop(cluster, namespace, "other")
    with pytest.raises(Failure) as caught:
        other.apply(config_map("a"), config_map("c"))
    assert caught.value.code == "foreign_set"
    assert f"belongs to another set: Secret {namespace}/shop" in caught.value.sentence
    assert shop.there("c") == []
    # And a set never prunes what has gone over to another one.
    cluster.merge(MAPS, "b", namespace, {"metadata": {"labels": {prune.PART_OF: other.name.id}}})
    assert shop.apply(config_map("a"), force_conflicts=True) == []
    assert shop.there("b") == ["b"]


def test_what_leaves_the_set_while_a_run_goes_on_is_not_deleted(cluster: Cluster, shop: Shop) -> None:
    shop.apply(config_map("a"), config_map("b"))
    applier = Applier(cluster, shop.namespace, apply_set=shop.name, prune=True)
    apply = cluster.apply

    def meanwhile(*arguments: Any, dry_run: bool = False, **options: Any) -> Any:
        if dry_run:
            return apply(*arguments, dry_run=True, **options)
        cluster.merge(MAPS, "b", shop.namespace, {"metadata": {"labels": {prune.PART_OF: "applyset-other-v1"}}})
        return apply(*arguments, **options)

    cluster.apply = meanwhile  # type: ignore[method-assign]
    applier.run([config_map("a"), config_map("c")])
    assert [item.name for item in applier.pruned] == [f"ConfigMap {shop.namespace}/b"]
    assert shop.there("a", "b", "c") == ["a", "b", "c"]


def test_a_foreign_parent_is_refused(cluster: Cluster, shop: Shop) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop", "namespace": shop.namespace}}
    cluster.create(SECRETS, secret)
    with pytest.raises(Failure, match="is no ApplySet's parent"):
        shop.apply(config_map("a"))
    assert shop.there("a") == []


def test_slices_that_copy_a_services_labels_are_not_pruned(cluster: Cluster, shop: Shop) -> None:
    slices = cluster.resource("discovery.k8s.io/v1", "EndpointSlice")
    own = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "own"},
        "addressType": "IPv4", "endpoints": [],
    }  # fmt: skip
    selecting = service("s")
    selecting["spec"]["selector"] = {"app": "s"}
    shop.apply(selecting, own)

    def copied() -> list[Any]:
        return cluster.list(slices, shop.namespace, labels=f"{prune.PART_OF}={shop.name.id}").items

    wait_until(lambda: len(copied()) == 2)
    assert shop.apply(selecting) == ["EndpointSlice own"]


def test_a_killed_run_loses_nothing(cluster: Cluster, shop: Shop) -> None:
    shop.apply(config_map("a"))

    class Killed(BaseException):
        pass

    applier = Applier(cluster, shop.namespace, apply_set=shop.name, prune=True)
    assert applier.apply_set is not None
    applier.apply_set.finish = lambda: (_ for _ in ()).throw(Killed())  # type: ignore[method-assign]
    with pytest.raises(Killed):
        applier.run([service("s")])
    assert shop.kinds() == "ConfigMap,Service"
    assert shop.apply(claim("data")) == ["ConfigMap a", "Service s"]
    assert shop.kinds() == "PersistentVolumeClaim"
    assert prune.RUN not in shop.parent()["annotations"]


def test_of_two_runs_at_once_the_one_that_began_first_prunes_nothing(cluster: Cluster, shop: Shop) -> None:
    shop.apply(config_map("a"))
    first = Applier(cluster, shop.namespace, apply_set=shop.name, prune=True)
    assert first.apply_set is not None
    begin, later = first.apply_set.begin, Shop(cluster, shop.namespace)

    def overtaken() -> None:
        begin()
        if not shop.there("c"):
            later.apply(config_map("c"))

    first.apply_set.begin = overtaken  # type: ignore[method-assign]
    with pytest.raises(Failure) as caught:
        first.run([service("s")])
    assert caught.value.code == "overtaken"
    assert shop.there("a", "c") == ["c"]
    # The parent says where all that both have applied lies: whoever runs next finds it.
    assert shop.kinds() == "ConfigMap,Service"
    assert shop.apply(config_map("c")) == ["Service s"]


def test_parallel_runs_of_one_set_lose_nothing(control_plane: ControlPlane, cluster: Cluster, shop: Shop) -> None:
    shop.apply(config_map("base"))
    outcomes: list[Any] = []

    def run(number: int) -> None:
        own = Shop(Cluster(cluster_auth(control_plane)), shop.namespace)
        try:
            own.apply(config_map("base"), *[config_map(f"m{number}-{index}") for index in range(20)])
            outcomes.append(number)
        except Failure as failure:
            outcomes.append(failure.code)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(outcome == "overtaken" or isinstance(outcome, int) for outcome in outcomes)
    members = {
        identity(obj) for obj in cluster.list(MAPS, shop.namespace, labels=f"{prune.PART_OF}={shop.name.id}").items
    }
    assert {identity(item.obj) for item in shop.items} <= members
    # Whatever they left, one more run makes it right.
    shop.apply(config_map("base"))
    assert [
        obj["metadata"]["name"]
        for obj in cluster.list(MAPS, shop.namespace, labels=f"{prune.PART_OF}={shop.name.id}").items
    ] == ["base"]


def cluster_auth(plane: ControlPlane) -> Any:
    return ClusterAuth(kubeconfig=str(plane.kubeconfig))


class Kubectl:
    """The compiled kubectl, with its ApplySets switched on."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._plane, self._namespace, self._folder = plane, namespace, folder

    def apply(self, *objects: dict[str, Any], ok: bool = True) -> str:
        manifests = self._folder / "manifests.yaml"
        manifests.write_text(yaml.safe_dump_all(objects))
        binary = self._plane.binary
        program = [str(binary / "kubectl")] if binary.is_dir() else [str(binary), "kubectl"]
        done = subprocess.run(
            [
                *program, "--kubeconfig", str(self._plane.kubeconfig), "--namespace", self._namespace, "apply",
                "--server-side", "--prune", "--applyset=shop", "--filename", str(manifests),
            ],
            env={**os.environ, "KUBECTL_APPLYSET": "true", "HOME": str(self._folder)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def kubectl(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Kubectl:
    return Kubectl(control_plane, namespace, tmp_path)


def test_kubectl_leaves_our_sets_alone_and_says_whose_they_are(shop: Shop, kubectl: Kubectl) -> None:
    shop.apply(config_map("a"), config_map("b"))
    said = kubectl.apply(config_map("a"), ok=False)
    assert 'is managed by tooling "groundwork.platform" instead of "kubectl"' in said
    assert shop.there("a", "b") == ["a", "b"]


def test_we_leave_kubectls_sets_alone(shop: Shop, kubectl: Kubectl) -> None:
    kubectl.apply(config_map("a"))
    with pytest.raises(Failure, match=r"is managed by kubectl, not by groundwork\.platform"):
        shop.apply(config_map("b"))
    assert shop.there("a", "b") == ["a"]


def test_a_set_shared_with_kubectl_is_pruned_by_both(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    shared = Shop(cluster, namespace, tooling="kubectl")
    shared.apply(config_map("a"), config_map("b"), service("s"))
    said = kubectl.apply(config_map("a"), config_map("c"))
    assert "configmap/b pruned" in said
    assert "service/s pruned" in said
    assert shared.there("a", "b", "c") == ["a", "c"]
    assert shared.apply(config_map("d")) == ["ConfigMap a", "ConfigMap c"]
    assert shared.there("a", "c", "d") == ["d"]


def test_the_parents_namespace_may_come_with_the_set(cluster: Cluster) -> None:
    name = f"fresh-{uuid.uuid4().hex[:8]}"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    fresh = Shop(cluster, name)
    try:
        assert fresh.apply(space, config_map("a"), check_mode=True) == []
        fresh.apply(space, config_map("a"))
        assert fresh.kinds() == "ConfigMap,Namespace"
        assert fresh.apply(config_map("b")) == ["ConfigMap a"]
        assert [item.name for item in fresh.applier.kept] == [f"Namespace {name}"]
    finally:
        cluster.delete(cluster.resource("v1", "Namespace"), name)


def test_kinds_that_are_no_longer_served_are_forgotten(cluster: Cluster, shop: Shop) -> None:
    shop.apply(config_map("a"))
    annotations = {"metadata": {"annotations": {prune.KINDS: "ConfigMap,Gone.gone.example.com"}}}
    cluster.merge(SECRETS, "shop", shop.namespace, annotations)
    assert shop.apply(config_map("b")) == ["ConfigMap a"]
    assert shop.kinds() == "ConfigMap"
