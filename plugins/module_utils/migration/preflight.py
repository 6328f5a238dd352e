# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What speaks against migrating now: one query gathers it, one function judges it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import masking

CHECKS = (
    "read_only", "dump", "long_transaction", "idle_in_transaction", "prepared_transaction", "replication_lag", "disk",
    "hidden_sessions", "wraparound",
)  # fmt: skip
WARNED = ("replication_lag", "hidden_sessions", "wraparound")
"""Checks that only warn unless told otherwise."""
DUMPS = ("pg_dump", "pg_dumpall", "pg_restore")

FACTS = """
SELECT json_build_object(
'database', current_database(), 'user', current_user, 'recovery', pg_is_in_recovery(),
'read_only', current_setting('default_transaction_read_only') = 'on',
'tables', (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 AND c.relname <> ALL (@bookkeeping@::text[])
 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')),
'sessions', (SELECT coalesce(json_agg(json_build_object('pid', pid, 'user', usename, 'application', application_name,
 'backend', backend_type, 'state', state, 'transaction', extract(epoch FROM clock_timestamp() - xact_start),
 'idle', extract(epoch FROM clock_timestamp() - state_change), 'query', left(query, 300))), '[]')
 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()),
'prepared', (SELECT coalesce(json_agg(json_build_object('gid', gid, 'owner', owner,
 'age', extract(epoch FROM clock_timestamp() - prepared))), '[]')
 FROM pg_prepared_xacts WHERE database = current_database()),
'replicas', (SELECT coalesce(json_agg(json_build_object('name', application_name, 'state', state,
 'bytes', CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) END,
 'seconds', extract(epoch FROM replay_lag))), '[]') FROM pg_stat_replication))
"""


@dataclasses.dataclass(frozen=True)
class Limits:
    """From where on something speaks against migrating.

    :param long_transaction: seconds that a transaction may be old.
    :param idle_in_transaction: seconds that a session may leave its transaction alone.
    :param replication_lag: bytes that a replica may be behind.
    :param disk: how many times the size of what is written anew must be free.
    :param warn: checks that are only told.
    :param ignore: checks that are not made.
    """

    long_transaction: float = 60.0
    idle_in_transaction: float = 15.0
    replication_lag: int = 64 * 1024**2
    disk: float = 1.5
    warn: tuple[str, ...] = WARNED
    ignore: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Limits:
        """From the module's parameters; what is not given has its default."""
        given = {key: value for key, value in params.items() if value is not None}
        for key in ("warn", "ignore"):
            if key in given:
                given[key] = tuple(given[key])
                strange = sorted(set(given[key]) - set(CHECKS))
                if strange:
                    raise Failure("bad_preflight", f"preflight.{key}", f"names {strange[0]}, which is no check",
                                  hint=f"there are {', '.join(CHECKS)}")  # fmt: skip
        return cls(**given)


@dataclasses.dataclass(frozen=True)
class Objection:
    """One thing that speaks against migrating now.

    :param cause: the predicate of a sentence whose subject is the database.
    """

    check: str
    cause: str
    evidence: str
    hint: str

    def as_dict(self) -> dict[str, str]:
        """As the module returns it."""
        return dataclasses.asdict(self)


def facts_query(bookkeeping: Sequence[str]) -> str:
    """The query, on few lines since it travels in a command line.

    :param bookkeeping: tables that the tool keeps for itself: a database with no others has nothing to lose.
    """
    names = ", ".join("'" + name.rpartition(".")[2].replace("'", "''") + "'" for name in bookkeeping)
    return " ".join(FACTS.replace("@bookkeeping@", f"ARRAY[{names}]").split())


def judge(facts: Mapping[str, Any], limits: Limits, ours: Iterable[str] = ()) -> list[Objection]:
    """Everything in the facts that is beyond a limit.

    :param ours: application names of this migration's own sessions.
    """
    own = set(ours)
    sessions = [one for one in facts.get("sessions") or [] if one.get("application") not in own]
    found = [*_server(facts), *_dumps(sessions), *_transactions(sessions, limits), *_prepared(facts, limits)]
    found += [*_replicas(facts, limits), *_hidden(facts, sessions), *_wraparound(sessions)]
    return [one for one in found if one.check not in limits.ignore]


def judge_disk(free: int | None, sizes: Mapping[str, int | None], limits: Limits) -> list[Objection]:
    """Whether what is written anew fits beside what is there.

    :param free: bytes on the data volume; None: nobody can tell.
    :param sizes: of the tables that are written anew, with their indexes.
    """
    needed = sum(size or 0 for size in sizes.values())
    if not needed or "disk" in limits.ignore or free is None or free >= needed * limits.disk:
        return []
    by_size = sorted(((size or 0, table) for table, size in sizes.items()), reverse=True)
    largest = ", ".join(f"{table} {_bytes(size)}" for size, table in by_size[:3])
    return [
        Objection(
            "disk", f"has {_bytes(free)} free, and the migration writes {_bytes(needed)} anew", largest,
            "enlarge the volume, or split the migration",
        )
    ]  # fmt: skip


def sizes_query(tables: Sequence[str]) -> str:
    """SQL that gives the size of each table as JSON."""
    rows = ", ".join(f"({_text(name)}, {_text(quoted(name))})" for name in tables)
    return f"SELECT json_object_agg(n, pg_total_relation_size(to_regclass(q))) FROM (VALUES {rows}) t (n, q)"  # noqa: S608 - quoted


