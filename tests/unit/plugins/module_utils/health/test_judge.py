"""What condemns a release and what does not, on recorded pods and events with simulated time."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import redact
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Assessment, Judge
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View, kind_of

POLICY = Policy()
TEMPLATE = {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [{"name": "main", "image": "app:2"}]}}
_number = itertools.count()


class Scene:
    """A Deployment with its ReplicaSets and pods, a clock, and the judge that looks at it."""

    def __init__(self) -> None:
        self.view = View()
        self.now = 1000.0
        self.deployment: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "api",
                "namespace": "n",
                "uid": "d",
                "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"replicas": 1, "template": TEMPLATE},
            "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 0},
        }
        self.judge = Judge([self.deployment])
        self.put(self.deployment)
        self.replica_set = self.add_replica_set("new", TEMPLATE)

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.view.put(kind_of(obj), copy.deepcopy(obj))
        return obj

    def add_replica_set(self, name: str, template: dict[str, Any]) -> dict[str, Any]:
        template = copy.deepcopy(template)
        template["metadata"]["labels"]["pod-template-hash"] = name
        owner = {"uid": "d", "kind": "Deployment", "controller": True}
        metadata = {"name": f"api-{name}", "namespace": "n", "uid": name, "ownerReferences": [owner]}
        spec = {"replicas": 1, "template": template}
        return self.put(
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec, "status": {}}
        )

    def pod(self, owner: str = "new", **status: Any) -> dict[str, Any]:
        reference = {"uid": owner, "kind": "ReplicaSet", "controller": True}
        metadata = {"name": f"api-{owner}-1", "namespace": "n", "uid": f"pod-{owner}", "ownerReferences": [reference]}
        spec = {"containers": [{"name": "main", "image": "app:2"}]}
        status = {"phase": "Pending", "conditions": [], **status}
        return self.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})

    def container(self, state: dict[str, Any], owner: str = "new", **more: Any) -> dict[str, Any]:
        status = {"name": "main", "image": "app:2", "ready": False, "restartCount": 0, "state": state, **more}
        return self.pod(owner, containerStatuses=[status])

    def waiting(self, reason: str, message: str = "", **more: Any) -> dict[str, Any]:
        return self.container({"waiting": {"reason": reason, "message": message}}, **more)

    def event(
        self, obj: dict[str, Any], reason: str, message: str = "", at: str = "2026-01-01T00:01:00Z", **more: Any
    ) -> None:
        metadata = {"name": f"e{next(_number)}", "namespace": "n", "uid": f"e{next(_number)}"}
        about = {"uid": obj["metadata"]["uid"]}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about, "type": "Warning"}
        self.put({**event, "reason": reason, "message": message, "lastTimestamp": at, "count": 3, **more})

    def look(self, later: float = 0.0) -> Assessment:
        self.now += later
        return self.judge.assess(self.view, self.now)

    def codes(self, later: float = 0.0) -> list[str]:
        """Codes of what condemns the release."""
        return [diagnosis.code for diagnosis in self.look(later).doomed]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ended(exit_code: int = 1, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("reason", "message", "code"),
    [
        ("InvalidImageName", "invalid reference format", "image_invalid"),
        ("ErrImageNeverPull", "not present with pull policy of Never", "image_not_present"),
        ("ErrImagePull", "rpc error: code = NotFound desc = failed to resolve: app:2: not found", "image_not_found"),
        ("ErrImagePull", "manifest unknown", "image_not_found"),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization", "image_denied"),
        ("ImagePullBackOff", 'Back-off pulling image "app:2": ErrImagePull: 401 Unauthorized', "image_denied"),
        ("RunContainerError", 'exec: "serve": executable file not found in $PATH', "container_start"),
    ],
)
def test_certain_at_once(scene: Scene, reason: str, message: str, code: str) -> None:
    scene.waiting(reason, message)
    assert scene.codes() == [code]


@pytest.mark.parametrize(
    ("reason", "message", "grace", "code"),
    [
        ("ErrImagePull", "dial tcp: lookup registry: i/o timeout", POLICY.image, "image_pull"),
        ("ImagePullBackOff", "Back-off pulling image", POLICY.image, "image_pull"),
        ("CreateContainerConfigError", 'secret "db" not found', POLICY.config, "config_missing"),
        ("CreateContainerError", "context deadline exceeded", POLICY.start, "container_start"),
    ],
)
def test_certain_after_a_grace(scene: Scene, reason: str, message: str, grace: float, code: str) -> None:
    scene.waiting(reason, message)
    assert scene.codes() == []
    assert scene.look().next_check == scene.now + grace
    assert scene.codes(grace - 1) == []
    assert scene.codes(2) == [code]


def test_what_has_healed_begins_anew(scene: Scene) -> None:
    scene.waiting("ErrImagePull", "i/o timeout")
    assert scene.codes() == []
    scene.container({"running": {}})
    assert scene.codes(POLICY.image - 1) == []
    scene.waiting("ErrImagePull", "i/o timeout")
    assert scene.codes(5) == []
    assert scene.codes(POLICY.image + 1) == ["image_pull"]


def test_alternating_between_error_and_back_off_is_one_trouble(scene: Scene) -> None:
    for reason in ("ErrImagePull", "ImagePullBackOff") * 5:
        scene.waiting(reason, "i/o timeout")
        last = scene.codes(POLICY.image / 9)
    assert last == ["image_pull"]


def test_the_reason_is_remembered_over_the_back_off(scene: Scene) -> None:
    scene.waiting("ErrImagePull", "lookup registry: no such host")
    scene.look()
    scene.waiting("ImagePullBackOff", "Back-off pulling image")
    assert "no such host" in scene.look().likely[0].evidence


def test_a_cache_that_is_not_in_sync_is_no_missing_secret(scene: Scene) -> None:
    scene.waiting("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition")
    assert scene.codes(10) == []
    assert scene.codes(1000) == []


@pytest.mark.parametrize(
    ("restarts", "last", "code"),
    [
        (1, ended(), None),
        (2, ended(), None),
        (3, ended(), "crash_loop"),
        (3, ended(137, "OOMKilled"), "out_of_memory"),
        (0, ended(128, "StartError", 'exec: "x": executable file not found in $PATH'), "container_start"),
    ],
)
def test_crashes_have_a_budget(scene: Scene, restarts: int, last: dict[str, Any], code: str | None) -> None:
    scene.waiting("CrashLoopBackOff", restartCount=restarts, lastState=last)
    assert scene.codes(100) == ([code] if code else [])


def test_init_containers_count_too(scene: Scene) -> None:
    status = {"name": "prepare", "image": "i", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    scene.pod(initContainerStatuses=[{**status, "lastState": ended(9)}])
    found = scene.look().doomed[0]
    assert found.code == "crash_loop"
    assert found.chain == ["Deployment n/api", "ReplicaSet n/api-new", "Pod n/api-new-1", "container prepare"]


def test_a_completed_init_container_is_no_crash(scene: Scene) -> None:
    done = {"name": "prepare", "image": "i", "restartCount": 0, "state": ended(0, "Completed")}
    scene.pod(initContainerStatuses=[done])
    assert scene.codes(1000) == []


def test_killed_by_a_probe(scene: Scene) -> None:
    pod = scene.waiting("CrashLoopBackOff", restartCount=3, lastState=ended(137))
    scene.event(pod, "Killing", "Container main failed liveness probe, will be restarted")
    found = scene.look().doomed[0]
    assert found.code == "probe_killed"
    assert "liveness" in found.cause


def unscheduled(scene: Scene) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
    return scene.pod(conditions=[condition])


def test_unschedulable_has_a_grace(scene: Scene) -> None:
    unscheduled(scene)
    assert scene.codes() == []
    assert scene.codes(POLICY.schedule + 1) == ["unschedulable"]


def test_an_autoscaler_that_adds_nodes_is_waited_for(scene: Scene) -> None:
    scene.event(unscheduled(scene), "TriggeredScaleUp", "pod triggered scale-up")
    scene.look()
    assert scene.codes(POLICY.schedule + 60) == []
    assert scene.codes(POLICY.scale_up) == ["unschedulable"]


def test_an_autoscaler_that_has_given_up_is_not(scene: Scene) -> None:
    pod = unscheduled(scene)
    scene.event(pod, "TriggeredScaleUp", at="2026-01-01T00:01:00Z")
    scene.event(pod, "NotTriggerScaleUp", at="2026-01-01T00:02:00Z")
    scene.look()
    assert scene.codes(POLICY.schedule + 1) == ["unschedulable"]


@pytest.mark.parametrize(
    ("reason", "message", "grace", "code"),
    [
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "x" : secret "tls" not found',
            POLICY.config,
            "config_missing",
        ),
        ("FailedMount", "timed out waiting for the condition", POLICY.sandbox, "mount"),
        ("FailedAttachVolume", "Multi-Attach error", POLICY.sandbox, "mount"),
        ("FailedCreatePodSandBox", "network plugin is not ready", POLICY.sandbox, "sandbox"),
    ],
)
def test_setting_a_pod_up(scene: Scene, reason: str, message: str, grace: float, code: str) -> None:
    pod = scene.waiting("ContainerCreating")
    scene.event(pod, reason, message)
    assert scene.codes() == []
    assert scene.codes(grace + 1) == [code]


def test_a_mount_that_worked_later_is_history(scene: Scene) -> None:
    pod = scene.waiting("ContainerCreating")
    scene.event(pod, "FailedMount", "timed out")
    scene.look()
    scene.container({"running": {}})
    assert scene.codes(1000) == []


@pytest.mark.parametrize(
    ("message", "code", "at_once"),
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot', "pod_security", True),
        ('admission webhook "policy.example" denied the request: no', "admission_denied", True),
        ('pods "x" is forbidden: exceeded quota: small, requested: pods=1', "quota_exceeded", False),
        ('pods "x" is forbidden: failed quota: small: must specify limits.cpu', "limits_refused", True),
        ('error looking up service account n/api: serviceaccount "api" not found', "service_account_missing", False),
    ],
)
def test_pods_that_are_refused(scene: Scene, message: str, code: str, at_once: bool) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    scene.put({**scene.replica_set, "status": {"conditions": [failure]}})
    assert scene.codes() == ([code] if at_once else [])
    assert scene.codes(POLICY.admission + 1) == [code]


def test_a_webhook_that_does_not_answer_may_come_back(scene: Scene) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": 'failed calling webhook "x": connection refused'}
    scene.put({**scene.replica_set, "status": {"conditions": [failure]}})
    assert scene.codes(500) == []
    assert scene.look().likely[0].code == "webhook_unavailable"


def test_old_terminating_and_evicted_pods_are_ignored(scene: Scene) -> None:
    old = copy.deepcopy(TEMPLATE)
    old["spec"]["containers"][0]["image"] = "app:1"
    scene.add_replica_set("old", old)
    scene.waiting("InvalidImageName", owner="old")
    assert scene.codes(1000) == []
    pod = scene.waiting("InvalidImageName")
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    scene.put(pod)
    assert scene.codes(1000) == []
    scene.pod(phase="Failed", reason="Evicted")
    assert scene.codes(1000) == []


def test_nothing_is_judged_before_the_controller_has_seen_the_change(scene: Scene) -> None:
    scene.waiting("InvalidImageName")
    scene.put({**scene.deployment, "status": {**scene.deployment["status"], "observedGeneration": 1}})
    assert scene.codes(1000) == []


def test_slow_starts_are_only_a_likely_reason(scene: Scene) -> None:
    pod = scene.container({"running": {}})
    scene.event(pod, "Unhealthy", "Readiness probe failed: 503")
    assert scene.codes(10_000) == []
    likely = scene.look().likely[0]
    assert likely.code == "not_ready"
    assert "503" in likely.evidence


def test_events_from_before_the_change_do_not_count() -> None:
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 2},
        "metadata": {
            "name": "db",
            "namespace": "n",
            "uid": "s",
            "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "groundwork.platform", "time": "2026-01-02T00:00:00Z"}],
        },
    }
    scene = Scene()
    scene.judge = Judge([stateful_set])
    scene.put(stateful_set)
    scene.event(stateful_set, "FailedCreate", "violates PodSecurity", at="2026-01-01T12:00:00Z")
    assert scene.codes() == []
    scene.event(stateful_set, "FailedCreate", "violates PodSecurity", at="2026-01-02T00:00:00Z")
    assert scene.codes() == ["pod_security"]


def test_a_jobs_pods_leave_the_verdict_to_the_job() -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "n", "uid": "j"},
        "spec": {"backoffLimit": 3},
        "status": {},
    }
    scene = Scene()
    scene.judge = Judge([job])
    scene.put(job)
    pod = scene.pod("j", phase="Failed", containerStatuses=[{"name": "main", "state": ended(3), "restartCount": 0}])
    pod["metadata"]["ownerReferences"][0]["kind"] = "Job"
    pod["spec"]["restartPolicy"] = "Never"
    scene.put(pod)
    assert scene.codes(100) == []
    failure = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "has reached the limit"}
    scene.put({**job, "status": {"conditions": [failure]}})
    found = scene.look().doomed[0]
    assert found.code == "job_failed"
    assert "exit code 3" in found.evidence


def test_causes_come_before_effects() -> None:
    scene = Scene()
    other = copy.deepcopy(scene.deployment)
    other["metadata"].update({"name": "aaa", "uid": "d2"})
    scene.judge = Judge([other, scene.deployment])
    scene.put(other)
    replica_set = scene.add_replica_set("other", TEMPLATE)
    replica_set["metadata"]["ownerReferences"][0]["uid"] = "d2"
    scene.put(replica_set)
    scene.waiting("CrashLoopBackOff", restartCount=9, lastState=ended(), owner="other")
    scene.waiting("InvalidImageName")
    assert scene.codes() == ["image_invalid", "crash_loop"]


def test_many_pods_with_one_trouble_are_one_reason(scene: Scene) -> None:
    for number in range(3):
        pod = scene.waiting("InvalidImageName")
        pod["metadata"].update({"name": f"api-{number}", "uid": f"p{number}"})
        scene.put(pod)
    doomed = scene.look().doomed
    assert len(doomed) == 1


def test_an_object_that_was_there_and_is_gone(scene: Scene) -> None:
    assert scene.look().doomed == []
    scene.view.remove(("apps", "Deployment"), scene.deployment)
    assert scene.codes() == ["deleted"]


def test_kinds_that_may_not_be_read_are_noted(scene: Scene) -> None:
    scene.judge.denied[("apps", "Deployment")] = "forbidden"
    found = scene.look()
    assert found.ready
    assert "forbidden" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("connecting to postgres://app:hunter2@db:5432/x", "hunter2"),
        ("PGPASSWORD=hunter2 psql", "hunter2"),
        ('{"password": "hunter2", "user": "a"}', "hunter2"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("token eyJhbGciOiJSUzI1.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl ok", "eyJpc3MiOiJrdWJl"),
    ],
)
def test_logs_are_redacted(text: str, hidden: str) -> None:
    assert hidden not in redact(text)
    assert redact("user app connected to db") == "user app connected to db"
