"""What is known of each tool."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import options, tools
from ansible_collections.groundwork.platform.plugins.module_utils.migration.tools import Plan, Tool, read_plan

SECRET = "a-value-that-nobody-may-see"
ALEMBIC = Tool("alembic", ("alembic", "upgrade", "head"))


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        ("alembic upgrade head", "alembic"),
        ("/opt/venv/bin/alembic -c x.ini upgrade head", "alembic"),
        ("python -m alembic upgrade head", "alembic"),
        ("python manage.py migrate", "django"),
        ("python manage.py collectstatic", "command"),
        ("django-admin migrate", "django"),
        ("flyway migrate", "command"),
        ("", "command"),
    ],
)
def test_a_tool_is_known_by_its_command(command: str, tool: str) -> None:
    assert tools.guess(command.split()) == tool


def alembic(
    heads: str, sql: str = "", code: str = "0", error: str = "", before: str = "1", tool: Tool = ALEMBIC
) -> Plan:
    files = {"heads": heads, "heads.code": "0\n", "plan.sql": sql, "plan.code": code, "plan.error": error}
    return read_plan(tool, before, files)


def test_where_alembic_is_going() -> None:
    plan = alembic("3 (head)\n", "BEGIN;\n\n-- Running upgrade 1 -> 2\n\n-- Running upgrade 2 -> 3\n\nCOMMIT;\n")
    assert (plan.expected, plan.steps, plan.idle) == ("3", ("2", "3"), True)
    merged = alembic("4 (head)\n", "-- Running upgrade 2, 3 -> 4\n\n-- Running upgrade  -> 9\n")
    assert merged.steps == ("4", "9")
    relative = Tool("alembic", ("alembic", "upgrade", "+1"))
    assert alembic("3 (head)\n", "-- Running upgrade 1 -> 2\n", tool=relative).expected == "2"
    assert alembic("3 (head)\n", "", before="3").idle
    branches = Tool("alembic", ("alembic", "upgrade", "heads"))
    assert alembic("b (effective head)\na (head)\n", tool=branches).expected == "a,b"


def test_several_heads_are_refused() -> None:
    with pytest.raises(Failure) as caught:
        alembic("a (head)\nb (branch) (head)\n")
    assert caught.value.code == "several_heads"
    assert "has 2 heads (a, b)" in caught.value.sentence


def test_an_image_that_is_older_than_the_schema() -> None:
    with pytest.raises(Failure) as caught:
        alembic("3 (head)\n", "FAILED: Can't locate revision identified by '9'", "255", before="9")
    assert caught.value.code == "schema_newer"
    assert "revision 9" in caught.value.sentence


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (f"Traceback\n  x\nsqlalchemy.exc.NoSuchTableError: {SECRET}\n", "NoSuchTableError, see the log"),
        (f"RuntimeError: {SECRET}", "RuntimeError, see the log"),
        (SECRET, "exit code 3, see the log"),
    ],
)
def test_what_cannot_be_rendered_is_unknown(error: str, said: str) -> None:
    plan = alembic("3 (head)\n", "", "3\n", error)
    (found,) = plan.analysis.destructive
    assert found.kind == "unknown"
    assert said in found.why
    assert SECRET not in found.why
    assert plan.expected == "3"
    assert not plan.idle


def test_a_command_that_nobody_knows() -> None:
    plan = read_plan(Tool("command", ("migrate",)), "", {})
    assert [one.kind for one in plan.analysis.destructive] == ["unknown"]
    assert plan.expected is None
    assert Tool("command").plan_script == ""


def test_where_django_is_going() -> None:
    sql = "-- Running upgrade shop.0002_b\nBEGIN;\nCOMMIT;\n-- Running upgrade blog.0001_initial\n"
    plan = read_plan(
        Tool("django", ("manage.py", "migrate")), "auth.0001_initial,shop.0001_a", {"plan.sql": sql, "plan.code": "0"}
    )
    assert plan.expected == "auth.0001_initial,blog.0001_initial,shop.0002_b"
    with pytest.raises(Failure, match="several ends"):
        read_plan(
            Tool("django"), "", {"plan.code": "1", "heads.error": "CommandError: Conflicting migrations detected"}
        )


def test_words_of_a_command_stay_words() -> None:
    tool = Tool("alembic", ("alembic", "-x", "a b; rm -rf /", "upgrade", "--tag", "head"))
    assert "alembic -x 'a b; rm -rf /' heads" in tool.plan_script
    assert "alembic -x 'a b; rm -rf /' upgrade --tag --sql" in tool.plan_script


def test_a_name_cannot_break_out_of_the_query() -> None:
    query = Tool("alembic", table="x'; DROP TABLE y; --").revision_query
    assert "c.relname = 'x''; DROP TABLE y; --'" in query


def test_options_without_a_database() -> None:
    assert options.settings_of({"definition": {}}) is None
    with pytest.raises(Failure, match="has restore_point and no database"):
        options.settings_of({"definition": {}, "restore_point": {"type": "dump"}})
