# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is seen to a verdict: which targets are ready, which never will be, and why.

Pure but for a memory of since when each trouble has been seen, on the clock that the caller passes. It never
compares that clock with times written by the cluster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, describe
from ansible_collections.groundwork.platform.plugins.module_utils.health import rules
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import (
    NEVER,
    Policy,
    PullErrors,
    Signal,
    owner_signals,
    pod_signals,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import Readiness, State
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import (
    Kind,
    View,
    changed_at,
    event_time,
    kind_of,
    timestamp,
)

SERVICE: Kind = ("", "Service")

# What causes other trouble comes before what it causes: a crash is often a missing store, a store is often an image.
_ORDER = (
    "image_invalid",
    "image_not_found",
    "image_denied",
    "image_not_present",
    "pod_security",
    "admission_denied",
    "limits_refused",
    "quota_exceeded",
    "service_account_missing",
    "config_missing",
    "claim_lost",
    "storage_class_missing",
    "unschedulable",
    "mount",
    "out_of_memory",
    "container_start",
    "probe_killed",
    "crash_loop",
    "job_failed",
    "not_ready",
    "pending",
)
_STORES = ("Cluster", "StatefulSet", "PersistentVolumeClaim")


@dataclasses.dataclass
class Diagnosis:
    """Why one target is not ready.

    :param target: as messages name it.
    :param signal: what is wrong below it; None if its own rule says it all.
    :param chain: from the target down to the container.
    """

    code: str
    target: str
    cause: str
    evidence: str = ""
    hint: str = ""
    signal: Signal | None = None
    chain: list[str] = dataclasses.field(default_factory=list)
    kind: str = ""

    def rank(self) -> tuple[int, int, str]:
        """Sorts causes before their effects."""
        order = _ORDER.index(self.code) if self.code in _ORDER else len(_ORDER)
        return order, 0 if self.kind in _STORES else 1, self.target


@dataclasses.dataclass(frozen=True)
class Status:
    """One target's state."""

    target: str
    readiness: Readiness


@dataclasses.dataclass
class Assessment:
    """The state of all targets at one moment.

    :param doomed: what will not heal by itself, causes first.
    :param likely: what may heal, and is the best explanation so far.
    :param next_check: when to judge again even if nothing happens, since a grace ends; None if none does.
    :param restarts: of all containers of the targets' new pods.
    """

    statuses: list[Status]
    doomed: list[Diagnosis]
    likely: list[Diagnosis]
    next_check: float | None
    restarts: int

    @property
    def ready(self) -> bool:
        """Whether all targets are ready."""
        return all(status.readiness.ready for status in self.statuses)

    @property
    def notes(self) -> list[str]:
        """What is to be told about targets although they are ready."""
        return [f"{status.target} {status.readiness.note}" for status in self.statuses if status.readiness.note]


class Judge:
    """Judges a set of targets again and again.

    :param targets: the objects to judge, as they were applied or as manifests with namespaces.
    :param policy: how patient to be.
    """

    def __init__(self, targets: Sequence[Object], policy: Policy | None = None) -> None:
        self.targets = list(targets)
        self.policy = policy or Policy()
        self.denied: dict[Kind, str] = {}
        """Kinds that may not be watched, and why: they are not judged, and that is said."""
        self.missing: set[str] = set()
        """Targets of kinds that have no state and are not watched, which are not there; as messages name them."""
        self._pulls = PullErrors()
        self._since: dict[tuple[str, ...], float] = {}

    def assess(self, view: View, now: float) -> Assessment:
        """Judge all targets.

        :param now: seconds on any clock that only goes forward, the same one at each call.
        """
        found = [(target, self._live(target, view)) for target in self.targets]
        judged = [(target, live, self._readiness(target, live, view)) for target, live in found]
        rest_ready = all(readiness.ready for target, _live, readiness in judged if kind_of(target) != SERVICE)
        assessment = Assessment([], [], [], None, 0)
        active: set[tuple[str, ...]] = set()
        for target, live, readiness in judged:
            assessment.statuses.append(Status(describe(target), readiness))
            if live is not None:
                assessment.restarts += sum(_restarts(pod) for pod, _grace in _pods(live, view))
            if not readiness.ready:
                self._explain(target, live, readiness, view, now, rest_ready, assessment, active)
        self._since = {key: since for key, since in self._since.items() if key in active}
        assessment.doomed.sort(key=Diagnosis.rank)
        assessment.likely.sort(key=Diagnosis.rank)
        return assessment

    def _live(self, target: Object, view: View) -> Object | None:
        metadata = target["metadata"]
        return view.get(kind_of(target), str(metadata.get("namespace") or ""), metadata["name"])

    def _readiness(self, target: Object, live: Object | None, view: View) -> Readiness:
        kind = kind_of(target)
        if kind in self.denied:
            return rules.noted(f"is not judged: {self.denied[kind]}")
        if not rules.has_state(kind):
            return rules.progressing("does not exist") if describe(target) in self.missing else rules.READY
        if live is not None:
            return rules.readiness(live, view)
        key = (kind, str(target["metadata"].get("namespace") or ""), target["metadata"]["name"])
        if key in view.seen:
            return rules.failed("deleted", "was deleted while it was waited for", "find out who deletes it")
        return rules.progressing("does not exist")

    def _explain(
        self,
        target: Object,
        live: Object | None,
        readiness: Readiness,
        view: View,
        now: float,
        rest_ready: bool,
        assessment: Assessment,
        active: set[tuple[str, ...]],
    ) -> None:
        """Sort what is wrong with one target into doomed and likely."""
        signals = _distinct(self._signals(live, view)) if live is not None else []
        if readiness.state is State.FAILED:
            assessment.doomed.append(self._of_rule(target, live, readiness, signals, view))
            return
        doomed: list[Diagnosis] = []
        likely: list[Diagnosis] = []
        for signal in signals:
            (doomed if self._expired(signal.key, signal.grace, now, assessment, active) else likely).append(
                self._of_signal(target, signal, view)
            )
        # A Service has to wait for what it selects before its emptiness means anything.
        patient = kind_of(target) != SERVICE or rest_ready
        if readiness.grace is not None and patient and not signals:
            key = (describe(target), readiness.code)
            if self._expired(key, readiness.grace, now, assessment, active):
                doomed.append(self._of_rule(target, live, readiness, [], view))
        if not doomed and not likely:
            likely.append(self._of_rule(target, live, readiness, [], view))
        assessment.doomed += doomed
        assessment.likely += likely

    def _expired(
        self, key: tuple[str, ...], grace: float, now: float, assessment: Assessment, active: set[tuple[str, ...]]
    ) -> bool:
        """Whether something has been wrong for longer than its grace; remember since when it is."""
        active.add(key)
        ends = self._since.setdefault(key, now) + grace
        if ends <= now:
            return True
        if grace != NEVER and (assessment.next_check is None or ends < assessment.next_check):
            assessment.next_check = ends
        return False

    def _signals(self, live: Object, view: View) -> list[Signal]:
        found: list[Signal] = []
        for owner in _creators(live, view):
            events = view.events(str(owner["metadata"]["uid"]))
            found += owner_signals(owner, events, self.policy, changed_at(owner))
        for pod, lasting in _pods(live, view):
            for signal in pod_signals(pod, view.events(str(pod["metadata"]["uid"])), self.policy, self._pulls):
                found.append(signal if lasting else dataclasses.replace(signal, grace=NEVER))
        return sorted(found, key=lambda signal: signal.grace)

    def _of_signal(self, target: Object, signal: Signal, view: View) -> Diagnosis:
        chain = [describe(target), *_path(target, signal, view)]
        cause = f"cannot get ready: {signal.subject} {signal.cause}"
        if signal.subject == describe(target):
            cause = signal.cause
        return Diagnosis(
            signal.code, describe(target), cause, signal.evidence, signal.hint, signal, chain, str(target["kind"])
        )

    def _of_rule(
        self, target: Object, live: Object | None, readiness: Readiness, signals: list[Signal], view: View
    ) -> Diagnosis:
        """What a target's own rule says, with the likeliest reason below it."""
        name, signal = describe(target), signals[0] if signals else None
        code = readiness.code or "not_ready"
        if signal is not None and signal.code != "pending":
            evidence = f"{signal.subject} {signal.cause}" + (f": {signal.evidence}" if signal.evidence else "")
            return Diagnosis(code, name, readiness.message, evidence, readiness.hint or signal.hint, signal,
                             [name, *_path(target, signal, view)], str(target["kind"]))  # fmt: skip
        evidence = _last_warning(live, view) if live is not None else ""
        return Diagnosis(code, name, readiness.message, evidence, readiness.hint, None, [name], str(target["kind"]))


def _distinct(signals: list[Signal]) -> list[Signal]:
    """One signal for each kind of trouble: forty pods that lack one Secret are one trouble."""
    first: dict[tuple[str, str], Signal] = {}
    count: dict[tuple[str, str], int] = {}
    for signal in signals:
        key = (signal.code, signal.container)
        first.setdefault(key, signal)
        count[key] = count.get(key, 0) + 1
    return [
        dataclasses.replace(signal, cause=f"{signal.cause}, and so do {count[key] - 1} more")
        if count[key] > 1
        else signal
        for key, signal in first.items()
    ]


def _pods(live: Object, view: View) -> Iterator[tuple[Object, bool]]:
    """Pods that a target's health depends on, each with whether its trouble may condemn the target.

    Only pods of the present revision may: those of earlier ones are on their way out.
    """
    kind = kind_of(live)
    if kind == ("", "Pod"):
        yield live, True
    elif kind == ("apps", "Deployment"):
        replica_set = new_replica_set(live, view)
        if replica_set is not None:
            yield from ((pod, True) for pod in view.pods(str(replica_set["metadata"]["uid"])))
    elif kind in (("apps", "StatefulSet"), ("apps", "DaemonSet")):
        for pod in view.pods(str(live["metadata"].get("uid"))):
            yield pod, _is_new(pod, live)
    elif kind in (("apps", "ReplicaSet"), ("batch", "Job")):
        yield from ((pod, True) for pod in view.pods(str(live["metadata"].get("uid"))))
    else:
        for child in view.owned(str(live["metadata"].get("uid"))):
            if kind_of(child) != ("", "Event"):
                yield from _pods(child, view)


def _creators(live: Object, view: View) -> Iterator[Object]:
    """The objects that create a target's new pods."""
    kind = kind_of(live)
    if kind == ("apps", "Deployment"):
        replica_set = new_replica_set(live, view)
        if replica_set is not None:
            yield replica_set
    elif kind in (("apps", "StatefulSet"), ("apps", "DaemonSet"), ("apps", "ReplicaSet"), ("batch", "Job")):
        yield live
    elif kind != ("", "Pod"):
        for child in view.owned(str(live["metadata"].get("uid"))):
            yield from _creators(child, view)


def new_replica_set(deployment: Object, view: View) -> Object | None:
    """The ReplicaSet of a Deployment's present template, once its controller has seen that."""
    if (deployment.get("status") or {}).get("observedGeneration") != deployment["metadata"].get("generation"):
        return None
    template = _plain_template(deployment)
    matching = [
        item
        for item in view.owned(str(deployment["metadata"].get("uid")), ("apps", "ReplicaSet"))
        if _plain_template(item) == template
    ]
    # As the controller does it: of several equal ones the oldest.
    return min(matching, key=lambda item: str(item["metadata"].get("creationTimestamp")), default=None)


def _plain_template(obj: Mapping[str, Any]) -> dict[str, Any]:
    template = dict((obj.get("spec") or {}).get("template") or {})
    metadata = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != "pod-template-hash"}
    template["metadata"] = {
        key: value for key, value in {**metadata, "labels": labels}.items() if value and key != "creationTimestamp"
    }
    return template


