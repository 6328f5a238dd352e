"""The record's form: splitting, history, what can be returned to, and what the schema forbids."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.release import record as records
from ansible_collections.groundwork.platform.plugins.module_utils.release.compatibility import refusal
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import (
    CHUNK,
    Record,
    before,
    content_digest,
    kept,
    live,
    packed,
    previous_good,
    split,
    unpacked,
)
from ansible_collections.groundwork.platform.plugins.module_utils.release.who import who
from ansible_collections.groundwork.platform.plugins.module_utils.version import VERSION
from tests.support.medical_inventory import ROOT

STAGES = {
    "foundation": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}],
    "components": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}],
}


def history(*entries: tuple[int, str] | tuple[int, str, int]) -> list[Record]:
    """Releases by number, outcome and the release that they returned to; newest first."""
    found = [
        Record(number=entry[0], outcome=entry[1], restores=entry[2] if len(entry) > 2 else 0)  # type: ignore[misc]
        for entry in entries
    ]
    for item in found:
        item.content = f"content-{item.effective}"
    return sorted(found, key=lambda item: item.number, reverse=True)


def test_the_version_is_galaxy_s() -> None:
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"] == VERSION


def test_stages_are_packed_to_the_byte_and_keep_their_order() -> None:
    data = packed(STAGES)
    assert data == packed(STAGES)
    assert list(unpacked(data)) == ["foundation", "components"]
    assert unpacked(data) == STAGES
    assert json.loads(gzip.decompress(data))[0][0] == "foundation"


@pytest.mark.parametrize(
    ("size", "pieces"), [(0, [0]), (1, [1]), (CHUNK, [CHUNK]), (CHUNK + 1, [CHUNK, 1]), (3 * CHUNK, [CHUNK] * 3)]
)
def test_parts_are_below_the_limit_and_make_the_whole(size: int, pieces: list[int]) -> None:
    data = bytes(index % 251 for index in range(size))
    found = split(data)
    assert [len(piece) for piece in found] == pieces
    assert b"".join(found) == data
    # Secrets may hold 1 MiB, and an etcd request 1.5 MiB of it in base64.
    assert CHUNK * 4 // 3 < 1024**2


def test_the_same_content_is_the_same_release() -> None:
    digest = content_digest(STAGES, {})
    assert digest == content_digest(dict(STAGES), {})
    assert digest != content_digest(STAGES, {"api": {"type": "canary"}})
    other = {**STAGES, "components": []}
    assert digest != content_digest(other, {})


def test_what_serves_and_what_can_be_returned_to() -> None:
    assert live(history((1, "failed"))) is None
    assert previous_good([]) is None
    for entries, number in (
        # Something newer failed, or was killed: back to what serves.
        ([(1, "superseded"), (2, "deployed"), (3, "failed")], 2),
        ([(1, "superseded"), (2, "deployed"), (3, "pending")], 2),
        # It serves and is bad: the one before.
        ([(1, "superseded"), (2, "deployed")], 1),
        ([(1, "superseded"), (2, "failed"), (3, "deployed")], 1),
        # A return to 2 serves, and is bad as well: not 3, from which it came.
        ([(1, "superseded"), (2, "superseded"), (3, "rolled_back"), (4, "deployed", 2)], 1),
        ([(1, "deployed")], None),
        ([(1, "failed"), (2, "deployed")], None),
    ):
        found = previous_good(history(*entries))  # type: ignore[arg-type]
        assert (found.number if found else None) == number, entries


def test_an_equal_release_is_nothing_to_return_to() -> None:
    found = history((1, "superseded"), (2, "superseded"), (3, "deployed"))
    found[1].content = found[0].content
    target = before(found, found[0])
    assert target is not None
    assert target.number == 1


def test_history_is_bounded_and_never_loses_what_serves() -> None:
    many = history((1, "superseded"), (2, "deployed"), *((number, "failed") for number in range(3, 20)))
    assert [item.number for item in kept(many, 3)] == [19, 18, 17, 2, 1]
    assert [item.number for item in kept(many, 0)] == [19, 2, 1]
    assert len(kept(many, 100)) == 19


def schema(number: int, revision: str | None, action: str = "run", destructive: Any = (), **more: Any) -> Record:
    found = {"revision": revision, "action": action, "destructive": destructive, **more}
    if destructive == ():
        found["destructive"] = []
    return Record(number=number, outcome="superseded", schema=found)


@pytest.mark.parametrize(
    ("records_of", "refused"),
    [
        ([schema(1, "a"), schema(2, "a", "unchanged")], False),
        ([schema(1, "a"), schema(2, "b")], False),
        ([schema(1, "a"), schema(2, "b", destructive=["DROP TABLE items"])], True),
        ([schema(1, "a"), schema(2, "b", destructive=None)], True),
        ([schema(1, "a"), schema(2, None, destructive=None)], True),
        # Declared to only add.
        ([schema(1, "a"), schema(2, "b", destructive=["DROP TABLE items"], expand_only=True)], False),
        # A migration that ran and left the revision as it was.
        ([schema(1, "a"), schema(2, "a", destructive=None)], False),
        # One of several in between.
        ([schema(1, "a"), schema(2, "b", destructive=["DROP TABLE items"]), schema(3, "c")], True),
        # What was taken away is back, since the database is at its old revision again.
        ([schema(1, "a"), schema(2, "b", destructive=["DROP TABLE items"]), schema(3, "a", destructive=None)], False),
        # A release without a migration.
        ([schema(1, "a"), Record(number=2)], False),
        ([Record(number=1), Record(number=2)], False),
    ],
)
def test_a_schema_that_an_older_release_cannot_run_on(records_of: list[Record], refused: bool) -> None:
    found = refusal(records_of[0], sorted(records_of, key=lambda item: item.number, reverse=True))
    assert (found is not None) == refused


def test_the_refusal_says_what_to_do_instead() -> None:
    newer = schema(2, "b", destructive=["ALTER TABLE items DROP COLUMN price"], restore_point="dump-42")
    found = refusal(schema(1, "a"), [newer])
    assert found is not None
    assert found.sentence == (
        "Release 1 cannot run on the database's schema as it is now, which was a then (release 2 brought it to "
        "revision b by ALTER TABLE items DROP COLUMN price): mend the release and go forward, or restore the database "
        "from dump-42 and roll back then."
    )
    unknown = refusal(schema(1, "a"), [schema(2, None, destructive=None)])
    assert unknown is not None
    assert "whether that only adds is not known" in unknown.sentence
    assert "from before release 2" in unknown.sentence


def test_what_the_module_migration_returned_in_words() -> None:
    statement = {"kind": "loses_data", "statement": "DROP TABLE items", "why": "drops table items", "line": 3}
    point = {"type": "dump", "file": "7.dump", "taken": "2024-01-01T00:00:00Z", "verified": True}
    found = refusal(schema(1, "a"), [schema(2, "b", destructive=[statement], restore_point=point)])
    assert found is not None
    assert "by DROP TABLE items, which drops table items" in found.sentence
    assert "from the dump 7.dump of 2024-01-01T00:00:00Z and roll back then" in found.sentence


def test_who_releases() -> None:
    alone = who(environment={})
    assert set(alone) == {"user", "host"}
    job = who({"user": "anna", "template": "Release", "job": ""}, {"JOB_ID": "77", "PROJECT_REVISION": "abc"})
    assert (job["user"], job["template"], job["job"], job["revision"]) == ("anna", "Release", "77", "abc")


def test_a_line_tells_it_all() -> None:
    made = Record(number=7, outcome="failed", started="2026-01-02T03:04:05Z", by={"user": "anna", "host": "runner"})
    made.failure = {"object": "Deployment shop/api", "cause": "cannot get ready"}
    assert made.line() == ("   7  failed       2026-01-02T03:04:05Z  anna@runner: Deployment shop/api cannot get ready")
    assert records.Record(number=8, outcome="deployed", restores=6).line().endswith("a return to 6")
