# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what a migration's SQL would do that cannot be taken back, or that the application before it cannot bear.

The SQL is parsed by PostgreSQL's own grammar (the Python package pglast). sqlglot was tried beside it on the same
statements: it does without a compiled library, but passes DO, DETACH PARTITION, ALTER TYPE ... RENAME VALUE, DROP OWNED
and VACUUM FULL on as text that it has not understood.

What is not known to be harmless counts as unknown, and unknown as destructive: statements are let through by name.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.migration import masking

try:
    from pglast import parser  # type: ignore[import-not-found, import-untyped, unused-ignore]
except ImportError:  # pragma: no cover - said in the analysis
    parser = None  # type: ignore[assignment, unused-ignore]

LOSES, BREAKS, UNKNOWN, LOCKS = "loses_data", "breaks_older", "unknown", "locks"
"""Kinds of findings; the first three make a migration destructive."""

Node = Mapping[str, Any]
Types = Mapping[tuple[str, str], str]
"""(table, column) -> type, as format_type() of PostgreSQL says it."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One statement worth naming.

    :param kind: one of LOSES, BREAKS, UNKNOWN and LOCKS.
    :param statement: literals masked.
    :param why: what it does, as the predicate of a sentence.
    :param line: in the rendered SQL, from 1.
    """

    kind: str
    statement: str
    why: str
    line: int

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Analysis:
    """What a migration's SQL would do.

    :param statements: how many there are that change anything.
    :param rewrites: tables that are written anew, and so need their size again on the disk.
    :param retyped: columns whose type changes, whose present type decides whether that loses anything.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    statements: int = 0
    rewrites: list[str] = dataclasses.field(default_factory=list)
    retyped: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def destructive(self) -> list[Finding]:
        """What must not happen unasked."""
        return [one for one in self.findings if one.kind != LOCKS]

    @property
    def warnings(self) -> list[Finding]:
        """What holds others up."""
        return [one for one in self.findings if one.kind == LOCKS]


def unknown(why: str, statement: str = "") -> Analysis:
    """The analysis of SQL that nobody has seen."""
    return Analysis([Finding(UNKNOWN, statement, why, 0)], 1)


def analyse(sql: str, types: Types | None = None, bookkeeping: tuple[str, ...] = ()) -> Analysis:
    """Look at all statements of a migration, in order: what one creates, a later one may drop.

    :param types: of the columns that :attr:`Analysis.retyped` named before, where they could be asked for.
    :param bookkeeping: tables in which the tool keeps its revisions.
    """
    if not _bare(sql):
        return Analysis()
    if parser is None:
        return unknown("cannot be judged, since the Python package pglast is not installed where Ansible runs")
    try:
        parsed = json.loads(parser.parse_sql_json(sql))["stmts"]
    except parser.ParseError as error:
        # The message quotes what it stumbled over, which may be a value; its place is enough.
        index = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0
        line = sql.count("\n", 0, index) + 1
        return Analysis([Finding(UNKNOWN, "", f"cannot be parsed: syntax error in line {line}", line)], 1)
    reader = _Reader(types or {}, {_last(name) for name in bookkeeping})
    data = sql.encode()
    for entry in parsed:
        start = int(entry.get("stmt_location") or 0)
        length = int(entry.get("stmt_len") or 0) or len(data) - start
        text = data[start : start + length].decode()
        ((kind, node),) = entry["stmt"].items()
        reader.read(kind, node, text, data[:start].count(b"\n") + _leading_lines(text) + 1)
    return reader.analysis


def widens(old: str, new: str) -> bool:
    """Whether every value of the old type is one of the new type that an application reads as before."""
    before, after = _Type.of(old), _Type.of(new)
    if before == after:
        return True
    if {before.name, after.name} <= {"varchar", "text"}:
        return after.name == "text" or not after.sizes or bool(before.sizes and before.sizes[0] <= after.sizes[0])
    for chain in (("int2", "int4", "int8"), ("float4", "float8")):
        if before.name in chain and after.name in chain:
            return chain.index(before.name) <= chain.index(after.name)
    if before.name == after.name == "numeric":
        if not after.sizes or not before.sizes:
            return not after.sizes
        whole = [size[0] - (size[1] if len(size) > 1 else 0) for size in (before.sizes, after.sizes)]
        scale = [size[1] if len(size) > 1 else 0 for size in (before.sizes, after.sizes)]
        return whole[0] <= whole[1] and scale[0] <= scale[1]
    if before.name == after.name and before.sizes:
        return not after.sizes or before.sizes <= after.sizes
    return False


def _same_storage(old: str, new: str) -> bool:
    """Whether PostgreSQL takes the wider type without writing the table anew."""
    names = {_Type.of(old).name, _Type.of(new).name}
    return len(names) == 1 or names == {"varchar", "text"}


_TYPE_ALIASES = {
    "character varying": "varchar", "character": "bpchar", "char": "bpchar", "smallint": "int2",
    "integer": "int4", "int": "int4", "bigint": "int8", "real": "float4", "double precision": "float8",
    "decimal": "numeric", "boolean": "bool", "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz", "time without time zone": "time", "time with time zone": "timetz",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Type:
    name: str
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> _Type:
        found = re.search(r"\s*\(([\d,\s]+)\)", text)
        name = " ".join((text.replace(found[0], "") if found else text).lower().split()).removeprefix("pg_catalog.")
        sizes = tuple(int(one) for one in found[1].split(",")) if found else ()
        return cls(_TYPE_ALIASES.get(name, name), sizes)


def _bare(sql: str) -> str:
    """What is left without comments and transactions: nothing, where there is nothing to do."""
    text = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    return re.sub(r"(?i)\b(begin|commit)\s*;", " ", text).strip(" ;\n\t\r")


def _leading_lines(text: str) -> int:
    """Lines of blanks and comments in front of a statement."""
    found = re.match(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*", text, re.DOTALL)
    return found[0].count("\n") if found else 0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What changes nothing that is there, by the name of its node; the rest has a method of _Reader or is unknown.
_HARMLESS = frozenset(
    f"{name}Stmt"
    for name in _words("""
        Transaction VariableShow Explain Listen Unlisten Notify Comment Insert CheckPoint Discard DeclareCursor Fetch
        ClosePortal ConstraintsSet Create CreateSchema CreateEnum CreateRange CreateDomain CompositeType Define
        CreateSeq CreateFunction CreateTrig CreateEventTrig CreateExtension CreatePolicy CreateStats CreateRole
        CreateForeignTable CreateForeignServer CreateFdw CreateUserMapping ImportForeignSchema CreateCast
        CreateConversion CreateTransform CreateAm CreateOpClass CreateOpFamily CreatePublication CreateSubscription
        CreatePLang CreateTableSpace Createdb View AlterExtension AlterExtensionContents AlterDefaultPrivileges
        AlterOwner AlterStats AlterCollation AlterFunction AlterObjectDepends SecLabel Deallocate
    """)
)
_INNOCENT_CALLS = _words("""
    setval nextval currval set_config current_setting count max min sum now version format to_regclass lower upper
    pg_get_serial_sequence pg_advisory_lock pg_advisory_xact_lock pg_try_advisory_lock pg_advisory_unlock
