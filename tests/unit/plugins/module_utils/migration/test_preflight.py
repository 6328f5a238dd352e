"""What speaks against migrating, from facts as the query gives them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import preflight
from ansible_collections.groundwork.platform.plugins.module_utils.migration.preflight import Limits, judge

SECRET = "a-value-that-nobody-may-see"


def session(**changes: Any) -> dict[str, Any]:
    usual = {
        "pid": 42, "user": "app", "application": "api", "backend": "client backend", "state": "active",
        "transaction": 0.1, "idle": 0.1, "query": f"SELECT '{SECRET}'",
    }  # fmt: skip
    return {**usual, **changes}


def facts(*sessions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    quiet = {"database": "shop", "user": "app", "recovery": False, "read_only": False, "tables": 3}
    return {**quiet, "sessions": list(sessions), "prepared": [], "replicas": [], **changes}


@pytest.mark.parametrize(
    ("found", "check"),
    [
        (facts(), None),
        (facts(session()), None),
        (facts(recovery=True), "read_only"),
        (facts(read_only=True), "read_only"),
        (facts(session(transaction=61)), "long_transaction"),
        (facts(session(transaction=59)), None),
        (facts(session(transaction=None, idle=9000, state="idle")), None),
        (facts(session(state="idle in transaction", idle=16, transaction=20)), "idle_in_transaction"),
        (facts(session(state="idle in transaction (aborted)", idle=16, transaction=20)), "idle_in_transaction"),
        (facts(session(state="idle in transaction", idle=1, transaction=61)), "long_transaction"),
        (facts(session(application="pg_dump", transaction=1)), "dump"),
        (facts(session(application="groundwork-migration-lock", transaction=1000)), None),
        (facts(session(backend="autovacuum worker", transaction=1000, query="autovacuum: VACUUM t")), None),
        (
            facts(session(backend="autovacuum worker", query="autovacuum: VACUUM t (to prevent wraparound)")),
            "wraparound",
        ),
        (facts(session(transaction=None, state=None, query="<insufficient privilege>")), "hidden_sessions"),
        (facts(prepared=[{"gid": SECRET, "owner": "app", "age": 20}]), "prepared_transaction"),
        (facts(replicas=[{"name": "r", "state": "streaming", "bytes": 70 * 1024**2, "seconds": 3}]), "replication_lag"),
        (facts(replicas=[{"name": "r", "state": "streaming", "bytes": 1024, "seconds": None}]), None),
        (facts(replicas=[{"name": "r", "state": None, "bytes": None, "seconds": None}]), None),
    ],
)
def test_one_thing(found: dict[str, Any], check: str | None) -> None:
    objections = judge(found, Limits(), ("groundwork-migration-lock",))
    assert [one.check for one in objections] == ([check] if check else [])
    assert SECRET not in str(objections)
    if check:
        refused = preflight.refusals(objections, Limits())
        assert bool(refused) == (check not in preflight.WARNED)
        assert judge(found, Limits(ignore=(check,)), ("groundwork-migration-lock",)) == []
        assert preflight.refusals(objections, Limits(warn=(check,))) == []


def test_the_sentence_names_who_since_when_and_what_to_do() -> None:
    found = judge(facts(session(transaction=3600, query="UPDATE staff SET a = 1 WHERE b = 2")), Limits())
    assert preflight.failure("Database shop", found).sentence == (
        "Database shop has a transaction that is 3600 s old (pid 42, user app, application api, last query: "
        "UPDATE staff SET a = 0 ...): wait until it has ended, or end it: SELECT pg_terminate_backend(42)."
    )


def test_room_on_the_disk() -> None:
    limits = Limits()
    assert preflight.judge_disk(100, {}, limits) == []
    assert preflight.judge_disk(None, {"t": 100}, limits) == []
    assert preflight.judge_disk(150, {"t": 100, "gone": None}, limits) == []
    (found,) = preflight.judge_disk(2 * 1024**3, {"big": 2 * 1024**3, "small": 1024}, limits)
    assert found.cause == "has 2.0 GiB free, and the migration writes 2.0 GiB anew"
    assert found.evidence == "big 2.0 GiB, small 1.0 KiB"


def test_limits() -> None:
    assert Limits.of({}) == Limits.of({"warn": None}) == Limits()
    assert Limits.of({"warn": ["dump"]}).warn == ("dump",)
    with pytest.raises(Failure, match="names dmup, which is no check"):
        Limits.of({"ignore": ["dmup"]})
