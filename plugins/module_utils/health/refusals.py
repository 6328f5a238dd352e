# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why the pods of a workload are not created, and whether that passes: the one place that knows.

A reason is *final* (the request itself is refused), *passing* (the API server was in trouble: the controller tries
again for as long as it takes), or something in between with a grace of its own: a quota, a webhook, a missing
ServiceAccount, and every reason that nobody here has heard of. No grace runs out while new pods keep appearing.

Pure: an object and what surrounds it in, signals out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, describe
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import reference
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import NEVER, Policy, Signal
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import pod_ready
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import (
    View,
    changed_at,
    event_text,
    event_time,
    newest_event,
    timestamp,
)

STALE = 60.0
"""Seconds after which a final refusal that was not repeated is none any more: what it was about may have been put
right, and the controller, which tries ever more seldom, has not tried again yet."""


@dataclasses.dataclass(frozen=True)
class Reason:
    """One kind of refusal.

    :param words: regular expression for the controller's message.
    :param cause: predicate of a sentence about the workload.
    :param patience: seconds for which it may last; 0 means that it is final.
    """

    code: str
    words: str
    cause: str
    hint: str
    patience: Callable[[Policy], float] = lambda policy: 0.0


REASONS = (
    Reason(
        "pod_security",
        r"violates PodSecurity",
        "may not create its pods: they violate the Namespace's Pod Security level",
        "correct the pods' security context",
    ),
    # A webhook's words, those of a ValidatingAdmissionPolicy, and those of built-in plugins and OpenShift's.
    Reason(
        "admission_denied",
        r"denied (?:the )?request|unable to validate against any security context constraint"
        r"|conflicts? with its namespace|is not allowed because service account",
        "may not create its pods: an admission webhook or policy denies them",
        "correct the pod template",
    ),
    Reason(
        "quota_exceeded",
        r"exceeded quota|insufficient quota",
        "may not create its pods: a quota is used up",
        "raise the ResourceQuota, or ask for less",
        lambda policy: policy.admission,
    ),
    Reason(
        "limits_refused",
        r"must specify|(?:maximum|minimum) \S+ usage per|max limit to request ratio",
        "may not create its pods: quota or limit range want other resources",
        "correct the containers' requests and limits",
    ),
    Reason(
        "webhook_unavailable",
        r"failed (?:calling|to call) webhook",
        "cannot create its pods: an admission webhook does not answer",
        "see whether the workload behind the webhook runs",
        lambda policy: policy.webhook,
    ),
    Reason(
        "service_account_missing",
        r"(?i)serviceaccount .*not found",
        "cannot create its pods: their ServiceAccount is missing",
        "create the ServiceAccount",
        lambda policy: policy.config,
    ),
    Reason(
        "priority_class_missing",
        r"no PriorityClass with name",
        "cannot create its pods: their PriorityClass is missing",
        "create the PriorityClass",
        lambda policy: policy.config,
    ),
    Reason(
        "runtime_class_missing",
        r"RuntimeClass .*not found",
        "cannot create its pods: their RuntimeClass is missing",
        "create the RuntimeClass, on nodes that have it",
        lambda policy: policy.config,
    ),
    Reason(
        "pods_invalid",
        r'"[^"]*" is invalid:',
        "cannot create its pods: they are not valid",
        "correct the pod template",
    ),
    # In the words of the API server (apimachinery's errors), its admission, etcd, and Go's HTTP client. Whatever is
    # refused by name above is not looked for here.
    Reason(
        "pods_refused",
        r"(?i)etcdserver|timed? ?out|timeout|deadline exceeded|context canceled|try again|too many requests|"
        r"rate limiter|throttl|currently unable|unable to handle|unable to return a response|prevented the request|"
        r"internal error|status unknown for quota|not yet ready|Operation cannot be fulfilled|has been modified|"
        r"reported a conflict|already exists|being (?:terminated|deleted)|unauthorized|provide credentials|"
        r"connection (?:refused|reset|lost|closed)|broken pipe|\bEOF\b|no route to host|network is unreachable|"
        r"dial tcp|http2:|TLS handshake|error enforcing limit ranges",
        "cannot create its pods",
        "see how the API server and etcd fare",
        lambda policy: NEVER,
    ),
    Reason("pods_refused", r"", "cannot create its pods", "correct the pod template", lambda policy: policy.admission),
)
"""In the order in which they are looked for; the last one is all that is unknown."""


def reason_of(message: str) -> Reason:
    """What a controller's message means."""
    return next(reason for reason in REASONS if re.search(reason.words, message))


