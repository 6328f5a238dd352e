"""What a migration's SQL is found to do."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.migration import ddl
from ansible_collections.groundwork.platform.plugins.module_utils.migration.ddl import BREAKS, LOCKS, LOSES, UNKNOWN

needs_parser = pytest.mark.skipif(ddl.parser is None, reason="no pglast: pip install pglast")
SECRET = "Hunter2-of-the-patient"


def kinds(sql: str, **options: object) -> list[str]:
    return [one.kind for one in ddl.analyse(sql, **options).findings]  # type: ignore[arg-type]


@needs_parser
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DROP TABLE a", LOSES),
        ("DROP TABLE IF EXISTS a, b CASCADE", LOSES),
        ("ALTER TABLE a DROP COLUMN b", LOSES),
        ("ALTER TABLE a DROP CONSTRAINT b", BREAKS),
        ("DROP TYPE a", LOSES),
        ("DROP SCHEMA a CASCADE", LOSES),
        ("DROP SEQUENCE a", LOSES),
        ("DROP MATERIALIZED VIEW a", LOSES),
        ("DROP EXTENSION a", LOSES),
        ("DROP OWNED BY a CASCADE", LOSES),
        ("DROP VIEW a", BREAKS),
        ("DROP FUNCTION a(int)", BREAKS),
        ("DROP TRIGGER t ON a", BREAKS),
        ("DROP POLICY p ON a", BREAKS),
        ("DROP INDEX a", LOCKS),
        ("DROP INDEX CONCURRENTLY a", None),
        ("TRUNCATE a, b", LOSES),
        ("DELETE FROM a", LOSES),
        ("DELETE FROM a WHERE true", LOSES),
        ("DELETE FROM a WHERE 1 = 1", LOSES),
        ("DELETE FROM a WHERE b < 3", LOCKS),
        ("UPDATE a SET b = 1", LOSES),
        ("UPDATE a SET b = 1 WHERE b IS NULL", None),
        ("WITH gone AS (DELETE FROM a RETURNING *) SELECT count(*) FROM gone", LOSES),
        ("EXPLAIN ANALYZE DELETE FROM a", LOSES),
        ("MERGE INTO a USING s ON a.i = s.i WHEN MATCHED THEN DELETE", LOSES),
        ("MERGE INTO a USING s ON a.i = s.i WHEN NOT MATCHED THEN INSERT VALUES (1)", None),
        ("ALTER TABLE a ALTER b TYPE varchar(10)", LOSES),
        ("ALTER TABLE a ADD b int NOT NULL", BREAKS),
        ("ALTER TABLE a ADD b int NOT NULL DEFAULT 0", None),
        ("ALTER TABLE a ADD b int", None),
        ("ALTER TABLE a ADD b uuid NOT NULL DEFAULT gen_random_uuid()", LOCKS),
        ("ALTER TABLE a ADD b bigserial", LOCKS),
        ("ALTER TABLE a ADD b timestamptz NOT NULL DEFAULT now()", None),
        ("ALTER TABLE a RENAME TO b", BREAKS),
        ("ALTER TABLE a RENAME COLUMN b TO c", BREAKS),
        ("ALTER INDEX a RENAME TO b", None),
        ("ALTER TABLE a SET SCHEMA b", BREAKS),
        ("ALTER TYPE a RENAME VALUE 'b' TO 'c'", BREAKS),
        ("ALTER TYPE a ADD VALUE 'c'", None),
        ("ALTER TABLE a ALTER b SET NOT NULL", BREAKS),
        ("ALTER TABLE a ALTER b DROP NOT NULL", None),
        ("ALTER TABLE a ALTER b DROP DEFAULT", BREAKS),
        ("ALTER TABLE a ALTER b SET DEFAULT 1", None),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY", LOSES),
        ("ALTER TABLE a SET UNLOGGED", LOSES),
        ("ALTER TABLE a ENABLE ROW LEVEL SECURITY", BREAKS),
        ("ALTER TABLE a SET TABLESPACE b", LOCKS),
        ("ALTER DOMAIN a SET NOT NULL", BREAKS),
        ("REVOKE SELECT ON a FROM b", BREAKS),
        ("GRANT SELECT ON a TO b", None),
        ("CREATE INDEX i ON a (b)", LOCKS),
        ("CREATE INDEX CONCURRENTLY i ON a (b)", None),
        ("ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c (d)", LOCKS),
        ("ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c (d) NOT VALID", None),
        ("ALTER TABLE a VALIDATE CONSTRAINT c", None),
        ("ALTER TABLE a ADD CHECK (b > 0)", LOCKS),
        ("ALTER TABLE a ADD UNIQUE (b)", LOCKS),
        ("ALTER TABLE a ADD UNIQUE USING INDEX i", None),
        ("VACUUM FULL a", LOCKS),
        ("REFRESH MATERIALIZED VIEW a", LOCKS),
        ("SET lock_timeout = 0", LOCKS),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE a'; END $$", UNKNOWN),
        ("CALL tidy()", UNKNOWN),
        ("SELECT tidy()", UNKNOWN),
        ("SELECT setval('a', 1)", None),
        ("COPY a FROM PROGRAM 'x'", UNKNOWN),
        ("PREPARE p AS DELETE FROM a WHERE b = 1; EXECUTE p", UNKNOWN),
        ("INSERT INTO a VALUES ('drop table b; delete from c')", None),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM a; END", None),
        ("CREATE TABLE a (b int NOT NULL REFERENCES c)", None),
    ],
)
def test_one_statement(sql: str, expected: str | None) -> None:
    found = kinds(sql)
    assert (expected in found) if expected else found == [], found
    if expected in (None, LOCKS):
        assert not ddl.analyse(sql).destructive


@needs_parser
def test_what_the_migration_itself_made_it_may_change() -> None:
    assert not ddl.analyse(
        "CREATE TABLE a (b int); CREATE INDEX ON a (b); ALTER TABLE a ADD c int NOT NULL, DROP b;"
        "UPDATE a SET c = 1; DELETE FROM a; TRUNCATE a; DROP TABLE public.a;"
        "CREATE TYPE mood AS ENUM ('x'); DROP TYPE mood;"
    ).findings
    # It may have been there.
    assert kinds("CREATE TABLE IF NOT EXISTS a (b int); DROP TABLE a") == [LOSES]


@needs_parser
def test_the_tools_own_tables_are_its_own() -> None:
    sql = "UPDATE alembic_version SET version_num = 'b'; DELETE FROM alembic_version;"
    assert kinds(sql, bookkeeping=("alembic_version",)) == []
    assert kinds(sql) == [LOSES, LOSES]


@needs_parser
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("character varying(10)", "varchar(20)", []),
        ("character varying(20)", "varchar(10)", [LOSES]),
        ("character varying(20)", "text", []),
        ("text", "varchar(20)", [LOSES]),
        ("integer", "bigint", [LOCKS]),
        ("bigint", "integer", [LOSES]),
        ("integer", "text", [LOSES]),
        ("numeric(10,2)", "numeric(12,2)", []),
        ("numeric(10,2)", "numeric(10,4)", [LOSES]),
        ("timestamp with time zone", "timestamp", [LOSES]),
        ("timestamp(3) without time zone", "timestamp", []),
        ("integer[]", "bigint[]", [LOSES]),
    ],
)
def test_types_by_what_they_were(old: str, new: str, expected: list[str]) -> None:
    sql = f"ALTER TABLE public.a ALTER b TYPE {new}"
    first = ddl.analyse(sql)
    assert first.retyped == [("a", "b")]
    assert [one.kind for one in first.destructive] == [LOSES]
    assert kinds(sql, types={("a", "b"): old}) == expected


@needs_parser
def test_statements_are_named_with_their_line_and_without_their_values() -> None:
    sql = """BEGIN;
