# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an older release can run on the database's schema as it is now.

The older images met the schema of their own release. What was migrated since must have left that schema intact:
migrations that were found to be destructive, or of which that could not be told, forbid it, unless they were declared
to only add to it. The schema as it is now counts, not what the last release left: somebody may have migrated by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import Entry, compatibility
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record

REFUSALS = frozenset({"schema_newer", "schema_older", "schema_unknown"})
"""Codes of the failures that are made here."""
_DECLARE = "if what was done only adds to the schema, say so with expand_only (rollback_expand_only=true)"


@dataclasses.dataclass(frozen=True)
class Seen:
    """The schema as it was found.

    :param revision: None: it was not read.
    :param unread: why it could not be, as the predicate of a sentence; empty where there is nothing to read.
    """

    revision: str | None = None
    unread: str = ""

    def as_dict(self, records: Sequence[Record]) -> dict[str, Any]:
        """What counts as the schema's revision, and who says so."""
        read = self.revision is not None
        revision = self.revision if read else recorded_revision(records)
        return {"revision": revision, "source": "database" if read else "record", "unread": self.unread}


@dataclasses.dataclass
class Judgement:
    """What is to be said of a return.

    :param refused: why the schema forbids it.
    :param notes: what is to be told although it does not.
    """

    refused: Failure | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def judge(
    target: Record,
    records: Sequence[Record],
    seen: Seen | None = None,
    migrations: Mapping[str, Entry] | None = None,
    declared: bool = False,
) -> Judgement:
    """Whether the schema allows a return.

    :param records: of the system, newest first.
    :param migrations: what the module migration has recorded, by the name of its Job.
    :param declared: somebody says that whatever was done since only adds to the schema.
    """
    seen = seen or Seen()
    judgement = Judgement(notes=_noticed(records, seen))
    wanted = target.schema.get("revision")
    now = seen.revision if seen.revision is not None else recorded_revision(records)
    if now is None or wanted is None:
        refused = _by_order(target, records)
    else:
        refused = _by_revision(target, records, str(now), migrations or {})
    if refused is not None and declared and refused.code != "schema_older":
        judgement.notes.append(f"{refused.object} {refused.cause} ({refused.evidence}), which was declared to only add")
    else:
        judgement.refused = refused
    return judgement


def recorded_revision(records: Sequence[Record]) -> str | None:
    """The schema's revision as the newest release says that has anything to say of it, if only that nobody knows it.

    :param records: newest first.
    """
    return next((item.schema.get("revision") for item in records if _tells(item)), None)


def _noticed(records: Sequence[Record], seen: Seen) -> list[str]:
    """What the database itself says against the record."""
    last = next((item for item in records if item.schema.get("revision")), None)
    if seen.unread:
        return [f"the database's schema could not be asked for its revision, since {seen.unread}: what the releases "
                "have recorded counts instead"]  # fmt: skip
    if last is None or seen.revision in (None, last.schema["revision"]):
        return []
    return [f"the schema is at {_shown(seen.revision)}, while release {last.number} left it at "
            f"{last.schema['revision']}: it was changed by something else"]  # fmt: skip


def _by_revision(
    target: Record, records: Sequence[Record], now: str, migrations: Mapping[str, Entry]
) -> Failure | None:
    """Follow the migrations that led from the schema of then to that of now."""
    wanted = str(target.schema.get("revision") or "")
    entries = {**migrations, **_recorded(target, records)}
    found = compatibility(wanted, now, entries)
    if found.compatible:
        return None
    if found.forbidding:
        return _destructive(target, found.forbidding, entries[found.forbidding], now)
    if compatibility(now, wanted, entries).between:
        return Failure(
            "schema_older", f"Release {target.number}", f"needs a schema of revision {wanted}, and it is at "
            f"{_shown(now)}, which is older", "it was restored, or taken back by hand",
            "release that version's files again, which migrates the database",
        )  # fmt: skip
    return Failure(
        "schema_unknown", f"Release {target.number}", _cause(target), f"it is at {_shown(now)}, and no recorded "
        f"migration leads there from {_shown(wanted)}: somebody has migrated by hand", f"{_DECLARE}; else mend the "
        "release and go forward",
    )  # fmt: skip


def _recorded(target: Record, records: Sequence[Record]) -> dict[str, Entry]:
    """What releases say of the migrations that they had, in the form of the migrations' own record."""
    entries: dict[str, Entry] = {}
    before = None
    ordered = {item.number: item for item in (*records, target)}
    for number, item in sorted(ordered.items()):
        schema = item.schema
        after, start = schema.get("revision"), schema.get("revision_before", before)
        if after is not None and start is not None and start != after:
            entries[f"release {number}"] = {
                "outcome": "succeeded", "finished": item.finished or item.started,
                "revision": {"before": start, "after": after}, "destructive": schema.get("destructive"),
                "expand_only": schema.get("expand_only"), "restore_point": schema.get("restore_point"),
            }  # fmt: skip
        before = after if after is not None else before
    return entries


def _by_order(target: Record, records: Sequence[Record]) -> Failure | None:
    """Where revisions are not known: no release since may have had a migration that takes something away."""
    before = target.schema.get("revision")
    for item in sorted(records, key=lambda record: record.number):
        if item.number <= target.number or not _migrated(item, before):
            continue
        schema = item.schema
        # An empty list says that it was looked at and that nothing is taken away; None that nobody could tell.
        if schema.get("destructive") != [] and not schema.get("expand_only"):
            return _destructive(target, f"release {item.number}", schema, schema.get("revision"))
        before = schema.get("revision")
    return None


def _migrated(item: Record, before: str | None) -> bool:
    revision = item.schema.get("revision")
    if revision and revision == before:
        return False
    # A run that was killed after its migration leaves the next one nothing to do but to find the new revision.
    return bool(revision and before) or item.schema.get("action") not in (None, "", "unchanged")


def _tells(record: Record) -> bool:
    return bool(record.schema.get("revision")) or _migrated(record, None)


def _destructive(target: Record, name: str, found: Mapping[str, Any], revision: str | None) -> Failure:
    """The refusal because of one migration.

    :param name: ``release 3``, or the name of a Job.
    :param found: what is recorded of it.
    """
    after = found.get("revision")
    after = after.get("after") if isinstance(after, Mapping) else after
    by = name if name.startswith("release ") else f"migration {name}"
    schema = f"revision {after}" if after else "a revision that is not known"
    statements = found.get("destructive")
    if statements:
        evidence = f"{by} brought it to {schema} by {'; '.join(map(_words, statements[:3]))}"
    else:
        evidence = f"{by} brought it to {schema}, and whether that only adds is not known"
    if revision and revision != after:
        evidence += f"; it is at {revision} now"
    point = found.get("restore_point")
    source = _words(point) if point else f"a backup from before {by}"
    hint = f"mend the release and go forward, or restore the database from {source} and roll back then"
    return Failure("schema_newer", f"Release {target.number}", _cause(target), evidence, hint)


def _cause(target: Record) -> str:
    was = target.schema.get("revision")
    return "cannot run on the database's schema as it is now" + (f", which was {was} then" if was else "")


def _shown(revision: str | None) -> str:
    return f"revision {revision}" if revision else "no revision"


def _words(found: Any) -> str:
    """A destructive statement, or a restore point, as the module migration returns it or in words."""
    if not isinstance(found, Mapping):
        return str(found)
    if "why" in found:
        return f"{found.get('statement') or 'a statement'}, which {found['why']}"
    name = found.get("file") or found.get("job") or ""
    return f"the {found.get('type', 'restore point')} {name} of {found.get('taken', 'then')}"
