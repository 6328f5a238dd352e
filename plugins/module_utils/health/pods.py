# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps pods from getting ready, and whether that will pass.

Every function here is pure: objects and events in, signals out. How long a signal may last is part of it; who watches
remembers since when it has been seen.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import (
    event_count,
    event_time,
    timestamp,
)

NEVER = float("inf")


@dataclasses.dataclass(frozen=True)
class Policy:
    """How patient to be, in seconds unless said otherwise.

    :param max_restarts: restarts of one container after which crashing counts as permanent (a number).
    :param image: errors of pulling that are neither "not found" nor "denied".
    :param config: a missing Secret or ConfigMap, which an operator may be about to create.
    :param start: a container that can't be created or started.
    :param schedule: a pod for which there is no node.
    :param scale_up: the same while an autoscaler is adding one.
    :param sandbox: mounts and network of a pod.
    :param admission: pods that can't be created for a reason that may pass, such as a quota that old pods still fill.
    """

    max_restarts: int = 3
    image: float = 90.0
    config: float = 15.0
    start: float = 45.0
    schedule: float = 60.0
    scale_up: float = 600.0
    sandbox: float = 90.0
    admission: float = 40.0


@dataclasses.dataclass(frozen=True)
class Signal:
    """One thing that is wrong.

    :param code: kind of trouble, in snake_case.
    :param key: identity over time: the object's uid and what of it.
    :param subject: what is in trouble, such as ``container api of Pod api-1``.
    :param cause: predicate of a sentence about the subject.
    :param grace: seconds for which it may last before it counts as permanent; 0 means at once, NEVER that it is only a
        likely reason when the deadline passes.
    :param container: whose log tells more; empty if none does.
    :param previous: whether that log is the one of the container's last run.
    """

    code: str
    key: tuple[str, ...]
    subject: str
    cause: str
    evidence: str = ""
    hint: str = ""
    grace: float = 0.0
    pod: Mapping[str, Any] | None = None
    container: str = ""
    previous: bool = False


NOT_FOUND = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|MANIFEST_UNKNOWN|NAME_UNKNOWN|no match for platform",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"unauthorized|authentication required|access denied|access to the resource is denied|no basic auth credentials"
    r"|insufficient_scope|403 Forbidden",
    re.IGNORECASE,
)
UNSTARTABLE = re.compile(r"executable file not found|no such file or directory|permission denied", re.IGNORECASE)
WAITING_FOR_IMAGE = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
WAITING_FOR_START = (
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
    "PreCreateHookError",
    "PreStartHookError",
    "PostStartHookError",
)


class PullErrors:
    """Remembers why images could not be pulled: the back-off that follows often no longer says."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], str] = {}

    def recall(self, uid: str, container: str, reason: str, message: str) -> str:
        """The most telling message about one container so far."""
        key = (uid, container)
        if reason == "ErrImagePull" or NOT_FOUND.search(message) or DENIED.search(message) or key not in self._said:
            self._said[key] = message
        return self._said[key]


def pod_signals(pod: Object, events: Iterable[Object], policy: Policy, pulls: PullErrors) -> list[Signal]:
    """All that is wrong with one pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    if metadata.get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return []
    # Evicted and preempted pods are replaced by whoever owns them.
    if status.get("reason") in ("Evicted", "Preempting", "NodeShutdown", "Terminated") and metadata.get(
        "ownerReferences"
    ):
        return []
    events = list(events)
    found = list(_unschedulable(pod, events, policy))
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in statuses:
        found += _container_signals(pod, container, events, policy, pulls)
    if not any("running" in (container.get("state") or {}) for container in statuses):
        found += _sandbox(pod, events, policy)
    return found or list(_not_ready(pod, statuses, events))


def _name(pod: Mapping[str, Any]) -> str:
    return f"Pod {pod['metadata'].get('namespace')}/{pod['metadata']['name']}"


def _key(pod: Mapping[str, Any], *more: str) -> tuple[str, ...]:
    return str(pod["metadata"].get("uid")), *more


def _unschedulable(pod: Object, events: list[Object], policy: Policy) -> Iterator[Signal]:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            break
    else:
        return
    message = str(condition.get("message") or condition.get("reason") or "")
    if condition.get("reason") == "SchedulingGated":
        yield Signal(
            "scheduling_gated",
            _key(pod, "schedule"),
            _name(pod),
            "is held back by a scheduling gate",
            message,
            grace=NEVER,
            pod=pod,
        )
        return
    newest = max(
        (event for event in events if _reason(event) in ("TriggeredScaleUp", "NotTriggerScaleUp")),
        key=event_time,
        default=None,
    )
    growing = newest is not None and _reason(newest) == "TriggeredScaleUp"
    storage = _last(events, "ProvisioningFailed", "FailedBinding")
    evidence = message + (f"; {_text(storage)}" if storage else "")
    yield Signal(
        "unschedulable",
        # A scale-up starts a patience of its own.
        _key(pod, "schedule", "growing" if growing else ""),
        _name(pod),
        "finds no node" + (", while an autoscaler is adding one" if growing else ""),
        evidence,
        "add nodes, or lower what the pod asks for (requests, selectors, tolerations, claims)",
        policy.scale_up if growing else policy.schedule,
        pod,
    )


