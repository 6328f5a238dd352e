"""The setup of InfluxDB 2, run against a server that keeps to its documented interface (tests/support/influxdb2.py)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import influxdb, influxdb2

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: apt-get install curl")
HOURLY = {"hourly": {"every": "1h", "keep": "365d"}}


class Site:
    """A server and the setups that were run on it."""

    def __init__(self, folder: Path, server: influxdb2.Server, script: Any, port: int) -> None:
        self.folder, self.server, self.script, self.port = folder, server, script, port

    def setup(self, **store: Any) -> influxdb.Setup:
        return influxdb.run_setup(self.folder, self.port, influxdb.compiled("2", **store))

    def rules(self) -> dict[str, tuple[int, int]]:
        """Hours of retention and shard of each bucket."""
        return {
            bucket["name"]: (
                bucket["retentionRules"][0]["everySeconds"] // 3600,
                bucket["retentionRules"][0]["shardGroupDurationSeconds"] // 3600,
            )
            for bucket in self.server.buckets.values()
        }

    def permissions(self) -> set[tuple[str, str]]:
        """What the application's user may do with which bucket."""
        (user,) = self.server.users.values()
        assert user["token"] == "app"
        return {(one["action"], self.server.buckets[one["resource"]["id"]]["name"]) for one in user["permissions"]}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with influxdb2.running() as (server, script, port):
        yield Site(tmp_path, server, script, port)


def state(site: Site) -> tuple[Any, ...]:
    server = site.server
    tasks = [{key: task[key] for key in ("name", "status", "flux")} for task in server.tasks.values()]
    return site.rules(), tasks, site.permissions(), dict(server.passwords), dict(server.org)


def test_a_new_server_is_set_up_and_a_second_run_changes_nothing(site: Site) -> None:
    site.server.starting = 3
    done = site.setup(downsampling=HOURLY)
    assert (done.status, done.output.splitlines()[-1]) == (0, "shop is as the system's file says"), done.output
    assert site.rules() == {"shop/raw": (720, 24), "shop/hourly": (8760, 168)}
    (task,) = site.server.tasks.values()
    assert (task["name"], task["every"], task["status"]) == ("downsample_shop_hourly", "1h", "active")
    assert site.permissions() == {("read", "shop/raw"), ("write", "shop/raw"), ("read", "shop/hourly")}
    assert list(site.server.passwords.values()) == [influxdb.PASSWORD]
    first = state(site)
    again = site.setup(downsampling=HOURLY)
    assert (again.status, state(site)) == (0, first), again.output


def test_no_secret_is_told_or_on_a_command_line(site: Site) -> None:
    done = site.setup(downsampling=HOURLY)
    script = (site.folder / "setup" / "files" / "setup.sh").read_text()
    for secret in (influxdb.ADMIN, influxdb.PASSWORD, influxdb.TOKEN):
        assert secret not in done.output
        assert secret not in script
        assert not any(secret in f"{one.path}{one.query}" for one in site.script.asked)
    curl = script[script.index("status=$(curl") : script.index("|| status=000")]
    assert "$(cat" not in curl


def test_a_longer_retention_is_applied_and_a_shorter_one_only_where_the_file_says_so(site: Site) -> None:
    assert site.setup(downsampling=HOURLY).status == 0
    assert site.setup(retention="60d", downsampling=HOURLY).status == 0
    assert site.rules()["shop/raw"] == (1440, 24)
    site.server.changes.clear()
    refused = site.setup(retention="90d", downsampling={"hourly": {"every": "1h", "keep": "100d"}})
    assert refused.status == 3
    assert refused.output.startswith("shop/hourly is kept 8760 hours and would be kept 2400 hours, which deletes")
    assert site.server.changes == []
    done = site.setup(retention="12h", downsampling=HOURLY, shorter_retention="delete")
    assert done.status == 0
    assert "shop/raw is kept 1440 hours and would be kept 12 hours, which deletes what is older, as" in done.output
    assert site.rules()["shop/raw"] == (12, 1)


def test_a_bucket_that_keeps_for_ever_is_longer_than_any_other(site: Site) -> None:
    assert site.setup().status == 0
    for bucket in site.server.buckets.values():
        bucket["retentionRules"] = []
    refused = site.setup()
    assert refused.status == 3
    assert "shop/raw is kept for ever and would be kept 720 hours" in refused.output


def test_other_averages_are_taken_over_and_none_stops_them_and_keeps_what_they_made(site: Site) -> None:
    assert site.setup(downsampling=HOURLY).status == 0
    assert site.setup(downsampling={"hourly": {"every": "2h", "keep": "365d"}}).status == 0
    (task,) = site.server.tasks.values()
    assert task["every"] == "2h"
    assert 'aggregateWindow(every: 2h, fn: mean, createEmpty: false, timeSrc: "_start")' in task["flux"]
    both = {**HOURLY, "daily": {"every": "24h", "keep": "720d"}}
    assert site.setup(downsampling=both).status == 0
    assert ("read", "shop/daily") in site.permissions(), "the user is made anew with what it may read now"
    assert list(site.server.passwords.values())[-1] == influxdb.PASSWORD
    done = site.setup()
    assert done.status == 0
    assert {task["status"] for task in site.server.tasks.values()} == {"inactive"}
    assert "hourly is made no more; what was made is kept" in done.output
    assert {"shop/hourly", "shop/daily"} <= set(site.rules())
    assert site.setup(downsampling=HOURLY).status == 0
    assert {task["name"]: task["status"] for task in site.server.tasks.values()} == {
        "downsample_shop_hourly": "active",
        "downsample_shop_daily": "inactive",
    }


def test_another_password_of_the_application_is_taken_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.setup().status == 0
    monkeypatch.setattr(influxdb, "PASSWORD", "a-new-one")
    assert site.setup().status == 0
    assert list(site.server.passwords.values()) == ["a-new-one"]


@pytest.mark.parametrize(
    "failing", ["POST /api/v2/buckets", "POST /api/v2/tasks", "POST /private/legacy/authorizations"]
)
def test_a_run_that_breaks_off_is_finished_by_the_next(site: Site, failing: str) -> None:
    answer: Callable[..., Any] = site.server.answer
    method, path = failing.split()

    def broken(asked: Any) -> Any:
        if (asked.method, asked.path) == (method, path):
            return influxdb2.Refusal("unprocessable entity", "disk full").said()
        return answer(asked)

    site.script.answer = broken
    done = site.setup(downsampling=HOURLY)
    assert done.status == 1, "tried again, unlike a refusal"
    assert f"{failing}: HTTP 422" in done.output
    assert "disk full" in done.output
    site.script.answer = answer
    assert site.setup(downsampling=HOURLY).status == 0
    assert site.permissions() == {("read", "shop/raw"), ("write", "shop/raw"), ("read", "shop/hourly")}


def test_another_token_than_the_server_s_is_waited_for_and_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.setup().status == 0
    site.server.token = "another"

    def mended(asked: Any) -> Any:
        if len(site.script.asked) > seen + 6:
            site.server.token = influxdb.TOKEN
        return site.server.answer(asked)

    seen = len(site.script.asked)
    site.script.answer = mended
    done = site.setup()
    assert done.status == 0
    said = "waiting: 127.0.0.1 does not know the token of the Secret, or no organisation shop (HTTP 401)"
    assert done.output.splitlines()[0] == said
    assert done.output.count("waiting") == 1
