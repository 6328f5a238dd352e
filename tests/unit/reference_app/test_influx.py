"""InfluxDB's client: line protocol to the letter, what is retried and what is given up, both versions' requests."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from reference_app.influx import Away, Backend, Influx, Point, Refused
from reference_app.problems import Problem
from reference_app.settings import InfluxSettings, SettingsError, read

from reference_app import influx, metrics
from tests.support.http_script import Asked, Said, Script, serve

ONE = InfluxSettings(version=1, bucket="shop/raw", user="app", password="pa:ss")
TWO = dataclasses.replace(ONE, version=2)
TOKEN = InfluxSettings(version=2, bucket="shop/raw", org="acme", token="t0ken")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a thousandth."""
    monkeypatch.setattr(influx, "_FIRST_PAUSE", 0.0005)
    monkeypatch.setattr(influx, "_LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(influx, "LINGER", 0.01)


@pytest.mark.parametrize(
    ("point", "line"),
    [
        (Point("cpu", {"load": 0.5}, {"host": "a"}, 7), "cpu,host=a load=0.5 7"),
        (Point("cpu", {"n": 3, "ok": True, "off": False}, {}, 7), "cpu n=3i,ok=true,off=false 7"),
        (Point("a b,c=d", {"x": 1.0}, {}, 7), r"a\ b\,c=d x=1.0 7"),
        (Point("m", {"a b,c=d": 1.0}, {"k ,=": "v ,="}, 7), r"m,k\ \,\==v\ \,\= a\ b\,c\=d=1.0 7"),
        (Point("m", {"s": 'say "hi" \\ there'}, {}, 7), r'm s="say \"hi\" \\ there" 7'),
        (Point("m", {"s": "two\nlines"}, {}, 7), 'm s="two\nlines" 7'),
        (Point("m", {"x": 1e300, "y": -1e-9}, {}, 7), "m x=1e+300,y=-1e-09 7"),
        (Point("m", {"x": 1.0}, {"b": "2", "a": "1", "none": ""}, 7), "m,a=1,b=2 x=1.0 7"),
        (Point("m", {"x": 1.0}, {"path": r"c:\temp"}, 7), r"m,path=c:\temp x=1.0 7"),
        (Point("größe", {"é": 1.0}, {"ort": "Zürich"}, -7), "größe,ort=Zürich é=1.0 -7"),
    ],
)
def test_line_protocol(point: Point, line: str) -> None:
    assert point.line().decode() == line


@pytest.mark.parametrize(
    ("point", "why"),
    [
        (Point("m", {}, {}), "has no field"),
        (Point("m", {"x": float("nan")}), "is nan"),
        (Point("m", {"x": float("inf")}), "is inf"),
        (Point("m", {"x": 2**63}), "more than 64 bits"),
        (Point("m", {"x": 1.0}, {}, 2**63), "no time in nanoseconds"),
        (Point("", {"x": 1.0}), "no name of a measurement"),
        (Point("#m", {"x": 1.0}), "no name of a measurement"),
        (Point("_m", {"x": 1.0}), "no name of a measurement"),
        (Point("m", {"time": 1.0}), "no name of a field"),
        (Point("m", {"x": 1.0}, {"_field": "a"}), "no name of a tag"),
        (Point("m", {"x": 1.0}, {"a": "b\nc"}), "cannot hold the tag a"),
        (Point("m", {"x": 1.0}, {"a": "ends\\"}), "cannot hold the tag a"),
        (Point("m", {"x": 1.0}, {"a": "b\\,c"}), "cannot hold the tag a"),
        (Point("m\\ ", {"x": 1.0}), "cannot hold the measurement"),
    ],
)
def test_what_line_protocol_cannot_hold_is_refused_before_it_is_queued(point: Point, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        point.line()


class Recorder(Backend):
    """Takes what it is given, or does what the test says instead."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes, self.batches = list(outcomes), []
        self.came = threading.Event()

    def write(self, lines: Any) -> None:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        self.batches.append([line.decode() for line in lines])
        self.came.set()

    def query(self, statement: str) -> list[dict[str, Any]]:
        raise NotImplementedError(statement)

    def close(self) -> None:
        pass


def counted(result: str) -> float:
    return metrics.influx_points.labels(result)._value.get()


def points(number: int) -> list[Point]:
    return [Point("m", {"n": index}, {}, index) for index in range(number)]


def test_what_is_offered_is_written_in_batches_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx, "BATCH", 3)
    recorder = Recorder()
    client = Influx(ONE, recorder)
    client.offer(*points(7))
    client.close()
    assert [len(batch) for batch in recorder.batches] == [3, 3, 1]
    assert [line for batch in recorder.batches for line in batch] == [f"m n={n}i {n}" for n in range(7)]


def test_points_wait_while_it_is_away_and_keep_their_order() -> None:
    recorder = Recorder(Away("gone"), Away("gone"), Away("gone"))
    client = Influx(ONE, recorder)
    written = counted("written")
    client.offer(*points(3))
    assert recorder.came.wait(10)
    client.close()
    assert recorder.batches == [[f"m n={n}i {n}" for n in range(3)]]
    assert counted("written") - written == 3


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    recorder = Recorder(*[Away("gone")] * 10_000)
    client = Influx(dataclasses.replace(ONE, queue=5), recorder)
    dropped = counted("dropped")
    client.offer(*points(5))
    client.offer(*[Point("m", {"n": n}, {}, n) for n in range(100, 103)])
    recorder.outcomes.clear()
    client.close()
    assert [line for batch in recorder.batches for line in batch] == [f"m n={n}i {n}" for n in (3, 4, 100, 101, 102)]
    assert counted("dropped") - dropped == 3


def test_refused_points_are_counted_and_the_next_ones_written() -> None:
    recorder = Recorder(Refused("partial write", 2))
    client = Influx(ONE, recorder)
    before = counted("refused"), counted("written")
    client.offer(*points(5))
    while not counted("refused") - before[0]:
        threading.Event().wait(0.001)
    client.offer(Point("m", {"n": 9}, {}, 9))
    client.close()
    assert recorder.batches == [["m n=9i 9"]]
    assert (counted("refused") - before[0], counted("written") - before[1]) == (2, 4)


def test_the_end_does_not_wait_for_ever_and_counts_what_is_lost() -> None:
    client = Influx(ONE, Recorder(*[Away("gone")] * 1_000_000))
    dropped = counted("dropped")
    client.offer(*points(4))
    client.close(within=0.05)
    assert counted("dropped") - dropped == 4


def test_a_bad_point_spoils_nothing_else() -> None:
    recorder = Recorder()
    client = Influx(ONE, recorder)
    with pytest.raises(ValueError, match="is nan"):
        client.offer(Point("m", {"x": 1.0}), Point("m", {"x": float("nan")}))
    client.close()
    assert recorder.batches == []


def test_write_says_when_it_is_stored_and_when_it_is_not() -> None:
    recorder = Recorder(Away("gone"))
    client = Influx(ONE, recorder)
    asyncio.run(client.write(*points(2)))
    assert recorder.batches == [["m n=0i 0", "m n=1i 1"]], "stored when it returns, at the second try"
    recorder.outcomes = [Away("gone")]
    client = Influx(dataclasses.replace(ONE, deadline=0), recorder)
    with pytest.raises(Problem) as away:
        asyncio.run(client.write(*points(2)))
    assert (away.value.status, away.value.code, away.value.retry_after) == (503, "influx_away", 5)
    recorder.outcomes = [Refused("partial write: field type conflict")]
    with pytest.raises(Problem, match="field type conflict") as refused:
        client.write_blocking(*points(2))
    assert (refused.value.status, refused.value.code) == (422, "influx_refused")


def test_without_a_url_offered_points_are_forgotten_and_the_rest_says_why() -> None:
    client = Influx(InfluxSettings())
    client.offer(*points(2))
    assert not client.configured
    assert asyncio.run(client.check()) == "INFLUX_URL is not set"
    with pytest.raises(Problem, match="INFLUX_URL is not set"):
        client.read_blocking("m", 0, 1)
    client.close()


@pytest.fixture(params=[ONE, TWO, TOKEN], ids=["v1", "v2", "token"])
def client(request: pytest.FixtureRequest) -> Iterator[tuple[Influx, Script]]:
    with serve(lambda _asked: Said(204)) as script:
        made = Influx(dataclasses.replace(request.param, url=script.url, deadline=60))
        yield made, script
        made.close()


def impatient(made: Influx) -> Influx:
    """The same, giving up at the first failure."""
    return Influx(dataclasses.replace(made._settings, deadline=0))


def test_user_and_token_are_asked_each_in_their_own_way(client: tuple[Influx, Script]) -> None:
    made, script = client
    made.write_blocking(Point("m", {"x": 1.0}, {}, 7))
    (asked,) = script.asked
    assert asked.lines == ["m x=1.0 7"]
    if not made._settings.token:
        assert (asked.path, asked.query) == ("/write", {"db": "shop", "rp": "raw"})
        assert asked.headers["authorization"] == "Basic YXBwOnBhOnNz"
    else:
        assert (asked.path, asked.query) == ("/api/v2/write", {"org": "acme", "bucket": "shop/raw"})
        assert asked.headers["authorization"] == "Token t0ken"


def test_large_batches_are_compressed_and_the_connection_is_kept(client: tuple[Influx, Script]) -> None:
    made, script = client
    made.write_blocking(*points(2))
    made.write_blocking(*points(500))
    assert [one.headers.get("content-encoding") for one in script.asked] == [None, "gzip"]
    assert script.asked[1].lines == [f"m n={n}i {n}" for n in range(500)]
    assert script.connections == 1


def once(answer: Said) -> Callable[[Asked], Said]:
    """That answer, and success ever after."""
    answers = [answer]
    return lambda _asked: answers.pop() if answers else Said(204)


@pytest.mark.parametrize(
    "answer",
    [
        Said(hang_up=True),
        Said(500, {"error": "retention policy not found: raw"}),
        Said(404, {"code": "not found", "message": "bucket not found"}),
        Said(401, {"error": "authorization failed"}),
        Said(429, {"message": "slow down"}, {"Retry-After": "0"}),
        Said(503, b"<html>proxy</html>"),
    ],
    ids=lambda said: str(said.status),
)
def test_what_may_pass_is_tried_again(client: tuple[Influx, Script], answer: Said) -> None:
    made, script = client
    script.answer = once(answer)
    made.write_blocking(*points(1))
    assert len(script.asked) == 2
    assert script.asked[0].body == script.asked[1].body


@pytest.mark.parametrize(
    ("status", "body", "lost"),
    [
        (400, {"error": "partial write: points beyond retention policy dropped=2"}, 2),
        (
            422,
            {"code": "unprocessable entity", "message": "failure writing points to database: field type conflict"},
            3,
        ),
    ],
)
def test_what_is_refused_is_not_tried_again(client: tuple[Influx, Script], status: int, body: Any, lost: int) -> None:
    made, script = client
    script.answer = lambda _asked: Said(status, body)
    refused = counted("refused")
    with pytest.raises(Problem, match=next(iter(body.values())) if status == 400 else "field type conflict"):
        made.write_blocking(*points(3))
    assert len(script.asked) == 1
    assert counted("refused") - refused == lost


def test_a_batch_that_is_too_large_goes_in_parts_and_one_bad_point_costs_only_itself(
    client: tuple[Influx, Script],
) -> None:
    made, script = client
    taken: list[str] = []

    def small(asked: Asked) -> Said:
        if len(asked.lines) > 2:
            return Said(413, {"error": "Request Entity Too Large"})
        if any("n=3i" in line for line in asked.lines):
            return Said(400, {"error": "partial write: field type conflict dropped=1"})
        taken.extend(asked.lines)
        return Said(204)

    script.answer = small
    with pytest.raises(Problem, match="field type conflict"):
        made.write_blocking(*points(8))
    assert {f"m n={n}i {n}" for n in (0, 1, 4, 5, 6, 7)} <= set(taken)


def test_a_secret_is_in_no_message(client: tuple[Influx, Script], caplog: pytest.LogCaptureFixture) -> None:
    made, script = client
    script.answer = lambda _asked: Said(401, {"error": "authorization failed"})
    with pytest.raises(Problem) as away:
        impatient(made).write_blocking(*points(1))
    text = caplog.text + str(away.value) + repr(made._settings) + asyncio.run(made.check())
    assert "t0ken" not in text
    assert "pa:ss" not in text
    assert "authorization failed" in text


SERIES = [
    {
        "name": "m",
        "tags": {"host": "a", "zone": ""},
        "columns": ["time", "x", "s"],
        "values": [[9, 1.5, None], [3, 2, "b"]],
    },
    {"name": "m", "tags": {"host": "b", "zone": "1"}, "columns": ["time", "x", "s"], "values": [[5, True, "c"]]},
]


def test_a_range_is_read_back_as_points_by_time(client: tuple[Influx, Script]) -> None:
    made, script = client
    script.answer = lambda _asked: Said(200, {"results": [{"statement_id": 0, "series": SERIES}]})
    found = asyncio.run(made.read('a "m"', 2, 10, {"host": "o'b"}, ["x", "s"], limit=100))
    assert found == [
        Point("m", {"x": 2, "s": "b"}, {"host": "a"}, 3),
        Point("m", {"x": True, "s": "c"}, {"host": "b", "zone": "1"}, 5),
        Point("m", {"x": 1.5}, {"host": "a"}, 9),
    ]
    (asked,) = script.asked
    assert (asked.method, asked.path, asked.query["db"], asked.query["epoch"]) == ("GET", "/query", "shop", "ns")
    assert asked.query["q"] == (
        'SELECT "x", "s" FROM "shop"."raw"."a \\"m\\"" WHERE time >= 2 AND time < 10 AND "host" = \'o\\\'b\' '
        "GROUP BY * ORDER BY time DESC LIMIT 100"
    )
    assert [point.time for point in asyncio.run(made.read("m", 2, 10, limit=2))] == [5, 9], "the newest"


def test_averages_have_the_fields_own_names(client: tuple[Influx, Script]) -> None:
    made, script = client
    one = made._settings.version == 1
    column = "mean_x" if one else "x"
    series = [{"name": "m", "columns": ["time", column], "values": [[3, 2.5]]}]
    script.answer = lambda _asked: Said(200, {"results": [{"statement_id": 0, "series": series}]})
    assert made.read_blocking("m", 0, 9, fields=["x"], copy="hourly") == [Point("m", {"x": 2.5}, {}, 3)]
    assert script.asked[0].query["q"].split(" WHERE ")[0] == f'SELECT "{column}" FROM "shop"."hourly"."m"'  # noqa: S608


def test_a_question_that_is_refused_says_why_and_an_unknown_database_may_still_come(
    client: tuple[Influx, Script],
) -> None:
    made, script = client
    script.answer = lambda _asked: Said(200, {"results": [{"statement_id": 0, "error": "undefined function"}]})
    with pytest.raises(Problem, match="undefined function") as refused:
        made.read_blocking("m", 0, 1)
    assert refused.value.status == 422
    script.answer = lambda _asked: Said(200, {"results": [{"statement_id": 0, "error": "database not found: shop"}]})
    assert asyncio.run(made.check()) == "database not found: shop"
    with pytest.raises(Problem) as away:
        impatient(made).read_blocking("m", 0, 1)
    assert away.value.status == 503


def test_readiness_needs_the_database_itself(client: tuple[Influx, Script]) -> None:
    made, script = client
    script.answer = lambda _asked: Said(200, {"results": [{"statement_id": 0}]})
    assert asyncio.run(made.check()) == ""
    assert script.asked[-1].query["q"] == 'SELECT * FROM "shop"."raw"."none" LIMIT 1'


ENVIRONMENT = {"INFLUX_URL": "http://influx:8086", "INFLUX_BUCKET": "shop/raw"}


def test_settings_of_each_kind() -> None:
    two = read({**ENVIRONMENT, "INFLUX_ORG": "acme", "INFLUX_TOKEN": "t"})
    assert (two.influx.version, two.influx.url, two.influx.org) == (2, "http://influx:8086", "acme")
    assert "influxdb" in two.ready_at_start
    assert "influxdb" not in two.ready_while, "an api without InfluxDB still serves"
    one = read({**ENVIRONMENT, "INFLUX_VERSION": "1", "INFLUX_USER": "app", "INFLUX_PASSWORD": "p"})
    assert (one.influx.version, one.influx.user) == (1, "app")
    assert "influxdb" not in read({}).ready_at_start
    assert not read(ENVIRONMENT, frozenset(("websocket",))).influx.url, "what only streams has no use for it"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"INFLUX_URL": "influx:8086"}, "INFLUX_URL must be http://host:port"),
        ({"INFLUX_VERSION": "3"}, "INFLUX_VERSION must be a number from 1 to 2"),
        ({"INFLUX_TOKEN": ""}, "lacks INFLUX_USER, INFLUX_PASSWORD, which InfluxDB needs"),
        ({"INFLUX_ORG": ""}, "lacks INFLUX_ORG, which InfluxDB needs"),
        ({"INFLUX_VERSION": "1"}, "sets INFLUX_TOKEN, and InfluxDB 1 has no tokens"),
        ({"INFLUX_BUCKET": "shop"}, "INFLUX_BUCKET must be database/policy"),
    ],
)
def test_settings_that_cannot_work_are_named(change: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read({**ENVIRONMENT, "INFLUX_ORG": "acme", "INFLUX_TOKEN": "t", **change})
