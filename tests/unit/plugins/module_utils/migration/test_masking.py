"""No value gets out, whatever it is quoted by."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.migration import masking

SECRET = "s3cret"


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT '{SECRET}'",
        f"SELECT 'it''s {SECRET}'",
        f"SELECT E'\\'{SECRET}'",
        f"SELECT $${SECRET}$$",
        f"SELECT $a$ $$ {SECRET} $a$",
        f"SELECT U&'{SECRET}', N'{SECRET}', B'{SECRET}'",
        f"SELECT 1 -- {SECRET}",
        f"SELECT /* {SECRET} */ 1",
        # As pg_stat_activity cuts them.
        "INSERT INTO a VALUES (1, 'x " + SECRET,  # noqa: S608
        f"DO $$ BEGIN {SECRET}",
        f"SELECT 1 /* {SECRET}",
    ],
)
def test_literals(sql: str) -> None:
    assert SECRET not in masking.statement(sql)
    assert SECRET not in masking.words(sql, 50)


def test_numbers_are_values_and_widths_are_not() -> None:
    assert masking.statement("SELECT * FROM a1 WHERE ssn = 123456 AND b > 1.5e3") == (
        "SELECT * FROM a1 WHERE ssn = 0 AND b > 0"
    )
    assert "numeric(10, 2)" in masking.statement("ALTER TABLE a ALTER b TYPE numeric(10, 2)")


def test_words_and_cut() -> None:
    assert masking.words("UPDATE a\n  SET b = 'x' WHERE c = 1") == "UPDATE a SET b = '...' ..."
    assert len(masking.statement("SELECT " + "a, " * 200)) <= 160


@pytest.mark.parametrize(
    "text",
    [
        f'ERROR:  duplicate key value violates unique constraint "k"\nDETAIL:  Key (mail)=({SECRET}) already exists.',
        f'ERROR:  invalid input syntax for type integer: "{SECRET}"',
        f"ERROR:  syntax error\nLINE 1: SELECT '{SECRET}'\n        ^",
        f'psql: error: connection to "postgresql://me:{SECRET}@host/db" failed',
        f"CONTEXT:  COPY staff, line 3, column mail: {SECRET}",
        f"value '{SECRET}' is out of range",
        f"psycopg.errors.NotNullViolation: null value DETAIL:  Failing row contains (1, {SECRET}, null).",
        f"violates foreign key constraint DETAIL:  Key (mail, name)=({SECRET}, x) is not present in table",
        f"[SQL: INSERT INTO staff VALUES (%(a)s)] [parameters: {{'a': 1, 'b': {SECRET}}}]",  # noqa: S608
        f"[parameters: ({SECRET}, [1, 2])]",
        f"connect failed: host=h password={SECRET} user=u",
    ],
)
def test_messages(text: str) -> None:
    assert SECRET not in masking.message(text)


def test_what_a_message_is_about_stays() -> None:
    text = (
        'psql: error: connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  database "shop" does not exist'
    )
    assert masking.message(text).endswith('database "shop" does not exist')
