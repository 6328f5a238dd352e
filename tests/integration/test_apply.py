"""Batches on a real API server."""

from __future__ import annotations

import base64
import copy
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier, Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import wait_until

SECRET = "hunter2-recognisable"


def manifests(name: str = "") -> list[dict[str, Any]]:
    """A batch of several kinds; with a name it brings its own Namespace and definition."""
    text = f"""
kind: Secret
apiVersion: v1
metadata: {{name: credentials}}
stringData: {{password: {SECRET}}}
---
kind: ConfigMap
apiVersion: v1
metadata: {{name: settings}}
data: {{colour: blue}}
---
kind: Deployment
apiVersion: apps/v1
metadata:
  name: api
  annotations: {{groundwork.platform/initial-replicas: "3"}}
spec:
  selector: {{matchLabels: {{app: api}}}}
  template:
    metadata: {{labels: {{app: api}}}}
    spec:
      containers: [{{name: api, image: "redis:8.0"}}]
---
kind: Service
apiVersion: v1
metadata: {{name: api}}
spec: {{selector: {{app: api}}, ports: [{{port: 80}}]}}
"""
    if name:
        text += f"""
---
kind: Widget
apiVersion: {name}.example.com/v1
metadata: {{name: one}}
spec: {{size: 3}}
---
kind: CustomResourceDefinition
apiVersion: apiextensions.k8s.io/v1
metadata: {{name: widgets.{name}.example.com}}
spec:
  group: {name}.example.com
  scope: Namespaced
  names: {{kind: Widget, plural: widgets}}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties: {{spec: {{type: object, properties: {{size: {{type: integer}}}}}}}}
---
kind: Namespace
apiVersion: v1
metadata: {{name: {name}}}
"""
    return load(text)


