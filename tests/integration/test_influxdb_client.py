"""The application's client with Debian's InfluxDB, set up as the compiler does: what it writes comes back as it was."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import influxdb

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "reference_app" / "src"
if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))
client_module = pytest.importorskip("reference_app.influx", reason="pip install -r reference_app/requirements.lock")
pytestmark = pytest.mark.skipif(bool(influxdb.MISSING), reason=influxdb.MISSING)

from reference_app.influx import Influx, Point  # noqa: E402 - where the application's packages are not, it is skipped
from reference_app.problems import Problem  # noqa: E402
from reference_app.settings import InfluxSettings, read  # noqa: E402

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[influxdb.Server]:
    made = influxdb.Server(tmp_path_factory.mktemp("influxdb")).start()
    try:
        done = made.setup(downsampling={"quick": {"every": "1m", "keep": "365d"}})
        assert done.status == 0, done.output
        yield made
    finally:
        made.stop()


@pytest.fixture
def settings(server: influxdb.Server) -> InfluxSettings:
    """What the compiler's variables become."""
    environment = {
        "INFLUX_VERSION": "1",
        "INFLUX_URL": server.url,
        "INFLUX_BUCKET": "shop/raw",
        "INFLUX_USER": "app",
        "INFLUX_PASSWORD": influxdb.PASSWORD,
    }
    return read(environment).influx


@pytest.fixture
def client(settings: InfluxSettings) -> Iterator[Influx]:
    made = Influx(settings)
    yield made
    made.close()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


AWKWARD = [
    Point("plain", {"x": 0.1 + 0.2, "n": -(2**63), "on": True, "s": ""}, {"host": "a"}),
    Point("a name, with = all", {"a key, = so": 1.5}, {"a tag, = so": "a value, = so"}),
    Point("strings", {"s": 'say "hi" \\ and \n a line,=', "t": "\\", "u": "größe ✓"}),
    Point("slashes", {"x": 1.0}, {"path": r"c:\temp\x", "quote": '"', "single": "o'b", "hash": "#1"}),
    Point("größe", {"é ü": 2.5}, {"ort": "Zürich"}),
    Point("numbers", {"small": 5e-324, "large": 1.7976931348623157e308, "i": 2**53 - 1}),
]


@pytest.mark.parametrize("point", AWKWARD, ids=lambda point: point.measurement)
def test_whatever_line_protocol_can_hold_comes_back_as_it_was(client: Influx, point: Point) -> None:
    client.write_blocking(point)
    assert client.read_blocking(point.measurement, point.time, point.time + 1, tags=point.tags) == [point]


def test_what_is_offered_arrives_in_full_and_tags_and_fields_choose_from_it(client: Influx) -> None:
    now = time.time_ns()
    many = [
        Point("load", {"cpu": index / 7, "n": index}, {"host": f"h{index % 3}"}, now + index) for index in range(12_000)
    ]
    client.offer(*many)
    client.close()
    fresh = Influx(client._settings)
    found = asyncio.run(fresh.read("load", now, now + 12_000, limit=20_000))
    assert found == many
    chosen = fresh.read_blocking("load", now, now + 100, tags={"host": "h1"}, fields=["n"])
    assert [point.fields for point in chosen] == [{"n": index} for index in range(1, 100, 3)]
    newest = fresh.read_blocking("load", now, now + 12_000, limit=5)
    assert [point.fields["n"] for point in newest] == [11_995, 11_996, 11_997, 11_998, 11_999]
    assert fresh.read_blocking("load", now + 12_000, now + 24_000) == []
    fresh.close()


def test_a_batch_that_is_sent_twice_is_stored_once(client: Influx) -> None:
    points = [Point("twice", {"n": index}) for index in range(50)]
    client.write_blocking(*points)
    client.write_blocking(*points)
    assert len(client.read_blocking("twice", points[0].time, points[-1].time + 1)) == len({one.time for one in points})


def test_a_type_conflict_costs_its_own_point_only(client: Influx) -> None:
    now = time.time_ns()
    client.write_blocking(Point("typed", {"x": 1.0}, {}, now))
    with pytest.raises(Problem, match=r"field type conflict.* dropped=1"):
        client.write_blocking(Point("typed", {"x": "text"}, {}, now + 1), Point("typed", {"x": 3.0}, {}, now + 2))
    assert [point.fields["x"] for point in client.read_blocking("typed", now, now + 3)] == [1, 3]


def test_readiness_sees_a_wrong_password_and_a_database_that_is_not_set_up(settings: InfluxSettings) -> None:
    def check(**changes: str) -> str:
        made = Influx(dataclasses.replace(settings, **changes))
        try:
            return asyncio.run(made.check())
        finally:
            made.close()

    assert check() == ""
    assert "authorization failed" in check(password="another")
    assert "retention policy not found" in check(bucket="shop/none")
    assert "not authorized" in check(bucket="other/raw") or "not found" in check(bucket="other/raw")


def test_averages_are_made_and_read_under_the_fields_own_names(server: influxdb.Server, client: Influx) -> None:
    minute = 60 * SECOND
    start = time.time_ns() // minute * minute - minute
    client.write_blocking(
        *(Point("avg", {"x": x, "s": "text"}, {"host": "a"}, start + at) for at, x in enumerate((1.0, 2.0, 6.0)))
    )
    # A server that starts computes the last windows at once; this one would otherwise wait for the next minute.
    server.stop()
    server.start()
    expected = [Point("avg", {"x": 3}, {"host": "a"}, start)]
    eventually(lambda: client.read_blocking("avg", start, start + minute, copy="quick") == expected)


def test_points_wait_while_the_server_is_away(server: influxdb.Server, settings: InfluxSettings) -> None:
    client = Influx(settings)
    now = time.time_ns()
    assert server.stop() == 0
    try:
        client.offer(*(Point("away", {"n": index}, {}, now + index) for index in range(10)))
        with pytest.raises(Problem, match="InfluxDB cannot be reached") as away:
            Influx(dataclasses.replace(settings, deadline=0)).write_blocking(Point("away", {"n": 10}))
        assert away.value.status == 503
    finally:
        server.start()
    eventually(lambda: len(client.read_blocking("away", now, now + 10)) == 10)
    client.close()
