"""The configuration and setup of InfluxDB 1.x, tried with Debian's server."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import influxdb

pytestmark = pytest.mark.skipif(bool(influxdb.MISSING), reason=influxdb.MISSING)
HOURLY = {"hourly": {"every": "1h", "keep": "365d"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[influxdb.Server]:
    made = influxdb.Server(tmp_path)
    try:
        yield made.start()
    finally:
        made.stop()


def state(server: influxdb.Server) -> list[str]:
    """Everything that the setup decides on."""
    questions = ("SHOW RETENTION POLICIES ON shop", "SHOW CONTINUOUS QUERIES", "SHOW USERS", "SHOW GRANTS FOR app")
    return [server.ask(one) for one in questions]


def test_a_new_server_is_set_up_and_a_second_run_changes_nothing(server: influxdb.Server) -> None:
    done = server.setup(downsampling=HOURLY)
    assert (done.status, done.output) == (0, "shop is as the system's file says\n")
    policies, queries, users, grants = first = state(server)
    assert policies.splitlines()[1:] == ["raw,720h0m0s,24h0m0s,1,true", "hourly,8760h0m0s,168h0m0s,1,false"]
    assert (
        'shop,downsample_hourly,"CREATE CONTINUOUS QUERY downsample_hourly ON shop RESAMPLE FOR 2h BEGIN '
        'SELECT mean(*) INTO shop.hourly.:MEASUREMENT FROM shop.raw./.*/ GROUP BY time(1h), * END"'
    ) in queries
    assert users.splitlines()[1:] == ["admin,true", "app,false"]
    assert grants.splitlines()[1:] == ["shop,ALL PRIVILEGES"]
    again = server.setup(downsampling=HOURLY)
    assert (again.status, state(server)) == (0, first), again.output


def test_nobody_gets_in_without_a_password_and_no_secret_is_told(server: influxdb.Server) -> None:
    done = server.setup(downsampling=HOURLY)
    assert "authorization failed" in server.ask("SHOW DATABASES", password="another")
    assert "authorization failed" in server.ask("SHOW DATABASES", user="nobody")
    assert "not authorized" in server.ask("CREATE DATABASE other", "app", influxdb.PASSWORD)
    assert "not authorized" in server.ask("SHOW USERS", "app", influxdb.PASSWORD)
    assert "ERR" not in server.ask("SELECT * FROM shop.raw.none", "app", influxdb.PASSWORD)
    said = done.output + (server.folder / "log").read_text()
    assert influxdb.ADMIN not in said
    assert influxdb.PASSWORD not in said


def test_a_longer_retention_is_applied_and_a_shorter_one_only_where_the_file_says_so(server: influxdb.Server) -> None:
    assert server.setup(downsampling=HOURLY).status == 0
    assert server.setup(retention="60d", downsampling=HOURLY).status == 0
    assert "raw,1440h0m0s,24h0m0s,1,true" in state(server)[0]
    before = state(server)
    # The second policy is refused before the first one, which could be changed, is.
    refused = server.setup(retention="90d", downsampling={"hourly": {"every": "1h", "keep": "100d"}})
    assert refused.status == 3
    assert refused.output == (
        "shop/hourly is kept 8760 hours and would be kept 2400 hours, which deletes what is older: "
        "nothing was changed; say shorter_retention: delete of the store where that is meant\n"
    )
    assert state(server) == before
    done = server.setup(retention="12h", downsampling=HOURLY, shorter_retention="delete")
    assert done.status == 0
    assert done.output.startswith(
        "shop/raw is kept 1440 hours and would be kept 12 hours, which deletes what is older, as"
    )
    assert "raw,12h0m0s,1h0m0s,1,true" in state(server)[0]


def test_other_averages_replace_those_of_the_name_and_none_stops_them_and_keeps_what_they_made(
    server: influxdb.Server,
) -> None:
    assert server.setup(downsampling=HOURLY).status == 0
    server.ask(
        "CREATE CONTINUOUS QUERY mine ON shop BEGIN SELECT max(x) INTO shop.raw.y FROM shop.raw.z GROUP BY time(1h) END"
    )
    assert server.setup(downsampling={"hourly": {"every": "2h", "keep": "365d"}}).status == 0
    assert "RESAMPLE FOR 4h" in state(server)[1]
    assert server.setup(downsampling={"daily": {"every": "24h", "keep": "720d"}}).status == 0
    policies, queries, *_rest = state(server)
    assert "downsample_daily" in queries
    assert "downsample_hourly" not in queries
    assert "shop,mine," in queries, "what others made is left alone"
    assert "hourly,8760h0m0s" in policies
    done = server.setup()
    assert done.status == 0
    assert "downsample_daily is made no more; what it made is kept" in done.output
    assert "downsample" not in state(server)[1]
    assert "daily,17280h0m0s" in state(server)[0]


def test_a_database_that_was_there_before_keeps_its_points(server: influxdb.Server) -> None:
    server.ask(f"CREATE USER admin WITH PASSWORD '{influxdb.ADMIN}' WITH ALL PRIVILEGES")
    server.ask("CREATE DATABASE shop WITH DURATION INF NAME old")
    server.ask("INSERT INTO shop.old sold,kind=a n=1i")
    assert server.setup().status == 0
    assert state(server)[0].splitlines()[1:] == ["old,0s,168h0m0s,1,false", "raw,720h0m0s,24h0m0s,1,true"]
    # One that keeps its points for ever is longer than any other.
    server.ask("CREATE RETENTION POLICY hourly ON shop DURATION INF REPLICATION 1")
    refused = server.setup(downsampling=HOURLY)
    assert refused.status == 3
    assert "shop/hourly is kept for ever and would be kept 8760 hours" in refused.output


def test_another_password_of_the_application_is_taken_over(
    server: influxdb.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.setup().status == 0
    old = influxdb.PASSWORD
    monkeypatch.setattr(influxdb, "PASSWORD", "a-new-one")
    assert server.setup().status == 0
    assert "authorization failed" in server.ask("SELECT * FROM shop.raw.none", "app", old)
    assert "ERR" not in server.ask("SELECT * FROM shop.raw.none", "app", "a-new-one")


def test_what_was_written_survives_an_orderly_end_and_a_kill(server: influxdb.Server) -> None:
    assert server.setup().status == 0
    write(server, f"sold n=1i {time.time_ns()}")
    assert server.stop() == 0
    assert not server.answers()
    server.start()
    write(server, f"sold n=2i {time.time_ns()}")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()
    assert [line.rsplit(",", 1)[1] for line in server.ask("SELECT n FROM shop.raw.sold").splitlines()[1:]] == ["1", "2"]


def test_metrics_are_there_for_prometheus(server: influxdb.Server) -> None:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        assert b"go_memstats_alloc_bytes" in answer.read()


def write(server: influxdb.Server, line: str) -> None:
    request = urllib.request.Request(
        f"{server.url}/write?db=shop&rp=raw&u=app&p={influxdb.PASSWORD}", line.encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 204
