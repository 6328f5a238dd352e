"""What Prometheus's and a Service's answers mean."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_http import Answer
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import Unreachable
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.checks import (
    Condition,
    Finding,
    HttpCheck,
    MetricCheck,
    Outcome,
    Standings,
    Verdict,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.endpoint import Endpoint
from ansible_collections.groundwork.platform.plugins.module_utils.health.expressions import Expression


@dataclasses.dataclass(frozen=True)
class Canned(Endpoint):
    """Gives answers by the query's text, or by the path."""

    answers: Any = None
    asked: list[Any] = dataclasses.field(default_factory=list)

    def ask(self, cluster: Any, path: str, query: Any = None) -> Answer:
        self.asked.append((path, query))
        found = self.answers(path, query) if callable(self.answers) else self.answers
        if isinstance(found, Exception):
            raise found
        status, body = found
        return Answer(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def result(*series: tuple[dict[str, str], str]) -> tuple[int, Any]:
    found = [{"metric": labels, "value": [1.0, value]} for labels, value in series]
    return 200, {"status": "success", "data": {"resultType": "vector", "result": found}}


def error(kind: str, text: str, status: int = 400) -> tuple[int, Any]:
    return status, {"status": "error", "errorType": kind, "error": text}


def measure(answers: Any, condition: str = "<= 0.01", **more: Any) -> Outcome:
    endpoint = Canned(url="http://prometheus", answers=answers)
    check = MetricCheck("errors", endpoint, query="errors", condition=Condition.parse(condition, "x"), **more)
    return check.measure(None, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("<= 0.01", 0.01, True),
        ("< 0.01", 0.01, False),
        (">=1", 1, True),
        ("> 1e3", 1000, False),
        ("== 0", 0, True),
        ("!= -1.5", -1.5, False),
        ("<= .5", 0.4, True),
        ("<= baseline", 10, True),
        ("<= baseline * 1.2", 12.1, False),
        ("<= baseline + 2", 12, True),
        (">= baseline - 2", 7.9, False),
    ],
)
def test_conditions(text: str, value: float, holds: bool) -> None:
    assert Condition.parse(text, "x").holds(value, 10.0) is holds


@pytest.mark.parametrize("text", ["", "0.01", "=< 1", "<= one", "<= baseline / 2", "<= 1; drop", "< baseline * "])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(Failure) as caught:
        Condition.parse(text, "Metric gate x")
    assert caught.value.code == "bad_condition"
    assert "Metric gate x" in caught.value.sentence


@pytest.mark.parametrize(
    ("answers", "finding", "words"),
    [
        (result(({}, "0")), Finding.GOOD, "0"),
        (result(({"code": "500"}, "0.2"), ({"code": "200"}, "0")), Finding.BAD, "{code=500} 0.2"),
        (result(), Finding.NO_DATA, "finds nothing"),
        (result(({}, "NaN")), Finding.NO_DATA, "finds nothing"),
        (result(({}, "+Inf")), Finding.BAD, "inf"),
        ((200, {"status": "success", "data": {"resultType": "scalar", "result": [1, "0.5"]}}), Finding.BAD, "0.5"),
        (
            (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}),
            Finding.REFUSED,
            "single moment",
        ),
        (error("bad_data", 'unknown position: parse error: unexpected "}"'), Finding.REFUSED, "parse error"),
        (error("execution", "many-to-many matching", 422), Finding.UNREACHABLE, "many-to-many"),
        (error("timeout", "query timed out", 503), Finding.UNREACHABLE, "timed out"),
        ((502, b"<html>bad gateway"), Finding.UNREACHABLE, "answers 502"),
        ((401, b"no"), Finding.REFUSED, "credentials"),
        (Unreachable("unreachable", "x", "does not answer", "refused"), Finding.UNREACHABLE, "refused"),
    ],
)
def test_what_prometheus_says(answers: Any, finding: Finding, words: str) -> None:
    found = measure(answers)
    assert found.finding is finding
    assert words in found.text


