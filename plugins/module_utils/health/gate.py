# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: watches what was released until it is healthy, is certain not to get healthy, or time is up."""

from __future__ import annotations

import dataclasses
import queue
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    Watcher,
    WatchEvent,
    describe,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health import rules
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Assessment, Diagnosis, Judge
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import Kind, View, event_count, kind_of
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

LOG_LINES = 15
EVENTS = 5
LOST_PATIENCE = 120.0
"""Seconds without an answer from the API server after which the gate says so instead of waiting for its deadline."""
CATCH_UP = 1.5
"""Seconds to let the watches catch up after an interruption, before what they show condemns anyone."""
SEARCH = 2.0
"""Seconds between two looks for objects that only have to exist."""
SETTLE = 0.25
"""Seconds between the first sign of a bad verdict and the verdict."""
QUIET = 0.05
"""Seconds between two judgements at least, so that a flood of events is judged together."""

_APPS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
# Cluster-wide kinds of which there may be many large objects: watch those that are meant, by name.
_BY_NAME = ("CustomResourceDefinition", "Namespace", "APIService", "PersistentVolume")


@dataclasses.dataclass(eq=False)
class GateFailed(Failure):
    """The release is not healthy.

    :param diagnoses: each reason with its chain, last log lines and events; the first is the one of the sentence.
    """

    diagnoses: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The first reason, with all of them under ``all``."""
        first = self.diagnoses[0] if self.diagnoses else {}
        return {
            **first,
            **Failure(self.code, self.object, self.cause, self.evidence, self.hint).as_dict(),
            "all": self.diagnoses,
        }


@dataclasses.dataclass
class Verdict:
    """What a gate returns when all is well, or in one look.

    :param healthy: whether everything was ready, and stayed so for as long as was asked.
    :param objects: state of each target.
    :param notes: what is to be told nevertheless.
    :param seconds: how long it took.
    """

    healthy: bool
    objects: list[dict[str, str]]
    notes: list[str]
    seconds: float


class Gate:
    """Judges a set of objects on one cluster.

    :param targets: what was applied; namespaced ones name their namespace.
    :param timeout: seconds for all of it.
    :param stable_for: seconds for which everything has to stay ready, without a restart.
    :param existing: the targets have just been applied: those that are ready when they exist need not be looked for.
    """

    def __init__(
        self,
        cluster: Cluster,
        targets: Sequence[Object],
        timeout: float = 300.0,
        stable_for: float = 0.0,
        policy: Policy | None = None,
        progress: Progress | None = None,
        existing: bool = False,
    ) -> None:
        self.cluster = cluster
        self.targets = list(targets)
        self._unseen = [] if existing else [item for item in self.targets if not rules.has_state(kind_of(item))]
        self._next_search = 0.0
        self.timeout = timeout
        self.stable_for = stable_for
        self.judge = Judge(self.targets, policy)
        self.view = View()
        self.progress = progress or Progress("gate")
        self._queue: queue.SimpleQueue[WatchEvent] = queue.SimpleQueue()
        self._watchers: list[Watcher] = []
        self._waiting_for: set[Watcher] = set()
        self._lost: dict[Watcher, tuple[float, Failure]] = {}
        self._judge_from = 0.0
        self._denials: dict[Watcher, int] = {}
        self._named: dict[Watcher, str] = {}

    def run(self) -> Verdict:
        """Wait for the verdict.

        :raises GateFailed: it is bad; the code is the cause's, or ``timeout``.
        :raises Failure: ``unreachable``: the API server stopped answering.
        """
        started = self.cluster.clock.now()
        try:
            self._start()
            return self._wait(started)
        finally:
            for watcher in self._watchers:
                watcher.stop()

    def look(self) -> Verdict:
        """The state at this moment, without waiting for anything but the answers."""
        started = self.cluster.clock.now()
        try:
            self._start()
            while self._waiting_for and self.cluster.clock.now() < started + min(self.timeout, 30.0):
                self._receive(0.5)
            self._search()
            assessment = self.judge.assess(self.view, self.cluster.clock.now())
        finally:
            for watcher in self._watchers:
                watcher.stop()
        healthy = assessment.ready and not self._waiting_for
        return self._verdict(assessment, healthy, started)

    # Watching

    def _start(self) -> None:
        for resource, namespace, name in self._watched():
            fields = f"metadata.name={name}" if name else ""
            watcher = Watcher(self.cluster, resource, self._queue.put, namespace, fields=fields)
            self._watchers.append(watcher)
            self._named[watcher] = name
            self._waiting_for.add(watcher)
            watcher.start()

    def _search(self) -> None:
        """Look for the targets that only have to exist; those that are there are not looked for again."""
        now = self.cluster.clock.now()
        if not self._unseen or now < self._next_search:
            return
        self._unseen = [target for target in self._unseen if not self._exists(target)]
        self.judge.missing = {describe(target) for target in self._unseen}
        self._next_search = now + SEARCH

    def _exists(self, target: Object) -> bool:
        resource = self.cluster.find_resource(target["apiVersion"], target["kind"])
        if resource is None:
            return False
        metadata = target["metadata"]
        try:
            return self.cluster.get(resource, metadata["name"], metadata.get("namespace")) is not None
        except ApiError as error:
            if error.status != 403:
                raise
            self.judge.denied[kind_of(target)] = error.evidence
            return True

    def _watched(self) -> Iterable[tuple[Resource, str | None, str]]:
        """What to watch: each kind once in each namespace, however many objects of it there are."""
        wanted: dict[tuple[Kind, str, str], Resource] = {}

        def want(api_version: str, kind: str, namespace: str = "", name: str = "") -> None:
            resource = self.cluster.find_resource(api_version, kind)
            if resource is None:
                return
            key = ((resource.group, kind), namespace if resource.namespaced else "", name)
            wanted.setdefault(key, resource)

        for target in self.targets:
            kind = kind_of(target)
            if not rules.has_state(kind):
                continue
            namespace = str(target["metadata"].get("namespace") or "")
            by_name = target["metadata"]["name"] if kind[1] in _BY_NAME else ""
            want(target["apiVersion"], target["kind"], namespace, by_name)
            for api_version, name in _surroundings(kind):
                want(api_version, name, namespace)
        return [(resource, namespace or None, name) for (_kind, namespace, name), resource in wanted.items()]

    def _receive(self, timeout: float) -> None:
        """Take in one event, and all that have come with it."""
        try:
            event = self._queue.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return
        while True:
            self._take(event)
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                return

    def _take(self, event: WatchEvent) -> None:
        resource, watcher = event.watcher.resource, event.watcher
        kind = (resource.group, resource.kind)
        if event.type == "SYNC":
            self._waiting_for.discard(watcher)
            self.judge.denied.pop(kind, None)
            for item in event.objects:
                _slim(kind, item)
            self.view.sync(kind, event.objects, watcher.namespace, self._named[watcher])
        elif event.type in ("ADDED", "MODIFIED"):
            _slim(kind, event.objects[0])
            self.view.put(kind, event.objects[0])
        elif event.type == "DELETED":
            self.view.remove(kind, event.objects[0])
        elif event.type == "LOST" and event.error is not None:
            since = self._lost.get(watcher, (self.cluster.clock.now(), event.error))[0]
            self._lost[watcher] = (since, event.error)
        elif event.type == "BACK":
            self._lost.pop(watcher, None)
            self._judge_from = self.cluster.clock.now() + CATCH_UP
        elif event.type == "DENIED" and event.error is not None:
            self._deny(watcher, kind, event.error)

    def _deny(self, watcher: Watcher, kind: Kind, error: Failure) -> None:
        """Do without a kind that may not be watched; once more first, since a restarting server denies everything."""
        self._denials[watcher] = self._denials.get(watcher, 0) + 1
        if self._denials[watcher] > 1 or error.code == "unauthorised":
            self._waiting_for.discard(watcher)
            self._lost.pop(watcher, None)
            if error.code == "unauthorised":
                raise error
            self.judge.denied[kind] = error.evidence or error.cause

    # Waiting

    def _wait(self, started: float) -> Verdict:
        clock = self.cluster.clock
        deadline = started + self.timeout
        ready_since: float | None = None
        restarts = 0
        next_look = 0.0
        while True:
            self._receive(min(max(next_look - clock.now(), 0.0), 5.0) if not self._queue_full() else 0.0)
            self._search()
            now = clock.now()
            if now >= deadline:
                raise self._timed_out(self.judge.assess(self.view, now))
            next_look = min(deadline, now + (SEARCH if self._unseen else 5.0))
            if self._interrupted(now):
                continue
            assessment = self.judge.assess(self.view, now)
            if now < self._judge_from:
                next_look = self._judge_from
                continue
            if assessment.doomed:
                # What tells why may be a moment behind on another watch.
                clock.sleep(SETTLE)
                self._receive(0.0)
                assessment = self.judge.assess(self.view, clock.now())
                if assessment.doomed:
                    raise self._condemned(assessment.doomed)
                continue
            if assessment.next_check is not None:
                next_look = min(next_look, assessment.next_check)
            if not assessment.ready:
                ready_since = None
                self.progress.update(self._waiting_text(assessment))
                clock.sleep(QUIET)
                continue
            if ready_since is None or assessment.restarts > restarts:
                ready_since = now
            restarts = assessment.restarts
            if now - ready_since >= self.stable_for:
                return self._verdict(assessment, True, started)
            next_look = min(next_look, ready_since + self.stable_for)
            self.progress.update(
                f"all {len(self.targets)} objects are ready; seeing whether they stay so for {self.stable_for:.0f} s"
            )

    def _queue_full(self) -> bool:
        return not self._queue.empty()

    def _interrupted(self, now: float) -> bool:
        """Whether the view can't be judged now: not complete yet, or out of date since the server does not answer."""
        if self._lost:
            since, error = min(self._lost.values(), key=lambda pair: pair[0])
            if now - since > LOST_PATIENCE:
                raise error
            # The first break of an idle connection is nothing to tell.
            if now - since > 1.0:
                self.progress.update(f"the API server does not answer, trying again: {error.evidence or error.cause}")
            return True
        return bool(self._waiting_for)

    def _waiting_text(self, assessment: Assessment) -> str:
        late = [status for status in assessment.statuses if not status.readiness.ready]
        text = "; ".join(f"{_brief(status.target)} {status.readiness.message}" for status in late[:3])
        more = f"; and {len(late) - 3} more" if len(late) > 3 else ""
        telling = [item for item in assessment.likely if item.signal and item.code not in ("pending", "not_ready")]
        hint = f" ({telling[0].signal.subject} {telling[0].signal.cause})" if telling and telling[0].signal else ""
        return f"waiting for {len(late)} of {len(assessment.statuses)} objects: {text}{more}{hint}"

    # Verdicts

    def _verdict(self, assessment: Assessment, healthy: bool, started: float) -> Verdict:
        objects = [
            {
                "object": status.target,
                "state": status.readiness.state.value,
                "message": status.readiness.message or status.readiness.note,
            }
            for status in assessment.statuses
        ]
        return Verdict(healthy, objects, assessment.notes, round(self.cluster.clock.now() - started, 2))

    def _condemned(self, doomed: list[Diagnosis]) -> GateFailed:
        details = [self._detail(diagnosis, number < 3) for number, diagnosis in enumerate(doomed[:10])]
        first = details[0]
        evidence = first["evidence"]
        if len(doomed) > 1:
            also = ", ".join(sorted({item.target for item in doomed[1:]} - {doomed[0].target})[:5])
            evidence += f"; not ready either: {also}" if also else ""
        return GateFailed(first["code"], first["object"], first["cause"], evidence.lstrip("; "), first["hint"], details)

    def _timed_out(self, assessment: Assessment) -> Failure:
        if self._lost:
            return min(self._lost.values(), key=lambda pair: pair[0])[1]
        diagnoses = assessment.doomed + assessment.likely
        if self._waiting_for or not diagnoses:
            names = ", ".join(sorted(watcher.resource.plural for watcher in self._waiting_for)) or "them"
            return Failure("timeout", "The gate", f"could not read {names} within {self.timeout:.0f} s")
        failure = self._condemned(diagnoses)
        # With everything else ready, staying so for the asked time is what did not happen.
        failure.code, failure.cause = "timeout", f"did not get ready within {self.timeout:.0f} s: it {failure.cause}"
        return failure

    def _detail(self, diagnosis: Diagnosis, fetch: bool) -> dict[str, Any]:
        """A diagnosis as data, with the log and events that tell more."""
        signal = diagnosis.signal
        logs, events = [], []
        if signal is not None and signal.pod is not None:
            pod = signal.pod["metadata"]
            if fetch and signal.container:
                logs = self._logs(str(pod["namespace"]), str(pod["name"]), signal.container)
            events = [_event_line(event) for event in self.view.events(str(pod["uid"]))][-EVENTS:]
        evidence = redact(diagnosis.evidence)
        last = next((line.strip() for line in reversed(logs) if line.strip()), "")
        if last:
            evidence += ("; " if evidence else "") + f"its log ends with: {last[:300]}"
        return {
            "code": diagnosis.code, "object": diagnosis.target, "cause": diagnosis.cause, "evidence": evidence,
            "hint": diagnosis.hint, "chain": diagnosis.chain, "logs": logs, "events": events,
        }  # fmt: skip

    def _logs(self, namespace: str, pod: str, container: str) -> list[str]:
        for previous in (False, True):
            lines = self.cluster.logs(namespace, pod, container, LOG_LINES, previous)
            if lines and not lines[0].startswith("unable to retrieve container logs"):
                return [redact(line) for line in lines]
        return []


