# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each migration: a ConfigMap with one entry a migration, and what it says about going back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Resource

RECORD = "groundwork-migrations"
"""ConfigMap in the namespace that records the outcome of each migration."""
HISTORY = 50
"""Entries that are kept."""
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)

Entry = dict[str, Any]


class Records:
    """The entries of one namespace. Each is named after its Job.

    An entry has ``outcome`` (``succeeded`` or ``failed``), ``image``, ``command``, ``started``, ``finished``; where the
    database is known ``revision`` with ``before`` and ``after``, ``destructive`` (statements, or None where nobody
    looked), ``expand_only``, ``restore_point``; and ``why`` of a failure.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def all(self) -> dict[str, Entry]:
        """All entries by their Job's name; what cannot be read is left out."""
        record = self._cluster.get(CONFIG_MAPS, RECORD, self._namespace)
        entries: dict[str, Entry] = {}
        for name, text in ((record or {}).get("data") or {}).items():
            try:
                entry = json.loads(text)
            except ValueError:
                continue
            if isinstance(entry, dict):
                entries[name] = entry
        return entries

    def write(self, name: str, entry: Entry) -> None:
        """Write one entry; the oldest make room."""
        entries = {**self.all(), name: entry}
        oldest = sorted(entries, key=lambda key: str(entries[key].get("finished") or ""))
        surplus = oldest[: max(len(entries) - HISTORY, 0)]
        data: dict[str, str | None] = {**dict.fromkeys(surplus), name: json.dumps(entry)}
        try:
            self._cluster.merge(CONFIG_MAPS, RECORD, self._namespace, {"data": data})
        except ApiError as error:
            if error.status != 404:
                raise
            metadata = {
                "name": RECORD,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": "groundwork.platform"},
            }
            created = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {name: data[name]}}
            self._cluster.create(CONFIG_MAPS, created)


@dataclasses.dataclass(frozen=True)
class Compatibility:
    """Whether an older image can run on the schema that is there.

    :param reason: why not, or why, as a sentence without a full stop.
    :param between: Jobs of the migrations between the two revisions, the first one first.
    :param forbidding: the one of them that forbids it; empty where none does, or where nobody recorded what happened.
    """

    compatible: bool
    reason: str
    between: tuple[str, ...] = ()
    forbidding: str = ""


def compatibility(recorded: str | None, live: str | None, records: Mapping[str, Entry]) -> Compatibility:
    """Whether the image that was released with one revision can run on another.

    It can where the revisions are equal, and where every migration between them only added to the schema: declared so
    (``expand_only``), or found to hold no destructive statement. Everything else forbids it, most of all what nobody
    has recorded.

    :param recorded: the revision of the release to go back to; None or empty: it had none, or nobody read it.
    :param live: the revision that the database has now.
    :param records: as :meth:`Records.all` returns them.
    """
    before, now = recorded or "", live or ""
    if before == now:
        return Compatibility(True, f"the schema is at {now} as it was then" if now else "neither has a schema revision")
    path = _path(before, now, records)
    if path is None:
        places = f"at {now or 'none'} and was at {before or 'none'} then"
        reason = f"the schema is {places}, and no record tells what lies between"
        return Compatibility(False, reason)
    for name in path:
        entry = records[name]
        step = f"{_revision(entry, 'before') or 'none'} to {_revision(entry, 'after')}"
        if entry.get("expand_only"):
            continue
        found = entry.get("destructive")
        if found is None:
            return Compatibility(False, f"nobody knows what migration {name} ({step}) changed", path, name)
        if found:
            why = str(found[0].get("why") or "is destructive") if isinstance(found[0], Mapping) else str(found[0])
            return Compatibility(False, f"migration {name} ({step}) {why}", path, name)
    return Compatibility(True, "what was migrated since then only added to the schema", path)


def _path(before: str, now: str, records: Mapping[str, Entry]) -> tuple[str, ...] | None:
    """The migrations that led from one revision to another, by what they recorded; None: there is no such chain."""
    steps = [
        (name, _revision(entry, "before"), _revision(entry, "after"))
        for name, entry in sorted(records.items(), key=lambda one: str(one[1].get("finished") or ""), reverse=True)
        if entry.get("outcome") == "succeeded" and _revision(entry, "after") is not None
    ]
    reached: dict[str, tuple[str, ...]] = {before: ()}
    frontier = [before]
    while frontier:
        here = frontier.pop(0)
        for name, start, end in steps:
            if start == here and end is not None and end not in reached:
                reached[end] = (*reached[here], name)
                frontier.append(end)
    return reached.get(now)


def _revision(entry: Entry, which: str) -> str | None:
    revision = entry.get("revision")
    value = revision.get(which) if isinstance(revision, Mapping) else None
    return None if value is None else str(value)
