"""The record's form: splitting, history, what can be returned to, and what the schema forbids."""

from __future__ import annotations

import gzip
import json

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.release import record as records
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
        # A return from 2 that was killed, or failed, is tried again.
        ([(1, "superseded"), (2, "deployed"), (3, "pending", 1)], 1),
        ([(1, "superseded"), (2, "deployed"), (3, "failed", 1)], 1),
        ([(1, "deployed"), (2, "failed"), (3, "pending", 1)], 1),
        # What it was to return to has turned out bad meanwhile.
        ([(1, "rolled_back"), (2, "deployed"), (3, "failed", 1)], 2),
        # A run that was killed before it could say that 1 is superseded.
        ([(1, "deployed"), (2, "deployed")], 1),
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
