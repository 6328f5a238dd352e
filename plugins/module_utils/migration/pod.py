# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The migration's pod: what is put around the container that migrates, so that it migrates alone and seen through.

One pod does it all, in this order: a native sidecar takes the advisory lock and keeps it until the migration has
ended; an init container of the application's image writes the plan down; another waits for leave to go on.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import amounts, scripts
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import Database
from ansible_collections.groundwork.platform.plugins.module_utils.migration.tools import Tool

LOCK, PLAN, GATE = "groundwork-lock", "groundwork-plan", "groundwork-gate"
"""Names of the containers."""
VOLUME = "groundwork"
FILES = "groundwork-sql"
KEY = int.from_bytes(b"groundwk", "big")
"""Key of the advisory lock; locks are each database's own."""
SIDECARS_SINCE = (1, 29)
USER = 65532
"""User of the containers that are added, where the pod says nothing: psql needs none in particular."""
_SPARE = 60

Manifest = dict[str, Any]

_TAKE = """
SELECT CASE WHEN pg_try_advisory_lock(%(key)d) THEN 'held' ELSE coalesce((
SELECT json_build_object('pid', l.pid, 'application', a.application_name, 'user', a.usename, 'address', a.client_addr,
 'since', to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))::text
 FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %(high)d AND l.objid = %(low)d AND l.objsubid = 1
 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1), '{}') END
"""


@dataclasses.dataclass(frozen=True)
class Lock:
    """How the lock is taken.

    :param key: of the advisory lock, a bigint.
    :param timeout: seconds to wait for another holder.
    :param connect_timeout: seconds to wait for a server that does not answer.
    """

    key: int = KEY
    timeout: int = 300
    connect_timeout: int = 60

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Lock:
        """From the module's parameters; what is not given has its default."""
        return cls(**{key: value for key, value in params.items() if value is not None})

    @property
    def query(self) -> str:
        """SQL that takes the lock without waiting: ``held``, or who has it, as JSON.

        Never pg_advisory_lock(): a statement that waits holds a snapshot, and CREATE INDEX CONCURRENTLY waits for
        that, so the two wait for each other. The lock is the session's, so that each statement commits by itself.
        """
        numbers = {"key": self.key, "high": self.key >> 32 & 0xFFFFFFFF, "low": self.key & 0xFFFFFFFF}
        return " ".join(_TAKE.split()) % numbers


def holder(text: str) -> str:
    """Who has the lock, in words, from what :attr:`Lock.query` said."""
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    if not isinstance(found, dict) or not found.get("pid"):
        return "a session that was gone when it was looked for"
    words = [f"pid {found['pid']}"]
    words += [f"{key} {found[key]}" for key in ("application", "user", "address") if found.get(key)]
    return ", ".join(words) + (f", connected since {found['since']} UTC" if found.get("since") else "")


def check_sidecars(cluster: Cluster) -> None:
    """Refuse a cluster that would start the lock's sidecar as an ordinary init container, and wait for its end.

    :raises Failure: ``kubernetes_too_old``.
    """
    version = cluster.version()
    numbers = [int("".join(sign for sign in version.get(key, "") if sign.isdigit()) or 0) for key in ("major", "minor")]
    if tuple(numbers) < SIDECARS_SINCE:
        raise Failure(
            "kubernetes_too_old",
            "The migration",
            "cannot hold a database lock here: native sidecars came with Kubernetes 1.29",
            f"this cluster is {version.get('gitVersion')}",
            "upgrade the cluster, or migrate without database",
        )


def guarded(job: Object, database: Database, image: str, tool: Tool, lock: Lock, files: str = "") -> Object:
    """A Job with everything around its migrating container.

    :param image: with psql.
    :param files: ConfigMap with the SQL files, for the tool ``sql``.
    """
    made = copy.deepcopy(job)
    pod = made["spec"]["template"]["spec"]
    main = pod["containers"][0]
    first = [_lock(pod, database, image, tool, lock, files)]
    if tool.plan_script:
        first.append(_plan(main, database, tool))
    first.append(_gate(pod, image))
    pod["initContainers"] = [*first, *(pod.get("initContainers") or [])]
    volumes: list[Manifest] = [{"name": VOLUME, "emptyDir": {"sizeLimit": "256Mi"}}, *database.volumes()]
    if files:
        volumes.append({"name": FILES, "configMap": {"name": files, "defaultMode": 0o444}})
    pod["volumes"] = [*(pod.get("volumes") or []), *volumes]
    if tool.kind == "sql":
        pod["containers"][0] = _sql(pod, main, database, image, tool, files)
    return made