def types_query(columns: Sequence[tuple[str, str]]) -> str:
    """SQL that gives the present type of each column as JSON: a list of table, column and type."""
    rows = ", ".join(f"({_text(table)}, {_text(quoted(table))}, {_text(name)})" for table, name in columns)
    columns_of = "SELECT coalesce(json_agg(json_build_array(n, c, format_type(a.atttypid, a.atttypmod))), '[]')"
    joined = "JOIN pg_attribute a ON a.attrelid = to_regclass(q) AND a.attname = c"
    return f"{columns_of} FROM (VALUES {rows}) t (n, q, c) {joined}"


def quoted(name: str) -> str:
    """A name with or without its schema as an identifier of SQL."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))


def refusals(found: Iterable[Objection], limits: Limits) -> list[Objection]:
    """Those that forbid migrating."""
    return [one for one in found if one.check not in limits.warn]


def failure(subject: str, found: Sequence[Objection]) -> Failure:
    """The first objection, with the others as evidence."""
    first = found[0]
    others = f"; besides, it {'; it '.join(one.cause for one in found[1:])}" if len(found) > 1 else ""
    return Failure("preflight", subject, first.cause, first.evidence + others, first.hint)


def _server(facts: Mapping[str, Any]) -> Iterator[Objection]:
    if facts.get("recovery"):
        yield Objection("read_only", "is a replica, which takes no changes", "pg_is_in_recovery()",
                        "name the primary's host")  # fmt: skip
    elif facts.get("read_only"):
        yield Objection("read_only", "is set to read-only", "default_transaction_read_only is on",
                        "see who has set that, and why: operators do so when the disk is full")  # fmt: skip


def _dumps(sessions: list[Mapping[str, Any]]) -> Iterator[Objection]:
    for one in sessions:
        if one.get("application") in DUMPS:
            name = one["application"]
            yield Objection(
                "dump", f"is being read by {name}, whose locks the migration would wait for, and everybody else for it",
                _session(one), f"wait until {name} has ended, or end it: SELECT pg_terminate_backend({one['pid']})",
            )  # fmt: skip


def _transactions(sessions: list[Mapping[str, Any]], limits: Limits) -> Iterator[Objection]:
    for one in sessions:
        if one.get("application") in DUMPS or one.get("backend") not in (None, "client backend"):
            continue
        age, idle = float(one.get("transaction") or 0), float(one.get("idle") or 0)
        ending = f"end it: SELECT pg_terminate_backend({one['pid']})"
        if str(one.get("state")).startswith("idle in transaction") and idle >= limits.idle_in_transaction:
            yield Objection(
                "idle_in_transaction", f"has a session that has left its transaction open for {idle:.0f} s",
                _session(one), f"see what it waits for, or {ending}",
            )  # fmt: skip
            continue
        if one.get("transaction") is not None and age >= limits.long_transaction:
            yield Objection(
                "long_transaction", f"has a transaction that is {age:.0f} s old", _session(one),
                f"wait until it has ended, or {ending}",
            )  # fmt: skip


def _prepared(facts: Mapping[str, Any], limits: Limits) -> Iterator[Objection]:
    for one in facts.get("prepared") or []:
        age = float(one.get("age") or 0)
        if age >= limits.idle_in_transaction:
            yield Objection(
                "prepared_transaction", f"has a prepared transaction that is {age:.0f} s old and keeps its locks",
                f"of {one.get('owner')}", "COMMIT PREPARED or ROLLBACK PREPARED it; see pg_prepared_xacts",
            )  # fmt: skip


def _replicas(facts: Mapping[str, Any], limits: Limits) -> Iterator[Objection]:
    for one in facts.get("replicas") or []:
        behind = one.get("bytes")
        if behind is not None and float(behind) > limits.replication_lag:
            seconds = f", {float(one['seconds']):.0f} s" if one.get("seconds") is not None else ""
            yield Objection(
                "replication_lag", f"has a replica that is {_bytes(int(float(behind)))} behind{seconds}",
                f"{one.get('name')}, {one.get('state')}", "wait until it has caught up: a migration writes much",
            )  # fmt: skip


def _hidden(facts: Mapping[str, Any], sessions: list[Mapping[str, Any]]) -> Iterator[Objection]:
    hidden = [one for one in sessions if one.get("query") == "<insufficient privilege>"]
    if hidden:
        users = ", ".join(sorted({str(one.get("user")) for one in hidden}))
        yield Objection(
            "hidden_sessions", f"hides the age of {len(hidden)} sessions from {facts.get('user')}", f"of {users}",
            f"GRANT pg_monitor TO {facts.get('user')}, so that long transactions of others are seen",
        )  # fmt: skip


def _wraparound(sessions: list[Mapping[str, Any]]) -> Iterator[Objection]:
    for one in sessions:
        if one.get("backend") == "autovacuum worker" and "to prevent wraparound" in str(one.get("query")):
            yield Objection(
                "wraparound", "is being vacuumed to prevent wraparound, which does not give way to a migration",
                f"pid {one.get('pid')}", "wait until it has ended if the migration needs that table",
            )  # fmt: skip


def _session(one: Mapping[str, Any]) -> str:
    parts = [f"pid {one.get('pid')}", f"user {one.get('user')}"]
    if one.get("application"):
        parts.append(f"application {one['application']}")
    if one.get("query") and one["query"] != "<insufficient privilege>":
        parts.append(f"last query: {masking.words(str(one['query']))}")
    return ", ".join(parts)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