@pytest.fixture
def fresh(cluster: Cluster) -> Iterator[str]:
    """A name for a namespace that does not exist; what a test makes of it is removed."""
    name = f"fresh{uuid.uuid4().hex[:8]}"
    yield name
    cluster.delete(cluster.resource("v1", "Namespace"), name)
    definitions = cluster.resource("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    cluster.delete(definitions, f"widgets.{name}.example.com")


def actions(items: list[Item]) -> dict[str, str]:
    return {item.obj["kind"]: item.action for item in items}


def live(cluster: Cluster, api_version: str, kind: str, name: str, namespace: str) -> dict[str, Any]:
    found = cluster.get(cluster.resource(api_version, kind), name, namespace)
    assert found is not None
    return found


def test_an_equal_batch_is_not_written(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Applier(cluster, namespace).run(manifests())
    assert set(actions(first).values()) == {"created"}
    written: list[str] = []
    apply = cluster.apply

    def spy(resource: Resource, obj: dict[str, Any], *arguments: Any, dry_run: bool = False, **options: Any) -> Any:
        if not dry_run:
            written.append(obj["kind"])
        return apply(resource, obj, *arguments, dry_run=dry_run, **options)

    monkeypatch.setattr(cluster, "apply", spy)
    # The Deployment's controller writes its status meanwhile, so that only its spec's generation can be compared.
    versions = [_version(cluster, item) for item in first]
    second = Applier(cluster, namespace).run(manifests())
    assert set(actions(second).values()) == {"unchanged"}
    assert written == []
    assert [_version(cluster, item) for item in second] == versions


def _version(cluster: Cluster, item: Item) -> str:
    metadata = item.obj["metadata"]
    found = live(cluster, item.obj["apiVersion"], item.obj["kind"], metadata["name"], metadata["namespace"])
    return str(found["metadata"].get("generation") or found["metadata"]["resourceVersion"])


def test_a_change_is_reported_by_field_and_secrets_are_masked(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run(manifests())
    changed = manifests()
    changed[0]["data"]["password"] = base64.b64encode(b"another-recognisable").decode()
    changed[1]["data"]["colour"] = "red"
    items = Applier(cluster, namespace).run(changed)
    assert actions(items) == {
        "Secret": "changed",
        "ConfigMap": "changed",
        "Deployment": "unchanged",
        "Service": "unchanged",
    }
    assert items[1].report()["changed_fields"] == [".data.colour"]
    assert "colour: red" in items[1].diff()["after"]
    shown = str([item.diff() for item in items]) + str([item.report() for item in items])
    for value in (SECRET, "another-recognisable"):
        assert value not in shown
        assert base64.b64encode(value.encode()).decode() not in shown
    assert items[0].diff()["before"] != items[0].diff()["after"]


def test_a_bad_object_changes_nothing(cluster: Cluster, namespace: str) -> None:
    batch = manifests()
    batch[2]["spec"]["template"]["spec"]["containers"][0]["imag"] = "typo"
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run(batch)
    assert caught.value.code == "invalid"
    assert f"Deployment {namespace}/api" in caught.value.sentence
    assert "imag" in caught.value.sentence
    assert cluster.get(cluster.resource("v1", "ConfigMap"), "settings", namespace) is None


def test_namespace_and_definition_of_the_batch_come_first(cluster: Cluster, fresh: str) -> None:
    checked = Applier(cluster, fresh, check_mode=True).run(manifests(fresh))
    assert set(actions(checked).values()) == {"created"}
    assert {item.obj["kind"]: item.checked for item in checked} == {
        "Secret": "schema", "ConfigMap": "schema", "Deployment": "schema", "Service": "schema", "Widget": "schema",
        "CustomResourceDefinition": "server", "Namespace": "server",
    }  # fmt: skip
    assert cluster.get(cluster.resource("v1", "Namespace"), fresh) is None
    items = Applier(cluster, fresh).run(manifests(fresh))
    assert set(actions(items).values()) == {"created"}
    assert live(cluster, f"{fresh}.example.com/v1", "Widget", "one", fresh)["spec"] == {"size": 3}
    assert set(actions(Applier(cluster, fresh).run(manifests(fresh))).values()) == {"unchanged"}


def test_check_mode_finds_a_bad_object_on_an_empty_cluster(cluster: Cluster, fresh: str) -> None:
    batch = manifests(fresh)
    batch[4]["spec"]["size"] = "large"
    with pytest.raises(Failure) as caught:
        Applier(cluster, fresh, check_mode=True).run(batch)
    assert "Widget" in caught.value.sentence
    assert ".spec.size" in caught.value.sentence


def test_what_was_created_for_a_refused_batch_is_removed(cluster: Cluster, fresh: str) -> None:
    batch = manifests(fresh)
    batch[4]["spec"]["size"] = "large"
    with pytest.raises(Failure) as caught:
        Applier(cluster, fresh).run(batch)
    assert "removed again" in caught.value.evidence
    wait_until(lambda: cluster.get(cluster.resource("v1", "Namespace"), fresh) is None)
    # A run right after it waits for what is still being deleted.
    assert set(actions(Applier(cluster, fresh).run(manifests(fresh))).values()) == {"created"}


def test_check_mode_writes_nothing(cluster: Cluster, namespace: str) -> None:
    items = Applier(cluster, namespace, check_mode=True).run(manifests())
    assert set(actions(items).values()) == {"created"}
    assert {item.checked for item in items} == {"server"}
    assert cluster.get(cluster.resource("v1", "ConfigMap"), "settings", namespace) is None


def test_conflicts_name_manager_and_field(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run(manifests())
    maps = cluster.resource("v1", "ConfigMap")
    cluster.merge(maps, "settings", namespace, {"data": {"colour": "green"}}, field_manager="somebody")
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run(manifests())
    assert caught.value.code == "conflict"
    assert caught.value.evidence == "somebody owns .data.colour"
    Applier(cluster, namespace, force_conflicts=True).run(manifests())
    assert live(cluster, "v1", "ConfigMap", "settings", namespace)["data"]["colour"] == "blue"


def test_initial_replicas_belong_to_the_autoscaler_later(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run(manifests())
    deployments = cluster.resource("apps/v1", "Deployment")
    assert live(cluster, "apps/v1", "Deployment", "api", namespace)["spec"]["replicas"] == 3
    # As an autoscaler does.
    cluster.merge(
        deployments,
        "api",
        namespace,
        {"spec": {"replicas": 7}},
        field_manager="kube-controller-manager",
        subresource="scale",
    )
    assert actions(Applier(cluster, namespace).run(manifests()))["Deployment"] == "unchanged"
    changed = manifests()
    changed[2]["spec"]["template"]["spec"]["containers"][0]["image"] = "redis:8.2"
    assert actions(Applier(cluster, namespace).run(changed))["Deployment"] == "changed"
    assert live(cluster, "apps/v1", "Deployment", "api", namespace)["spec"]["replicas"] == 7


def test_handing_replicas_to_an_autoscaler_does_not_scale_down(cluster: Cluster, namespace: str) -> None:
    fixed = manifests()
    del fixed[2]["metadata"]["annotations"]
    fixed[2]["spec"]["replicas"] = 5
    Applier(cluster, namespace).run(fixed)
    assert actions(Applier(cluster, namespace).run(manifests()))["Deployment"] == "changed"
    assert live(cluster, "apps/v1", "Deployment", "api", namespace)["spec"]["replicas"] == 5
    assert actions(Applier(cluster, namespace).run(manifests()))["Deployment"] == "unchanged"


def test_an_interrupted_creation_is_completed(cluster: Cluster, namespace: str) -> None:
    batch = manifests()
    deployment = copy.deepcopy(batch[2])
    deployment["metadata"]["namespace"] = namespace
    cluster.apply(cluster.resource("apps/v1", "Deployment"), deployment)
    assert live(cluster, "apps/v1", "Deployment", "api", namespace)["spec"]["replicas"] == 1
    assert actions(Applier(cluster, namespace).run(batch))["Deployment"] == "changed"
    assert live(cluster, "apps/v1", "Deployment", "api", namespace)["spec"]["replicas"] == 3


def test_images_are_rewritten(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace, images={"docker.io/library/redis:8.0": "mirror.example/redis:8.0"}).run(manifests())
    pod = live(cluster, "apps/v1", "Deployment", "api", namespace)["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "mirror.example/redis:8.0"


def test_the_api_server_restarts_during_a_batch(control_plane: ControlPlane, cluster: Cluster, namespace: str) -> None:
    cluster.version()
    control_plane.kill("kube-apiserver")
    threading.Timer(2.0, control_plane.revive).start()
    assert set(actions(Applier(cluster, namespace).run(manifests())).values()) == {"created"}


def test_a_webhook_that_is_not_up_yet_is_waited_for(cluster: Cluster, namespace: str) -> None:
    hooks = cluster.resource("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration")
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [{
            "name": "deny.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:9/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
        }],
    }  # fmt: skip
    cluster.create(hooks, hook)
    try:
        wait_until(lambda: not _admitted(cluster, namespace))
        threading.Timer(2.0, lambda: cluster.delete(hooks, namespace)).start()
        started = time.monotonic()
        items = Applier(cluster, namespace).run(manifests())
        assert set(actions(items).values()) == {"created"}
        assert time.monotonic() - started > 1.0
    finally:
        cluster.delete(hooks, namespace)


def _admitted(cluster: Cluster, namespace: str) -> bool:
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": namespace}}
    try:
        cluster.apply(cluster.resource("v1", "ConfigMap"), probe, dry_run=True)
    except Failure:
        return False
    return True


def test_pod_security_and_quota_refusals_are_told_apart_from_permissions(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    cluster.merge(
        cluster.resource("v1", "Namespace"), namespace, None,
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    )  # fmt: skip
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    with pytest.raises(Failure) as denied:
        wait_until(lambda: Applier(cluster, namespace, check_mode=True).run([pod]) and False, 5)
    assert denied.value.code == "denied"
    assert "violates PodSecurity" in denied.value.evidence
    reader = Cluster(ClusterAuth(kubeconfig=str(control_plane.user_kubeconfig("reader"))))
    with pytest.raises(Failure) as forbidden:
        Applier(reader, namespace).run(manifests())
    assert forbidden.value.code == "forbidden"


def test_an_immutable_field_is_named(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run(manifests())
    changed = manifests()
    changed[2]["spec"]["selector"]["matchLabels"]["more"] = "yes"
    changed[2]["spec"]["template"]["metadata"]["labels"]["more"] = "yes"
    with pytest.raises(Failure) as caught:
        Applier(cluster, namespace).run(changed)
    assert caught.value.code == "immutable"
    assert "spec.selector" in caught.value.evidence


def test_a_missing_namespace_is_named(cluster: Cluster) -> None:
    with pytest.raises(Failure) as caught:
        Applier(cluster, "nowhere").run(manifests())
    assert caught.value.code == "namespace_not_found"


def test_absent_deletes_and_waits(cluster: Cluster, namespace: str) -> None:
    Applier(cluster, namespace).run(manifests())
    items = Applier(cluster, namespace).remove(manifests())
    assert set(actions(items).values()) == {"deleted"}
    assert cluster.get(cluster.resource("apps/v1", "Deployment"), "api", namespace) is None
    assert set(actions(Applier(cluster, namespace).remove(manifests())).values()) == {"unchanged"}