""")
_STABLE_DEFAULTS = frozenset(("now", "transaction_timestamp", "statement_timestamp", "current_setting"))
_DATA = {
    "OBJECT_TABLE": "table", "OBJECT_SCHEMA": "schema", "OBJECT_MATVIEW": "materialized view",
    "OBJECT_SEQUENCE": "sequence", "OBJECT_TYPE": "type", "OBJECT_DOMAIN": "domain", "OBJECT_EXTENSION": "extension",
    "OBJECT_FOREIGN_TABLE": "foreign table", "OBJECT_FOREIGN_SERVER": "foreign server", "OBJECT_FDW": "foreign wrapper",
}  # fmt: skip
_LOSING_COMMANDS = {
    "AT_DropColumn": "drops column {name} with its contents",
    "AT_DropExpression": "makes column {name} an ordinary one",
    "AT_DetachPartition": "takes a partition out of {table}",
    "AT_SetUnLogged": "makes {table} unlogged: a crash would empty it",
    "AT_DropOf": "detaches {table} from its type",
    "AT_DropInherit": "takes {table} out of its parent",
}
_BREAKING_COMMANDS = {
    "AT_DropConstraint": "drops constraint {name}, which kept bad rows out",
    "AT_SetNotNull": "makes column {name} NOT NULL: the older application's rows without it fail",
    "AT_DropIdentity": "takes the generated value of column {name} away: the older application's inserts fail",
    "AT_EnableRowSecurity": "hides rows of {table} by policies from now on",
    "AT_ForceRowSecurity": "hides rows of {table} from its owner too",
    "AT_SetIdentity": "changes how column {name} is generated",
    "AT_ReplicaIdentity": "changes what replication of {table} identifies rows by",
}
_HARMLESS_COMMANDS = frozenset(
    f"AT_{name}"
    for name in _words("""
        DropNotNull SetStatistics SetOptions ResetOptions SetStorage SetCompression AddIndex ValidateConstraint
        AlterConstraint ChangeOwner ClusterOn DropCluster SetRelOptions ResetRelOptions ReplaceRelOptions EnableTrig
        EnableAlwaysTrig EnableReplicaTrig EnableTrigAll EnableTrigUser DisableRowSecurity NoForceRowSecurity
        AttachPartition AddIdentity AddInherit AddOf GenericOptions AlterColumnGenericOptions DetachPartitionFinalize
        CookedColumnDefault AddIndexConstraint EnableRule
    """)
)


class _Reader:
    """Reads statements one after the other and remembers what they have made."""

    def __init__(self, types: Types, bookkeeping: set[str]) -> None:
        self.analysis = Analysis()
        self._types = types
        self._bookkeeping = bookkeeping
        self._made: set[str] = set()
        self._text, self._line = "", 0

    def read(self, kind: str, node: Node, text: str, line: int) -> None:
        """Read one statement."""
        self._text, self._line = text, line
        if kind not in ("TransactionStmt", "VariableSetStmt"):
            self.analysis.statements += 1
        handle: Callable[[Node], None] | None = getattr(self, "_" + kind, None)
        # The body of a function is not run by defining it.
        for nested, inner in _nested(node) if kind != "CreateFunctionStmt" else ():
            self._changes(nested, inner)
        if handle is not None:
            handle(node)
        elif kind not in _HARMLESS:
            self._find(UNKNOWN, "is of a kind that is not judged here")
        self._remember(kind, node)

    # What several kinds share

    def _find(self, kind: str, why: str) -> None:
        self.analysis.findings.append(Finding(kind, masking.statement(self._text), why, self._line))

    def _rewrite(self, table: str) -> None:
        if table not in self.analysis.rewrites:
            self.analysis.rewrites.append(table)

    def _is_new(self, name: str) -> bool:
        return name in self._made

    def _remember(self, kind: str, node: Node) -> None:
        relation = {
            "CreateStmt": node.get("relation"),
            "CreateForeignTableStmt": (node.get("base") or {}).get("relation"),
            "CreateTableAsStmt": (node.get("into") or {}).get("rel"),
            "SelectStmt": (node.get("intoClause") or {}).get("rel"),
            "ViewStmt": node.get("view"),
            "CreateSeqStmt": node.get("sequence"),
            "CompositeTypeStmt": node.get("typevar"),
        }.get(kind)
        # IF NOT EXISTS and OR REPLACE may have met what was there before.
        if relation and not node.get("if_not_exists") and not node.get("replace"):
            self._made.add(_table(relation))
        names = node.get("typeName") if kind in ("CreateEnumStmt", "CreateRangeStmt") else None
        if kind == "CreateDomainStmt":
            names = node.get("domainname")
        if isinstance(names, list):
            self._made.add(_dotted(names))
        if kind == "CreateSchemaStmt" and not node.get("if_not_exists"):
            self._made.add(str(node.get("schemaname")))

    def _changes(self, kind: str, node: Node) -> None:
        """UPDATE, DELETE and MERGE, at the top or inside of another statement."""
        table = _table(node["relation"])
        if self._is_new(table) or _last(table) in self._bookkeeping:
            return
        if kind == "MergeStmt":
            clauses = [_inner(clause) for clause in node.get("mergeWhenClauses") or []]
            if any(clause.get("commandType") == "CMD_DELETE" for clause in clauses):
                self._find(LOSES, f"deletes rows of {table}")
            return
        if not _condition(node.get("whereClause")):
            verb = "deletes all rows of" if kind == "DeleteStmt" else "changes all rows of"
            self._find(LOSES, f"{verb} {table}: it has no WHERE")
            return
        if kind == "DeleteStmt":
            self._find(LOCKS, f"deletes rows of {table}")

    # One method for each kind of statement, named after its node

    def _UpdateStmt(self, node: Node) -> None:
        self._changes("UpdateStmt", node)

    def _DeleteStmt(self, node: Node) -> None:
        self._changes("DeleteStmt", node)

    def _MergeStmt(self, node: Node) -> None:
        self._changes("MergeStmt", node)

    def _SelectStmt(self, node: Node) -> None:
        called = sorted({name for name in _calls(node) if name not in _INNOCENT_CALLS})
        if called:
            self._find(UNKNOWN, f"calls {', '.join(called)}, which may do anything")

    def _CreateTableAsStmt(self, node: Node) -> None:
        self._SelectStmt(node)

    def _DoStmt(self, node: Node) -> None:
        self._find(UNKNOWN, "runs a program, which may do anything")

    def _CallStmt(self, node: Node) -> None:
        self._find(UNKNOWN, "calls a procedure, which may do anything")

    def _CopyStmt(self, node: Node) -> None:
        if node.get("is_program"):
            self._find(UNKNOWN, "runs a program on the server")

    def _VariableSetStmt(self, node: Node) -> None:
        name = str(node.get("name"))
        if name in ("lock_timeout", "statement_timeout"):
            self._find(LOCKS, f"changes {name}, which was set for the whole migration")

    def _TruncateStmt(self, node: Node) -> None:
        tables = [_table(_inner(one)) for one in node["relations"]]
        if any(not self._is_new(table) for table in tables):
            self._find(LOSES, f"empties {', '.join(tables)}")

    def _DropStmt(self, node: Node) -> None:
        kind = str(node["removeType"])
        if kind == "OBJECT_INDEX":
            if not node.get("concurrent"):
                self._find(LOCKS, "drops an index without CONCURRENTLY, which waits for and holds up all of its table")
            return
        names = [_object_name(one) for one in node["objects"]]
        if kind in ("OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"):
            if not all(self._is_new(name.rpartition(".")[0]) for name in names):
                self._find(BREAKS, f"drops {kind.removeprefix('OBJECT_').lower()} {', '.join(names)}")
            return
        if all(self._is_new(name) for name in names):
            return
        dropped = ", ".join(name for name in names if not self._is_new(name))
        if kind in _DATA:
            self._find(LOSES, f"drops {_DATA[kind]} {dropped}")
        else:
            self._find(BREAKS, f"drops {kind.removeprefix('OBJECT_').lower().replace('_', ' ')} {dropped}")

    def _DropOwnedStmt(self, node: Node) -> None:
        self._find(LOSES, "drops everything that a role owns")

    def _ReassignOwnedStmt(self, node: Node) -> None:
        self._find(BREAKS, "gives everything of a role to another")

    def _DropdbStmt(self, node: Node) -> None:
        self._find(LOSES, "drops a database")

    def _DropRoleStmt(self, node: Node) -> None:
        self._find(BREAKS, "drops a role")

    def _DropTableSpaceStmt(self, node: Node) -> None:
        self._find(LOSES, "drops a tablespace")

    def _DropSubscriptionStmt(self, node: Node) -> None:
        self._find(LOSES, "drops a subscription")

    def _RenameStmt(self, node: Node) -> None:
        kind = str(node["renameType"])
        relation = node.get("relation")
        if kind in ("OBJECT_INDEX", "OBJECT_TABCONSTRAINT", "OBJECT_DOMCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY"):
            return
        if relation and self._is_new(_table(relation)):
            return
        what = kind.removeprefix("OBJECT_").lower().replace("_", " ")
        if what in ("column", "attribute"):
            what = f"{what} {node.get('subname')} of {_table(relation or {})}"
        elif relation:
            what = f"{what} {_table(relation)}"
        self._find(BREAKS, f"renames {what}: the older application looks for the old name")

    def _AlterObjectSchemaStmt(self, node: Node) -> None:
        self._find(BREAKS, "moves something to another schema: the older application looks for it in the old one")

    def _AlterEnumStmt(self, node: Node) -> None:
        if node.get("oldVal"):
            self._find(BREAKS, f"renames a value of {_dotted(node['typeName'])}, which the older application knows")

    def _AlterDomainStmt(self, node: Node) -> None:
        # The grammar's letters: T default, N drop not null, O set not null, C add constraint, X drop it, V validate.
        if node.get("subtype") in ("O", "X", "C") or (node.get("subtype") == "T" and not node.get("def")):
            self._find(BREAKS, f"changes what {_dotted(node['typeName'])} accepts")

    def _AlterTypeStmt(self, node: Node) -> None:
        self._find(BREAKS, "changes how a type is stored or read")

    def _AlterSeqStmt(self, node: Node) -> None:
        if any(_inner(one).get("defname") == "restart" for one in node.get("options") or []):
            self._find(BREAKS, f"restarts sequence {_table(node['sequence'])}: numbers may come twice")

    def _AlterPolicyStmt(self, node: Node) -> None:
        self._find(BREAKS, "changes which rows a policy shows")

    def _GrantStmt(self, node: Node) -> None:
        if not node.get("is_grant"):
            self._find(BREAKS, "revokes privileges that the older application may need")

    def _GrantRoleStmt(self, node: Node) -> None:
        if not node.get("is_grant"):
            self._find(BREAKS, "revokes membership of a role")

    def _RuleStmt(self, node: Node) -> None:
        self._find(UNKNOWN, "adds a rule that rewrites statements")

    def _IndexStmt(self, node: Node) -> None:
        table = _table(node["relation"])
        if not self._is_new(table):
            self._rewrite(table)
            if not node.get("concurrent"):
                self._find(LOCKS, f"builds an index on {table} without CONCURRENTLY: nobody writes to it meanwhile")

    def _ReindexStmt(self, node: Node) -> None:
        if not _option(node, "concurrently"):
            self._find(LOCKS, "rebuilds an index without CONCURRENTLY: nobody writes to its table meanwhile")

    def _ClusterStmt(self, node: Node) -> None:
        if node.get("relation"):
            self._rewrite(_table(node["relation"]))
        self._find(LOCKS, "writes a table anew: nobody reads it meanwhile")

    def _VacuumStmt(self, node: Node) -> None:
        if _option(node, "full"):
            for one in node.get("rels") or []:
                self._rewrite(_table(_inner(one)["relation"]))
            self._find(LOCKS, "writes a table anew: nobody reads it meanwhile")

    def _LockStmt(self, node: Node) -> None:
        self._find(LOCKS, "locks a table until the transaction ends")

    def _RefreshMatViewStmt(self, node: Node) -> None:
        if not node.get("concurrent"):
            self._find(LOCKS, "refreshes a materialized view without CONCURRENTLY: nobody reads it meanwhile")

    # ALTER TABLE

    def _AlterTableStmt(self, node: Node) -> None:
        table = _table(node["relation"])
        if self._is_new(table):
            return
        for entry in node["cmds"]:
            command = _inner(entry)
            subtype = str(command["subtype"])
            name = command.get("name") or ""
            if subtype in _LOSING_COMMANDS:
                self._find(LOSES, _LOSING_COMMANDS[subtype].format(name=name, table=table))
            elif subtype in _BREAKING_COMMANDS:
                self._find(BREAKS, _BREAKING_COMMANDS[subtype].format(name=name, table=table))
            elif subtype == "AT_ColumnDefault":
                if not command.get("def"):
                    self._find(BREAKS, f"drops the default of column {name}: the older application's inserts may fail")
            elif subtype == "AT_AlterColumnType":
                self._retype(table, str(name), _inner(command["def"])["typeName"])
            elif subtype == "AT_AddColumn":
                self._add_column(table, _inner(command["def"]))
            elif subtype == "AT_AddConstraint":
                self._add_constraint(table, _inner(command["def"]))
            elif subtype in ("AT_SetTableSpace", "AT_SetLogged", "AT_SetAccessMethod", "AT_SetExpression"):
                self._rewrite(table)
                self._find(LOCKS, f"writes {table} anew: nobody reads it meanwhile")
            elif subtype.startswith(("AT_DisableTrig", "AT_DisableRule")):
                self._find(BREAKS, f"switches triggers or rules of {table} off")
            elif subtype not in _HARMLESS_COMMANDS:
                self._find(UNKNOWN, f"changes {table} in a way that is not judged here")

    def _retype(self, table: str, column: str, node: Node) -> None:
        new = _type_text(node)
        old = self._types.get((table, column))
        self.analysis.retyped.append((table, column))
        if old is None:
            self._rewrite(table)
            self._find(LOSES, f"changes the type of {table}.{column} to {new}, which may not hold what the old one did")
        elif not widens(old, new):
            self._rewrite(table)
            self._find(LOSES, f"narrows {table}.{column} from {old} to {new}")
        elif _Type.of(old).name != _Type.of(new).name and {_Type.of(old).name, _Type.of(new).name} != {
            "varchar",
            "text",
        }:
            self._rewrite(table)
            self._find(LOCKS, f"writes {table} anew for {column} from {old} to {new}: nobody reads it meanwhile")

    def _add_column(self, table: str, column: Node) -> None:
        constraints = [_inner(one) for one in column.get("constraints") or []]
        kinds = {str(one["contype"]) for one in constraints}
        name = column.get("colname")
        filled = kinds & {"CONSTR_DEFAULT", "CONSTR_IDENTITY", "CONSTR_GENERATED"} or _serial(column)
        if kinds & {"CONSTR_NOTNULL", "CONSTR_PRIMARY"} and not filled:
            self._find(BREAKS, f"adds column {name} to {table} as NOT NULL without a default: the older application's "
                               "inserts fail, and so does this where there are rows")  # fmt: skip
        defaults = [one for one in constraints if one["contype"] == "CONSTR_DEFAULT"]
        volatile = any(call not in _STABLE_DEFAULTS for one in defaults for call in _calls(one))
        if volatile or kinds & {"CONSTR_IDENTITY", "CONSTR_GENERATED"} or _serial(column):
            self._rewrite(table)
            self._find(LOCKS, f"fills column {name} in every row of {table}: nobody reads it meanwhile")
        for one in constraints:
            if one["contype"] in ("CONSTR_FOREIGN", "CONSTR_UNIQUE", "CONSTR_CHECK", "CONSTR_PRIMARY"):
                self._add_constraint(table, one)

    def _add_constraint(self, table: str, constraint: Node) -> None:
        kind = str(constraint["contype"])
        checked = not constraint.get("skip_validation")
        if kind == "CONSTR_FOREIGN" and checked:
            self._find(LOCKS, f"adds a foreign key to {table} without NOT VALID: both tables take no writes meanwhile")
        elif kind == "CONSTR_CHECK" and checked:
            self._find(LOCKS, f"adds a check to {table} without NOT VALID: it is read through with all others held up")
        elif kind in ("CONSTR_UNIQUE", "CONSTR_PRIMARY", "CONSTR_EXCLUSION") and not constraint.get("indexname"):
            self._rewrite(table)
            self._find(LOCKS, f"builds an index for a constraint of {table}: nobody uses it meanwhile")
        elif kind == "CONSTR_NOTNULL":
            self._find(BREAKS, f"makes a column of {table} NOT NULL: the older application's rows without it fail")


# Reading the tree


def _inner(node: Node) -> Node:
    """The node inside of its wrapper, which says its type."""
    ((_kind, inner),) = node.items()
    return dict(inner)


def _nested(node: Any) -> Iterator[tuple[str, Node]]:
    """Statements that change rows inside of another one, as in WITH."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("UpdateStmt", "DeleteStmt", "MergeStmt"):
                yield key, value
            yield from _nested(value)
    elif isinstance(node, list):
        for one in node:
            yield from _nested(one)


