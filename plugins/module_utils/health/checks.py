# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to the running system beside the watch: PromQL conditions and HTTP answers.

What is asked and what the answers mean are here, pure but for the asking itself; :class:`Runner` asks again and again
in a thread of its own and :class:`Standings` remembers for how long the answers have been good or bad.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import operator
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_http import Answer
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.endpoint import Endpoint
from ansible_collections.groundwork.platform.plugins.module_utils.health.expressions import Expression
from ansible_collections.groundwork.platform.plugins.module_utils.health.redact import redact


class Finding(enum.Enum):
    """What one measurement says."""

    GOOD = "good"
    BAD = "bad"
    NO_DATA = "no data"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """The question itself is wrong: asking again does not help."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One measurement.

    :param text: what was seen, for a person.
    """

    finding: Finding
    text: str


@dataclasses.dataclass(frozen=True)
class Condition:
    """A comparison such as ``<= 0.01`` or ``<= baseline * 1.2``.

    :param shift: what is done to the baseline (``*``, ``+`` or ``-``); empty where the limit is a number.
    """

    text: str
    compare: str
    limit: float
    uses_baseline: bool = False
    shift: str = ""

    @classmethod
    def parse(cls, text: str, where: str) -> Condition:
        """Read a condition.

        :raises Failure: ``bad_condition``.
        """
        found = _CONDITION.fullmatch(text.strip())
        if found is None:
            hint = 'write it like "<= 0.01" or "<= baseline * 1.2"'
            raise Failure("bad_condition", where, f'has a condition that is none: "{text}"', hint=hint)
        if found["number"] is not None:
            return cls(text.strip(), found["compare"], float(found["number"]))
        return cls(text.strip(), found["compare"], float(found["by"] or 0), True, found["shift"] or "+")

    def holds(self, value: float, baseline: float | None = None) -> bool:
        """Whether a value satisfies it."""
        limit = self.limit
        if self.uses_baseline:
            limit = _ARITHMETIC[self.shift](baseline if baseline is not None else math.nan, self.limit)
        return bool(_COMPARISONS[self.compare](value, limit))


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CONDITION = re.compile(
    rf"(?P<compare><=|>=|==|!=|<|>)\s*(?:(?P<number>{_NUMBER})|baseline(?:\s*(?P<shift>[*+-])\s*(?P<by>{_NUMBER}))?)"
)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {"*": operator.mul, "+": operator.add, "-": operator.sub}


@dataclasses.dataclass(frozen=True)
class Check:
    """What every check has.

    :param interval: seconds between two measurements.
    :param grace: seconds for which the answers may be bad, once the objects are ready, before that is the verdict.
    :param hold: seconds for which they have to be good without a break.
    :param successes: how many good ones in a row are needed.
    :param no_data: what no answer means: ``wait`` counts it as bad, ``fail`` ends the wait, ``pass`` counts as good.
    """

    name: str
    endpoint: Endpoint
    interval: float = 5.0
    grace: float = 60.0
    hold: float = 0.0
    successes: int = 1
    no_data: str = "wait"

    @property
    def title(self) -> str:
        """The check as messages name it."""
        raise NotImplementedError

    def measure(self, cluster: Cluster, memory: dict[str, Any]) -> Outcome:
        """Ask once.

        :param memory: kept for the check between its measurements.
        """
        raise NotImplementedError


Series = dict[frozenset[tuple[str, str]], float]


