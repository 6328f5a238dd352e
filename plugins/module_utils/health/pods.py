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
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import (
    Reference,
    of_mount,
    reference,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import (
    event_count,
    event_text,
    event_time,
    newest_event,
)

NEVER = float("inf")


@dataclasses.dataclass(frozen=True)
class Policy:
    """How patient to be, in seconds unless said otherwise.

    :param max_restarts: restarts of one container, since it was first seen, after which crashing counts as permanent (a
        number).
    :param failed_pods: pods of one workload that may be in permanent trouble without condemning it (a number).
    :param image: errors of pulling that are neither "not found" nor "denied".
    :param config: something missing that somebody may be about to make: a Secret, a ConfigMap or a key of one, a claim,
        a ServiceAccount ... When it ends, the API is asked whether it has come.
    :param operator: the same where an operator makes the pods, and what they need.
    :param unasked: the same where the API may not be asked: kubelet looks again only after 10 to 15 s.
    :param start: a container that can't be created or started.
    :param schedule: a pod for which there is no node.
    :param scale_up: the same while one is being added.
    :param preempt: the same while pods of a lower priority are ended to make room.
    :param sandbox: mounts and network of a pod.
    :param admission: pods that can't be created for a reason that may pass, such as a quota that old pods still fill.
    :param webhook: a webhook that does not answer.
    :param readiness: a readiness probe that fails, on top of what the probe itself allows.
    :param slow_start: the same for a container without a startup probe: nothing says how long it takes to start.
    :param unprobed: a container without a readiness probe has to have run so long before it counts as ready: that it
        was started is all that Kubernetes knows of it.
    :param old_pod: a broken pod of the old revision that a StatefulSet waits for.
    """

    max_restarts: int = 3
    failed_pods: int = 0
    image: float = 90.0
    config: float = 10.0
    operator: float = 30.0
    unasked: float = 30.0
    start: float = 45.0
    schedule: float = 60.0
    scale_up: float = 600.0
    preempt: float = 150.0
    sandbox: float = 90.0
    admission: float = 40.0
    webhook: float = 60.0
    readiness: float = 60.0
    slow_start: float = 180.0
    unprobed: float = 10.0
    old_pod: float = 60.0


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
    :param lacks: what is said to be missing.
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
    lacks: Reference | None = None


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


class Memory:
    """What was seen of containers earlier and their status no longer says."""

    def __init__(self) -> None:
        self._pulls: dict[tuple[str, str], str] = {}
        self._restarts: dict[tuple[str, str], int] = {}

    def pull_error(self, uid: str, container: str, reason: str, message: str) -> str:
        """The most telling message so far about a failed pull: the back-off that follows often no longer says."""
        key = (uid, container)
        if reason == "ErrImagePull" or NOT_FOUND.search(message) or DENIED.search(message) or key not in self._pulls:
            self._pulls[key] = message
        return self._pulls[key]

    def see(self, pod: Mapping[str, Any]) -> None:
        """Note how often the containers of a pod had been restarted when it was first seen.

        Restarts of a container that was well then are history: they count for nobody's budget.
        """
        for container in _statuses(pod):
            well = bool(container.get("ready")) and "running" in (container.get("state") or {})
            count = int(container.get("restartCount") or 0) if well else 0
            self._restarts.setdefault((_uid(pod), str(container.get("name"))), count)

    def forgive(self, pod: Mapping[str, Any]) -> None:
        """Begin the budgets of a pod's containers anew, since what they crashed for has been put right."""
        for container in _statuses(pod):
            key = (_uid(pod), str(container.get("name")))
            self._restarts[key] = int(container.get("restartCount") or 0)

    def restarts(self, pod: Mapping[str, Any], container: Mapping[str, Any]) -> int:
        """How often a container has been restarted since its budget began."""
        began = self._restarts.get((_uid(pod), str(container.get("name"))), 0)
        return int(container.get("restartCount") or 0) - began


def pod_signals(
    pod: Object, events: Iterable[Object], policy: Policy, memory: Memory, arriving: str = ""
) -> list[Signal]:
    """All that is wrong with one pod.

    :param arriving: name of a node that joined the cluster after the pod was made and is not ready yet.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    if metadata.get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return []
    # Evicted and preempted pods are replaced by whoever owns them.
    if status.get("reason") in REPLACED and metadata.get("ownerReferences"):
        return []
    memory.see(pod)
    events = list(events)
    found = list(_unschedulable(pod, events, policy, arriving))
    statuses = _statuses(pod)
    for container in statuses:
        found += _container_signals(pod, container, events, policy, memory)
    if not any("running" in (container.get("state") or {}) for container in statuses):
        found += _sandbox(pod, events, policy)
    return found or list(_not_ready(pod, events, policy))


REPLACED = ("Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeLost", "NodeAffinity", "Shutdown")


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _uid(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("uid"))


def container_spec(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a pod asks for one of its containers; empty if it has none of that name."""
    spec = pod.get("spec") or {}
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if container.get("name") == name:
            return dict(container)
    return {}


def _name(pod: Mapping[str, Any]) -> str:
    return f"Pod {pod['metadata'].get('namespace')}/{pod['metadata']['name']}"


def _key(pod: Mapping[str, Any], *more: str) -> tuple[str, ...]:
    return str(pod["metadata"].get("uid")), *more


# Cluster Autoscaler and Karpenter each have their own words for "a node is coming" and "none will come".
GROWING = ("TriggeredScaleUp", "Nominated")
NOT_GROWING = ("NotTriggerScaleUp", "FailedScaleUp")


def _unschedulable(pod: Object, events: list[Object], policy: Policy, arriving: str) -> Iterator[Signal]:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            break
    else:
        return
    message = str(condition.get("message") or condition.get("reason") or "")
    if condition.get("reason") == "SchedulingGated":
        cause = "is held back by a scheduling gate"
        yield Signal("scheduling_gated", _key(pod, "schedule"), _name(pod), cause, message, grace=NEVER, pod=pod)
        return
    claim = reference(message, str(pod["metadata"].get("namespace") or ""))
    if claim is not None and claim.kind == "PersistentVolumeClaim":
        cause, hint = f"waits for claim {claim.name}, which does not exist", "create it, or correct its name"
        key = _key(pod, "claim")
        yield Signal("claim_missing", key, _name(pod), cause, message, hint, policy.config, pod, lacks=claim)
        return
    newest = newest_event(events, *GROWING, *NOT_GROWING)
    nominated = str((pod.get("status") or {}).get("nominatedNodeName") or "")
    # Each hope that a node is coming has a patience of its own.
    hope, grace = "", policy.schedule
    if newest is not None and newest["reason"] in GROWING:
        hope, grace = ", while an autoscaler is adding one", policy.scale_up
    elif nominated:
        hope, grace = f", while pods of a lower priority make room on {nominated}", policy.preempt
    elif arriving:
        hope, grace = f", while node {arriving} is joining", policy.scale_up
    refused = newest is not None and newest["reason"] in NOT_GROWING
    storage = newest_event(events, "ProvisioningFailed", "FailedBinding")
    evidence = "; ".join(
        part
        for part in (message, event_text(newest) if refused else "", event_text(storage) if storage else "")
        if part
    )
    yield Signal(
        "unschedulable",
        _key(pod, "schedule", hope),
        _name(pod),
        "finds no node" + hope,
        evidence,
        "add nodes, or lower what the pod asks for (requests, selectors, tolerations, claims)",
        grace,
        pod,
    )


def _container_signals(
    pod: Object, container: Mapping[str, Any], events: list[Object], policy: Policy, memory: Memory
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
        yield _image(pod, name, subject, image, memory.pull_error(_uid(pod), name, reason, message), policy)
    elif reason == "CreateContainerConfigError":
        yield _config(pod, name, subject, message, policy)
    elif reason in WAITING_FOR_START:
        certain = UNSTARTABLE.search(message) and reason in ("RunContainerError", "StartError", "ContainerCannotRun")
        grace = 0.0 if certain else policy.start
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
        yield from _crash(pod, container, name, subject, events, policy, memory)


def _config(pod: Object, name: str, subject: str, message: str, policy: Policy) -> Signal:
    key = _key(pod, name, "config")
    lacks = reference(message, str(pod["metadata"].get("namespace") or ""))
    if lacks is not None:
        cause, hint = f"lacks {lacks.shown}", f"create the {lacks.kind}, or correct the reference"
        return Signal("config_missing", key, subject, cause, message, hint, policy.config, pod, lacks=lacks)
    if "failed to sync" in message and "cache" in message:
        return Signal("config_missing", key, subject, "waits for its configuration", message, grace=NEVER, pod=pod)
    if "runAsNonRoot" in message or "run as root" in message:
        cause, hint = "may not run as root, and its image does", "set runAsUser, or use an image with a numeric user"
        return Signal("runs_as_root", key, subject, cause, message, hint, 0.0, pod)
    cause, hint = "has a configuration that cannot be used", "correct the container"
    return Signal("config_invalid", key, subject, cause, message, hint, 0.0, pod)


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
    pod: Object,
    container: Mapping[str, Any],
    name: str,
    subject: str,
    events: list[Object],
    policy: Policy,
    memory: Memory,
) -> Iterator[Signal]:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    spent = memory.restarts(pod, container) >= policy.max_restarts
    if state.get("terminated") and ended.get("exitCode") == 0 and not (spent and _runs_on(pod, name)):
        return
    restarts = int(container.get("restartCount") or 0)
    final = (pod.get("spec") or {}).get("restartPolicy") == "Never" and bool(state.get("terminated"))
    # How often a Job's pods may fail is the Job's own to say.
    of_job = any(owner.get("kind") == "Job" for owner in pod["metadata"].get("ownerReferences") or [])
    grace = 0.0 if (spent or final) and not of_job else NEVER
    code, cause = _ending(ended, events, name)
    message = str(ended.get("message") or "").strip()
    if ended.get("reason") in ("StartError", "ContainerCannotRun"):
        certain = bool(UNSTARTABLE.search(message))
        # Exit code 128 is the runtime's own trouble: of the node rather than of the image.
        code, cause = "container_start", "cannot be started" + ("" if certain else " by its node")
        grace = NEVER if of_job else 0.0 if certain else policy.start
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


def _runs_on(pod: Mapping[str, Any], name: str) -> bool:
    """Whether a container is meant never to end."""
    spec = pod.get("spec") or {}
    mains = {str(item.get("name")) for item in (pod.get("status") or {}).get("containerStatuses") or []}
    return name in mains and spec.get("restartPolicy", "Always") == "Always"


HINTS = {
    "out_of_memory": "raise its memory limit, or make it use less",
    "probe_killed": "correct the probe, or give the container more time (startupProbe)",
    "container_start": "correct its command, user and mounts",
    "hook_failed": "correct the hook; the container's log may tell more",
}


# 128 + SIGKILL. On a busy node containerd may learn of the kernel's OOM kill after the container's end: then kubelet
# gives the reason Error instead of OOMKilled, and no other kill is without an event.
SIGKILLED = 137


def _ending(ended: Mapping[str, Any], events: list[Object], container: str) -> tuple[str, str]:
    """Code and cause of a container's end."""
    exit_code = ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        return "out_of_memory", "is killed because it uses more memory than its limit"
    killing = newest_event(events, "Killing")
    if killing and container in event_text(killing) and "probe" in event_text(killing):
        kind = "startup" if "startup probe" in event_text(killing) else "liveness"
        return "probe_killed", f"is killed since its {kind} probe fails"
    if newest_event(events, "FailedPostStartHook"):
        return "hook_failed", "is killed since its postStart hook fails"
    if exit_code == 0:
        return "crash_loop", "ends again and again, with exit code 0"
    if exit_code == SIGKILLED:
        return "crash_loop", "is killed (exit code 137), perhaps because it uses more memory than its limit"
    return "crash_loop", "crashes" if exit_code is None else f"crashes with exit code {exit_code}"


def _sandbox(pod: Object, events: list[Object], policy: Policy) -> Iterator[Signal]:
    """What keeps a pod from having its volumes and its network: events, which nothing takes back."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    if any(item.get("type") == "PodReadyToStartContainers" and item.get("status") == "True" for item in conditions):
        return
    pulling = newest_event(events, "Pulling")
    begun = event_time(pulling) if pulling else ""
    mount = newest_event(events, "FailedMount", "FailedAttachVolume", "FailedMapVolume")
    if mount and event_time(mount) >= begun:
        yield _mount(pod, event_text(mount), policy)
    sandbox = newest_event(events, "FailedCreatePodSandBox")
    if sandbox and event_count(sandbox) > 1 and event_time(sandbox) >= begun:
        yield Signal(
            "sandbox",
            _key(pod, "sandbox"),
            _name(pod),
            "gets no sandbox",
            event_text(sandbox),
            "see the node's container runtime and network plugin",
            policy.sandbox,
            pod,
        )


def _mount(pod: Object, message: str, policy: Policy) -> Signal:
    lacks = of_mount(message, pod)
    if lacks is None:
        cause, hint = "cannot mount a volume", "see the volume and its driver"
        return Signal("mount", _key(pod, "mount"), _name(pod), cause, message, hint, policy.sandbox, pod)
    cause, hint = f"cannot mount a volume: it lacks {lacks.shown}", f"create the {lacks.kind}, or correct the reference"
    key = _key(pod, "mount", lacks.shown)
    return Signal("config_missing", key, _name(pod), cause, message, hint, policy.config, pod, lacks=lacks)


def _not_ready(pod: Object, events: list[Object], policy: Policy) -> Iterator[Signal]:
    """Nothing is wrong yet that would not pass; but if a deadline passes first, this is why."""
    status = pod.get("status") or {}
    for container in status.get("initContainerStatuses") or []:
        name = str(container.get("name"))
        sidecar = container_spec(pod, name).get("restartPolicy") == "Always"
        if "running" in (container.get("state") or {}) and not sidecar:
            subject, key = f"init container {name} of {_name(pod)}", _key(pod, name, "init")
            yield Signal("init_waiting", key, subject, "has not finished", "", "see its log", NEVER, pod, name)
            return
    for container in _statuses(pod):
        if "running" in (container.get("state") or {}) and not container.get("ready"):
            yield _unready(pod, container, events, policy)
            return
    phase = status.get("phase") or "Pending"
    if phase == "Pending":
        evidence = event_text(events[-1]) if events else ""
        key, cause = _key(pod, "pending"), "is still being set up"
        yield Signal("pending", key, _name(pod), cause, evidence, grace=NEVER, pod=pod)
    elif phase == "Failed" and pod["metadata"].get("ownerReferences"):
        cause = f"failed: {status.get('reason') or ''} {status.get('message') or ''}".strip(" :")
        yield Signal("pod_failed", _key(pod, "failed"), _name(pod), cause, grace=NEVER, pod=pod)


def _unready(pod: Object, container: Mapping[str, Any], events: list[Object], policy: Policy) -> Signal:
    name = str(container.get("name"))
    subject, spec = f"container {name} of {_name(pod)}", container_spec(pod, name)
    # Whether the container has begun to serve: its startup probe has passed, or it has none.
    kind = "readiness" if container.get("started") is not False else "startup"
    failing = [
        event for event in events if event.get("reason") == "Unhealthy" and f"{kind} probe" in event_text(event).lower()
    ]
    unhealthy = max(failing, key=event_time, default=None) or newest_event(events, "Unhealthy")
    hint = f"see its log and its {kind} probe"
    if unhealthy is None or kind == "startup" or not spec.get("readinessProbe"):
        # The kubelet ends a startup that takes too long, and counts a restart.
        evidence = event_text(unhealthy) if unhealthy else "it runs"
        return Signal(
            "not_ready", _key(pod, name, "ready"), subject, "does not get ready", evidence, hint, NEVER, pod, name
        )
    grace = probe_tolerance(spec["readinessProbe"]) + (
        policy.readiness if spec.get("startupProbe") else policy.slow_start
    )
    cause = "does not get ready: its readiness probe fails"
    return Signal("not_ready", _key(pod, name, "probe"), subject, cause, event_text(unhealthy), hint, grace, pod, name)


def probe_tolerance(probe: Mapping[str, Any]) -> float:
    """Seconds for which a probe itself lets a container fail; the defaults are those of the API."""
    period = float(probe.get("periodSeconds") or 10)
    slow = max(float(probe.get("timeoutSeconds") or 1) - period, 0.0)
    return float(probe.get("initialDelaySeconds") or 0) + (period + slow) * float(probe.get("failureThreshold") or 3)