def _container_signals(
    pod: Object, container: Mapping[str, Any], events: list[Object], policy: Policy, pulls: PullErrors
) -> Iterator[Signal]:
    name = str(container.get("name"))
    subject = f"container {name} of {_name(pod)}"
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    image = str(container.get("image") or "")
    if reason == "InvalidImageName":
        yield Signal(
            "image_invalid",
            _key(pod, name, "image"),
            subject,
            f'names an invalid image "{image}"',
            message,
            "correct the image's name",
            pod=pod,
        )
    elif reason == "ErrImageNeverPull":
        yield Signal(
            "image_not_present",
            _key(pod, name, "image"),
            subject,
            f"may not pull its image {image}, and no node has it",
            message,
            "load the image, or change imagePullPolicy",
            pod=pod,
        )
    elif reason in WAITING_FOR_IMAGE:
        yield _image(pod, name, subject, image, pulls.recall(_key(pod)[0], name, reason, message), policy)
    elif reason == "CreateContainerConfigError":
        passing = "failed to sync" in message and "cache" in message
        yield Signal(
            "config_missing",
            _key(pod, name, "config"),
            subject,
            "lacks part of its configuration",
            message,
            "create the Secret or ConfigMap, or correct the reference",
            NEVER if passing else policy.config,
            pod,
        )
    elif reason in WAITING_FOR_START:
        grace = 0.0 if UNSTARTABLE.search(message) and reason != "CreateContainerError" else policy.start
        yield Signal(
            "container_start",
            _key(pod, name, "start"),
            subject,
            "cannot be started",
            message or reason,
            "correct its command, user and mounts",
            grace,
            pod,
            name,
            True,
        )
    elif reason == "CrashLoopBackOff" or state.get("terminated"):
        yield from _crash(pod, container, name, subject, events, policy)


def _image(pod: Object, name: str, subject: str, image: str, message: str, policy: Policy) -> Signal:
    key = _key(pod, name, "image")
    if DENIED.search(message):
        return Signal(
            "image_denied",
            key,
            subject,
            f"may not pull its image {image}",
            message,
            "correct the pull secret or the image's name",
            pod=pod,
        )
    if NOT_FOUND.search(message):
        return Signal(
            "image_not_found",
            key,
            subject,
            f"asks for an image that does not exist: {image}",
            message,
            "push the image, or correct its name and tag",
            pod=pod,
        )
    return Signal(
        "image_pull",
        key,
        subject,
        f"cannot pull its image {image}",
        message,
        "see whether the nodes reach the registry",
        policy.image,
        pod,
    )


def _crash(
    pod: Object, container: Mapping[str, Any], name: str, subject: str, events: list[Object], policy: Policy
) -> Iterator[Signal]:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    if state.get("terminated") and ended.get("exitCode") == 0:
        return
    restarts = int(container.get("restartCount") or 0)
    final = (pod.get("spec") or {}).get("restartPolicy") == "Never" and bool(state.get("terminated"))
    # How often a Job's pods may fail is the Job's own to say.
    of_job = any(owner.get("kind") == "Job" for owner in pod["metadata"].get("ownerReferences") or [])
    grace = 0.0 if (restarts >= policy.max_restarts or final) and not of_job else NEVER
    code, cause = _ending(ended, events, name)
    message = str(ended.get("message") or "").strip()
    if UNSTARTABLE.search(message) and ended.get("reason") in ("StartError", "ContainerCannotRun"):
        code, cause = "container_start", "cannot be started"
        grace = NEVER if of_job else 0.0
    times = f" (restarted {restarts} times)" if restarts > 1 else " (restarted once)" if restarts else ""
    hint = HINTS.get(code, "see its log")
    # A container that is waiting to be restarted still has the log of the run that failed.
    yield Signal(
        code,
        _key(pod, name, "crash"),
        subject,
        cause + times,
        message.splitlines()[-1] if message else "",
        hint,
        grace,
        pod,
        name,
        False,
    )


HINTS = {
    "out_of_memory": "raise its memory limit, or make it use less",
    "probe_killed": "correct the probe, or give the container more time (startupProbe)",
    "container_start": "correct its command, user and mounts",
}


def _ending(ended: Mapping[str, Any], events: list[Object], container: str) -> tuple[str, str]:
    """Code and cause of a container's end."""
    exit_code = ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        return "out_of_memory", "is killed because it uses more memory than its limit"
    killing = _last(events, "Killing")
    if killing and container in _text(killing) and "probe" in _text(killing):
        kind = "startup" if "startup probe" in _text(killing) else "liveness"
        return "probe_killed", f"is killed since its {kind} probe fails"
    if exit_code == 0:
        return "crash_loop", "ends again and again, with exit code 0"
    return "crash_loop", "crashes" if exit_code is None else f"crashes with exit code {exit_code}"


