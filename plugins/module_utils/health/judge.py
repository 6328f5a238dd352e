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
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import Answer, Reference
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import (
    NEVER,
    Memory,
    Policy,
    Signal,
    pod_signals,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.refusals import refusals
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import Readiness, Rules, State, pod_ready
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import (
    Kind,
    View,
    changed_at,
    event_text,
    event_time,
    kind_of,
    timestamp,
)

LASTING = (("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("apps", "ReplicaSet"), ("", "Pod"))
"""Kinds whose pods are to run on."""
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
    "pods_invalid",
    "runs_as_root",
    "config_invalid",
    "quota_exceeded",
    "service_account_missing",
    "priority_class_missing",
    "runtime_class_missing",
    "secret_store_failed",
    "issuer_failed",
    "secret_sync_failed",
    "certificate_failed",
    "config_missing",
    "claim_missing",
    "claim_lost",
    "storage_class_missing",
    "provisioning_failed",
    "claim_unbound",
    "no_provisioner",
    "unschedulable",
    "mount",
    "sandbox",
    "image_pull",
    "webhook_unavailable",
    "pods_refused",
    "out_of_memory",
    "container_start",
    "old_pod_blocks",
    "postgres_failed",
    "probe_killed",
    "hook_failed",
    "crash_loop",
    "job_failed",
    "not_ready",
    "init_waiting",
    "no_endpoints",
    "pending",
)
_STORES = ("Cluster", "StatefulSet", "PersistentVolumeClaim")


@dataclasses.dataclass
class Diagnosis:
    """Why one target is not ready.

    :param target: as messages name it.
    :param signal: what is wrong below it; None if its own rule says it all.
    :param chain: from the target down to the container.
    :param because: what has to be put right first, as messages name it; empty where this is a root of the trouble.
    :param since: when it was first seen, on the judge's clock.
    :param certain: when it became certain: at once, or when its grace was over; None if it is not.
    """

    code: str
    target: str
    cause: str
    evidence: str = ""
    hint: str = ""
    signal: Signal | None = None
    chain: list[str] = dataclasses.field(default_factory=list)
    kind: str = ""
    because: str = ""
    since: float | None = None
    certain: float | None = None

    def rank(self) -> tuple[int, int, str]:
        """Sorts causes before their effects."""
        # What is not in the order is certain at least, which those that only wait are not.
        order = _ORDER.index(self.code if self.code in _ORDER else "not_ready")
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
    :param moved: whether any target has come nearer to ready than it has ever been.
    """

    statuses: list[Status]
    doomed: list[Diagnosis]
    likely: list[Diagnosis]
    next_check: float | None
    restarts: int
    moved: bool = False

    @property
    def ready(self) -> bool:
        """Whether all targets are ready."""
        return all(status.readiness.ready for status in self.statuses)

    @property
    def notes(self) -> list[str]:
        """What is to be told about targets although they are ready."""
        return [f"{status.target} {status.readiness.note}" for status in self.statuses if status.readiness.note]


@dataclasses.dataclass(frozen=True)
class _PodState:
    """What was made of one pod, as long as nothing about it changes.

    :param stage: how far it has come; more is nearer to ready.
    :param unprobed: its containers that no readiness probe looks at: name, and when the node started it; empty for one
        that does not run.
    """

    stamp: tuple[int, str]
    signals: list[Signal]
    restarts: int
    stage: int
    unprobed: tuple[tuple[str, str], ...]


@dataclasses.dataclass
class _Look:
    """One judgement while it is made.

    :param rest_ready: whether all targets but Services are ready.
    :param active: identities of what is wrong now.
    """

    view: View
    now: float
    server_now: float | None
    assessment: Assessment
    rest_ready: bool = False
    active: set[tuple[str, ...]] = dataclasses.field(default_factory=set)

    def check_at(self, moment: float) -> None:
        """Judge again then, even if nothing happens."""
        due = self.assessment.next_check
        if moment != NEVER and (due is None or moment < due):
            self.assessment.next_check = moment


class Judge:
    """Judges a set of targets again and again.

    :param targets: the objects to judge, as they were applied or as manifests with namespaces.
    :param policy: how patient to be.
    :param rules: when an object is ready.
    """

    def __init__(self, targets: Sequence[Object], policy: Policy | None = None, rules: Rules | None = None) -> None:
        self.targets = list(targets)
        self.policy = policy or Policy()
        self.rules = rules or Rules()
        self.denied: dict[Kind, str] = {}
        """Kinds that may not be watched, and why: they are not judged, and that is said."""
        self.missing: set[str] = set()
        """Targets of kinds that have no state and are not watched, which are not there; as messages name them."""
        self.answers: dict[Reference, Answer] = {}
        """What the API has said of things that pods are said to lack."""
        self._memory = Memory()
        self._since: dict[tuple[str, ...], float] = {}
        self._pods: dict[str, _PodState] = {}
        self._running: dict[tuple[str, str, str], float] = {}
        self._furthest: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()

    def assess(self, view: View, now: float, server_now: float | None = None) -> Assessment:
        """Judge all targets.

        :param now: seconds on any clock that only goes forward, the same one at each call.
        :param server_now: seconds since the epoch on the API server's clock, None if unknown.
        """
        assessment = Assessment([], [], [], None, 0)
        look = _Look(view, now, server_now, assessment)
        judged = []
        for target in self.targets:
            live = self._live(target, view)
            readiness = self._readiness(target, live, view)
            if readiness.ready and live is not None:
                readiness = self._proven(live, readiness, look)
            judged.append((target, live, readiness))
        look.rest_ready = all(readiness.ready for target, _live, readiness in judged if kind_of(target) != SERVICE)
        for target, live, readiness in judged:
            assessment.statuses.append(Status(describe(target), readiness))
            pods = [(self._pod(pod, view), pod, lasting) for pod, lasting in _pods(live, view)] if live else []
            assessment.restarts += sum(state.restarts for state, _pod, _lasting in pods)
            stage = sum(state.stage for state, _pod, lasting in pods if lasting)
            assessment.moved |= self._has_moved(describe(target), readiness, stage)
            if not readiness.ready:
                self._explain(target, live, readiness, look)
        self._since = {key: since for key, since in self._since.items() if key in look.active}
        assessment.doomed.sort(key=Diagnosis.rank)
        assessment.likely.sort(key=Diagnosis.rank)
        return assessment

    def forgive(self, target: str, view: View) -> None:
        """Begin all budgets and graces of a target's pods anew, since what they waited for has come.

        :param target: as messages name it.
        """
        live = next((self._live(item, view) for item in self.targets if describe(item) == target), None)
        uids = set()
        for pod, _lasting in _pods(live, view) if live else ():
            self._memory.forgive(pod)
            uids.add(str(pod["metadata"].get("uid")))
            self._pods.pop(str(pod["metadata"].get("uid")), None)
        self._since = {key: since for key, since in self._since.items() if key[0] not in uids}
        # What was not there may be by now.
        self.answers.clear()

    def unasked(self, assessment: Assessment) -> set[Reference]:
        """What condemns somebody by being missing, and nobody has asked for yet."""
        lacking = {item.signal.lacks for item in assessment.doomed if item.signal and item.signal.lacks}
        return lacking - self.answers.keys()

    def _has_moved(self, name: str, readiness: Readiness, stage: int) -> bool:
        """Whether a target is further than ever, or says something that it has never said."""
        stage += 1_000_000 if readiness.ready else 0
        news = (name, readiness.message) not in self._said
        self._said.add((name, readiness.message))
        further = stage > self._furthest.get(name, -1)
        self._furthest[name] = max(stage, self._furthest.get(name, -1))
        return news or further

    def _live(self, target: Object, view: View) -> Object | None:
        metadata = target["metadata"]
        return view.get(kind_of(target), str(metadata.get("namespace") or ""), metadata["name"])

    def _readiness(self, target: Object, live: Object | None, view: View) -> Readiness:
        kind = kind_of(target)
        if kind in self.denied:
            return rules.noted(f"is not judged: {self.denied[kind]}")
        if not self.rules.has_state(kind):
            return rules.progressing("does not exist") if describe(target) in self.missing else rules.READY
        if live is not None:
            return self.rules.readiness(live, view)
        key = (kind, str(target["metadata"].get("namespace") or ""), target["metadata"]["name"])
        if key in view.seen:
            return rules.failed("deleted", "was deleted while it was waited for", "find out who deletes it")
        return rules.progressing("does not exist")

    def _proven(self, live: Object, readiness: Readiness, look: _Look) -> Readiness:
        """A workload that is ready by its numbers, unless one of its containers has only just been started.

        Without a readiness probe a container is ready when it runs (kubelet's prober manager), so one that will crash
        in a second is ready for a second.
        """
        if kind_of(live) not in LASTING:
            return readiness
        late, name = 0.0, ""
        for pod, lasting in _pods(live, look.view):
            for container, started in self._pod(pod, look.view).unprobed if lasting else ():
                if not started and live["kind"] != "DaemonSet":
                    # The workload's numbers came before its pod's state, or it has just ended. (A DaemonSet is ready
                    # without the pods of nodes that are gone.)
                    return rules.progressing(f"has a container {container} that does not run")
                key = (str(pod["metadata"].get("uid")), container, started)
                since = self._running.setdefault(key, look.now - _age(started, look.server_now))
                if since >= late:
                    late, name = since, container
        ends = late + self.policy.unprobed
        if not name or ends <= look.now:
            return readiness
        look.check_at(ends)
        text = f"has a container {name} without a readiness probe that has run for less than {self.policy.unprobed:g} s"
        return rules.progressing(text)

    def _pod(self, pod: Object, view: View) -> _PodState:
        """What there is to say of one pod; worked out again only when something about it has changed."""
        uid = str(pod["metadata"].get("uid"))
        placed = (pod.get("spec") or {}).get("nodeName")
        arriving = "" if placed else _arriving_node(pod, view)
        stamp = (view.stamp(uid), arriving)
        known = self._pods.get(uid)
        if known is None or known.stamp != stamp:
            signals = pod_signals(pod, view.events(uid), self.policy, self._memory, arriving)
            known = self._pods[uid] = _PodState(stamp, signals, _restarts(pod), _stage(pod), _unprobed(pod))
        return known

    def _explain(self, target: Object, live: Object | None, readiness: Readiness, look: _Look) -> None:
        """Sort what is wrong with one target into doomed and likely."""
        signals = self._signals(live, look) if live is not None else []
        own = (describe(target), readiness.code)
        if readiness.state is State.FAILED:
            since, certain = self._span(own, 0.0, look)
            found = self._of_rule(target, live, readiness, signals, look.view)
            look.assessment.doomed.append(dataclasses.replace(found, since=since, certain=certain))
            return
        troubles = [
            _Trouble(signal, *self._span(signal.key, self._patience(signal, target, look.view), look))
            for signal in signals
        ]
        troubles = _within_budget(troubles, self.policy.failed_pods)
        found_here = [self._of_trouble(target, trouble, look) for trouble in _distinct(troubles, look.now)]
        # A Service has to wait for what it selects before its emptiness means anything.
        patient = kind_of(target) != SERVICE or look.rest_ready
        if not signals:
            found = self._of_rule(target, live, readiness, [], look.view)
            if readiness.grace is not None and patient:
                since, certain = self._span(own, readiness.grace, look)
                found = dataclasses.replace(found, since=since, certain=certain if certain <= look.now else None)
            found_here.append(found)
        for found in found_here:
            (look.assessment.likely if found.certain is None else look.assessment.doomed).append(found)

    def _span(self, key: tuple[str, ...], grace: float, look: _Look) -> tuple[float, float]:
        """Since when something has been wrong, and when its grace is over."""
        look.active.add(key)
        since = self._since.setdefault(key, look.now)
        if since + grace > look.now:
            look.check_at(since + grace)
        return since, since + grace

    def _patience(self, signal: Signal, target: Object, view: View) -> float:
        """Seconds for which a trouble may last; what is said to be missing may be there by now."""
        if signal.lacks is None or signal.grace == NEVER:
            return signal.grace
        answer = self._answer(signal.lacks, view)
        if answer is Answer.THERE:
            # Whoever said it looks again by itself.
            return NEVER
        made_by_operator = self.policy.operator if rules.is_custom(kind_of(target)) else 0.0
        not_told = self.policy.unasked if answer is Answer.NOT_TOLD else 0.0
        return max(signal.grace, made_by_operator, not_told)

    def _answer(self, lacks: Reference, view: View) -> Answer | None:
        if lacks.kind == CLAIM[1] and view.knows(CLAIM):
            self.answers[lacks] = Answer.THERE if view.get(CLAIM, lacks.namespace, lacks.name) else Answer.NOT_THERE
        return self.answers.get(lacks)

    def _signals(self, live: Object, look: _Look) -> list[Signal]:
        found: list[Signal] = []
        for owner in _creators(live, look.view):
            found += refusals(owner, look.view, self.policy, look.server_now)
        for pod, lasting in _pods(live, look.view):
            for signal in self._pod(pod, look.view).signals:
                for better in _blame_claims(signal, pod, look.view) or [signal]:
                    found.append(better if lasting else self._of_old_pod(better, live))
        return sorted(found, key=lambda signal: signal.grace)

    def _of_old_pod(self, signal: Signal, live: Object) -> Signal:
        """Trouble of a pod of an earlier revision: it is on its way out, unless a StatefulSet waits for it.

        One that starts its pods in order does not replace a pod that is not ready (kubernetes issue 67250).
        """
        spec = live.get("spec") or {}
        in_order = live.get("kind") == "StatefulSet" and spec.get("podManagementPolicy") != "Parallel"
        observed = (live.get("status") or {}).get("observedGeneration") == live["metadata"].get("generation")
        if not in_order or not observed or signal.grace == NEVER:
            return dataclasses.replace(signal, grace=NEVER)
        return dataclasses.replace(
            signal,
            code="old_pod_blocks",
            key=(*signal.key, "old"),
            cause=f"{signal.cause}; it is of the old revision, and a StatefulSet does not replace a broken pod",
            hint="delete that pod",
            grace=signal.grace + self.policy.old_pod,
        )

    def _of_trouble(self, target: Object, trouble: _Trouble, look: _Look) -> Diagnosis:
        signal, name = trouble.signal, describe(target)
        chain = [name, *_path(target, signal, look.view)]
        cause = f"cannot get ready: {signal.subject} {signal.cause}"
        if signal.subject == name:
            cause = signal.cause
        certain = trouble.certain if trouble.certain <= look.now else None
        return Diagnosis(signal.code, name, cause, signal.evidence, signal.hint, signal, chain, str(target["kind"]),
                         since=trouble.since, certain=certain)  # fmt: skip

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


def _pod_uid(signal: Signal) -> str:
    return str(signal.pod["metadata"].get("uid")) if signal.pod else ""


def _unprobed(pod: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
        return ()
    probed = {str(item.get("name")) for item in spec.get("containers") or [] if item.get("readinessProbe")}
    found = []
    for container in status.get("containerStatuses") or []:
        if container.get("name") not in probed:
            running = (container.get("state") or {}).get("running")
            started = "" if running is None else str(running.get("startedAt") or "unknown")
            found.append((str(container.get("name")), started))
    return tuple(found)


def _age(started: str, server_now: float | None) -> float:
    """Seconds since a node says it started something, by the API server's clock; 0 where that can't be told.

    A node's clock that is ahead makes it look newer than it is, which costs a wait; one that is behind, older, which
    is as if the rule were not there. Neither is condemned for it.
    """
    at = timestamp(started)
    return max(server_now - at, 0.0) if server_now is not None and at is not None else 0.0


def _stage(pod: Mapping[str, Any]) -> int:
    """How far a pod has come: placed, initialised, running, ready."""
    status = pod.get("status") or {}
    initialised = [
        item
        for item in status.get("initContainerStatuses") or []
        if ((item.get("state") or {}).get("terminated") or {}).get("exitCode") == 0
    ]
    running = [item for item in status.get("containerStatuses") or [] if "running" in (item.get("state") or {})]
    placed = bool((pod.get("spec") or {}).get("nodeName"))
    done = pod_ready(pod) or status.get("phase") == "Succeeded"
    return 1 + int(placed) + len(initialised) + len(running) + (100 if done else 0)


def _arriving_node(pod: Mapping[str, Any], view: View) -> str:
    """A node that joined after the pod was made and is not ready yet: both times are the API server's."""
    made = str(pod["metadata"].get("creationTimestamp") or "")
    for node in view.list(("", "Node")):
        conditions = (node.get("status") or {}).get("conditions") or []
        ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
        if not ready and made and str(node["metadata"].get("creationTimestamp") or "") > made:
            return str(node["metadata"]["name"])
    return ""


CLAIM: Kind = ("", "PersistentVolumeClaim")


def _blame_claims(signal: Signal, pod: Mapping[str, Any], view: View) -> list[Signal]:
    """In place of a pod that finds no node or is set up for long: its claims that get no volume, with the reason."""
    if signal.code not in ("unschedulable", "pending") or not view.knows(CLAIM):
        return []
    found = []
    namespace = str(pod["metadata"].get("namespace") or "")
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        claim = view.get(CLAIM, namespace, str((volume.get("persistentVolumeClaim") or {}).get("claimName")))
        if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
            continue
        said = rules.readiness(claim, view)
        if said.code:
            grace = 0.0 if said.state is State.FAILED else NEVER if said.grace is None else said.grace
            key = (str(pod["metadata"].get("uid")), "claim", str(claim["metadata"]["name"]))
            found.append(Signal(said.code, key, describe(claim), said.message, signal.evidence, said.hint, grace, pod))
    return found


@dataclasses.dataclass(frozen=True)
class _Trouble:
    """A signal in time.

    :param certain: when it is to condemn its target.
    """

    signal: Signal
    since: float
    certain: float


def _within_budget(troubles: list[_Trouble], failed_pods: int) -> list[_Trouble]:
    """Let pods in trouble condemn their target only once there are more of them than the budget has room for."""
    first: dict[str, float] = {}
    for trouble in troubles:
        if trouble.signal.pod is not None:
            uid = _pod_uid(trouble.signal)
            first[uid] = min(trouble.certain, first.get(uid, NEVER))
    spent = sorted(first.values())[failed_pods] if len(first) > failed_pods else NEVER
    return [
        dataclasses.replace(trouble, certain=max(trouble.certain, spent)) if trouble.signal.pod is not None else trouble
        for trouble in troubles
    ]


def _distinct(troubles: list[_Trouble], now: float) -> list[_Trouble]:
    """One for each kind of trouble: forty pods that lack one Secret are one trouble."""
    alike: dict[tuple[bool, str, str], list[_Trouble]] = {}
    for trouble in troubles:
        key = (trouble.certain <= now, trouble.signal.code, trouble.signal.container)
        alike.setdefault(key, []).append(trouble)
    found = []
    for first, *others in alike.values():
        if others:
            signal = dataclasses.replace(first.signal, cause=f"{first.signal.cause}, and so do {len(others)} more")
            since = min(trouble.since for trouble in (first, *others))
            first = _Trouble(signal, since, min(trouble.certain for trouble in (first, *others)))
        found.append(first)
    return found


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
    if " of Pod " in signal.subject:
        path.append(signal.subject.partition(" of Pod ")[0])
    elif signal.subject != describe({**pod, "kind": "Pod"}) and signal.subject != describe(target):
        path.append(signal.subject)
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
    return event_text(warnings[-1]) if warnings else ""
