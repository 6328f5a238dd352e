# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each tool that migrates: where it keeps its revision, how it prints SQL, where it is going."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import ddl, scripts

TOOLS = ("alembic", "django", "sql", "command")
_TABLES = {"alembic": "alembic_version", "django": "django_migrations", "sql": "groundwork_schema_history"}
_REVISIONS = {
    "alembic": "SELECT coalesce(string_agg(version_num, ',' ORDER BY version_num), '') FROM %I.%I",
    # What was applied last of each application; its own order of applying, since names need not sort.
    "django": "SELECT coalesce(string_agg(app || '.' || name, ',' ORDER BY app), '') FROM "
    "(SELECT DISTINCT ON (app) app, name FROM %I.%I ORDER BY app, id DESC) latest",
    "sql": "SELECT coalesce((SELECT version FROM %I.%I WHERE success "
    "ORDER BY string_to_array(version, '.')::numeric[] DESC LIMIT 1), '')",
}
_UNRENDERED = re.compile(
    r"THIS OPERATION CANNOT BE WRITTEN AS SQL|OPERATION THAT CANNOT BE WRITTEN AS SQL", re.IGNORECASE
)
_ERROR = re.compile(r"^((?:\w+\.)*\w*(?:Error|Exception|Warning))\b")
_STEP = re.compile(r"^-- Running upgrade (?:(?P<from>.*?) -> )?(?P<to>\S+)\s*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Tool:
    """A tool and how it is called.

    :param kind: one of TOOLS.
    :param command: what migrates.
    :param table: of its revisions, with its schema if need be; empty: the tool's own.
    :param query: SQL that gives the revision, in place of what is known of the tool.
    :param render: command in the image that prints the SQL to come, in place of what is known of the tool.
    :param path: folder of the SQL files in the image.
    """

    kind: str
    command: tuple[str, ...] = ()
    table: str = ""
    query: str = ""
    render: tuple[str, ...] = ()
    path: str = ""

    @property
    def revision_query(self) -> str:
        """SQL that gives the text of the query that gives the revision, or no row where there is no such table yet."""
        if self.query:
            return f"SELECT {_literal(self.query)}"
        if self.kind not in _TABLES:
            return "SELECT '' WHERE false"
        schema, _dot, table = (self.table or _TABLES[self.kind]).rpartition(".")
        within = f" AND n.nspname = {_literal(schema)}" if schema else ""
        made = f"format({_literal(_REVISIONS[self.kind])}, n.nspname, c.relname)"
        where = f"c.relkind IN ('r', 'p') AND c.relname = {_literal(table)} AND n.nspname !~ '^pg_'{within}"
        order = "pg_table_is_visible(c.oid) DESC, n.nspname = 'public' DESC, n.nspname"
        joined = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        return f"SELECT {made} FROM {joined} WHERE {where} ORDER BY {order} LIMIT 1"  # noqa: S608 - quoted

    @property
    def tells_revision(self) -> bool:
        """Whether the schema's revision can be read."""
        return bool(self.query) or self.kind in _TABLES

    def revision(self, ask: Callable[[str], str]) -> str:
        """The schema's revision; empty where there is none yet.

        :param ask: the database, a query of one row and column at a time.
        """
        query = ask(self.revision_query)
        return ask(query) if query else ""

    @property
    def bookkeeping(self) -> tuple[str, ...]:
        """Tables that are the tool's own."""
        return tuple(one for one in (self.table, _TABLES.get(self.kind, "")) if one)

    @property
    def sql_table(self) -> str:
        """Table of the SQL files' versions."""
        return self.table or _TABLES["sql"]

    @property
    def plan_script(self) -> str:
        """Script that writes the plan down in the application's image; empty: there is none."""
        if self.render:
            return scripts.plan_command(self.render)
        if self.kind == "alembic" and "upgrade" in self.command:
            return scripts.plan_alembic(self.command)
        if self.kind == "django" and "migrate" in self.command:
            return scripts.plan_django(self.command)
        return scripts.copy_files(self.path) if self.kind == "sql" and self.path else ""


def guess(command: Sequence[str]) -> str:
    """The tool of a command, by its name."""
    names = [PurePosixPath(word).name for word in command[:4]]
    if "alembic" in names:
        return "alembic"
    if "migrate" in command and any(name in ("manage.py", "django-admin", "django") for name in names):
        return "django"
    return "command"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a migration is about to do, as far as it can be seen.

    :param before: the schema's revision; empty where there is none.
    :param expected: the revision afterwards; None: nobody knows.
    :param heads: of Alembic's history in the image.
    :param steps: the revisions that are going to be applied.
    """

    before: str
    expected: str | None
    heads: tuple[str, ...]
    steps: tuple[str, ...]
    sql: str | None
    analysis: ddl.Analysis

    @property
    def idle(self) -> bool:
        """Whether there is certainly nothing to do."""
        return self.sql is not None and self.analysis.statements == 0 and not self.analysis.findings


def read_plan(tool: Tool, before: str, files: Mapping[str, str | None], types: ddl.Types | None = None) -> Plan:
    """The plan from what the plan's script wrote.

    :param files: ``heads``, ``heads.code``, ``heads.error``, ``plan.sql``, ``plan.code`` and ``plan.error``.
    :param types: of columns; see :func:`ddl.analyse`.
    :raises Failure: ``several_heads``, ``schema_newer`` or ``bad_history``.
    """
    heads = _heads(tool, files)
    if files.get("plan.code") is None:
        why = (
            "cannot be rendered: what it runs is not known to print SQL" if not tool.plan_script else "was not rendered"
        )
        return Plan(before, None, heads, (), None, ddl.unknown(why))
    code = (files["plan.code"] or "").strip()
    if code != "0":
        error = f"{files.get('plan.sql') or ''}\n{files.get('plan.error') or ''}"
        if "Can't locate revision" in error:
            cause = f"meets a schema of revision {before}, which its image does not know"
            raise Failure("schema_newer", "The migration", cause, hint="release an image that knows it")
        several = code == "several"
        reason = f"the schema has several revisions ({before})" if several else _error_kind(error, code)
        why = f"cannot be rendered offline: {reason}"
        return Plan(before, _target(tool, heads), heads, (), None, ddl.unknown(why))
    sql = files.get("plan.sql") or ""
    analysis = ddl.analyse(sql, types, tool.bookkeeping)
    for found in _UNRENDERED.finditer(sql):
        line = sql.count("\n", 0, found.start()) + 1
        analysis.findings.append(ddl.Finding(ddl.UNKNOWN, "", "is a program, of which there is no SQL", line))
        analysis.statements += 1
    steps = tuple(found["to"].rstrip(",") for found in _STEP.finditer(sql))
    return Plan(before, _target(tool, heads, before, steps), heads, steps, sql, analysis)


def _heads(tool: Tool, files: Mapping[str, str | None]) -> tuple[str, ...]:
    text, error = files.get("heads") or "", files.get("heads.error") or ""
    if tool.kind == "django" and "onflicting migrations" in error:
        raise Failure("several_heads", "Django's history in the image", "has several ends",
                      hint="merge them: manage.py makemigrations --merge")  # fmt: skip
    if tool.kind != "alembic" or (files.get("heads.code") or "").strip() != "0":
        return ()
    heads = tuple(
        line.split()[0] for line in text.splitlines() if line.rstrip().endswith(("(head)", "(effective head)"))
    )
    if len(heads) > 1 and "heads" not in tool.command:
        raise Failure("several_heads", "Alembic's history in the image", f"has {len(heads)} heads", ", ".join(heads),
                      "merge them: alembic merge heads; or upgrade to heads if they are meant")  # fmt: skip
    return heads


def _target(tool: Tool, heads: tuple[str, ...], before: str = "", steps: tuple[str, ...] = ()) -> str | None:
    """The revision that the schema is to have afterwards, where that is sure."""
    if tool.query:
        return None
    if tool.kind == "alembic":
        if heads and {"head", "heads"} & set(tool.command):
            return ",".join(sorted(heads))
        return steps[-1] if steps else (before or None)
    if tool.kind == "sql":
        return steps[-1] if steps else before
    if tool.kind == "django":
        latest = dict(one.split(".", 1) for one in before.split(",") if one)
        latest.update(dict(one.split(".", 1) for one in steps if "." in one))
        return ",".join(f"{app}.{name}" for app, name in sorted(latest.items()))
    return None


def _error_kind(text: str, code: str) -> str:
    """What kind of error a tool has ended with. Not what it says: that may hold anything that it met."""
    for line in reversed(text.splitlines()):
        found = _ERROR.match(line)
        if found:
            return found[1].rpartition(".")[2] + ", see the log of the container groundwork-plan"
    return f"exit code {code}, see the log of the container groundwork-plan"


def _literal(text: str) -> str:
    """As SQL; standard_conforming_strings is on since PostgreSQL 9.1."""
    return "'" + text.replace("'", "''") + "'"