def test_a_baseline_is_asked_for_by_prometheus_own_clock() -> None:
    def answers(path: str, query: dict[str, str]) -> Any:
        if query["query"] == "time()":
            return 200, {"status": "success", "data": {"resultType": "scalar", "result": [5000, "5000"]}}
        return result(({"pod": "a"}, "10" if query.get("time") == "4700.000" else "11"))

    assert measure(answers, "<= baseline * 1.2", baseline=300.0).finding is Finding.GOOD
    assert measure(answers, "<= baseline", baseline=300.0).finding is Finding.BAD
    assert "baseline 10" in measure(answers, "<= baseline", baseline=300.0).text


def test_a_baseline_that_is_not_there_is_no_data() -> None:
    def answers(path: str, query: dict[str, str]) -> Any:
        if query["query"] == "time()":
            return 200, {"status": "success", "data": {"resultType": "scalar", "result": [5000, "5000"]}}
        return result() if "time" in query else result(({}, "1"))

    assert measure(answers, "<= baseline", baseline=300.0).finding is Finding.NO_DATA


def answer(answers: Any, **more: Any) -> Outcome:
    endpoint = Canned(namespace="n", service="api", port="http", answers=answers)
    return HttpCheck("page", endpoint, path="/health", **more).measure(None, {})  # type: ignore[arg-type]


BODY = Expression("database == 'up'", "x")


@pytest.mark.parametrize(
    ("answers", "more", "finding", "words"),
    [
        ((200, b"ok"), {}, Finding.GOOD, "GET Service n/api:http/health answers 200"),
        ((503, b"database down"), {}, Finding.BAD, "answers 503, not 200: database down"),
        ((302, b""), {}, Finding.BAD, "answers 302"),
        ((204, b""), {"status": (200, 204)}, Finding.GOOD, "204"),
        ((200, {"database": "up"}), {"body": BODY}, Finding.GOOD, "holds"),
        ((200, {"database": "down"}), {"body": BODY}, Finding.BAD, "does not hold"),
        ((200, b"<html>"), {"body": BODY}, Finding.BAD, "no JSON"),
        ((200, {"n": None}), {"body": Expression("length(n) > `1`", "x")}, Finding.BAD, "cannot be evaluated"),
        (Unreachable("unreachable", "Service n/api", "cannot be reached", "no endpoints"), {},
         Finding.UNREACHABLE, "no endpoints"),
    ],
)  # fmt: skip
def test_what_a_service_says(answers: Any, more: dict[str, Any], finding: Finding, words: str) -> None:
    found = answer(answers, **more)
    assert found.finding is finding
    assert words in found.text


def test_a_body_that_holds_a_credential_is_not_quoted() -> None:
    assert "hunter2" not in answer((500, b"cannot log in: password=hunter2")).text


HERE = Endpoint(url="http://x")


def test_successes_have_to_be_in_a_row() -> None:
    standings = Standings(HttpCheck("c", HERE, successes=3))
    standings.begin(0)
    good, bad = Outcome(Finding.GOOD, ""), Outcome(Finding.BAD, "")
    for moment, outcome in enumerate((good, good, bad, good, good)):
        standings.take(outcome, moment)
        assert standings.judge(moment).verdict is Verdict.WAITING
    standings.take(good, 6)
    assert standings.judge(6).verdict is Verdict.PASSED
    standings.take(bad, 7)
    assert standings.judge(7).verdict is Verdict.WAITING


def test_an_answer_that_was_asked_for_before_it_counts_is_not_counted() -> None:
    standings = Standings(HttpCheck("c", HERE))
    standings.begin(10)
    standings.take(Outcome(Finding.GOOD, ""), 9.9)
    assert standings.judge(11).verdict is Verdict.WAITING


def test_a_bad_answer_has_a_grace_even_if_no_other_comes() -> None:
    standings = Standings(HttpCheck("c", HERE, grace=20))
    standings.begin(0)
    standings.take(Outcome(Finding.BAD, "503"), 1)
    assert standings.judge(2).next_check == 21
    assert standings.judge(21).code == "http_check_failed"