def with_timeouts(job: Object, lock_timeout: float | None, statement_timeout: float | None) -> Object:
    """The Job with timeouts that libpq hands to every session, whatever tool opens it.

    :param lock_timeout: seconds that a statement may wait for a lock; None: as the Job says.
    :param statement_timeout: seconds that a statement may run; None: as the Job says.
    """
    settings = {"lock_timeout": lock_timeout, "statement_timeout": statement_timeout}
    words = [f"-c {name}={int(value * 1000)}ms" for name, value in settings.items() if value is not None]
    if not words:
        return job
    made = copy.deepcopy(job)
    main = made["spec"]["template"]["spec"]["containers"][0]
    environment = list(main.get("env") or [])
    own: Manifest = next((one for one in environment if one.get("name") == "PGOPTIONS"), {})
    # What comes later wins, and that is what the module was told.
    value = " ".join([*([str(own["value"])] if own.get("value") else []), *words])
    main["env"] = [*(one for one in environment if one is not own), {"name": "PGOPTIONS", "value": value}]
    return made


def psql_container(pod: Mapping[str, Any], name: str, image: str, script: str, arguments: list[str]) -> Manifest:
    """A container that runs one of the scripts, as restricted as can be."""
    context: Manifest = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if "runAsUser" not in (pod.get("securityContext") or {}):
        context["runAsUser"] = USER
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script, name, *arguments],
        "env": [
            {"name": "GROUNDWORK_FOLDER", "value": scripts.FOLDER},
            {"name": "GROUNDWORK_LAST_WORDS", "value": "/dev/termination-log"},
        ],
        "resources": copy.deepcopy(amounts.PSQL),
        "securityContext": context,
        "volumeMounts": [{"name": VOLUME, "mountPath": scripts.FOLDER}],
    }


def _lock(pod: Manifest, database: Database, image: str, tool: Tool, lock: Lock, files: str) -> Manifest:
    made = psql_container(pod, LOCK, image, scripts.LOCK, [])
    made["restartPolicy"] = "Always"
    made["env"] += [
        *database.environment(),
        {"name": "PGOPTIONS", "value": "-c statement_timeout=30s"},
        {"name": "PGAPPNAME", "value": scripts.APPLICATION},
        {"name": "GROUNDWORK_LOCK", "value": lock.query},
        {"name": "GROUNDWORK_LOCK_TIMEOUT", "value": str(lock.timeout)},
        {"name": "GROUNDWORK_CONNECT_TIMEOUT", "value": str(lock.connect_timeout)},
        {"name": "GROUNDWORK_REVISION", "value": tool.revision_query},
    ]
    made["volumeMounts"] += database.mounts()
    if tool.kind == "sql":
        _give_files(made, tool, files)
        made["env"].append({"name": "GROUNDWORK_SCRIPT", "value": scripts.SQL})
    # Started when the question is decided, for or against: the gate after it reads which.
    made["startupProbe"] = {
        "exec": {"command": ["test", "-e", f"{scripts.FOLDER}/answered"]},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
        "failureThreshold": lock.timeout + lock.connect_timeout + _SPARE,
    }
    return made


def _plan(main: Manifest, database: Database, tool: Tool) -> Manifest:
    """The application's own container, told to write the plan down instead of carrying it out."""
    made = copy.deepcopy(main)
    for key in ("args", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "ports"):
        made.pop(key, None)
    made["name"] = PLAN
    made["command"] = ["sh", "-c", tool.plan_script]
    kept = [one for one in made.get("env") or [] if one.get("name") != "PGOPTIONS"]
    made["env"] = [
        *kept,
        {"name": "GROUNDWORK_FOLDER", "value": scripts.FOLDER},
        # Whatever prints SQL has no business changing anything.
        {"name": "PGOPTIONS", "value": "-c default_transaction_read_only=on -c statement_timeout=60s"},
    ]
    made["volumeMounts"] = [*(made.get("volumeMounts") or []), {"name": VOLUME, "mountPath": scripts.FOLDER}]
    return made


def _gate(pod: Manifest, image: str) -> Manifest:
    return psql_container(pod, GATE, image, scripts.GATE, [])


def _sql(pod: Manifest, main: Manifest, database: Database, image: str, tool: Tool, files: str) -> Manifest:
    """psql in place of the application: the image with the files may have none."""
    made = psql_container(pod, str(main.get("name") or "migrate"), image, scripts.SQL, ["run"])
    options = [one for one in main.get("env") or [] if one.get("name") == "PGOPTIONS"]
    made["env"] += [*database.environment(), *options, {"name": "PGAPPNAME", "value": "groundwork-migration"}]
    made["volumeMounts"] += database.mounts()
    _give_files(made, tool, files)
    if main.get("resources"):
        made["resources"] = main["resources"]
    return made


def _give_files(container: Manifest, tool: Tool, files: str) -> None:
    """The SQL files: those of a ConfigMap, or those that the plan's container copies out of its image."""
    folder = f"/{FILES}" if files else f"{scripts.FOLDER}/sql"
    if files:
        container["volumeMounts"].append({"name": FILES, "mountPath": folder, "readOnly": True})
    container["env"] += [
        {"name": "GROUNDWORK_SQL", "value": folder},
        {"name": "GROUNDWORK_TABLE", "value": tool.sql_table},
    ]