@dataclasses.dataclass(frozen=True)
class MetricCheck(Check):
    """A PromQL query whose every series has to satisfy a condition.

    :param baseline: how many seconds before the first measurement, on Prometheus's own clock, to take the values that
        the condition calls ``baseline``; None if it does not.
    """

    query: str = ""
    condition: Condition = dataclasses.field(default_factory=lambda: Condition("== 1", "==", 1.0))
    baseline: float | None = None

    @property
    def title(self) -> str:
        return f"Metric gate {self.name}"

    def measure(self, cluster: Cluster, memory: dict[str, Any]) -> Outcome:
        try:
            if self.condition.uses_baseline and "baseline" not in memory:
                memory["baseline"] = self._baseline(cluster)
            values = self._ask(cluster, self.query)
        except _Refused as refused:
            return Outcome(Finding.REFUSED, str(refused))
        except Failure as failure:
            return Outcome(Finding.UNREACHABLE, _said(failure))
        values = {labels: value for labels, value in values.items() if not math.isnan(value)}
        if not values:
            return Outcome(Finding.NO_DATA, f"the query {self.query} finds nothing")
        return self._judge(values, memory.get("baseline"))

    def _judge(self, values: Series, baseline: Series | None) -> Outcome:
        unknown = [labels for labels in values if self.condition.uses_baseline and _of(baseline, labels) is None]
        if unknown:
            return Outcome(Finding.NO_DATA, f"the query {self.query} found nothing {self.baseline:g} s before")
        wrong = {
            labels: value for labels, value in values.items() if not self.condition.holds(value, _of(baseline, labels))
        }
        shown = wrong or values
        text = ", ".join(_series(labels, value, _of(baseline, labels)) for labels, value in list(shown.items())[:3])
        more = f" and {len(shown) - 3} more series" if len(shown) > 3 else ""
        words = "is" if not wrong else "is not"
        return Outcome(
            Finding.BAD if wrong else Finding.GOOD, f"{self.query} {words} {self.condition.text}: {text}{more}"
        )

    def _baseline(self, cluster: Cluster) -> Series:
        (now,) = self._ask(cluster, "time()").values()
        return self._ask(cluster, self.query, {"time": f"{now - (self.baseline or 0.0):.3f}"})

    def _ask(self, cluster: Cluster, query: str, more: Mapping[str, str] | None = None) -> Series:
        answer = self.endpoint.ask(cluster, "/api/v1/query", {"query": query, **(more or {})})
        try:
            body = json.loads(answer.body)
            status = body["status"]
        except (ValueError, KeyError, TypeError):
            raise _not_prometheus(answer, self.endpoint) from None
        if status != "success":
            message = " ".join(str(body.get("error") or "").split())
            if body.get("errorType") == "bad_data":
                raise _Refused(f"Prometheus does not accept the query {self.query}: {message}")
            raise Failure("unreachable", self.endpoint.shown, "could not answer the query", message)
        data = body.get("data") or {}
        if data.get("resultType") == "scalar":
            return {frozenset(): float(data["result"][1])}
        if data.get("resultType") != "vector":
            raise _Refused(f"the query {self.query} gives a {data.get('resultType')}: write one for a single moment")
        return {
            frozenset((str(name), str(value)) for name, value in item["metric"].items() if name != "__name__"): float(
                item["value"][1]
            )
            for item in data["result"]
        }


@dataclasses.dataclass(frozen=True)
class HttpCheck(Check):
    """An HTTP request that has to be answered as said.

    :param status: codes that are good.
    :param body: an expression that has to hold for the JSON of the body.
    """

    path: str = "/"
    status: tuple[int, ...] = (200,)
    body: Expression | None = None

    @property
    def title(self) -> str:
        return f"HTTP gate {self.name}"

    def measure(self, cluster: Cluster, memory: dict[str, Any]) -> Outcome:
        path, _mark, query = self.path.partition("?")
        try:
            answer = self.endpoint.ask(cluster, path, dict(parse_qsl(query, keep_blank_values=True)))
        except Failure as failure:
            return Outcome(Finding.UNREACHABLE, _said(failure))
        said = f"GET {self.endpoint.shown}{self.path} answers {answer.status}"
        if answer.status not in self.status:
            line = redact(" ".join(answer.body[:400].decode("utf-8", "replace").split()))[:160]
            wanted = " or ".join(str(code) for code in self.status)
            return Outcome(Finding.BAD, f"{said}, not {wanted}" + (f": {line}" if line else ""))
        if self.body is None:
            return Outcome(Finding.GOOD, said)
        try:
            holds = self.body.holds(json.loads(answer.body))
        except ValueError:
            return Outcome(Finding.BAD, f"{said}, with a body that is no JSON")
        except Failure as failure:
            return Outcome(Finding.BAD, f"{said}, and {self.body.text} {_said(failure)}")
        words = "holds" if holds else "does not hold"
        return Outcome(Finding.GOOD if holds else Finding.BAD, f"{said}, and {self.body.text} {words} for its body")


class _Refused(Exception):
    """The question is wrong."""


def _not_prometheus(answer: Answer, endpoint: Endpoint) -> Exception:
    """What an answer means that no Prometheus gave."""
    if answer.status in (401, 403):
        return _Refused(f"{endpoint.shown} does not accept the credentials (status {answer.status})")
    evidence = f"it answers {answer.status} with something that is no result"
    return Failure("unreachable", endpoint.shown, "is no Prometheus, or is not ready", evidence)


def _said(failure: Failure) -> str:
    text = f"{failure.object} {failure.cause}" + (f" ({failure.evidence})" if failure.evidence else "")
    return text + (f": {failure.hint}" if failure.hint else "")


def _of(series: Series | None, labels: frozenset[tuple[str, str]]) -> float | None:
    """The value of the same series; where there is but one, that one."""
    if not series:
        return None
    if labels in series:
        return series[labels]
    return next(iter(series.values())) if len(series) == 1 else None