def refusals(owner: Object, view: View, policy: Policy, server_now: float | None = None) -> list[Signal]:
    """What keeps a ReplicaSet, StatefulSet, DaemonSet or Job from creating pods; at most one signal.

    :param server_now: seconds since the epoch on the API server's clock, None if unknown.
    """
    if _complete(owner):
        return []
    uid = str(owner["metadata"].get("uid"))
    by_condition = owner["kind"] == "ReplicaSet"
    told = _by_condition(owner, view) if by_condition else _by_event(owner, view)
    if told is None:
        return []
    message, at = told
    reason = reason_of(message)
    grace, hint, progress = reason.patience(policy), reason.hint, str(view.appeared(uid))
    if not by_condition and _has_newer_pod(uid, view, at):
        # It was refused, and then it was not: only what a later deadline is to be explained with.
        grace, progress = NEVER, "created"
    elif grace == 0 and server_now is not None and 0 < (timestamp(at) or 0.0) < server_now - STALE:
        grace, progress = policy.admission, "stale"
        hint += "; if that is done, `kubectl rollout restart` makes its controller try again at once"
    elif reason.code == "quota_exceeded" and _makes_room(owner, view):
        grace, progress = NEVER, "room"
    # Each new pod, and each change of what is hoped for, begins the grace anew.
    key = (uid, "create", reason.code, progress)
    lacks = reference(message, str(owner["metadata"].get("namespace") or "")) if grace < NEVER else None
    return [Signal(reason.code, key, describe(owner), reason.cause, message, hint, grace, lacks=lacks)]


def _complete(owner: Mapping[str, Any]) -> bool:
    """Whether all pods that are wanted have been created: an older refusal is history then."""
    spec, status = owner.get("spec") or {}, owner.get("status") or {}
    if owner["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled")
        return wanted is not None and int(status.get("currentNumberScheduled") or 0) >= int(wanted)
    if owner["kind"] == "Job" or "replicas" not in status:
        return False
    return int(status["replicas"]) >= int(spec.get("replicas", 1))


def _by_condition(owner: Object, view: View) -> tuple[str, str] | None:
    """A ReplicaSet's controller says in a condition whether it is refused, and takes that back.

    The condition keeps the message of the first refusal for as long as it holds, so a newer event is the better
    witness. An event alone is none: after 25 about one object only one in five minutes is written, so that the last
    one may be of a refusal long past (client-go's event correlator).
    """
    for condition in (owner.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            break
    else:
        return None
    if condition.get("reason") == "FailedDelete":
        return None
    since = str(condition.get("lastTransitionTime") or "")
    event = newest_event(view.events(str(owner["metadata"].get("uid"))), "FailedCreate")
    # Both are times of the controller.
    if event is not None and _written(event) >= since:
        return event_text(event), event_time(event)
    return str(condition.get("message") or ""), since


def _by_event(owner: Object, view: View) -> tuple[str, str] | None:
    """Of the others only events tell; those from before the object was changed are about an earlier revision."""
    events = view.events(str(owner["metadata"].get("uid")))
    refused, created = newest_event(events, "FailedCreate"), newest_event(events, "SuccessfulCreate")
    if refused is None or (created is not None and event_time(created) > event_time(refused)):
        return None
    # Both times are the API server's own, whole seconds.
    if (timestamp(event_time(refused)) or 0.0) < changed_at(owner) - 1:
        return None
    return event_text(refused), event_time(refused)


def _has_newer_pod(uid: str, view: View, at: str) -> bool:
    moment = timestamp(at) or 0.0
    pods = view.owned(uid, ("", "Pod"))
    return any((timestamp(pod["metadata"].get("creationTimestamp")) or 0.0) > moment for pod in pods)


def _makes_room(owner: Object, view: View) -> bool:
    """Whether pods are about to free what a quota lacks.

    Some that end (they count until they are gone), or, while a rollout goes on, those of the old revision, which end
    once a new one is ready.
    """
    metadata = owner["metadata"]
    if any(pod["metadata"].get("deletionTimestamp") for pod in view.list(("", "Pod"), metadata.get("namespace"))):
        return True
    deployment = view.owner(owner)
    if deployment is None or all(pod_ready(pod) for pod in view.pods(str(metadata.get("uid")))):
        return False
    siblings = view.owned(str(deployment["metadata"].get("uid")), ("apps", "ReplicaSet"))
    return any(
        _alive(view.pods(str(other["metadata"].get("uid"))))
        for other in siblings
        if other["metadata"].get("uid") != metadata.get("uid")
    )


def _alive(pods: Iterable[Object]) -> bool:
    return any((pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for pod in pods)


def _written(event: Mapping[str, Any]) -> str:
    """When an event was last seen, on the clock of whoever wrote it."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
