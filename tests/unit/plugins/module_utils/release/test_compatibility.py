"""Whether an older release can run on the schema that is there, by what is recorded and by what the database says."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import Clock, Unreachable
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release import schema as schemas
from ansible_collections.groundwork.platform.plugins.module_utils.release.compatibility import Judgement, Seen, judge
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record

DROP = ["DROP TABLE items"]


def schema(number: int, revision: str | None, action: str = "run", destructive: Any = (), **more: Any) -> Record:
    found = {"revision": revision, "action": action, "destructive": destructive, **more}
    if destructive == ():
        found["destructive"] = []
    return Record(number=number, outcome="superseded", schema=found)


def judged(releases: list[Record], live: str | None = None, **more: Any) -> Judgement:
    """A return to the first of these releases."""
    newest_first = sorted(releases, key=lambda item: item.number, reverse=True)
    return judge(releases[0], newest_first, Seen(live), **more)


def entry(before: str, after: str, destructive: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "outcome": "succeeded", "finished": "2026-01-01T00:00:00Z", "revision": {"before": before, "after": after},
        "destructive": destructive, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("releases", "refused"),
    [
        ([schema(1, "a"), schema(2, "a", "unchanged")], False),
        ([schema(1, "a"), schema(2, "b")], False),
        ([schema(1, "a"), schema(2, "b", destructive=DROP)], True),
        ([schema(1, "a"), schema(2, "b", destructive=None)], True),
        ([schema(1, "a"), schema(2, None, destructive=None)], True),
        # Declared to only add.
        ([schema(1, "a"), schema(2, "b", destructive=DROP, expand_only=True)], False),
        # A migration that ran and left the revision as it was.
        ([schema(1, "a"), schema(2, "a", destructive=None)], False),
        # One of several in between.
        ([schema(1, "a"), schema(2, "b", destructive=DROP), schema(3, "c")], True),
        # What was taken away is back, since the database is at its old revision again.
        ([schema(1, "a"), schema(2, "b", destructive=DROP), schema(3, "a", destructive=None)], False),
        # A release without a migration.
        ([schema(1, "a"), Record(number=2)], False),
        ([Record(number=1), Record(number=2)], False),
        ([Record(number=1), schema(2, "a", destructive=DROP)], True),
        # Nobody can tell revisions of such a migration, but it ran.
        ([schema(1, None), schema(2, None, destructive=None)], True),
        ([schema(1, None), schema(2, None, destructive=[])], False),
        # The run that migrated was killed before it could be recorded; the next found the migration done.
        ([schema(1, "a"), schema(2, "b", "unchanged", destructive=DROP, revision_before="a")], True),
        # The same, and the next had another image: what happened before it is not recorded anywhere.
        ([schema(1, "a"), schema(2, "c", destructive=[], revision_before="b")], True),
    ],
)
def test_by_what_the_releases_recorded(releases: list[Record], refused: bool) -> None:
    assert (judged(releases).refused is not None) == refused


ADDS, TAKES = schema(2, "b"), schema(2, "b", destructive=DROP)


@pytest.mark.parametrize(
    ("newer", "live", "code"),
    [
        ([ADDS], "b", None),
        ([TAKES], "b", "schema_newer"),
        # Restored to what it was: the record alone would refuse.
        ([TAKES], "a", None),
        # By hand, to where nothing recorded leads.
        ([ADDS], "c", "schema_unknown"),
        ([], "c", "schema_unknown"),
        # Taken back to before that release.
        ([ADDS], "0", "schema_older"),
        ([ADDS], "", "schema_unknown"),
        # A release that failed has migrated nevertheless.
        ([Record(number=2, outcome="failed", schema={"action": "failed"})], "a", None),
        ([Record(number=2, outcome="failed", schema={"action": "failed"})], "b", "schema_unknown"),
    ],
)
def test_by_what_the_database_says(newer: list[Record], live: str, code: str | None) -> None:
    was = schema(1, "a", revision_before="0")
    found = judged([was, *newer], live)
    assert (found.refused.code if found.refused else None) == code


def test_what_was_migrated_outside_of_releases_is_found_in_the_migrations_own_record() -> None:
    releases = [schema(1, "a"), schema(2, "b")]
    assert judged(releases, "c", migrations={"migrate-1": entry("b", "c", [])}).refused is None
    refused = judged(releases, "c", migrations={"migrate-1": entry("b", "c", DROP)}).refused
    assert refused is not None
    assert "migration migrate-1 brought it to revision c by DROP TABLE items" in refused.sentence
    # The run that migrated was killed, and its release never recorded.
    killed = schema(2, "c", destructive=[], revision_before="b")
    assert judged([schema(1, "a"), killed], migrations={"migrate-0": entry("a", "b", [])}).refused is None
    refused = judged([schema(1, "a"), killed], migrations={"migrate-0": entry("a", "b", DROP)}).refused
    assert refused is not None
    assert refused.code == "schema_newer"


def test_somebody_who_migrated_by_hand_is_named() -> None:
    found = judged([schema(1, "a"), schema(2, "b")], "by-hand")
    assert found.refused is not None
    assert found.refused.sentence == (
        "Release 1 cannot run on the database's schema as it is now, which was a then (it is at revision by-hand, and "
        "no recorded migration leads there from revision a: somebody has migrated by hand): if what was done only adds "
        "to the schema, say so with expand_only (rollback_expand_only=true); else mend the release and go forward."
    )
    assert found.notes == [
        "the schema is at revision by-hand, while release 2 left it at b: it was changed by something else"
    ]


def test_a_declaration_outweighs_what_is_not_known_and_says_so() -> None:
    found = judged([schema(1, "a"), TAKES], "c", declared=True)
    assert found.refused is None
    assert "which was declared to only add" in found.notes[-1]
    older = judged([schema(1, "a", revision_before="0")], "0", declared=True)
    assert older.refused is not None


def test_what_could_not_be_read_is_said_and_the_record_counts() -> None:
    unread = Seen(unread="Cluster shop/postgres has no running primary that could be asked")
    for newer, refused in ((ADDS, False), (TAKES, True)):
        found = judge(schema(1, "a"), [newer, schema(1, "a")], unread)
        assert (found.refused is not None) == refused
        assert found.notes == [
            "the database's schema could not be asked for its revision, since Cluster shop/postgres has no running "
            "primary that could be asked: what the releases have recorded counts instead"
        ]
    assert unread.as_dict([ADDS]) == {"revision": "b", "source": "record", "unread": unread.unread}
    assert Seen("c").as_dict([ADDS])["source"] == "database"


def test_the_refusal_says_what_to_do_instead() -> None:
    newer = schema(2, "b", destructive=["ALTER TABLE items DROP COLUMN price"], restore_point="dump-42")
    found = judge(schema(1, "a"), [newer]).refused
    assert found is not None
    assert found.sentence == (
        "Release 1 cannot run on the database's schema as it is now, which was a then (release 2 brought it to "
        "revision b by ALTER TABLE items DROP COLUMN price): mend the release and go forward, or restore the database "
        "from dump-42 and roll back then."
    )
    unknown = judge(schema(1, "a"), [schema(2, None, destructive=None)]).refused
    assert unknown is not None
    assert "whether that only adds is not known" in unknown.sentence
    assert "from a backup from before release 2" in unknown.sentence


def test_what_the_module_migration_returned_in_words() -> None:
    statement = {"kind": "loses_data", "statement": "DROP TABLE items", "why": "drops table items", "line": 3}
    point = {"type": "dump", "file": "7.dump", "taken": "2024-01-01T00:00:00Z", "verified": True}
    found = judge(schema(1, "a"), [schema(2, "b", destructive=[statement], restore_point=point)]).refused
    assert found is not None
    assert "by DROP TABLE items, which drops table items" in found.sentence
    assert "from the dump 7.dump of 2024-01-01T00:00:00Z and roll back then" in found.sentence


class Asked(Cluster):
    """A cluster that nobody reaches, whose time passes at once."""

    def __init__(self) -> None:
        self.clock = Clock(lambda: 0.0, lambda seconds: None)


DATABASE = {"cluster": "postgres", "name": "shop", "tool": "alembic"}


NOT_UP = Failure("query", "Database shop", "is starting up")
NO_PRIMARY = Failure("no_primary", "Cluster n/postgres", "has no primary")
FORBIDDEN = Failure("exec", "A command", "is refused with status 403", "no")
ELSEWHERE = {"host": "db.example", "tool": "alembic"}


@pytest.mark.parametrize(
    ("database", "answers", "expected"),
    [
        (None, [], Seen()),
        (DATABASE, ["a"], Seen("a")),
        (DATABASE, [NO_PRIMARY, "a"], Seen("a")),
        (DATABASE, [NOT_UP] * 4, Seen(unread="Database shop is starting up")),
        (DATABASE, [FORBIDDEN], Seen(unread="A command is refused with status 403 (no)")),
        ({**DATABASE, "tool": "command"}, [], Seen()),
        (ELSEWHERE, [], Seen(unread="CloudNativePG does not run the database on db.example")),
    ],
)
def test_how_the_database_is_asked(
    monkeypatch: pytest.MonkeyPatch, database: dict[str, str] | None, answers: list[Any], expected: Seen
) -> None:
    left = list(answers)

    def ask(*_where: Any) -> str:
        answer = left.pop(0)
        if isinstance(answer, Failure):
            raise answer
        return str(answer)

    monkeypatch.setattr(schemas, "_ask", ask)
    records = [Record(number=2), Record(number=1, schema={"database": database} if database else {})]
    assert schemas.look(Asked(), "n", records) == expected
    assert left == []


def test_an_api_server_that_is_away_is_no_answer_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_where: Any) -> str:
        raise Unreachable("unreachable", "The API server", "does not answer")

    monkeypatch.setattr(schemas, "_ask", ask)
    with pytest.raises(Unreachable):
        schemas.look(Asked(), "n", [Record(number=1, schema={"database": DATABASE})])
