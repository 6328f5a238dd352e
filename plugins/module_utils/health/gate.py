# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: watches what was released until it is healthy, is certain not to get healthy, or time is up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object, Unreachable
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health import checks
from ansible_collections.groundwork.platform.plugins.module_utils.health.causes import RUNTIME, Causes
from ansible_collections.groundwork.platform.plugins.module_utils.health.evidence import SHOWN, Evidence
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Assessment, Diagnosis, Judge
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import ANSWER, ask
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.redact import redact
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import kind_of
from ansible_collections.groundwork.platform.plugins.module_utils.health.watching import CATCH_UP, SEARCH, Watching
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

LOST_PATIENCE = 120.0
"""Seconds without an answer from the API server after which the gate says so instead of waiting for its deadline."""
SETTLE = 0.25
"""Seconds between the first sign of a bad verdict and the verdict."""
QUIET = 0.05
"""Seconds between two judgements at least, so that a flood of events is judged together."""
ASK_AGAIN = 2.0
"""Seconds until the API is asked once more whether something exists, when it had no answer."""
IN_TOUCH = 30.0
"""Seconds for which an answer of the API server shows that it is not cut off."""
SLOW = 1.0
"""Seconds after which an answer may mean that the network was cut until then."""
BUSY = 0.2
"""The same at most, where judging thousands of pods takes its time."""


