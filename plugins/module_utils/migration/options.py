# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the module migration, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import tools
from ansible_collections.groundwork.platform.plugins.module_utils.migration.advisor import POLICIES, Settings
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import Database
from ansible_collections.groundwork.platform.plugins.module_utils.migration.pod import Lock
from ansible_collections.groundwork.platform.plugins.module_utils.migration.preflight import CHECKS, Limits

_CHECKS = {"type": "list", "elements": "str", "choices": list(CHECKS)}
ARGUMENTS: dict[str, Any] = {
    "definition": {"type": "dict", "required": True},
    "namespace": {"type": "str"},
    "timeout": {"type": "float", "default": 600},
    "database": {
        "type": "dict",
        "options": {
            "cluster": {"type": "str"},
            "host": {"type": "str"},
            "port": {"type": "int", "default": 5432},
            "name": {"type": "str"},
            # Names of Secrets and their keys; what is in them is never read here.
            "secret": {"type": "str", "no_log": False},
            "username_key": {"type": "str", "default": "username", "no_log": False},
            "password_key": {"type": "str", "default": "password", "no_log": False},
            "ca_secret": {"type": "str", "no_log": False},
            "sslmode": {
                "type": "str",
                "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
            },
            "image": {"type": "str"},
        },
    },
    "tool": {"type": "str", "choices": ["auto", *tools.TOOLS], "default": "auto"},
    "sql": {"type": "dict", "options": {"path": {"type": "str"}, "config_map": {"type": "str"}}},
    "version_table": {"type": "str"},
    "revision_query": {"type": "str"},
    "render": {"type": "list", "elements": "str", "default": []},
    "lock_timeout": {"type": "float"},
    "statement_timeout": {"type": "float"},
    "lock": {
        "type": "dict",
        "options": {
            "key": {"type": "int", "no_log": False},
            "timeout": {"type": "int"},
            "connect_timeout": {"type": "int"},
        },
    },
    "preflight": {
        "type": "dict",
        "options": {
            "long_transaction": {"type": "float"},
            "idle_in_transaction": {"type": "float"},
            "replication_lag": {"type": "int"},
            "disk": {"type": "float"},
            "wait": {"type": "float"},
            "warn": _CHECKS,
            "ignore": _CHECKS,
        },
    },
    "destructive": {"type": "str", "choices": list(POLICIES), "default": "refuse"},
    "restore_point": {
        "type": "dict",
        "options": {
            "type": {"type": "str", "required": True},
            "claim": {"type": "str"},
            "size": {"type": "str"},
            "storage_class": {"type": "str"},
            "keep": {"type": "int"},
            "user": {"type": "int"},
            "image": {"type": "str"},
            "command": {"type": "list", "elements": "str"},
            "env": {"type": "dict"},
        },
    },
    "expand_only": {"type": "bool", "default": False},
}


def settings_of(params: Mapping[str, Any]) -> Settings | None:
    """What the options say about the database, or nothing where there is none.

    :raises Failure: ``bad_migration`` and others: what cannot be meant.
    """
    if not params.get("database"):
        for name in ("sql", "lock", "preflight", "restore_point", "revision_query", "render"):
            if params.get(name):
                raise Failure("bad_migration", "The migration", f"has {name} and no database",
                              hint="say which database it migrates")  # fmt: skip
        return None
    sql = params.get("sql") or {}
    limits = dict(params.get("preflight") or {})
    patience = limits.pop("wait", None) or 0.0
    return Settings(
        database=Database.of(params["database"]),
        tool=_tool(params, str(sql.get("path") or "")),
        lock=Lock.of(params.get("lock") or {}),
        limits=Limits.of(limits),
        files=str(sql.get("config_map") or ""),
        policy=params.get("destructive") or "refuse",
        restore_point=params.get("restore_point"),
        patience=float(patience),
    )


def _tool(params: Mapping[str, Any], path: str) -> tools.Tool:
    try:
        container = params["definition"]["spec"]["template"]["spec"]["containers"][0]
        command = tuple(str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])])
    except (KeyError, TypeError, IndexError, AttributeError):
        command = ()
    kind = params.get("tool") or "auto"
    return tools.Tool(
        kind=tools.guess(command) if kind == "auto" else kind,
        command=command,
        table=params.get("version_table") or "",
        query=params.get("revision_query") or "",
        render=tuple(params.get("render") or ()),
        path=path,
    )
