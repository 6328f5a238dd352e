"""Each readiness rule, on objects as an API server returns them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import Readiness, State, readiness
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View, kind_of

READY, PROGRESSING, FAILED = State.READY, State.PROGRESSING, State.FAILED


def make(
    kind: str, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **metadata: Any
) -> dict[str, Any]:
    group = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}
    return {
        "apiVersion": group.get(kind, "v1"),
        "kind": kind,
        "spec": spec or {},
        "status": status or {},
        "metadata": {"name": "x", "namespace": "n", "uid": f"uid-{kind}", "generation": 2, **metadata},
    }


def view_of(*objects: dict[str, Any], knows: tuple[tuple[str, str], ...] = ()) -> View:
    view = View()
    for kind in knows:
        view.sync(kind, [])
    for obj in objects:
        view.put(kind_of(obj), obj)
    return view


def judge(obj: dict[str, Any], *others: dict[str, Any], knows: tuple[tuple[str, str], ...] = ()) -> Readiness:
    return readiness(obj, view_of(obj, *others, knows=knows))


def condition(name: str, status: str = "True", reason: str = "", message: str = "", **more: Any) -> dict[str, Any]:
    return {"type": name, "status": status, "reason": reason, "message": message, **more}


def deployed(**status: Any) -> dict[str, Any]:
    return {
        "observedGeneration": 2,
        "replicas": 3,
        "updatedReplicas": 3,
        "availableReplicas": 3,
        "readyReplicas": 3,
        **status,
    }


@pytest.mark.parametrize(
    ("spec", "status", "state", "words"),
    [
        ({"replicas": 3}, deployed(), READY, ""),
        ({"replicas": 3}, deployed(observedGeneration=1), PROGRESSING, "not been seen"),
        ({"replicas": 3}, {}, PROGRESSING, "not been seen"),
        # Right after a change with strategy Recreate: all old pods still count as available.
        ({"replicas": 3}, deployed(updatedReplicas=0), PROGRESSING, "0 of 3 pods updated"),
        ({"replicas": 3}, deployed(replicas=4), PROGRESSING, "1 old pods left"),
        ({"replicas": 3}, deployed(availableReplicas=2), PROGRESSING, "2 of 3 pods available"),
        ({"replicas": 0}, deployed(replicas=0, updatedReplicas=0, availableReplicas=0), READY, ""),
        ({}, {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, READY, ""),
        ({"replicas": 3, "paused": True}, deployed(updatedReplicas=1), FAILED, "paused"),
        ({"replicas": 3, "paused": True}, deployed(), READY, ""),
    ],
)
def test_deployment(spec: dict[str, Any], status: dict[str, Any], state: State, words: str) -> None:
    found = judge(make("Deployment", spec, status))
    assert found.state is state
    assert words in found.message


@pytest.mark.parametrize(
    ("updated", "state"), [("2026-01-01T00:10:00Z", FAILED), ("2025-12-31T00:00:00Z", PROGRESSING)]
)
def test_a_missed_progress_deadline_counts_only_for_the_present_change(updated: str, state: State) -> None:
    exceeded = condition("Progressing", "False", "ProgressDeadlineExceeded", lastUpdateTime=updated)
    written = {"manager": "groundwork.platform", "operation": "Apply", "time": "2026-01-01T00:00:00Z"}
    status_write = {"manager": "kube-controller-manager", "operation": "Update", "time": "2026-01-01T00:10:00Z"}
    obj = make(
        "Deployment",
        {"replicas": 3, "progressDeadlineSeconds": 600},
        deployed(availableReplicas=0, conditions=[exceeded]),
        creationTimestamp="2025-12-01T00:00:00Z",
        managedFields=[written, {**status_write, "subresource": "status"}],
    )
    assert judge(obj).state is state


def rolled(**status: Any) -> dict[str, Any]:
    same = {"currentRevision": "r2", "updateRevision": "r2", "updatedReplicas": 3, "currentReplicas": 3}
    return {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, **same, **status}


@pytest.mark.parametrize(
    ("spec", "status", "state", "words"),
    [
        ({"replicas": 3}, rolled(), READY, ""),
        ({"replicas": 3}, rolled(observedGeneration=1), PROGRESSING, "not been seen"),
        ({"replicas": 3}, rolled(currentRevision="r1", updatedReplicas=1), PROGRESSING, "1 of 3 pods updated"),
        ({"replicas": 3}, rolled(currentRevision="r1"), PROGRESSING, "not finished"),
        ({"replicas": 3}, rolled(readyReplicas=2), PROGRESSING, "2 of 3 pods ready"),
        # minReadySeconds: ready, but not for long enough.
        ({"replicas": 3}, rolled(availableReplicas=1), PROGRESSING, "1 of 3 pods available"),
        (
            {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
            rolled(currentRevision="r1", updatedReplicas=1),
            READY,
            "",
        ),
        (
            {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
            rolled(currentRevision="r1", updatedReplicas=0),
            PROGRESSING,
            "0 of 1 pods updated",
        ),
        (
            {"replicas": 3, "updateStrategy": {"type": "OnDelete"}},
            rolled(currentRevision="r1", updatedReplicas=1),
            READY,
            "",
        ),
    ],
)
def test_stateful_set(spec: dict[str, Any], status: dict[str, Any], state: State, words: str) -> None:
    found = judge(make("StatefulSet", spec, status))
    assert found.state is state
    assert words in found.message


def test_pods_that_wait_for_their_deletion_are_told() -> None:
    spec = {"replicas": 3, "updateStrategy": {"type": "OnDelete"}}
    found = judge(make("StatefulSet", spec, rolled(currentRevision="r1", updatedReplicas=1)))
    assert "2 pods of the old revision" in found.note


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (
            {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2},
            READY,
        ),
        (
            {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 2},
            PROGRESSING,
        ),
        (
            {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1},
            PROGRESSING,
        ),
        ({"desiredNumberScheduled": 0}, PROGRESSING),
    ],
)
def test_daemon_set(status: dict[str, Any], state: State) -> None:
    assert judge(make("DaemonSet", {}, status)).state is state


def test_a_daemon_set_does_not_wait_for_nodes_that_are_away() -> None:
    status = {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 1}
    owner = [{"uid": "uid-DaemonSet", "kind": "DaemonSet", "controller": True}]
    pod = make("Pod", {"nodeName": "gone"}, {"phase": "Running"}, ownerReferences=owner)
    node = make("Node", {}, {"conditions": [condition("Ready", "Unknown")]}, name="gone", namespace="")
    found = judge(make("DaemonSet", {}, status), pod, node)
    assert found.ready
    assert "gone" in found.note


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([condition("Complete")], READY),
        ([condition("Failed", reason="BackoffLimitExceeded")], FAILED),
        ([condition("FailureTarget", reason="DeadlineExceeded")], FAILED),
        ([condition("Complete", "False")], PROGRESSING),
        ([condition("Suspended", "False", "JobResumed")], PROGRESSING),
        ([condition("Suspended")], READY),
        ([], PROGRESSING),
    ],
)
def test_job(conditions: list[dict[str, Any]], state: State) -> None:
    assert judge(make("Job", {"completions": 1}, {"conditions": conditions})).state is state


def storage_class(name: str, mode: str, default: bool = False, created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    metadata = {"name": name, "annotations": annotations, "creationTimestamp": created}
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "volumeBindingMode": mode}


CLASSES = (("storage.k8s.io", "StorageClass"),)


def test_claim() -> None:
    assert judge(make("PersistentVolumeClaim", {}, {"phase": "Bound"})).ready
    assert judge(make("PersistentVolumeClaim", {}, {"phase": "Lost"})).state is FAILED
    pending = make("PersistentVolumeClaim", {"storageClassName": "late"}, {"phase": "Pending"})
    assert judge(pending, storage_class("late", "WaitForFirstConsumer"), knows=CLASSES).ready
    assert judge(pending, storage_class("late", "Immediate"), knows=CLASSES).state is PROGRESSING
    absent = judge(pending, knows=CLASSES)
    assert absent.code == "storage_class_missing"
    assert absent.grace is not None


def test_of_several_default_classes_the_newest_counts() -> None:
    pending = make("PersistentVolumeClaim", {}, {"phase": "Pending"})
    old = storage_class("old", "Immediate", True, "2025-01-01T00:00:00Z")
    new = storage_class("new", "WaitForFirstConsumer", True, "2026-01-01T00:00:00Z")
    assert judge(pending, old, new, knows=CLASSES).ready


SLICES = (("discovery.k8s.io", "EndpointSlice"),)


def endpoint_slice(*ready: bool | None) -> dict[str, Any]:
    endpoints = [{"conditions": {} if value is None else {"ready": value}} for value in ready]
    metadata = {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "x"}}
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "endpoints": endpoints}


def test_service() -> None:
    service = make("Service", {"selector": {"app": "x"}})
    assert judge(service, endpoint_slice(False, True), knows=SLICES).ready
    assert judge(service, endpoint_slice(None), knows=SLICES).ready
    assert judge(service, endpoint_slice(False), knows=SLICES).code == "no_endpoints"
    assert judge(make("Service", {"type": "ExternalName"})).ready
    assert judge(make("Service", {})).ready
    assert (
        judge(make("Service", {"type": "LoadBalancer", "selector": {"app": "x"}}), endpoint_slice(True)).state
        is PROGRESSING
    )
    template = {"metadata": {"labels": {"app": "x"}}}
    asleep = make("Deployment", {"replicas": 0, "template": template})
    assert judge(service, asleep, knows=SLICES).ready
    assert not judge(service, make("Deployment", {"replicas": 1, "template": template}), knows=SLICES).ready


@pytest.mark.parametrize(
    ("conditions", "state", "note"),
    [
        ([condition("ScalingActive")], READY, ""),
        ([condition("ScalingActive", "False", "ScalingDisabled")], READY, ""),
        ([condition("ScalingActive", "False", "FailedGetResourceMetric", "no metrics")], READY, "no metrics"),
        ([condition("ScalingActive", "False", "InvalidSelector", "missing")], FAILED, ""),
        ([], PROGRESSING, ""),
    ],
)
def test_autoscaler(conditions: list[dict[str, Any]], state: State, note: str) -> None:
    obj = {**make("HorizontalPodAutoscaler", {}, {"conditions": conditions}), "apiVersion": "autoscaling/v2"}
    found = judge(obj)
    assert found.state is state
    assert note in found.note


@pytest.mark.parametrize(
    ("api_version", "kind", "status", "state"),
    [
        ("policy/v1", "PodDisruptionBudget", {"observedGeneration": 2}, READY),
        ("policy/v1", "PodDisruptionBudget", {}, PROGRESSING),
        ("apiregistration.k8s.io/v1", "APIService", {"conditions": [condition("Available")]}, READY),
        ("apiregistration.k8s.io/v1", "APIService", {"conditions": [condition("Available", "False")]}, PROGRESSING),
        ("apiregistration.k8s.io/v1", "APIService", {}, PROGRESSING),
        (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            {"conditions": [condition("Established"), condition("NamesAccepted")]},
            READY,
        ),
        (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            {"conditions": [condition("NamesAccepted")]},
            PROGRESSING,
        ),
        (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            {"conditions": [condition("NamesAccepted", "False")]},
            FAILED,
        ),
        ("v1", "Namespace", {"phase": "Active"}, READY),
        ("v1", "Namespace", {"phase": "Terminating"}, FAILED),
        ("v1", "Pod", {"phase": "Running", "conditions": [condition("Ready")]}, READY),
        ("v1", "Pod", {"phase": "Succeeded"}, READY),
        ("v1", "Pod", {"phase": "Failed", "reason": "Evicted"}, FAILED),
        ("v1", "Pod", {"phase": "Pending"}, PROGRESSING),
        ("v1", "ConfigMap", {}, READY),
        # Known kinds without conditions are not ready; unknown ones may never have any.
        ("external-secrets.io/v1", "ExternalSecret", {}, PROGRESSING),
        ("external-secrets.io/v1", "ExternalSecret", {"conditions": [condition("Ready")]}, READY),
        ("cert-manager.io/v1", "Certificate", {"conditions": [condition("Ready"), condition("Issuing")]}, PROGRESSING),
        ("cert-manager.io/v1", "Certificate", {"conditions": [condition("Ready")]}, READY),
        ("cert-manager.io/v1", "Certificate", {"conditions": [condition("Ready", observedGeneration=1)]}, PROGRESSING),
        ("gateway.networking.k8s.io/v1", "Gateway", {"conditions": [condition("Accepted")]}, PROGRESSING),
        (
            "gateway.networking.k8s.io/v1",
            "Gateway",
            {"conditions": [condition("Accepted"), condition("Programmed")]},
            READY,
        ),
        ("nvidia.com/v1", "ClusterPolicy", {"state": "ready"}, READY),
        ("nvidia.com/v1", "ClusterPolicy", {"state": "notReady"}, PROGRESSING),
        ("velero.io/v1", "Backup", {"phase": "PartiallyFailed"}, FAILED),
        ("example.com/v1", "Widget", {}, READY),
        ("example.com/v1", "Widget", {"observedGeneration": 1}, PROGRESSING),
        ("example.com/v1", "Widget", {"conditions": [condition("Ready", "False", "Broken", "why")]}, PROGRESSING),
        ("example.com/v1", "Widget", {"conditions": [condition("Ready"), condition("Reconciling")]}, PROGRESSING),
        ("example.com/v1", "Widget", {"conditions": [condition("Ready"), condition("Stalled")]}, FAILED),
    ],
)
def test_other_kinds(api_version: str, kind: str, status: dict[str, Any], state: State) -> None:
    assert judge({**make(kind, {}, status), "apiVersion": api_version}).state is state


def postgres(**status: Any) -> dict[str, Any]:
    status = {"phase": "Cluster in healthy state", "instances": 2, "readyInstances": 2, **status}
    return {**make("Cluster", {"instances": 2, "imageName": "pg:17"}, status), "apiVersion": "postgresql.cnpg.io/v1"}


def test_postgres() -> None:
    assert judge(postgres()).ready
    assert judge(postgres(readyInstances=1)).state is PROGRESSING
    assert judge(postgres(image="pg:16")).state is PROGRESSING
    assert judge(postgres(instances=3)).state is PROGRESSING
    setting_up = judge(postgres(phase="Setting up primary", readyInstances=0))
    assert "Setting up primary" in setting_up.message
    assert judge(postgres(phase="Cluster is unrecoverable and needs manual intervention")).state is FAILED
    assert judge({**postgres(), "status": {}}).state is PROGRESSING


def test_whatever_is_being_deleted_has_failed() -> None:
    assert judge(make("ConfigMap", deletionTimestamp="2026-01-01T00:00:00Z")).code == "terminating"