@dataclasses.dataclass(eq=False)
class GateFailed(Failure):
    """The release is not healthy.

    :param diagnoses: each reason with its chain, last log lines and events: roots first, then what follows from them.
    :param seconds: from the gate's beginning to its verdict.
    """

    diagnoses: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The first reason, with all of them under ``all``."""
        first = self.diagnoses[0] if self.diagnoses else {}
        return {
            **first,
            **Failure(self.code, self.object, self.cause, self.evidence, self.hint).as_dict(),
            "seconds": self.seconds,
            "all": self.diagnoses,
        }


@dataclasses.dataclass
class Verdict:
    """What a gate returns when all is well, or in one look.

    :param healthy: whether everything was ready, and stayed so for as long as was asked.
    :param objects: state of each target.
    :param notes: what is to be told nevertheless.
    :param seconds: how long it took.
    :param checks: state of each metric and HTTP gate: name, state and message.
    """

    healthy: bool
    objects: list[dict[str, str]]
    notes: list[str]
    seconds: float
    checks: list[dict[str, str]] = dataclasses.field(default_factory=list)


class Gate:
    """Judges a set of objects on one cluster.

    :param targets: what was applied; namespaced ones name their namespace.
    :param timeout: seconds for all of it.
    :param stable_for: seconds for which everything has to stay ready, without a restart.
    :param existing: the targets have just been applied: those that are ready when they exist need not be looked for.
    :param options: all that a gate can be told, in place of ``timeout``, ``stable_for`` and ``policy``.
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
        options: Options | None = None,
    ) -> None:
        self.cluster = cluster
        self.targets = list(targets)
        self.options = options or Options(timeout=timeout, stable_for=stable_for, policy=policy or Policy())
        self.judge = Judge(self.targets, self.options.policy, self.options.rules)
        self.progress = progress or Progress("gate")
        self._watching = Watching(cluster, self.targets, self.options.rules, existing, self._take_answer)
        self.judge.denied, self.judge.missing = self._watching.denied, self._watching.missing
        self._evidence = Evidence(cluster, self._watching.view)
        self._standings = [checks.Standings(check) for check in self.options.checks]
        self._runners = [checks.Runner(cluster, item, self._watching.queue.put) for item in self._standings]
        self._started = self._in_touch_until = 0.0
        self._cut = False
        self._moved = False
        self._breaks: list[str] = []
        self._held: dict[str, set[str]] = {}
        """Targets that are doomed but for what they wait for, and the targets that they wait for."""

    def run(self) -> Verdict:
        """Wait for the verdict.

        :raises GateFailed: it is bad; the code is the cause's, or ``timeout``, ``no_progress`` or ``unstable``.
        :raises Failure: ``unreachable``: the API server stopped answering.
        """
        self._started = self.cluster.clock.now()
        try:
            self._watching.start()
            for runner in self._runners:
                runner.start()
            return self._wait()
        finally:
            self._stop()

    def look(self) -> Verdict:
        """The state at this moment, without waiting for anything but the answers."""
        self._started = started = self.cluster.clock.now()
        watching = self._watching
        try:
            watching.start()
            for standings, runner in zip(self._standings, self._runners, strict=True):
                standings.begin(started)
                self._take_answer(runner.ask())
            while watching.absent and self.cluster.clock.now() < started + min(self.options.timeout, 30.0):
                watching.receive(0.5)
            watching.search()
            assessment = self._assess()
        finally:
            self._stop()
        good = all(item.last and item.last.finding is checks.Finding.GOOD for item in self._standings)
        return self._verdict(assessment, assessment.ready and good and not watching.absent)

    def _stop(self) -> None:
        for runner in self._runners:
            runner.stop()
        self._watching.stop()

    def _take_answer(self, event: checks.CheckEvent) -> None:
        event.standings.take(event.outcome, event.asked)

    # Waiting

    def _wait(self) -> Verdict:
        clock, watching, options = self.cluster.clock, self._watching, self.options
        deadline = self._started + options.timeout
        ready_since: float | None = None
        moved_at, restarts, next_look = self._started, 0, 0.0
        while True:
            watching.receive(min(max(next_look - clock.now(), 0.0), 5.0) if watching.queue.empty() else 0.0)
            watching.search()
            now = clock.now()
            next_look = min(deadline, now + (SEARCH if watching.searching else 5.0))
            if self._interrupted(now) or now < watching.judge_from:
                if now >= deadline:
                    raise self._timed_out(self._assess(), ready_since)
                # Nobody can be seen to move meanwhile.
                moved_at = now
                if now < watching.judge_from:
                    next_look = min(next_look, watching.judge_from)
                continue
            assessment = self._assess()
            took = clock.now() - now
            if assessment.doomed or self._refused(now):
                # What tells why may be a moment behind on another watch.
                clock.sleep(SETTLE)
                watching.receive(0.0)
                assessment = self._spare_or_condemn()
            if assessment.next_check is not None:
                next_look = min(next_look, assessment.next_check)
            if watching.judge_from > now:
                next_look = min(next_look, watching.judge_from)
            if self._moved or assessment.ready:
                moved_at, self._moved = now, False
            if options.no_progress_timeout:
                next_look = min(next_look, moved_at + options.no_progress_timeout)
                if now - moved_at >= options.no_progress_timeout:
                    raise self._stood_still(assessment)
            if not assessment.ready:
                if now >= deadline:
                    raise self._timed_out(assessment, ready_since)
                if ready_since is not None:
                    self._begin_anew(assessment)
                ready_since = None
                self._tell(self._waiting_text(assessment))
                if any(item.code == "unschedulable" for item in [*assessment.likely, *assessment.doomed]):
                    watching.watch_nodes()
                clock.sleep(min(max(QUIET, 2 * took), BUSY))
                continue
            if ready_since is not None and assessment.restarts > restarts:
                self._breaks.append("a container was restarted")
            if ready_since is None or assessment.restarts > restarts:
                ready_since = now
                self._begin_checks(now)
            restarts = assessment.restarts
            standing = [(item.check.title, item.judge(now)) for item in self._standings]
            failing = [(title, stand) for title, stand in standing if stand.verdict is checks.Verdict.FAILED]
            if failing:
                raise self._failed_checks(failing)
            open_checks = [title for title, stand in standing if stand.verdict is not checks.Verdict.PASSED]
            if now - ready_since >= options.stable_for and not open_checks:
                return self._verdict(assessment, True)
            if now >= deadline:
                raise self._timed_out(assessment, ready_since)
            if now - ready_since < options.stable_for:
                next_look = min(next_look, ready_since + options.stable_for)
            next_look = min([next_look, *(stand.next_check for _title, stand in standing if stand.next_check)])
            self._tell(self._ready_text(standing, now - ready_since < options.stable_for))

    def _assess(self) -> Assessment:
        clock, transport = self.cluster.clock, self.cluster.transport
        assessment = self.judge.assess(self._watching.view, clock.now(), transport.server_time())
        self._moved |= assessment.moved
        return assessment

    def _interrupted(self, now: float) -> bool:
        """Whether the view can't be judged now: not complete yet, or out of date since the server does not answer."""
        lost = self._watching.lost
        if lost is not None:
            since, error = lost
            if now - since > LOST_PATIENCE:
                raise error
            # The first break of an idle connection is nothing to tell.
            if now - since > 1.0:
                self._tell(f"the API server does not answer, trying again: {error.evidence or error.cause}")
            return True
        return bool(self._watching.absent)

    def _begin_checks(self, now: float) -> None:
        for standings, runner in zip(self._standings, self._runners, strict=True):
            standings.begin(now)
            runner.now()

    def _begin_anew(self, assessment: Assessment) -> None:
        """Something that was ready is no longer."""
        late = [status for status in assessment.statuses if not status.readiness.ready]
        self._breaks.append(f"{_brief(late[0].target)} {late[0].readiness.message}")
        for standings in self._standings:
            standings.end()

    def _refused(self, now: float) -> list[tuple[str, checks.Standing]]:
        """Checks whose question itself is wrong: no need to wait for the objects."""
        standing = [(item.check.title, item.judge(now)) for item in self._standings]
        return [(title, stand) for title, stand in standing if stand.code == "check_refused"]

    # What waits for what

    def _causes(self) -> Causes:
        found = []
        for target in self.targets:
            metadata = target["metadata"]
            live = self._watching.view.get(kind_of(target), str(metadata.get("namespace") or ""), metadata["name"])
            found.append(live or target)
        return Causes(found)

    def _spare_or_condemn(self) -> Assessment:
        """Judge once more, and end the wait for the doomed, unless all that they lack is there or on its way.

        :raises GateFailed: some of them are doomed whatever becomes of the rest.
        """
        if not self._in_touch():
            return dataclasses.replace(self._assess(), doomed=[])
        self._watching.receive(0.0)
        assessment = self._with_answers(self._assess())
        if self._release(assessment):
            assessment = self._with_answers(self._assess())
        refused = self._refused(self.cluster.clock.now())
        if refused:
            raise self._failed_checks(refused)
        self._evidence.read(item for item in assessment.doomed if item.code in RUNTIME)
        waiting = self._causes().waiting(assessment, self._evidence.logs)
        if len(waiting) < len(assessment.doomed):
            raise self._condemned(assessment.doomed + _of_targets(assessment.likely, waiting))
        for number, needed in waiting.items():
            target = assessment.doomed[number].target
            self._held[target] = needed
            self._tell(f"{_brief(target)} waits for {', '.join(_brief(name) for name in sorted(needed))}")
        return assessment

    def _in_touch(self) -> bool:
        """Whether the API server answers, so that what the watches show is no picture of before a cut.

        A connection that is cut silently looks like one on which nothing happens, and a grace would run out meanwhile.
        """
        clock = self.cluster.clock
        asked = clock.now()
        if asked < self._in_touch_until:
            return True
        try:
            self.cluster.transport.request("GET", "/version", patience=0.0, timeout=ANSWER)
            answered = True
        except ApiError:
            answered = True
        except Unreachable:
            answered = False
        now = clock.now()
        if answered:
            self._in_touch_until = now + IN_TOUCH
        cut, self._cut = self._cut or now - asked > SLOW, not answered
        if answered and not cut:
            return True
        # It is cut off, or comes back this moment, and what happened meanwhile is still on its way.
        self._watching.judge_from = now + CATCH_UP
        return False

    def _with_answers(self, assessment: Assessment) -> Assessment:
        """Ask the API for what is said to be missing, once for each, before that condemns anybody."""
        while lacking := self.judge.unasked(assessment):
            answers = ask(self.cluster, lacking)
            self.judge.answers.update(answers)
            assessment = self._assess()
            if not answers:
                # Not now: the API server has other troubles.
                lacking = self.judge.unasked(assessment)
                assessment.doomed[:] = [
                    item for item in assessment.doomed if not (item.signal and item.signal.lacks in lacking)
                ]
                again = self.cluster.clock.now() + ASK_AGAIN
                assessment.next_check = min(again, assessment.next_check or again)
                break
        return assessment

    def _release(self, assessment: Assessment) -> bool:
        """Give the pods of targets that waited for something a fresh start once it is there."""
        ready = {status.target for status in assessment.statuses if status.readiness.ready}
        released = [target for target, needed in self._held.items() if needed <= ready]
        for target in released:
            self.judge.forgive(target, self._watching.view)
            del self._held[target]
        return bool(released)

    # Saying what goes on

    def _tell(self, text: str) -> None:
        self.progress.update(redact(text))

    def _waiting_text(self, assessment: Assessment) -> str:
        late = [status for status in assessment.statuses if not status.readiness.ready]
        text = "; ".join(f"{_brief(status.target)} {status.readiness.message}" for status in late[:3])
        more = f"; and {len(late) - 3} more" if len(late) > 3 else ""
        telling = [item for item in assessment.likely if item.signal and item.code not in ("pending", "not_ready")]
        hint = f" ({telling[0].signal.subject} {telling[0].signal.cause})" if telling and telling[0].signal else ""
        return f"waiting for {len(late)} of {len(assessment.statuses)} objects: {text}{more}{hint}"

    def _ready_text(self, standing: Sequence[tuple[str, checks.Standing]], settling: bool) -> str:
        text = f"all {len(self.targets)} objects are ready"
        waiting = [(title, stand) for title, stand in standing if stand.verdict is checks.Verdict.WAITING]
        if waiting:
            title, stand = waiting[0]
            more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
            return f"{text}; waiting for {title}{more}: {stand.text}"
        return text + (f"; seeing whether they stay so for {self.options.stable_for:.0f} s" if settling else "")

    # Verdicts

    def _verdict(self, assessment: Assessment, healthy: bool) -> Verdict:
        objects = [
            {
                "object": status.target,
                "state": status.readiness.state.value,
                "message": self._evidence.clean(status.readiness.message or status.readiness.note),
            }
            for status in assessment.statuses
        ]
        now = self.cluster.clock.now()
        answers = [
            {"name": item.check.title, "state": stand.verdict.value, "message": self._evidence.clean(stand.text)}
            for item, stand in ((item, item.judge(now)) for item in self._standings)
        ]
        notes = assessment.notes
        if self._breaks:
            notes.append(f"All was ready {len(self._breaks)} times before, until {self._breaks[-1]}")
        return Verdict(healthy, objects, self._evidence.clean(notes), self._elapsed(now), answers)

    def _elapsed(self, moment: float) -> float:
        """Seconds from the gate's beginning to a moment on the cluster's clock."""
        return round(moment - self._started, 2)

    def _condemned(self, diagnoses: Sequence[Diagnosis]) -> GateFailed:
        """The failure of several diagnoses: its sentence is the first root's, and names what follows from it."""
        # Logs tell who is to blame.
        self._evidence.read(item for item in diagnoses if item.code in RUNTIME)
        ordered = self._causes().order(diagnoses, self._evidence.logs)
        self._evidence.read(ordered, SHOWN)
        details = [{**self._evidence.detail(item), **self._times(item)} for item in ordered[:20]]
        first, root = details[0], ordered[0]
        label = next((item.because for item in ordered if item.because and item.code == root.code), "")
        following = [item.target for item in ordered[1:] if item.because in (root.target, label) and item.because]
        other = [item.target for item in ordered[1:] if not item.because and item.target != root.target]
        parts = [first["evidence"], _names("also waiting for it", following), _names("not ready either", other)]
        evidence = "; ".join(part for part in parts if part)
        failure = GateFailed(first["code"], first["object"], first["cause"], evidence, first["hint"], details)
        return self._clean(failure)

    def _times(self, diagnosis: Diagnosis) -> dict[str, float | None]:
        since, certain = diagnosis.since, diagnosis.certain
        return {
            "first_seen": None if since is None else self._elapsed(since),
            "certain": None if certain is None else self._elapsed(certain),
        }

    def _clean(self, failure: GateFailed) -> GateFailed:
        failure.seconds = self._elapsed(self.cluster.clock.now())
        failure.cause, failure.evidence = (self._evidence.clean(text) for text in (failure.cause, failure.evidence))
        failure.diagnoses = self._evidence.clean(failure.diagnoses)
        return failure

    def _failed_checks(self, failing: Sequence[tuple[str, checks.Standing]]) -> GateFailed:
        hints = {
            "check_refused": "correct the query",
            "metric_no_data": "see whether the metric exists and Prometheus scrapes it, or choose another no_data",
        }
        diagnoses = [
            Diagnosis(
                stand.code,
                title,
                "cannot be evaluated" if stand.code == "check_refused" else "does not pass",
                stand.text,
                hints.get(stand.code, "see what the release changed; every object is ready"),
                chain=[title],
            )
            for title, stand in failing
        ]
        return self._condemned(diagnoses)

    def _stood_still(self, assessment: Assessment) -> Failure:
        failure = self._late(assessment)
        seconds = f"{self.options.no_progress_timeout:.0f} s"
        failure.code, failure.cause = "no_progress", f"has come no nearer to ready for {seconds}: it {failure.cause}"
        return failure

    def _timed_out(self, assessment: Assessment, ready_since: float | None) -> Failure:
        watching, seconds = self._watching, f"{self.options.timeout:.0f} s"
        if watching.lost is not None:
            return watching.lost[1]
        if watching.absent:
            return Failure("timeout", "The gate", f"could not read {', '.join(watching.absent)} within {seconds}")
        if assessment.ready:
            return self._unsteady(ready_since)
        failure = self._late(assessment)
        failure.code, failure.cause = "timeout", f"did not get ready within {seconds}: it {failure.cause}"
        if self._breaks:
            failure.evidence += f"; everything was ready {len(self._breaks)} times before, until {self._breaks[-1]}"
        return failure

    def _late(self, assessment: Assessment) -> GateFailed:
        return self._condemned(assessment.doomed + assessment.likely)

    def _unsteady(self, ready_since: float | None) -> Failure:
        """All objects are ready, and that is not enough."""
        now, seconds = self.cluster.clock.now(), f"{self.options.timeout:.0f} s"
        standing = [(item.check.title, item.judge(now)) for item in self._standings]
        waiting = [(title, stand) for title, stand in standing if stand.verdict is not checks.Verdict.PASSED]
        if waiting:
            failure = self._failed_checks(
                [(title, dataclasses.replace(stand, code=stand.code or "timeout")) for title, stand in waiting]
            )
            failure.code, failure.cause = "timeout", f"did not pass within {seconds}"
            return failure
        held = now - (ready_since if ready_since is not None else now)
        cause = f"were ready for the last {held:.0f} s only, not for {self.options.stable_for:.0f} s within {seconds}"
        evidence = f"interrupted {len(self._breaks)} times, last since {self._breaks[-1]}" if self._breaks else ""
        hint = "see why they do not stay ready" if self._breaks else "raise the timeout"
        return self._clean(GateFailed("unstable", f"The {len(self.targets)} objects", cause, evidence, hint))


def _of_targets(diagnoses: Sequence[Diagnosis], waiting: dict[int, set[str]]) -> list[Diagnosis]:
    """Those of the targets that somebody waits for."""
    names = set().union(*waiting.values()) if waiting else set()
    return [item for item in diagnoses if item.target in names]


def _names(what: str, targets: Iterable[str]) -> str:
    names = list(dict.fromkeys(targets))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{what}: {', '.join(names[:5])}{more}" if names else ""


def _brief(target: str) -> str:
    """A target without its namespace, for lines that are read while waiting."""
    kind, _space, name = target.partition(" ")
    return f"{kind} {name.rpartition('/')[2]}"


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
