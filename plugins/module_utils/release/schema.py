# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the database of a system for its schema's revision, where a release has recorded how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import Unreachable
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import Database, primary_console
from ansible_collections.groundwork.platform.plugins.module_utils.migration.tools import Tool
from ansible_collections.groundwork.platform.plugins.module_utils.release.compatibility import Seen
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import Record

ATTEMPTS = 4
"""How often the database is asked, 2 s apart: its primary may just be changing."""


def look(cluster: Cluster, namespace: str, records: Sequence[Record]) -> Seen:
    """The schema as it is now.

    :param records: of the system, newest first; the newest that had a migration says where to ask.
    """
    where = next((item.schema["database"] for item in records if item.schema.get("database")), None)
    if where is None:
        return Seen()
    if not where.get("cluster"):
        return Seen(unread=f"CloudNativePG does not run the database on {where.get('host') or 'its server'}")
    tool = Tool(where.get("tool") or "command", (), where.get("version_table") or "", where.get("revision_query") or "")
    if not tool.tells_revision:
        return Seen()
    for attempt in range(ATTEMPTS):
        try:
            return Seen(_ask(cluster, namespace, where, tool))
        except Unreachable:
            raise
        except Failure as failure:
            stays = failure.code in ("forbidden", "unauthorised", "no_database") or any(
                text in failure.cause for text in ("status 403", "is not installed")
            )
            if stays or attempt == ATTEMPTS - 1:
                return Seen(unread=_why(failure))
            cluster.clock.sleep(2.0)
    return Seen()


def _ask(cluster: Cluster, namespace: str, where: Mapping[str, Any], tool: Tool) -> str:
    database = Database(cluster=str(where["cluster"]), name=str(where.get("name") or ""))
    return tool.revision(primary_console(cluster, namespace, database).value)


def _why(failure: Failure) -> str:
    return f"{failure.object} {failure.cause}" + (f" ({failure.evidence})" if failure.evidence else "")