def _sandbox(pod: Object, events: list[Object], policy: Policy) -> Iterator[Signal]:
    mount = _last(events, "FailedMount", "FailedAttachVolume", "FailedMapVolume")
    if mount:
        absent = "not found" in _text(mount) or "non-existent" in _text(mount)
        yield Signal(
            "config_missing" if absent else "mount",
            _key(pod, "mount"),
            _name(pod),
            "cannot mount a volume",
            _text(mount),
            "create the Secret or ConfigMap, or correct the reference" if absent else "see the volume and its driver",
            policy.config if absent else policy.sandbox,
            pod,
        )
    sandbox = _last(events, "FailedCreatePodSandBox")
    if sandbox and event_count(sandbox) > 1:
        yield Signal(
            "sandbox",
            _key(pod, "sandbox"),
            _name(pod),
            "gets no sandbox",
            _text(sandbox),
            "see the node's container runtime and network plugin",
            policy.sandbox,
            pod,
        )


def _not_ready(pod: Object, statuses: list[dict[str, Any]], events: list[Object]) -> Iterator[Signal]:
    """Nothing is wrong that will not pass; but if the deadline does first, this is why."""
    for container in statuses:
        if "running" not in (container.get("state") or {}) or container.get("ready"):
            continue
        unhealthy = _last(events, "Unhealthy")
        evidence = _text(unhealthy) if unhealthy else "it runs"
        name = str(container.get("name"))
        yield Signal(
            "not_ready",
            _key(pod, name, "ready"),
            f"container {name} of {_name(pod)}",
            "does not get ready",
            evidence,
            "see its log and its readiness probe",
            NEVER,
            pod,
            name,
        )
        return
    phase = (pod.get("status") or {}).get("phase") or "Pending"
    if phase == "Pending":
        last = events[-1] if events else None
        evidence = _text(last) if last else ""
        yield Signal(
            "pending", _key(pod, "pending"), _name(pod), "is still being set up", evidence, grace=NEVER, pod=pod
        )


def owner_signals(owner: Object, events: Iterable[Object], policy: Policy, since: float) -> list[Signal]:
    """What keeps a ReplicaSet, StatefulSet, DaemonSet or Job from creating pods.

    :param since: when the object was changed; older events are about an earlier revision.
    """
    name = f"{owner['kind']} {owner['metadata'].get('namespace')}/{owner['metadata']['name']}"
    key = (str(owner["metadata"].get("uid")), "create")
    for condition in (owner.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return [_creation(name, key, str(condition.get("message") or ""), policy)]
    events = list(events)
    refused, created = _last(events, "FailedCreate"), _last(events, "SuccessfulCreate")
    if refused is None or (created is not None and event_time(created) > event_time(refused)):
        return []
    # Both times are the cluster's own, whole seconds.
    if (timestamp(event_time(refused)) or 0.0) < since - 1:
        return []
    return [_creation(name, key, _text(refused), policy)]


def _creation(name: str, key: tuple[str, ...], message: str, policy: Policy) -> Signal:
    code, cause, hint, grace = "pods_refused", "cannot create its pods", "correct the pod template", policy.admission
    if "violates PodSecurity" in message:
        code, cause, grace = (
            "pod_security",
            "may not create its pods: they violate the Namespace's Pod Security level",
            0.0,
        )
        hint = "correct the pods' security context"
    elif "denied the request" in message:
        code, cause, grace = (
            "admission_denied",
            "may not create its pods: an admission webhook or policy denies them",
            0.0,
        )
    elif "exceeded quota" in message:
        # Pods of the old revision may be about to free what is missing.
        code, cause, hint = (
            "quota_exceeded",
            "may not create its pods: a quota is used up",
            "raise the ResourceQuota, or ask for less",
        )
    elif "must specify" in message or "maximum" in message or "minimum" in message:
        code, cause, grace = "limits_refused", "may not create its pods: quota or limit range want other resources", 0.0
        hint = "correct the containers' requests and limits"
    elif "failed calling webhook" in message:
        code, cause, grace = (
            "webhook_unavailable",
            "cannot create its pods: an admission webhook does not answer",
            NEVER,
        )
        hint = "see whether the workload behind the webhook runs"
    elif "serviceaccount" in message.lower() and "not found" in message:
        code, cause, grace = (
            "service_account_missing",
            "cannot create its pods: their ServiceAccount is missing",
            policy.config,
        )
        hint = "create the ServiceAccount"
    elif "is invalid" in message:
        code, cause, grace = "pods_invalid", "cannot create its pods: they are not valid", 0.0
    return Signal(code, key, name, cause, message, hint, grace)


def _reason(event: Mapping[str, Any]) -> str:
    return str(event.get("reason") or "")


def _text(event: Mapping[str, Any] | None) -> str:
    return " ".join(str((event or {}).get("message") or (event or {}).get("note") or "").split())


def _last(events: Iterable[Object], *reasons: str) -> Object | None:
    """The newest event with one of the reasons."""
    return max((event for event in events if _reason(event) in reasons), key=event_time, default=None)
