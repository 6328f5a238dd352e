"""Each row of docs/health_gate.md about what passes and what does not: recorded states and events, simulated time."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health import rules
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import State, readiness
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View
from tests.support.objects import (
    container,
    crashing,
    custom,
    event,
    pod,
    ready_pod,
    running,
    waiting,
    workload,
)
from tests.support.scene import NEVER, Scene, lasts

POLICY = Policy()
API = workload("api")


@pytest.mark.parametrize(
    ("reason", "message", "code", "grace"),
    [
        ("InvalidImageName", "couldn't parse image reference", "image_invalid", 0),
        ("ErrImageNeverPull", "not present with pull policy of Never", "image_not_present", 0),
        ("ErrImagePull", "failed to resolve reference: api:1: not found", "image_not_found", 0),
        ("ErrImagePull", "no match for platform in manifest", "image_not_found", 0),
        ("ErrImagePull", "401 Unauthorized", "image_denied", 0),
        ("ErrImagePull", "dial tcp: i/o timeout", "image_pull", POLICY.image),
        ("ErrImagePull", "429 Too Many Requests", "image_pull", POLICY.image),
        ("ImagePullBackOff", "Back-off pulling image", "image_pull", POLICY.image),
        ("RegistryUnavailable", "registry is unavailable", "image_pull", POLICY.image),
        ("CreateContainerConfigError", 'secret "db" not found', "config_missing", POLICY.config),
        ("CreateContainerConfigError", 'configmap "db" not found', "config_missing", POLICY.config),
        ("CreateContainerConfigError", "couldn't find key a in Secret n/db", "config_missing", POLICY.config),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out", "config_missing", NEVER),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "runs_as_root", 0),
        ("CreateContainerConfigError", "invalid variable name", "config_invalid", 0),
        ("CreateContainerError", "context deadline exceeded", "container_start", POLICY.start),
        ("CreateContainerError", 'mkdir x: no such file or directory', "container_start", POLICY.start),
        ("RunContainerError", 'exec: "x": executable file not found in $PATH', "container_start", 0),
        ("RunContainerError", "device or resource busy", "container_start", POLICY.start),
        ("PostStartHookError", "command exited with 1", "container_start", POLICY.start),
    ],
)  # fmt: skip
def test_a_container_that_waits(reason: str, message: str, code: str, grace: float) -> None:
    lasts(Scene(API, pod(API, containerStatuses=[container(waiting(reason, message))])), code, grace)
    init = {"initContainerStatuses": [container(waiting(reason, message), "prepare")]}
    lasts(Scene(API, pod(API, **init)), code, grace)


@pytest.mark.parametrize(
    ("status", "code", "grace"),
    [
        (crashing(3), "crash_loop", 0),
        (crashing(2), "crash_loop", NEVER),
        (crashing(3, 0), "crash_loop", 0),
        (crashing(3, 137, reason="OOMKilled"), "out_of_memory", 0),
        (crashing(1, 137, reason="OOMKilled"), "out_of_memory", NEVER),
    ],
)
def test_a_container_that_crashes(status: dict[str, Any], code: str, grace: float) -> None:
    lasts(Scene(API, pod(API, phase="Running", containerStatuses=[status])), code, grace)


@pytest.mark.parametrize(
    ("message", "grace"),
    [('exec: "x": executable file not found in $PATH', 0), ("failed to create shim task: ttrpc closed", POLICY.start)],
)
def test_exit_code_128_is_the_runtimes_own_trouble(message: str, grace: float) -> None:
    last = {"terminated": {"exitCode": 128, "reason": "StartError", "message": message}}
    status = container(waiting("CrashLoopBackOff"), restartCount=9, lastState=last)
    lasts(Scene(API, pod(API, phase="Running", containerStatuses=[status])), "container_start", grace)


def test_restarts_from_before_are_history() -> None:
    scene = Scene(API, ready_pod(API, restartCount=7))
    scene.look()
    for restarts, code in ((8, []), (9, []), (10, ["crash_loop"])):
        scene.put(pod(API, phase="Running", containerStatuses=[crashing(restarts)]))
        assert scene.doomed(1) == code


def test_restarts_of_one_that_was_crashing_already_are_not() -> None:
    assert Scene(API, pod(API, phase="Running", containerStatuses=[crashing(7)])).doomed(0) == ["crash_loop"]


def test_a_budget_of_none_condemns_the_first_crash() -> None:
    broken = pod(API, phase="Running", containerStatuses=[crashing(0)])
    assert Scene(API, broken, policy=Policy(max_restarts=0)).doomed(0) == ["crash_loop"]


@pytest.mark.parametrize("reason", ["Evicted", "Preempting", "NodeShutdown"])
def test_an_evicted_pod_is_replaced_by_its_owner_and_fatal_for_a_bare_one(reason: str) -> None:
    evicted = pod(API, phase="Failed", reason=reason)
    assert Scene(API, evicted).doomed(1000) == []
    bare = custom("v1", "Pod", "bare", status={"phase": "Failed", "reason": reason})
    assert readiness(bare, View()).state is State.FAILED


UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no cpu"}]


def unscheduled(**status: Any) -> Object:
    return pod(API, conditions=UNSCHEDULED, **status)


@pytest.mark.parametrize(
    ("events", "status", "grace"),
    [
        ((), {}, POLICY.schedule),
        (("TriggeredScaleUp",), {}, POLICY.scale_up),
        (("Nominated",), {}, POLICY.scale_up),
        (("NotTriggerScaleUp",), {}, POLICY.schedule),
        (("TriggeredScaleUp", "NotTriggerScaleUp"), {}, POLICY.schedule),
        (("NotTriggerScaleUp", "TriggeredScaleUp"), {}, POLICY.scale_up),
        ((), {"nominatedNodeName": "node-1"}, POLICY.preempt),
    ],
)
def test_a_pod_without_a_node(events: tuple[str, ...], status: dict[str, Any], grace: float) -> None:
    target = unscheduled(**status)
    told = [
        event(target, reason, "words of the autoscaler", at=f"2026-01-01T00:00:{number:02}Z")
        for number, reason in enumerate(events)
    ]
    lasts(Scene(API, target, *told), "unschedulable", grace)


def node(created: str, ready: str = "False", **spec: Any) -> Object:
    found = custom("v1", "Node", "late", spec, {"conditions": [{"type": "Ready", "status": ready}]})
    found["metadata"].pop("namespace")
    found["metadata"]["creationTimestamp"] = created
    return found


@pytest.mark.parametrize(
    ("created", "ready", "grace"),
    [
        ("2026-01-01T00:01:00Z", "False", POLICY.scale_up),
        ("2026-01-01T00:01:00Z", "True", POLICY.schedule),
        # It has been away for longer than the pod waits: nothing says that it comes back.
        ("2025-01-01T00:00:00Z", "Unknown", POLICY.schedule),
    ],
)
def test_a_node_that_is_joining(created: str, ready: str, grace: float) -> None:
    lasts(Scene(API, unscheduled(), node(created, ready)), "unschedulable", grace)


def test_the_autoscalers_refusal_is_evidence() -> None:
    target = unscheduled()
    scene = Scene(API, target, event(target, "NotTriggerScaleUp", "pod didn't trigger scale-up: max node group size"))
    assert "max node group size" in scene.look().likely[0].evidence


def test_a_scheduling_gate_is_somebodys_will() -> None:
    gated = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    lasts(Scene(API, pod(API, conditions=gated)), "scheduling_gated", NEVER)


def test_a_claim_that_does_not_exist() -> None:
    message = '0/3 nodes are available: persistentvolumeclaim "data" not found.'
    scene = Scene(API, pod(API, conditions=[{**UNSCHEDULED[0], "message": message}]))
    lasts(scene, "claim_missing", POLICY.config)
    # It has come, and the scheduler has not looked again.
    scene.put(custom("v1", "PersistentVolumeClaim", "data", {}, {"phase": "Pending"}))
    assert scene.doomed(POLICY.config + 1) == []


CLAIMED = workload("api", volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])


@pytest.mark.parametrize(
    ("spec", "reason", "mode", "code", "grace"),
    [
        ({"storageClassName": "absent"}, "", "", "storage_class_missing", rules.CLASS_GRACE),
        ({"storageClassName": "slow"}, "ProvisioningFailed", "WaitForFirstConsumer", "provisioning_failed",
         rules.PROVISION_GRACE),
        ({"storageClassName": ""}, "FailedBinding", "", "claim_unbound", rules.CLASS_GRACE),
        ({"storageClassName": "slow"}, "ExternalProvisioning", "Immediate", "no_provisioner", rules.PROVISIONER_GRACE),
    ],
)  # fmt: skip
def test_a_pod_whose_claim_gets_no_volume(
    spec: dict[str, Any], reason: str, mode: str, code: str, grace: float
) -> None:
    claim = custom("v1", "PersistentVolumeClaim", "data", spec, {"phase": "Pending"})
    slow = {**custom("storage.k8s.io/v1", "StorageClass", "slow"), "provisioner": "x", "volumeBindingMode": mode}
    slow["metadata"].pop("namespace")
    target = pod(
        CLAIMED, conditions=[{**UNSCHEDULED[0], "message": "pod has unbound immediate PersistentVolumeClaims"}]
    )
    told = [event(claim, reason, "words of the provisioner")] if reason else []
    scene = Scene(CLAIMED, claim, slow, target, *told)
    lasts(scene, code, grace)
    assert scene.look(grace + 1).doomed[0].chain[-1] == "PersistentVolumeClaim n/data"


def test_a_claim_that_has_lost_its_volume_condemns_its_pod_at_once() -> None:
    claim = custom("v1", "PersistentVolumeClaim", "data", {}, {"phase": "Lost"})
    lasts(Scene(CLAIMED, claim, pod(CLAIMED, conditions=UNSCHEDULED)), "claim_lost", 0)


KEYS = workload(
    "api",
    volumes=[
        {"name": "tls", "secret": {"secretName": "web", "items": [{"key": "tls.crt", "path": "crt"}]}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "a", "items": [{"key": "x", "path": "x"}]}},
                                                  {"configMap": {"name": "b", "items": [{"key": "y", "path": "y"}]}}]}},
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        ('MountVolume.SetUp failed for volume "tls" : secret "web" not found', "Secret web"),
        ('MountVolume.SetUp failed for volume "tls" : references non-existent secret key: tls.crt',
         "key tls.crt of Secret web"),
        ('MountVolume.SetUp failed for volume "all" : configmap references non-existent config key: y',
         "key y of ConfigMap b"),
    ],
)  # fmt: skip
def test_a_volume_that_lacks_something_says_what(message: str, lacks: str) -> None:
    target = pod(KEYS, containerStatuses=[container(waiting("ContainerCreating"))])
    scene = Scene(KEYS, target, event(target, "FailedMount", message))
    lasts(scene, "config_missing", POLICY.config)
    assert lacks in scene.look(NEVER).doomed[0].cause


@pytest.mark.parametrize("told", ["event", "condition"])
def test_a_mount_and_a_sandbox_that_failed_before_the_image_is_pulled_are_history(told: str) -> None:
    conditions = [{"type": "PodReadyToStartContainers", "status": "True"}] if told == "condition" else []
    target = pod(API, conditions=conditions, containerStatuses=[container(waiting("ContainerCreating"))])
    scene = Scene(API, target, event(target, "FailedMount", "timed out"), event(target, "FailedCreatePodSandBox", "x"))
    if told == "event":
        assert scene.look(0).likely[0].code == "mount"
        scene.put(event(target, "Pulling", 'Pulling image "api:1"', "Normal", at="2026-01-01T00:00:20Z"))
    assert scene.doomed(NEVER) == []


@pytest.mark.parametrize(
    ("reason", "message", "code", "grace"),
    [
        ("FailedMount", 'MountVolume.SetUp failed: secret "tls" not found', "config_missing", POLICY.config),
        ("FailedMount", "driver name x.csi not found in the list of registered CSI drivers", "mount", POLICY.sandbox),
        ("FailedMount", "timed out waiting for the condition", "mount", POLICY.sandbox),
        ("FailedAttachVolume", "Multi-Attach error for volume", "mount", POLICY.sandbox),
        ("FailedCreatePodSandBox", "network plugin is not ready", "sandbox", POLICY.sandbox),
    ],
)
def test_a_pod_that_is_set_up(reason: str, message: str, code: str, grace: float) -> None:
    target = pod(API, containerStatuses=[container(waiting("ContainerCreating"))])
    lasts(Scene(API, target, event(target, reason, message)), code, grace)


def test_a_sandbox_that_failed_once_is_nothing() -> None:
    target = pod(API, containerStatuses=[container(waiting("ContainerCreating"))])
    scene = Scene(API, target, event(target, "FailedCreatePodSandBox", "x", count=1))
    assert scene.doomed(1000) == []
    assert scene.doomed(2000) == []


PROBE = {"initialDelaySeconds": 5, "periodSeconds": 20, "failureThreshold": 6, "timeoutSeconds": 1}


def probed(**more: Any) -> Object:
    return workload("api", containers=[{"name": "main", "image": "i", "readinessProbe": PROBE, **more}])


@pytest.mark.parametrize(
    ("target", "grace"),
    [
        (probed(), 5 + 6 * 20 + POLICY.slow_start),
        (probed(startupProbe={}), 5 + 6 * 20 + POLICY.slow_start),
        (probed(startupProbe={"periodSeconds": 10}), 5 + 6 * 20 + POLICY.readiness),
        (workload("api"), NEVER),
    ],
)
def test_a_readiness_probe_that_fails(target: Object, grace: float) -> None:
    unready = pod(target, phase="Running", containerStatuses=[running(False)])
    told = event(unready, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
    scene = Scene(target, unready, told)
    lasts(scene, "not_ready", grace)
    assert "503" in [*scene.look(grace + 1).doomed, *scene.look(grace + 1).likely][0].evidence


def test_a_slow_start_without_a_failed_probe_is_waited_for() -> None:
    target = probed()
    lasts(Scene(target, pod(target, phase="Running", containerStatuses=[running(False)])), "not_ready", NEVER)


def test_a_startup_that_takes_long_is_the_kubelets_to_end() -> None:
    target = probed(startupProbe=PROBE)
    unready = pod(target, phase="Running", containerStatuses=[{**running(False), "started": False}])
    told = event(unready, "Unhealthy", "Startup probe failed: connection refused")
    lasts(Scene(target, unready, told), "not_ready", NEVER)


@pytest.mark.parametrize("kind", ["liveness", "startup"])
def test_a_kill_by_a_probe_counts_as_a_restart(kind: str) -> None:
    target = pod(API, phase="Running", containerStatuses=[crashing(3, 137)])
    scene = Scene(API, target, event(target, "Killing", f"Container main failed {kind} probe", "Normal"))
    found = scene.look().doomed[0]
    assert found.code == "probe_killed"
    assert f"its {kind} probe fails" in found.cause


def test_a_kill_that_nobody_explains_may_be_for_memory() -> None:
    target = pod(API, phase="Running", containerStatuses=[crashing(3, 137, reason="Error")])
    found = Scene(API, target).look().doomed[0]
    assert found.code == "crash_loop"
    assert "more memory than its limit" in found.cause


@pytest.mark.parametrize(("restarts", "doomed"), [(0, False), (2, False), (3, True)])
def test_a_program_that_ends_well_again_and_again_is_not_what_a_deployment_is_for(restarts: int, doomed: bool) -> None:
    ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    target = pod(API, phase="Running", containerStatuses=[container(ended, restartCount=restarts)])
    found = Scene(API, target).look().doomed
    assert [item.code for item in found] == (["crash_loop"] if doomed else [])


def test_a_hook_that_fails_is_named() -> None:
    target = pod(API, phase="Running", containerStatuses=[crashing(3, 137)])
    found = Scene(API, target, event(target, "FailedPostStartHook", "PostStartHook failed")).look().doomed[0]
    assert found.code == "hook_failed"
    assert "postStart hook" in found.cause


def test_an_init_container_that_does_not_end_is_named() -> None:
    target = workload("api", initContainers=[{"name": "wait", "image": "i"}])
    scene = Scene(target, pod(target, initContainerStatuses=[running(False) | {"name": "wait"}]))
    lasts(scene, "init_waiting", NEVER)
    assert scene.look().likely[0].chain[-1] == "init container wait"


def test_a_sidecar_is_no_init_container_that_does_not_end() -> None:
    target = workload("api", initContainers=[{"name": "mesh", "image": "i", "restartPolicy": "Always"}])
    status = {"initContainerStatuses": [running() | {"name": "mesh"}], "containerStatuses": [running(False)]}
    assert [item.code for item in Scene(target, pod(target, **status)).look().likely] == ["not_ready"]


def db(**status: Any) -> Object:
    found = workload("db", "StatefulSet")
    found["status"].update({"updateRevision": "new", "currentRevision": "r", "updatedReplicas": 0, **status})
    return found


def test_a_stateful_set_waits_for_a_broken_pod_of_its_old_revision() -> None:
    broken = pod(db(), phase="Running", containerStatuses=[crashing(9)])
    scene = Scene(db(), broken)
    lasts(scene, "old_pod_blocks", POLICY.old_pod)
    assert scene.look(POLICY.old_pod + 1).doomed[0].hint == "delete that pod"


def test_one_that_starts_its_pods_side_by_side_does_not() -> None:
    target = db()
    target["spec"]["podManagementPolicy"] = "Parallel"
    assert Scene(target, pod(target, phase="Running", containerStatuses=[crashing(9)])).doomed(0) == []


def test_terminating_pods_do_not_count() -> None:
    broken = pod(API, containerStatuses=[container(waiting("InvalidImageName"))])
    broken["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Scene(API, broken).doomed(1000) == []


@pytest.mark.parametrize("failed_pods", [0, 1, 2])
def test_the_budget_counts_pods_and_not_their_troubles(failed_pods: int) -> None:
    target = workload("api", replicas=3)
    broken = [container(waiting("InvalidImageName")), container(waiting("InvalidImageName"), "other")]
    pods = [pod(target, number, containerStatuses=broken) for number in range(2)]
    found = Scene(target, *pods, policy=Policy(failed_pods=failed_pods)).doomed(0)
    assert bool(found) is (failed_pods < 2)


def conditions(*given: tuple[str, str, str, str]) -> dict[str, Any]:
    return {"conditions": [dict(zip(("type", "status", "reason", "message"), item, strict=True)) for item in given]}


@pytest.mark.parametrize(
    ("api_version", "kind", "status", "code"),
    [
        ("external-secrets.io/v1", "ExternalSecret", conditions(("Ready", "False", "SecretSyncedError", "no such key")),
         "secret_sync_failed"),
        ("external-secrets.io/v1", "SecretStore", conditions(("Ready", "False", "InvalidProviderConfig", "denied")),
         "secret_store_failed"),
        ("external-secrets.io/v1", "ClusterSecretStore", conditions(("Ready", "False", "ValidationFailed", "denied")),
         "secret_store_failed"),
        ("cert-manager.io/v1", "Issuer", conditions(("Ready", "False", "ErrRegisterACMEAccount", "refused")),
         "issuer_failed"),
        ("postgresql.cnpg.io/v1", "Cluster", {"phase": "Unable to create required cluster objects"}, "postgres_failed"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", conditions(("AbleToScale", "False", "FailedGetScale", "none")),
         "scaling_inactive"),
    ],
)  # fmt: skip
def test_a_controller_that_tries_again_has_a_grace(
    api_version: str, kind: str, status: dict[str, Any], code: str
) -> None:
    lasts(Scene(custom(api_version, kind, "x", {}, status)), code, rules.CONTROLLER_GRACE)


@pytest.mark.parametrize(
    ("api_version", "kind", "status", "state", "words"),
    [
        ("cert-manager.io/v1", "Certificate", conditions(("Issuing", "True", "DoesNotExist", "no secret")),
         State.PROGRESSING, "being issued"),
        ("cert-manager.io/v1", "Certificate",
         {"lastFailureTime": "2026-01-01T00:00:00Z", **conditions(("Issuing", "False", "Failed", "order is invalid"))},
         State.FAILED, "order is invalid"),
        ("cert-manager.io/v1", "Certificate",
         {"lastFailureTime": "2026-01-01T00:00:00Z",
          **conditions(("Issuing", "False", "Failed", "x"), ("Ready", "True", "Ready", ""))}, State.READY, ""),
        ("nvidia.com/v1", "ClusterPolicy", {"state": "ignored"}, State.FAILED, "another ClusterPolicy"),
        ("policy/v1", "PodDisruptionBudget",
         {"observedGeneration": 1, "expectedPods": 2, "desiredHealthy": 2, "currentHealthy": 2}, State.READY, ""),
        ("postgresql.cnpg.io/v1", "Cluster", {"phase": "Waiting for user action"}, State.FAILED, "user action"),
        ("external-secrets.io/v1", "ExternalSecret",
         conditions(("Stalled", "True", "Broken", "x"), ("Ready", "True", "", "")), State.FAILED, "stalled"),
        ("cert-manager.io/v1", "Certificate",
         conditions(("Reconciling", "True", "Busy", "x"), ("Ready", "True", "", "")), State.PROGRESSING, "reconciled"),
        ("gateway.networking.k8s.io/v1", "Gateway", {"observedGeneration": 0}, State.PROGRESSING, "not been seen"),
    ],
)  # fmt: skip
def test_states_of_other_kinds(api_version: str, kind: str, status: dict[str, Any], state: State, words: str) -> None:
    found = readiness(custom(api_version, kind, "x", {}, status), View())
    assert found.state is state
    assert words in found.message


def test_a_certificate_whose_issuer_is_not_there() -> None:
    certificate = custom(
        "cert-manager.io/v1", "Certificate", "x", {}, conditions(("Issuing", "True", "DoesNotExist", ""))
    )
    owner = [{"uid": "Certificate-x", "kind": "Certificate", "controller": True}]
    status = conditions(("Ready", "False", "Pending", 'Referenced "Issuer" not found: issuer "ca" not found'))
    request = custom("cert-manager.io/v1", "CertificateRequest", "x-1", {}, status, ownerReferences=owner)
    lasts(Scene(certificate, request), "certificate_failed", rules.CONTROLLER_GRACE)


def test_a_budget_that_blocks_every_drain_is_said() -> None:
    status = {"observedGeneration": 1, "expectedPods": 2, "desiredHealthy": 2}
    assert "no node drains" in readiness(custom("policy/v1", "PodDisruptionBudget", "x", {}, status), View()).note


def test_of_several_default_classes_the_newest_counts_and_that_is_said() -> None:
    view = View()
    mark = {"storageclass.kubernetes.io/is-default-class": "true"}
    for name, created in (("old", "2025-01-01T00:00:00Z"), ("new", "2026-01-01T00:00:00Z")):
        found = custom("storage.k8s.io/v1", "StorageClass", name, annotations=mark, creationTimestamp=created)
        found["metadata"].pop("namespace")
        view.sync(("storage.k8s.io", "StorageClass"), [*view.list(("storage.k8s.io", "StorageClass")), found])
    claim = custom("v1", "PersistentVolumeClaim", "data", {}, {"phase": "Pending"})
    assert "of 2 default StorageClasses new, the newest" in readiness(claim, view).message


@pytest.mark.parametrize(("unschedulable", "ready"), [(True, "True"), (False, "Unknown")])
def test_a_daemon_set_leaves_out_nodes_that_are_cordoned_or_away(unschedulable: bool, ready: str) -> None:
    target = workload("agent", "DaemonSet")
    target["status"] = {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2,
                        "numberAvailable": 1}  # fmt: skip
    away = pod(target)
    away["spec"]["nodeName"] = "late"
    scene = Scene(target, away, node("2025-01-01T00:00:00Z", ready, unschedulable=unschedulable))
    assert scene.look().ready
    assert "late" in scene.look().notes[0]


def test_a_recreated_deployment_is_not_ready_with_its_old_pods() -> None:
    target = workload("api", ready=True)
    target["status"].update({"updatedReplicas": 0})
    assert readiness(target, View()).message == "has 0 of 1 pods updated"


def test_a_paused_rollout_is_no_endless_wait() -> None:
    target = workload("api")
    target["spec"]["paused"] = True
    assert Scene(target).doomed(0) == ["paused"]