def _is_new(pod: Object, owner: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    status = owner.get("status") or {}
    if status.get("observedGeneration") != owner["metadata"].get("generation"):
        return False
    if owner["kind"] == "StatefulSet":
        return bool(labels.get("controller-revision-hash") == status.get("updateRevision"))
    generation = (owner["metadata"].get("annotations") or {}).get("deprecated.daemonset.template.generation")
    return generation is None or labels.get("pod-template-generation") in (None, generation)


def _path(target: Object, signal: Signal, view: View) -> list[str]:
    """From below the target down to what is in trouble."""
    pod = signal.pod
    if pod is None:
        return [signal.subject] if signal.subject != describe(target) else []
    path: list[str] = []
    owner = view.owner(pod)
    while owner is not None and describe(owner) != describe(target):
        path.insert(0, describe(owner))
        owner = view.owner(owner)
    if describe(pod) != describe(target):
        path.append(describe({**pod, "kind": "Pod"}))
    if signal.subject.startswith("container "):
        path.append(" ".join(signal.subject.split()[:2]))
    return path


def _restarts(pod: Mapping[str, Any]) -> int:
    status = pod.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return sum(int(item.get("restartCount") or 0) for item in statuses)


def _last_warning(live: Object, view: View) -> str:
    since = changed_at(live)
    warnings = [
        event
        for event in view.events(str(live["metadata"].get("uid")))
        if event.get("type") == "Warning" and (timestamp(event_time(event)) or 0.0) >= since - 1
    ]
    return " ".join(str(warnings[-1].get("message") or "").split()) if warnings else ""
