# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an older release can run on the database's schema as it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record


def refusal(target: Record, records: Sequence[Record]) -> Failure | None:
    """Why the schema forbids to return to a release, or None if it does not.

    The older images met the schema of their own release. What was migrated since must have left that schema intact:
    migrations that were found to be destructive, or of which that could not be told, forbid it, unless they were
    declared to only add to it.

    :param records: of the system, newest first; those after the target say what was migrated since.
    """
    wanted = target.schema.get("revision")
    now = next((item.schema.get("revision") for item in records if _tells(item)), None)
    if now is not None and now == wanted:
        return None
    before = wanted
    for item in sorted(records, key=lambda record: record.number):
        if item.number <= target.number or not _migrated(item):
            continue
        revision, destructive = item.schema.get("revision"), item.schema.get("destructive")
        # An empty list says that it was looked at and that nothing is taken away; None that nobody could tell.
        moved = not (revision and revision == before)
        if destructive != [] and moved and not item.schema.get("expand_only"):
            return _refused(target, item, revision, destructive)
        before = revision
    return None


def _migrated(record: Record) -> bool:
    return record.schema.get("action") not in (None, "", "unchanged")


def _tells(record: Record) -> bool:
    """Whether a release says which revision the schema has, if only that nobody knows."""
    return bool(record.schema.get("revision")) or _migrated(record)


def _words(found: Any) -> str:
    """A destructive statement, or a restore point, as the module migration returns it or in words."""
    if not isinstance(found, Mapping):
        return str(found)
    if "why" in found:
        return f"{found.get('statement') or 'a statement'}, which {found['why']}"
    name = found.get("file") or found.get("job") or ""
    return f"the {found.get('type', 'restore point')} {name} of {found.get('taken', 'then')}"


def _refused(target: Record, item: Record, revision: str | None, destructive: list[Any] | None) -> Failure:
    schema = f"revision {revision}" if revision else "a revision that is not known"
    if destructive:
        evidence = f"release {item.number} brought it to {schema} by {'; '.join(map(_words, destructive[:3]))}"
    else:
        evidence = f"release {item.number} brought it to {schema}, and whether that only adds is not known"
    point = item.schema.get("restore_point")
    source = _words(point) if point else f"a backup from before release {item.number}"
    back = f"restore the database from {source} and roll back then"
    was = target.schema.get("revision")
    return Failure(
        "schema_newer", f"Release {target.number}", "cannot run on the database's schema as it is now"
        + (f", which was {was} then" if was else ""),
        evidence, f"mend the release and go forward, or {back}",
    )  # fmt: skip