def _surroundings(kind: Kind) -> list[tuple[str, str]]:
    """Kinds that tell how a target of some kind fares: (apiVersion, kind)."""
    group, name = kind
    pods = [("v1", "Pod"), ("v1", "Event")]
    if kind == ("", "Service"):
        return [("discovery.k8s.io/v1", "EndpointSlice"), ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet")]
    if kind == ("", "PersistentVolumeClaim"):
        return [("storage.k8s.io/v1", "StorageClass"), ("v1", "Event")]
    if kind == ("", "Pod"):
        return pods
    if kind == ("batch", "CronJob"):
        return [("batch/v1", "Job")]
    if group == "apps" and name in _APPS:
        more = [("apps/v1", "ReplicaSet")] if name == "Deployment" else [("v1", "Node")] if name == "DaemonSet" else []
        return pods + more
    if kind == ("batch", "Job"):
        return pods
    if group and "." in group and not group.endswith(".k8s.io"):
        # A custom resource: its operator may make any of these for it.
        workloads = [
            ("apps/v1", "ReplicaSet"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("batch/v1", "Job"),
        ]
        return pods + workloads
    return []


def _slim(kind: Kind, obj: Object) -> None:
    """Forget what no rule reads: it is a good part of a large list."""
    if kind in (("", "Pod"), ("", "Event"), ("apps", "ReplicaSet"), ("discovery.k8s.io", "EndpointSlice")):
        obj["metadata"].pop("managedFields", None)


def _event_line(event: Object) -> str:
    count = event_count(event)
    times = f" ({count} times)" if count > 1 else ""
    return redact(
        f"{event.get('type')} {event.get('reason')}: {' '.join(str(event.get('message') or '').split())}{times}"
    )


def _brief(target: str) -> str:
    """A target without its namespace, for lines that are read while waiting."""
    kind, _space, name = target.partition(" ")
    return f"{kind} {name.rpartition('/')[2]}"


_SECRETS = (
    (re.compile(r"(\w[\w+.-]*://[^\s:/@]*:)[^\s@]+@"), r"\1*****@"),
    (
        re.compile(
            r"(?i)\b((?:[\w-]*(?:password|passwd|secret|token|api[_-]?key))[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&}]+"
        ),
        r"\1*****",
    ),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), r"\1*****"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "*****"),
)


def redact(text: str) -> str:
    """A line of a log or event without what looks like a credential."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def gate_targets(objects: Iterable[Object], cluster: Cluster, namespace: str | None) -> list[Object]:
    """Manifests as targets: namespaced ones get the default namespace."""
    targets = []
    for obj in objects:
        metadata = dict(obj["metadata"])
        resource = cluster.find_resource(obj["apiVersion"], obj["kind"])
        if resource is not None and not resource.namespaced:
            metadata.pop("namespace", None)
        elif not metadata.get("namespace"):
            metadata["namespace"] = namespace or "default"
        targets.append({**obj, "metadata": metadata})
    return targets