-- Running upgrade 1 -> 2, {SECRET}

UPDATE staff SET password = '{SECRET}',
  pin = 4711, note = E'it\\'s {SECRET}', more = $x$ {SECRET} $x$;
/* {SECRET}
*/ ALTER TABLE "Staff" ALTER name TYPE varchar(10) USING substr(name, 1, 10);
COMMIT;""".replace("{SECRET}", SECRET)
    update, narrow = ddl.analyse(sql).findings
    assert (update.line, narrow.line) == (4, 7)
    assert update.statement == "UPDATE staff SET password = '...', pin = 0, note = '...', more = '...'"
    assert "varchar(10)" in narrow.statement
    assert '"Staff"' in narrow.statement
    assert SECRET not in str(update) + str(narrow)


@needs_parser
def test_what_cannot_be_parsed_is_unknown() -> None:
    analysis = ddl.analyse(f"SELECT 1;\nDROP '{SECRET}';")
    assert [one.kind for one in analysis.destructive] == [UNKNOWN]
    assert analysis.destructive[0].line == 2
    assert SECRET not in str(analysis)


@needs_parser
def test_what_is_written_anew_needs_room() -> None:
    sql = (
        "CREATE INDEX CONCURRENTLY i ON a (b); ALTER TABLE s.c ALTER d TYPE int; VACUUM FULL e; ALTER TABLE f ADD g int"
    )
    assert ddl.analyse(sql).rewrites == ["a", "s.c", "e"]


def test_without_a_parser_all_is_unknown_but_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddl, "parser", None)
    analysis = ddl.analyse("CREATE TABLE a ()")
    assert [one.kind for one in analysis.destructive] == [UNKNOWN]
    assert "pglast" in analysis.destructive[0].why
    assert ddl.analyse("BEGIN;\n-- Running upgrade  -> 1\n\nCOMMIT;\n") == ddl.Analysis()
