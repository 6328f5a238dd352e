# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an older release can run on the database's schema as it is now."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record


def refusal(target: Record, records: Sequence[Record]) -> Failure | None:
    """Why the schema forbids to return to a release, or None if it does not.

    The older images met the schema of their own release. What was migrated since must have left that schema intact:
    migrations that were found to be destructive, or of which that could not be told, forbid it.

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
        if destructive != [] and not (revision and revision == before):
            return _refused(target, item, revision, destructive)
        before = revision
    return None


def _migrated(record: Record) -> bool:
    return record.schema.get("action") not in (None, "", "unchanged")


def _tells(record: Record) -> bool:
    """Whether a release says which revision the schema has, if only that nobody knows."""
    return bool(record.schema.get("revision")) or _migrated(record)


def _refused(target: Record, item: Record, revision: str | None, destructive: list[str] | None) -> Failure:
    schema = f"revision {revision}" if revision else "a revision that is not known"
    if destructive:
        evidence = f"release {item.number} brought it to {schema} by {'; '.join(destructive[:3])}"
    else:
        evidence = f"release {item.number} brought it to {schema}, and whether that only adds is not known"
    point = item.schema.get("restore_point")
    back = f"restore the database from {point} and roll back then" if point else "restore the database from a backup "\
        f"from before release {item.number} and roll back then"  # fmt: skip
    was = target.schema.get("revision")
    return Failure(
        "schema_newer", f"Release {target.number}", "cannot run on the database's schema as it is now"
        + (f", which was {was} then" if was else ""),
        evidence, f"mend the release and go forward, or {back}",
    )  # fmt: skip