def _series(labels: frozenset[tuple[str, str]], value: float, baseline: float | None) -> str:
    inner = ",".join(f"{name}={text}" for name, text in sorted(labels))
    before = f" (baseline {baseline:g})" if baseline is not None else ""
    return f"{{{inner}}} {value:g}{before}" if inner else f"{value:g}{before}"


class Verdict(enum.Enum):
    """How far a check is."""

    WAITING = "progressing"
    PASSED = "ready"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a check stands at one moment.

    :param code: of a failure.
    :param next_check: when to look again even if no answer comes; None if that changes nothing.
    """

    verdict: Verdict
    text: str = ""
    code: str = ""
    next_check: float | None = None


class Standings:
    """Remembers the answers to one check, on the clock that the caller passes.

    Answers count from :meth:`begin` on: before, the old release may have given them.
    """

    def __init__(self, check: Check) -> None:
        self.check = check
        self.last: Outcome | None = None
        self._begun: float | None = None
        self._good: tuple[float, float, int] | None = None
        """Since when answers have been good, when the last one was asked for, and how many there were."""
        self._bad_since: float | None = None

    def begin(self, now: float) -> None:
        """Let answers count that are asked for from now on."""
        self._begun, self._good, self._bad_since = now, None, None

    def end(self) -> None:
        """Let no answer count until the next :meth:`begin`."""
        self._begun = self._good = self._bad_since = None

    @property
    def begun(self) -> bool:
        """Whether answers count now."""
        return self._begun is not None

    def take(self, outcome: Outcome, asked: float) -> None:
        """Take in an answer.

        :param asked: when it was asked for.
        """
        self.last = outcome
        if self._begun is None or asked < self._begun:
            return
        empty = outcome.finding in (Finding.NO_DATA, Finding.UNREACHABLE)
        if outcome.finding is Finding.GOOD or (empty and self.check.no_data == "pass"):
            since, _last, count = self._good or (asked, asked, 0)
            self._good, self._bad_since = (since, asked, count + 1), None
        else:
            self._good = None
            if self._bad_since is None:
                self._bad_since = asked

    def judge(self, now: float) -> Standing:
        """Whether the check has passed, has failed, or needs more time."""
        text = self.last.text if self.last else "not asked yet"
        if self.last is not None and self.last.finding is Finding.REFUSED:
            return Standing(Verdict.FAILED, text, "check_refused")
        if self._good is not None:
            since, last, count = self._good
            if last - since >= self.check.hold and count >= self.check.successes:
                return Standing(Verdict.PASSED, text)
            return Standing(Verdict.WAITING, text)
        if self._bad_since is None or self.last is None:
            return Standing(Verdict.WAITING, text)
        empty = self.last.finding is Finding.NO_DATA
        ends = self._bad_since + (0.0 if empty and self.check.no_data == "fail" else self.check.grace)
        if ends <= now:
            return Standing(Verdict.FAILED, text, self._code(self.last.finding))
        return Standing(Verdict.WAITING, text, next_check=ends)

    def _code(self, finding: Finding) -> str:
        if isinstance(self.check, HttpCheck):
            return "http_check_failed"
        return "metric_violated" if finding is Finding.BAD else "metric_no_data"


@dataclasses.dataclass(frozen=True)
class CheckEvent:
    """An answer to a check, as the gate's queue carries it.

    :param asked: when it was asked for, on the cluster's clock.
    """

    standings: Standings
    outcome: Outcome
    asked: float


class Runner:
    """Asks one check again and again, in a thread of its own, until it is stopped.

    :param sink: called in that thread with each answer.
    """

    def __init__(self, cluster: Cluster, standings: Standings, sink: Callable[[CheckEvent], None]) -> None:
        self._cluster, self._standings, self._sink = cluster, standings, sink
        self._memory: dict[str, Any] = {}
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=standings.check.title, daemon=True)

    def start(self) -> Runner:
        """Begin to ask."""
        self._thread.start()
        return self

    def now(self) -> None:
        """Ask at once instead of when the interval is over."""
        self._wake.set()

    def stop(self) -> None:
        """End it; an answer on its way is not waited for."""
        self._stopped = True
        self._wake.set()

    def ask(self) -> CheckEvent:
        """Ask once."""
        asked = self._cluster.clock.now()
        return CheckEvent(self._standings, self._standings.check.measure(self._cluster, self._memory), asked)

    def _run(self) -> None:
        while not self._stopped:
            event = self.ask()
            if not self._stopped:
                self._sink(event)
            self._wake.wait(self._standings.check.interval)
            self._wake.clear()