def _calls(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "FuncCall":
                yield _last(_dotted(value["funcname"]))
            yield from _calls(value)
    elif isinstance(node, list):
        for one in node:
            yield from _calls(one)


def _condition(node: Any) -> bool:
    """Whether a WHERE is one: TRUE and 1 = 1 select everything."""
    if not node:
        return False
    return "ColumnRef" in json.dumps(node) or "SubLink" in json.dumps(node) or "CurrentOfExpr" in node


def _table(relation: Node) -> str:
    schema, name = relation.get("schemaname"), relation.get("relname")
    return f"{schema}.{name}" if schema and schema != "public" else str(name)


def _dotted(names: list[Any]) -> str:
    parts = [str(one["String"].get("sval", "")) for one in names if "String" in one]
    return ".".join(
        part for index, part in enumerate(parts) if not (index == 0 and part == "public" and len(parts) > 1)
    )


def _object_name(node: Node) -> str:
    if "List" in node:
        return _dotted(node["List"]["items"])
    if "TypeName" in node:
        return _dotted(node["TypeName"]["names"])
    if "ObjectWithArgs" in node:
        return _dotted(node["ObjectWithArgs"].get("objname") or [])
    return _dotted([node])


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _option(node: Node, name: str) -> bool:
    options = node.get("options") or node.get("params") or []
    return any(_inner(one).get("defname") == name for one in options)


def _serial(column: Node) -> bool:
    return "serial" in _type_text(column.get("typeName") or {"names": []})


def _type_text(node: Node) -> str:
    name = _last(_dotted(node["names"]))
    sizes = [one["A_Const"].get("ival", {}).get("ival", 0) for one in node.get("typmods") or [] if "A_Const" in one]
    text = f"{name}({','.join(str(size) for size in sizes)})" if sizes else name
    return text + "[]" * len(node.get("arrayBounds") or [])
