"""Pods that are not created: which reasons end the wait, and when; recorded words and events, simulated time."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.refusals import STALE, reason_of
from tests.support.objects import event, pod, ready_pod, replica_set, workload
from tests.support.scene import NEVER, STARTED, Scene, lasts

POLICY = Policy()
FINAL = 0.0
UNKNOWN = "the Pod could not be created"
SECURITY = 'pods "api-1-x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
QUOTA = 'pods "api-1-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4'
ETCD = "etcdserver: request timed out"

WORDS = [
    (SECURITY, "pod_security", FINAL),
    ('admission webhook "v.x" denied the request: set a timeout', "admission_denied", FINAL),
    ("ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no", "admission_denied", FINAL),
    (
        'pods "x" is forbidden: unable to validate against any security context constraint: []',
        "admission_denied",
        FINAL,
    ),
    (
        'pods "x" is forbidden: pod node label selector conflicts with its namespace node label selector',
        "admission_denied",
        FINAL,
    ),
    ('pods "x" is forbidden: failed quota: small: must specify limits.cpu for: main', "limits_refused", FINAL),
    ('pods "x" is forbidden: maximum cpu usage per Container is 1, but limit is 2', "limits_refused", FINAL),
    (
        'pods "x" is forbidden: cpu max limit to request ratio per Pod is 2, but provided ratio is 4',
        "limits_refused",
        FINAL,
    ),
    ('Pod "x" is invalid: spec.containers[0].image: Required value', "pods_invalid", FINAL),
    (QUOTA, "quota_exceeded", POLICY.admission),
    (
        'Internal error occurred: failed calling webhook "v.x": failed to call webhook: context deadline exceeded',
        "webhook_unavailable",
        POLICY.webhook,
    ),
    (
        'pods "x" is forbidden: error looking up service account n/r: serviceaccount "r" not found',
        "service_account_missing",
        POLICY.config,
    ),
    ('pods "x" is forbidden: no PriorityClass with name urgent was found', "priority_class_missing", POLICY.config),
    ('pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found', "runtime_class_missing", POLICY.config),
    (UNKNOWN, "pods_refused", POLICY.admission),
    ('pods "x" is forbidden: cosmic rays', "pods_refused", POLICY.admission),
    *(
        (message, "pods_refused", NEVER)
        for message in (
            ETCD,
            "etcdserver: leader changed",
            "context deadline exceeded",
            "Timeout: request did not complete within requested timeout - context deadline exceeded",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
            "the server is currently unable to handle the request (post pods)",
            "the server has received too many requests and has asked us to try again later (post pods)",
            "client rate limiter Wait returned an error: context deadline exceeded",
            "The POST operation against pods could not be completed at this time, please try again.",
            'Operation cannot be fulfilled on resourcequotas "small": the object has been modified',
            "Internal error occurred: resource quota evaluation timed out",
            'pods "x" is forbidden: status unknown for quota: small, resources: pods',
            'pods "x" is forbidden: not yet ready to handle request',
            'pods "x" is forbidden: unable to create new content in namespace n because it is being terminated',
            'object is being deleted: pods "db-0" already exists',
            "Unauthorized",
            "Post https://10.0.0.1/api/v1/pods: net/http: TLS handshake timeout",
            "Post https://10.0.0.1/api/v1/pods: dial tcp 10.0.0.1:443: connect: connection refused",
            "Post https://10.0.0.1/api/v1/pods: read tcp: connection reset by peer",
            "Post https://10.0.0.1/api/v1/pods: http2: client connection lost",
            "Post https://10.0.0.1/api/v1/pods: unexpected EOF",
        )
    ),
]


def at(seconds: float) -> str:
    """A moment as the cluster writes it."""
    return datetime.datetime.fromtimestamp(STARTED + seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wants(kind: str = "Deployment", replicas: int = 4) -> Object:
    """A workload none of whose pods exists."""
    target = workload("api", kind, replicas=replicas)
    target["status"].update({"replicas": 0, "updatedReplicas": 0, "desiredNumberScheduled": replicas})
    return {**target, "apiVersion": "batch/v1" if kind == "Job" else "apps/v1"}


API, STORE = wants(), wants("StatefulSet")


def refused(message: str, since: float = 0.0, made: int = 0, reason: str = "FailedCreate") -> Object:
    """The ReplicaSet while its controller is refused a pod."""
    failure = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": message,
               "lastTransitionTime": at(since)}  # fmt: skip
    return {**replica_set(API), "status": {"replicas": made, "conditions": [failure]}}


def told(about: Object, message: str, moment: float, reason: str = "FailedCreate") -> Object:
    """What a controller writes about it."""
    return event(about, reason, f"Error creating: {message}", at=at(moment))


@pytest.mark.parametrize(("message", "code", "grace"), WORDS)
def test_what_a_message_means(message: str, code: str, grace: float) -> None:
    """Of a ReplicaSet in its condition, of a StatefulSet in an event; also where many events were made one."""
    found = reason_of(message)
    assert (found.code, min(found.patience(POLICY), NEVER)) == (code, grace)
    scene = Scene(API)
    scene.put(refused(message))
    lasts(scene, code, grace)
    lasts(Scene(STORE, told(STORE, message, 0)), code, grace)
    lasts(Scene(STORE, told(STORE, f"(combined from similar events): {message}", 0)), code, grace)


def test_no_unknown_reason_condemns_while_new_pods_keep_appearing() -> None:
    scene = Scene(wants(replicas=40))
    scene.put(refused(UNKNOWN))
    for number in range(20):
        moment = number * (POLICY.admission - 1)
        scene.put(pod(API, number, created=at(moment)))
        assert scene.doomed(moment) == []
        assert scene.look(moment).likely[0].code == "pods_refused"
    last = 19 * (POLICY.admission - 1)
    assert scene.doomed(last + POLICY.admission - 0.5) == []
    assert scene.doomed(last + POLICY.admission + 0.5) == ["pods_refused"]


@pytest.mark.parametrize("message", [ETCD, UNKNOWN, QUOTA])
def test_a_starved_rollout_as_it_was_recorded(message: str) -> None:
    """1,500 pods, etcd stopped for 14 s four times: 25 refusals are told, and none of the pods that were made then.

    The condition held for half a second; the last refusal stayed the newest event for good.
    """
    scene = Scene(wants(replicas=1500))
    for second in (0, 15, 31, 46):
        scene.put(pod(API, second, created=at(second)))
        assert scene.doomed(second) == []
    scene.put(refused(message, since=66))
    assert scene.doomed(65.6) == []
    scene.put({**replica_set(API), "status": {"replicas": 449}})
    for count in range(25):
        scene.put(told(replica_set(API), message, 65) | {"count": count + 1}, pod(API, 100 + count, created=at(66)))
        assert scene.doomed(66.1 + count) == []
    assert scene.doomed(NEVER) == []


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "Job"])
def test_a_pod_that_is_made_later_says_more_than_an_event(kind: str) -> None:
    """A controller writes 25 events about one object and then one in five minutes: the last may be long past."""
    target = wants(kind)
    scene = Scene(target, told(target, SECURITY, 10), pod(target, created=at(20)))
    assert scene.doomed(30) == []
    assert scene.doomed(NEVER) == []
    scene.put(told(target, SECURITY, 40))
    assert scene.doomed(40) == ["pod_security"]


def test_an_event_about_a_replica_set_says_nothing_without_its_condition() -> None:
    scene = Scene(API, pod(API))
    for moment in (5, 10):
        scene.put(told(replica_set(API), SECURITY, moment))
        assert scene.doomed(moment) == []


def test_the_condition_keeps_its_first_words_and_a_newer_event_knows_better() -> None:
    scene = Scene(API)
    scene.put(refused(ETCD, since=10), told(replica_set(API), ETCD, 10))
    assert scene.doomed(500) == []
    scene.put(told(replica_set(API), SECURITY, 510))
    assert scene.doomed(510) == ["pod_security"]
    scene = Scene(API)
    scene.put(refused(UNKNOWN, since=10), told(replica_set(API), ETCD, 15))
    assert scene.doomed(NEVER) == []


def test_pods_that_cannot_be_deleted_are_no_pods_that_cannot_be_created() -> None:
    scene = Scene(API)
    scene.put(refused(SECURITY, reason="FailedDelete"))
    assert scene.doomed(NEVER) == []


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_whoever_has_all_its_pods_is_refused_none(kind: str) -> None:
    target = wants(kind)
    scene = Scene(target, told(target, SECURITY, 10))
    assert scene.doomed(10) == ["pod_security"]
    target["status"].update({"replicas": 4, "currentNumberScheduled": 4})
    scene.put(target)
    assert scene.doomed(11) == []


def test_a_final_refusal_that_was_not_repeated_lately_may_have_been_put_right() -> None:
    """Somebody relaxes the Namespace and releases again: the controller of before has not tried again yet."""
    scene = Scene(API)
    scene.put(refused(SECURITY, since=-300))
    assert scene.doomed(0) == []
    assert "kubectl rollout restart" in scene.look(0).likely[0].hint
    assert scene.doomed(POLICY.admission - 0.5) == []
    assert scene.doomed(POLICY.admission + 0.5) == ["pod_security"]
    scene = Scene(API)
    scene.put(refused(SECURITY, since=-300), told(replica_set(API), SECURITY, 0.5 - STALE))
    assert scene.doomed(0) == ["pod_security"]


def old_pods(**metadata: Any) -> list[Object]:
    """The ReplicaSet of the old revision, and a pod of it."""
    before = replica_set(API)
    before["metadata"] = {**before["metadata"], "name": "api-0", "uid": "rs-old"}
    before["spec"] = {**before["spec"], "template": {"spec": {"containers": []}}}
    found = ready_pod(API, 9)
    found["metadata"] |= {"ownerReferences": [{"uid": "rs-old", "kind": "ReplicaSet", "controller": True}], **metadata}
    return [before, found]


def test_a_quota_is_waited_for_while_pods_that_end_still_count() -> None:
    scene = Scene(API, *old_pods(deletionTimestamp=at(0)))
    scene.put(refused(QUOTA))
    assert scene.doomed(0) == []
    assert scene.doomed(300) == []
    scene.view.remove(("", "Pod"), old_pods()[1])
    assert scene.doomed(301) == []
    assert scene.doomed(301 + POLICY.admission) == ["quota_exceeded"]


def test_a_quota_is_waited_for_while_new_pods_that_will_replace_old_ones_get_ready() -> None:
    scene = Scene(API, *old_pods(), pod(API))
    scene.put(refused(QUOTA, made=1))
    assert scene.doomed(0) == []
    assert scene.doomed(170) == []
    # It is ready, and the old one is not ended for it.
    scene.put(ready_pod(API))
    assert scene.doomed(171) == []
    assert scene.doomed(171 + POLICY.admission) == ["quota_exceeded"]


def test_a_quota_that_is_too_small_for_a_first_release_is_certain_after_its_grace() -> None:
    scene = Scene(API, pod(API))
    scene.put(refused(QUOTA, made=1))
    assert scene.doomed(0) == []
    assert scene.doomed(POLICY.admission + 0.5) == ["quota_exceeded"]
