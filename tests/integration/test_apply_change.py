"""What cannot be changed, and what others own, on a real API server; and no Secret's value in what is said of it."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier, Item
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import FIELD_MANAGER, Cluster, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import wait_until

CSA = "kubectl-client-side-apply"
SECRET = "hunter2-recognisable"
CONTAINER = {"name": "main", "image": "app:1"}


def workload(kind: str, name: str = "w", group: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    selector = {} if kind == "Job" else {"selector": {"matchLabels": labels}}
    restart = {"restartPolicy": "Never"} if kind == "Job" else {}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [copy.deepcopy(CONTAINER)], **restart}}
    metadata = {"name": name}
    return {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": {**selector, "template": template, **spec}}


JOB = workload("Job", group="batch/v1")
SET = workload("StatefulSet", serviceName="w", replicas=0)
SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
    "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]},
}  # fmt: skip
CLAIM = {
    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
    "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}
    },
}  # fmt: skip


def changed(obj: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    new = copy.deepcopy(obj)
    place = new
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return new


def image(obj: dict[str, Any], to: str) -> dict[str, Any]:
    return changed(obj, "spec", "template", "spec", "containers", 0, "image", to=to)


def live(cluster: Cluster, item: Item) -> dict[str, Any]:
    found = cluster.get(item.served, item.obj["metadata"]["name"], item.obj["metadata"]["namespace"])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        (JOB, image(JOB, "app:2"), "spec.template"),
        (SET, changed(SET, "spec", "serviceName", to="other"), "spec"),
        (SERVICE, changed(SERVICE, "spec", "clusterIP", to="10.96.7.9"), "spec.clusterIPs[0]"),
        (CLAIM, changed(CLAIM, "spec", "storageClassName", to="other"), "spec"),
    ],
    ids=["Job", "StatefulSet", "Service", "PersistentVolumeClaim"],
)
def test_by_default_the_field_is_named(
    cluster: Cluster, namespace: str, before: dict[str, Any], after: dict[str, Any], field: str
) -> None:
    Applier(cluster, namespace).run([before])
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([after])
    assert caught.value.code == "immutable"
    assert caught.value.cause == f"changes what cannot be changed: {field}"
    assert f"{before['kind']} {namespace}/{before['metadata']['name']}" in caught.value.sentence


@pytest.mark.parametrize("asked", ["Job", "Job/w"])
def test_a_job_is_replaced_where_asked(cluster: Cluster, namespace: str, asked: str) -> None:
    first = live(cluster, Applier(cluster, namespace).run([JOB])[0])
    planned = Applier(cluster, namespace, replace=[asked], check_mode=True).run([image(JOB, "app:2")])[0]
    assert planned.action == "replaced"
    assert live(cluster, planned)["metadata"]["uid"] == first["metadata"]["uid"]
    assert "image: app:2" in planned.diff()["after"]
    assert "-trial" not in planned.diff()["after"]
    done = Applier(cluster, namespace, replace=[asked]).run([image(JOB, "app:2")])[0]
    assert done.action == "replaced"
    assert ".spec.template.spec.containers[0].image" in done.report()["changed_fields"]
    now = live(cluster, done)
    assert now["metadata"]["uid"] != first["metadata"]["uid"]
    assert now["spec"]["template"]["spec"]["containers"][0]["image"] == "app:2"
    assert Applier(cluster, namespace, replace=[asked]).run([image(JOB, "app:2")])[0].action == "unchanged"


def test_what_would_be_refused_is_not_deleted(cluster: Cluster, namespace: str) -> None:
    first = live(cluster, Applier(cluster, namespace).run([JOB])[0])
    bad = changed(image(JOB, "app:2"), "spec", "template", "spec", "restartPolicy", to="Always")
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace, replace=["Job"]).run([bad])
    assert caught.value.code in ("invalid", "immutable")
    job = cluster.get(cluster.resource("batch/v1", "Job"), "w", namespace)
    assert job is not None
    assert job["metadata"]["uid"] == first["metadata"]["uid"]


def test_a_service_is_replaced(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run([changed(SERVICE, "spec", "clusterIP", to="10.96.7.17")])
    other = changed(SERVICE, "spec", "clusterIP", to="10.96.7.18")
    done = Applier(cluster, namespace, replace=["Service/s"]).run([other])[0]
    assert (done.action, live(cluster, done)["spec"]["clusterIP"]) == ("replaced", "10.96.7.18")


def test_data_is_never_replaced(cluster: Cluster, namespace: str) -> None:
    for kind in ("PersistentVolumeClaim", "PersistentVolumeClaim/c", "Namespace", "CustomResourceDefinition"):
        with pytest.raises(Failure, match="is never replaced"):
            Applier(cluster, namespace, replace=[kind])


def test_a_stateful_sets_pods_stay(cluster: Cluster, namespace: str) -> None:
    running = changed(SET, "spec", "replicas", to=1)
    old = live(cluster, Applier(cluster, namespace).run([running])[0])
    pods = Resource("", "v1", "Pod", "pods", True)
    wait_until(lambda: cluster.get(pods, "w-0", namespace))
    pod = cluster.get(pods, "w-0", namespace)
    template = {"metadata": {"name": "data"}, "spec": CLAIM["spec"]}
    with_volume = changed(running, "spec", "volumeClaimTemplates", to=[template])
    with pytest.raises(Failure, match="cannot be changed"):
        Applier(cluster, namespace).run([with_volume])
    done = Applier(cluster, namespace, replace=["StatefulSet"]).run([with_volume])[0]
    assert done.action == "replaced"
    same = cluster.get(pods, "w-0", namespace)
    assert pod is not None
    assert same is not None
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    uid = live(cluster, done)["metadata"]["uid"]
    assert uid != old["metadata"]["uid"]

    def adopted() -> bool:
        found = cluster.get(pods, "w-0", namespace)
        return bool(found) and found["metadata"].get("ownerReferences", [{}])[0].get("uid") == uid

    wait_until(adopted)


def test_a_stateful_set_that_would_lose_its_pods_is_not_replaced(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run([SET])
    other = changed(SET, "spec", "selector", "matchLabels", to={"app": "w", "more": "x"})
    other = changed(other, "spec", "template", "metadata", "labels", to={"app": "w", "more": "x"})
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace, replace=["StatefulSet"]).run([other])
    assert caught.value.code == "not_replaceable"


def test_replicas_survive_a_replacement(cluster: Cluster, namespace: str) -> None:
    before = workload("Deployment")
    before["metadata"]["annotations"] = {"groundwork.platform/initial-replicas": "2"}
    item = Applier(cluster, namespace).run([before])[0]
    patch = {"spec": {"replicas": 6}}
    cluster.merge(item.served, "w", namespace, patch, field_manager="kube-controller-manager", subresource="scale")
    after = changed(before, "spec", "selector", "matchLabels", to={"app": "w", "more": "x"})
    after = changed(after, "spec", "template", "metadata", "labels", to={"app": "w", "more": "x"})
    done = Applier(cluster, namespace, replace=["Deployment"]).run([after])[0]
    assert (done.action, live(cluster, done)["spec"]["replicas"]) == ("replaced", 6)


def test_an_object_that_is_being_deleted_is_waited_for(cluster: Cluster, namespace: str) -> None:
    maps = Resource("", "v1", "ConfigMap", "configmaps", True)
    going = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "old"}}
    held = changed(going, "metadata", to={"name": "m", "namespace": namespace, "finalizers": ["example.com/hold"]})
    uid = cluster.create(maps, held)["metadata"]["uid"]
    cluster.delete(maps, "m", namespace)
    release = {"metadata": {"finalizers": None}}
    threading.Timer(1.0, lambda: cluster.merge(maps, "m", namespace, release)).start()
    many = [changed(going, "metadata", "name", to=f"m{number}") for number in range(12)]
    items = Applier(cluster, namespace).run([going, *many])
    assert items[0].action == "created"
    assert live(cluster, items[0])["metadata"]["uid"] != uid


def test_an_object_that_does_not_go_is_named_with_its_finalizers(cluster: Cluster, namespace: str) -> None:
    maps = Resource("", "v1", "ConfigMap", "configmaps", True)
    metadata = {"name": "m", "namespace": namespace, "finalizers": ["example.com/hold"]}
    stuck = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    cluster.create(maps, stuck)
    cluster.delete(maps, "m", namespace)
    try:
        with pytest.raises(Failure, match=r"is still being deleted \(its finalizers are example.com/hold\)"):
            Applier(cluster, namespace, patience=1).run([changed(stuck, "metadata", to={"name": "m"})])
    finally:
        cluster.merge(maps, "m", namespace, {"metadata": {"finalizers": None}})


# What others own


class Kubectl:
    """kubectl apply as people have always used it."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._plane, self._namespace, self._folder = plane, namespace, folder

    def apply(self, *objects: dict[str, Any]) -> None:
        manifests = self._folder / "manifests.yaml"
        manifests.write_text(yaml.safe_dump_all(objects))
        binary = self._plane.binary
        program = [str(binary / "kubectl")] if binary.is_dir() else [str(binary), "kubectl"]
        options = ["--kubeconfig", str(self._plane.kubeconfig), "--namespace", self._namespace]
        done = subprocess.run(
            [*program, *options, "apply", "--filename", str(manifests)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def kubectl(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Kubectl:
    return Kubectl(control_plane, namespace, tmp_path)


DEPLOYMENT = workload("Deployment", replicas=2, revisionHistoryLimit=3)
DEPLOYMENT["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "side:1"})


def test_what_kubectl_applied_is_taken_over_and_removed_fields_vanish(
    cluster: Cluster, namespace: str, kubectl: Kubectl
) -> None:
    kubectl.apply(DEPLOYMENT)
    ours = workload("Deployment", replicas=3)
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([ours])
    assert caught.value.code == "conflict"
    assert caught.value.evidence == f"{CSA} owns .spec.replicas"
    assert f"take_over: [{CSA}]" in caught.value.hint
    with pytest.raises(Failure, match="another manager owns"):
        Applier(cluster, namespace, take_over=["somebody"]).run([ours])

    planned = Applier(cluster, namespace, take_over=[CSA], check_mode=True).run([ours])[0]
    assert planned.action == "changed"
    assert "side:1" in planned.diff()["before"]
    assert "side:1" not in planned.diff()["after"]
    # What kubectl had set goes back to its default.
    assert "revisionHistoryLimit: 10" in planned.diff()["after"]
    done = Applier(cluster, namespace, take_over=[CSA]).run([ours])[0]
    now = live(cluster, done)
    assert [container["name"] for container in now["spec"]["template"]["spec"]["containers"]] == ["main"]
    assert (now["spec"]["replicas"], now["spec"]["revisionHistoryLimit"]) == (3, 10)
    assert "kubectl.kubernetes.io/last-applied-configuration" not in now["metadata"].get("annotations", {})
    assert CSA not in {entry["manager"] for entry in now["metadata"]["managedFields"]}
    assert planned.diff()["after"] == done.diff()["after"]
    again = Applier(cluster, namespace, take_over=[CSA]).run([ours])[0]
    assert again.action == "unchanged"


def test_a_take_over_that_was_cut_short_goes_on(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    ours = workload("Deployment", replicas=3)
    applier = Applier(cluster, namespace, take_over=[CSA])
    apply = cluster.apply

    class Killed(BaseException):
        pass

    def killed(*arguments: Any, dry_run: bool = False, **options: Any) -> Any:
        if not dry_run:
            raise Killed
        return apply(*arguments, dry_run=dry_run, **options)

    cluster.apply = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        applier.run([ours])
    del cluster.apply  # type: ignore[method-assign]
    now = live(cluster, Applier(cluster, namespace, take_over=[CSA]).run([ours])[0])
    assert [container["name"] for container in now["spec"]["template"]["spec"]["containers"]] == ["main"]


def test_force_takes_conflicts_and_leaves_the_rest(cluster: Cluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    done = Applier(cluster, namespace, force_conflicts=True).run([workload("Deployment", replicas=3)])[0]
    now = live(cluster, done)
    assert (now["spec"]["replicas"], now["spec"]["revisionHistoryLimit"]) == (3, 3)


def test_several_managers_are_named_each_with_its_fields(cluster: Cluster, namespace: str) -> None:
    ours = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1", "b": "1", "c": "1"}}
    item = Applier(cluster, namespace).run([ours])[0]
    cluster.merge(item.served, "m", namespace, {"data": {"a": "2"}}, field_manager="first")
    cluster.merge(item.served, "m", namespace, {"data": {"b": "2", "c": "2"}}, field_manager="second")
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([ours])
    assert caught.value.evidence == "first owns .data.a; second owns .data.b, .data.c"
    with pytest.raises(Failure):
        Applier(cluster, namespace, take_over=["first"]).run([ours])
    Applier(cluster, namespace, take_over=["first", "second"]).run([ours])
    assert live(cluster, item)["data"] == ours["data"]


def test_owners_alone_are_a_change(cluster: Cluster, namespace: str) -> None:
    """A field of two managers vanishes when both have given it up: that we give it up has to be written."""
    both = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1", "b": "1"}}
    item = Applier(cluster, namespace).run([both])[0]
    namespaced = changed(both, "metadata", "namespace", to=namespace)
    cluster.apply(item.served, namespaced, "other")
    less = changed(both, "data", to={"a": "1"})
    done = Applier(cluster, namespace).run([less])[0]
    assert (done.action, done.report()["changed_fields"]) == ("changed", [".metadata.managedFields"])
    assert Applier(cluster, namespace).run([less])[0].action == "unchanged"
    cluster.apply(item.served, changed(namespaced, "data", to={"a": "1"}), "other")
    assert live(cluster, item)["data"] == {"a": "1"}


def test_what_a_controller_writes_in_between_is_no_change_of_ours(cluster: Cluster, namespace: str) -> None:
    ours = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}
    item = Applier(cluster, namespace).run([ours])[0]
    apply, times = cluster.apply, [0]

    def in_between(*arguments: Any, **options: Any) -> Any:
        if times[0] < 2:
            times[0] += 1
            patch = {"metadata": {"annotations": {"revision": str(times[0])}}}
            cluster.merge(item.served, "m", namespace, patch, field_manager="controller")
        return apply(*arguments, **options)

    cluster.apply = in_between  # type: ignore[method-assign]
    assert Applier(cluster, namespace).run([ours])[0].action == "unchanged"
    assert times == [2]


# Secrets


def secret(**data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data}


def shown(failure: Failure, *items: Item) -> str:
    return json.dumps([failure.as_dict(), failure.sentence, [(item.report(), item.diff()) for item in items]])


@pytest.mark.parametrize(
    "bad",
    [
        secret(password=SECRET),
        secret(password=12345678),
        secret(password={"nested": SECRET}),
        secret(password=[SECRET]),
        {**secret(password=base64.b64encode(SECRET.encode()).decode()), "type": "kubernetes.io/dockerconfigjson"},
        {**secret(), "data": {".dockerconfigjson": base64.b64encode(SECRET.encode()).decode()},
         "type": "kubernetes.io/dockerconfigjson"},
        {**secret(), "data": {SECRET: "eA==", "wrong key": base64.b64encode(b"8-digits").decode()}},
    ],
)  # fmt: skip
def test_a_refused_secret_is_not_quoted(cluster: Cluster, namespace: str, bad: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([bad])
    text = shown(caught.value)
    values = {SECRET, base64.b64encode(SECRET.encode()).decode(), "12345678", "8-digits"} - set(bad["data"])
    assert not [value for value in values if value in text]


def test_another_object_that_quotes_a_secret_is_masked(cluster: Cluster, namespace: str) -> None:
    good = secret(password=base64.b64encode(SECRET.encode()).decode())
    quoting = changed(workload("Deployment"), "spec", "template", "spec", "restartPolicy", to=SECRET)
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([good, quoting])
    assert SECRET not in shown(caught.value)
    assert "*****" in caught.value.evidence


def test_conflicts_of_a_secret_name_keys_only(cluster: Cluster, namespace: str) -> None:
    item = Applier(cluster, namespace).run([secret(password=base64.b64encode(SECRET.encode()).decode())])[0]
    other = base64.b64encode(b"another-recognisable").decode()
    cluster.merge(item.served, "s", namespace, {"data": {"password": other}}, field_manager="somebody")
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([secret(password=base64.b64encode(SECRET.encode()).decode())])
    assert caught.value.evidence == "somebody owns .data.password"
    assert not [value for value in (SECRET, other, "another-recognisable") if value in shown(caught.value)]


def test_an_immutable_secret(cluster: Cluster, namespace: str) -> None:
    value = base64.b64encode(SECRET.encode()).decode()
    Applier(cluster, namespace).run([{**secret(password=value), "immutable": True}])
    other = {**secret(password=base64.b64encode(b"another-recognisable").decode()), "immutable": True}
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run([other])
    assert (caught.value.code, "recognisable" in shown(caught.value)) == ("immutable", False)
    done = Applier(cluster, namespace, replace=["Secret/s"]).run([other])[0]
    assert done.action == "replaced"
    assert "recognisable" not in shown(caught.value, done)
    assert value not in shown(caught.value, done)


def test_the_manager_is_ours(cluster: Cluster, namespace: str) -> None:
    item = Applier(cluster, namespace).run([JOB])[0]
    managers = {entry["manager"] for entry in live(cluster, item)["metadata"]["managedFields"]}
    assert FIELD_MANAGER in managers
