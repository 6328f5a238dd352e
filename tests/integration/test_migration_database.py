# ruff: noqa: S608 - SQL of the tests' own
"""The scripts and queries of a migration, tried with a real PostgreSQL."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.migration import pod, preflight, scripts, tools
from ansible_collections.groundwork.platform.plugins.module_utils.migration.tools import Tool
from tests.support import postgres
from tests.support.kubelet import wait_until
from tests.support.postgres import Script, Server

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-value-that-nobody-may-see"
pytestmark = pytest.mark.skipif(
    postgres.find_programs() is None,
    reason=f"no PostgreSQL: apt-get install postgresql, or name its programs' folder in {postgres.VARIABLE}",
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres.running() as one:
        yield one


@pytest.fixture
def database(server: Server) -> Server:
    """The same server with an empty database."""
    server.sql("DROP OWNED BY app", "CREATE SCHEMA IF NOT EXISTS public", "GRANT ALL ON SCHEMA public TO app",
               as_user="postgres")  # fmt: skip
    return server


@pytest.fixture
def folder() -> Iterator[Path]:
    """What the containers of a pod share. Not pytest's own: another user must reach it."""
    with tempfile.TemporaryDirectory(prefix="groundwork-pod-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def lock(server: Server, folder: Path, timeout: int = 60, **more: str) -> Script:
    environment = server.environment(
        GROUNDWORK_LOCK=pod.Lock().query, GROUNDWORK_LOCK_TIMEOUT=str(timeout), GROUNDWORK_CONNECT_TIMEOUT="3",
        GROUNDWORK_REVISION=Tool("alembic").revision_query, **more,
    )  # fmt: skip
    return Script(scripts.LOCK, folder, environment)


def locks(server: Server) -> int:
    return int(server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))


def facts(server: Server, as_user: str = "app") -> dict[str, Any]:
    return dict(json.loads(server.sql(preflight.facts_query(("alembic_version",)), as_user=as_user)))


def objections(server: Server, as_user: str = "app", **limits: Any) -> dict[str, preflight.Objection]:
    found = preflight.judge(facts(server, as_user), preflight.Limits(**limits), (scripts.APPLICATION,))
    return {one.check: one for one in found}


# The lock


def test_the_lock_is_held_while_the_container_lives(database: Server, folder: Path) -> None:
    database.sql("CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('0001')")
    script = lock(database, folder)
    try:
        script.until("held=")
        assert (folder / "revision").read_text().strip() == "0001"
        assert locks(database) == 1
        assert (folder / "answered").exists()
        # Not in a transaction: what the migration does concurrently must not wait for it.
        database.sql("CREATE TABLE busy (a int)", "CREATE INDEX CONCURRENTLY busy_a ON busy (a)")
        database.sql("UPDATE alembic_version SET version_num = '0002'")
    finally:
        script.stop()
    assert script.process.returncode == 0
    assert locks(database) == 0
    assert (folder / "last-words").read_text() == "revision=0002\n"


def test_a_killed_container_leaves_no_lock(database: Server, folder: Path) -> None:
    script = lock(database, folder)
    script.until("held=")
    script.process.kill()
    script.process.wait()
    wait_until(lambda: locks(database) == 0)


def test_it_waits_for_another_holder_and_says_who(database: Server, folder: Path) -> None:
    with database.session(f"SELECT pg_advisory_lock({pod.KEY})", application="somebody's shell") as other:
        pid = other.ask("SELECT pg_backend_pid()")
        script = lock(database, folder)
        try:
            told = pod.holder(script.until("waiting="))
            assert told.startswith(
                f"pid {pid}, application somebody's shell, user app, address 127.0.0.1, connected since"
            )
            assert not (folder / "answered").exists()
            other.ask(f"SELECT pg_advisory_unlock({pod.KEY})")
            script.until("held=")
        finally:
            script.stop()


def test_time_is_up(database: Server, folder: Path) -> None:
    with database.session(f"SELECT pg_advisory_lock({pod.KEY})"):
        script = lock(database, folder, timeout=2)
        try:
            assert pod.holder(script.until("locked=")).startswith("pid ")
            wait_until(lambda: (folder / "answered").exists())
            gate = Script(scripts.GATE, folder, database.environment())
            assert gate.wait() == 1
            assert (folder / "last-words").read_text().startswith("locked=")
        finally:
            script.stop()


def test_a_lock_of_another_key_is_none_of_ours(database: Server, folder: Path) -> None:
    with database.session("SELECT pg_advisory_lock(1), pg_advisory_lock(1, 2)"):
        script = lock(database, folder)
        script.until("held=")
        script.stop()


def test_a_session_that_is_ended_takes_the_lock_again(database: Server, folder: Path) -> None:
    script = lock(database, folder)
    try:
        pid = script.until("held=")
        database.sql(f"SELECT pg_terminate_backend({pid})", as_user="postgres")
        assert script.until("lost=") == pid
        wait_until(lambda: script.log.count("held=") == 2)
        assert locks(database) == 1
        assert (folder / "held").exists()
    finally:
        script.stop()


def test_a_lock_that_was_lost_to_another_is_not_said_to_be_held(database: Server, folder: Path) -> None:
    script = lock(database, folder)
    try:
        pid = script.until("held=")
        with database.session() as other:
            # Both in one statement's time: the other is there before the container has come back.
            other.ask(f"SELECT pg_terminate_backend({pid}), pg_advisory_lock({pod.KEY})")
            assert pod.holder(script.until("waiting=")).startswith("pid ")
            assert not (folder / "held").exists()
            (folder / "go").touch()
            gate = Script(scripts.GATE, folder, database.environment())
            time.sleep(1)
            assert gate.process.poll() is None
        wait_until(lambda: script.log.count("held=") == 2)
        assert gate.wait() == 0
    finally:
        script.stop()


def test_a_server_that_restarts(database: Server, folder: Path) -> None:
    script = lock(database, folder)
    try:
        script.until("held=")
        database.stop()
        script.until("lost=")
        # Longer than a connection may take at first: a migration is running.
        time.sleep(4)
        assert script.process.poll() is None
        assert not (folder / "refused").exists()
        database.start()
        wait_until(lambda: script.log.count("held=") == 2, 40)
    finally:
        script.stop()


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"PGPASSWORD": "wrong"}, "authentication failed"),
        ({"PGDATABASE": "nothing"}, "does not exist"),
        ({"PGPORT": "1"}, "refused"),
    ],
)
def test_a_database_that_cannot_be_reached(database: Server, folder: Path, changes: dict[str, str], sign: str) -> None:
    script = Script(scripts.LOCK, folder, {
        **database.environment(), "GROUNDWORK_LOCK": pod.Lock().query, "GROUNDWORK_LOCK_TIMEOUT": "60",
        "GROUNDWORK_CONNECT_TIMEOUT": "2", "GROUNDWORK_REVISION": Tool("command").revision_query, **changes,
    })  # fmt: skip
    try:
        assert sign in script.until("unreachable=")
        assert postgres.PASSWORD not in script.log
        assert "wrong" not in script.log
        assert (folder / "refused").exists()
    finally:
        script.stop()


# Preflight


def test_nothing_speaks_against_a_quiet_database(database: Server, folder: Path) -> None:
    script = lock(database, folder)
    script.until("held=")
    assert objections(database) == {}
    assert facts(database)["tables"] == 0
    script.stop()


def test_sessions_that_are_in_the_way(database: Server) -> None:
    database.sql("CREATE TABLE t (a text)")
    with (
        database.session("BEGIN", f"INSERT INTO t VALUES ('{SECRET}')", application="shell") as idle,
        database.session("BEGIN", "SELECT 1", application="report"),
    ):
        pid = idle.ask("SELECT pg_backend_pid()")
        idle.ask(f"SELECT '{SECRET}' AS x, count(*) FROM t")
        time.sleep(0.3)
        found = preflight.judge(facts(database), preflight.Limits(long_transaction=0.1, idle_in_transaction=0.2))
        assert {one.check for one in found} == {"idle_in_transaction"}
        assert len(found) == 2
        mine = next(one for one in found if f"pid {pid}," in one.evidence)
        assert "user app, application shell, last query: SELECT '...' AS x" in mine.evidence
        assert f"pg_terminate_backend({pid})" in mine.hint
        assert SECRET not in str(found) + preflight.failure("D", found).sentence
        assert set(objections(database, long_transaction=0.1)) == {"long_transaction"}
        assert objections(database) == {}


def test_a_dump_that_runs(database: Server, folder: Path) -> None:
    database.sql("CREATE TABLE t (a text)")
    with database.session("BEGIN", "LOCK TABLE t IN ACCESS EXCLUSIVE MODE") as other:
        dump = subprocess.Popen(["pg_dump", "-f", "/dev/null"], env=database.environment(), stderr=subprocess.DEVNULL)
        try:
            found = wait_until(lambda: objections(database).get("dump"))
            assert "pg_dump" in found.cause
            assert (
                f"pg_terminate_backend({facts(database)['sessions'][0]['pid']})" in found.hint
                or "pid" in found.evidence
            )
        finally:
            other.ask("ROLLBACK")
            dump.wait(30)
    wait_until(lambda: objections(database) == {})


def test_a_prepared_transaction(database: Server) -> None:
    database.sql("CREATE TABLE t (a text)", "BEGIN; LOCK TABLE t; PREPARE TRANSACTION 'forgotten'")
    try:
        assert "prepared_transaction" in objections(database, idle_in_transaction=0)
    finally:
        database.sql("ROLLBACK PREPARED 'forgotten'")


def test_sessions_of_others_are_said_to_be_hidden(database: Server) -> None:
    with database.session("BEGIN", user="postgres"):
        found = objections(database, long_transaction=0)
        assert set(found) == {"hidden_sessions"}
        assert "GRANT pg_monitor TO app" in found["hidden_sessions"].hint
        assert not preflight.refusals(found.values(), preflight.Limits())
        # Whoever may see them judges them.
        assert "long_transaction" in objections(database, as_user="postgres", long_transaction=0)


def test_a_database_that_takes_no_changes(database: Server) -> None:
    database.sql("ALTER DATABASE shop SET default_transaction_read_only = on", as_user="postgres")
    try:
        assert "read_only" in objections(database)
    finally:
        database.sql("ALTER DATABASE shop RESET default_transaction_read_only", as_user="postgres", database="postgres")


def test_sizes_and_types(database: Server) -> None:
    database.sql("CREATE SCHEMA s", 'CREATE TABLE s."Odd ""name" (a varchar(7), "B" numeric(4,1))',
                 "CREATE TABLE t (a int)", "INSERT INTO t SELECT generate_series(1, 10000)")  # fmt: skip
    sizes = json.loads(database.sql(preflight.sizes_query(["t", 's.Odd "name', "absent"])))
    assert sizes["t"] > 300_000
    assert sizes["absent"] is None
    types = json.loads(database.sql(preflight.types_query([('s.Odd "name', "a"), ('s.Odd "name', "B"), ("t", "gone")])))
    assert types == [['s.Odd "name', "a", "character varying(7)"], ['s.Odd "name', "B", "numeric(4,1)"]]
    assert preflight.judge_disk(10_000, sizes, preflight.Limits())[0].check == "disk"
    assert preflight.judge_disk(10**9, sizes, preflight.Limits()) == []


# Revisions


def revision(server: Server, tool: Tool, as_user: str = "app") -> str:
    query = server.sql(tool.revision_query, as_user=as_user)
    return server.sql(query, as_user=as_user) if query else "no table"


def test_revisions(database: Server) -> None:
    for kind in ("alembic", "django", "sql", "command"):
        assert revision(database, Tool(kind)) == "no table"
    database.sql(
        "CREATE SCHEMA a", "CREATE TABLE a.alembic_version (version_num text)",
        "INSERT INTO a.alembic_version VALUES ('b'), ('a')",
        "CREATE TABLE django_migrations (id serial, app text, name text, applied timestamptz)",
        "INSERT INTO django_migrations (app, name) "
        "VALUES ('shop', '01'), ('auth', '01'), ('shop', '10'), ('shop', '09')",
        "CREATE TABLE groundwork_schema_history (version text, checksum text, success boolean)",
        "INSERT INTO groundwork_schema_history VALUES ('9', '', true), ('10', '', true), ('11', '', false)",
    )  # fmt: skip
    for user in ("app", "postgres"):
        assert revision(database, Tool("alembic"), user) == "a,b"
        assert revision(database, Tool("django"), user) == "auth.01,shop.09"
        assert revision(database, Tool("sql"), user) == "10"
    assert revision(database, Tool("alembic", table="a.alembic_version")) == "a,b"
    assert revision(database, Tool("alembic", table="public.alembic_version")) == "no table"
    assert revision(database, Tool("command", query="SELECT 'it''s' || 7")) == "it's7"


# Versioned SQL files


class Files:
    """A folder of SQL files and the server that they are for."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        (folder / "sql").mkdir()

    def write(self, **files: str) -> Files:
        for name, text in files.items():
            (self.folder / "sql" / f"{name}.sql").write_text(text)
        return self

    def run(self, mode: str = "run", **more: str) -> tuple[int, str]:
        environment = self.server.environment(
            GROUNDWORK_SQL=str(self.folder / "sql"), GROUNDWORK_TABLE="groundwork_schema_history", **more
        )
        done = subprocess.run(["sh", "-c", scripts.SQL, "groundwork", mode], env=environment, capture_output=True,
                              text=True, check=False)  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def files(database: Server, folder: Path) -> Files:
    return Files(database, folder)


def test_files_are_applied_once_and_in_order(files: Files) -> None:
    files.write(V1__first="CREATE TABLE t (a int);", V1_1__between="INSERT INTO t VALUES (1);",
                V010__tenth="UPDATE t SET a = a + 10;", V9__ninth="UPDATE t SET a = a * 2;")  # fmt: skip
    code, plan = files.run("plan")
    assert code == 0
    assert [line.split()[-1] for line in plan.splitlines() if line.startswith("-- Running")] == ["1", "1.1", "9", "010"]
    assert files.server.sql("SELECT to_regclass('t')") == ""
    assert tools.read_plan(Tool("sql", path="/x"), "", {"plan.sql": plan, "plan.code": "0"}).expected == "010"
    assert files.run()[0] == 0
    assert files.server.sql("SELECT a FROM t") == "12"
    assert files.run() == (0, "groundwork: nothing to apply\n")
    assert files.server.sql("SELECT count(*) FROM groundwork_schema_history WHERE success AND seconds >= 0") == "4"
    assert revision(files.server, Tool("sql")) == "010"
    assert files.run("plan") == (0, "")


def test_a_file_that_fails_changes_nothing_and_says_no_values(files: Files) -> None:
    files.write(V1__a="CREATE TABLE t (a int UNIQUE, b text);",
                V2__b="INSERT INTO t VALUES (1, 'X'); INSERT INTO t VALUES (1, 'X');".replace("X", SECRET))  # fmt: skip
    code, said = files.run()
    assert code == 1
    assert "V2__b.sql failed and has changed nothing" in said
    assert "duplicate key" in said
    assert SECRET not in said
    assert files.server.sql("SELECT count(*) FROM t") == "0"
    assert revision(files.server, Tool("sql")) == "1"
    assert files.write(V2__b="INSERT INTO t VALUES (2);").run()[0] == 0
    assert revision(files.server, Tool("sql")) == "2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"V1__a": "CREATE TABLE other ();"}, "V1__a.sql has changed since it was applied"),
        ({"V1_5__late": "SELECT 1;"}, "V2__b.sql is applied, but an earlier one is not: V1_5__late.sql"),
        ({"V3__b": "BEGIN;\nSELECT 1;\nCOMMIT;"}, "begins or ends a transaction"),
        ({"W3__b": "SELECT 1;"}, "W3__b.sql is not named V<version>__<description>.sql"),
        ({"V2__again": "SELECT 1;"}, "two files of version 2"),
    ],
)
def test_what_is_refused_before_anything_runs(files: Files, change: dict[str, str], said: str) -> None:
    files.write(V1__a="CREATE TABLE t (a int);", V2__b="INSERT INTO t VALUES (1);").run()
    files.write(**change)
    for mode in ("plan", "run"):
        code, output = files.run(mode)
        assert code == 1
        assert said in output


def test_an_image_older_than_the_schema(files: Files) -> None:
    files.write(V1__a="CREATE TABLE t (a int);", V2__b="INSERT INTO t VALUES (1);").run()
    (files.folder / "sql" / "V2__b.sql").unlink()
    code, said = files.run()
    assert code == 1
    assert "version 2 is applied, and there is no file for it" in said


def test_a_file_without_a_transaction(files: Files) -> None:
    text = "-- groundwork: no transaction\nCREATE INDEX CONCURRENTLY t_a ON t (a);\n"
    files.write(V1__a="CREATE TABLE t (a int);", V2__b=text)
    assert files.run()[0] == 0
    files.write(V3__c="-- groundwork: no transaction\nINSERT INTO t VALUES (1);\nSELECT 1 / 0;\n")
    code, said = files.run()
    assert code == 1
    assert "runs in no transaction" in said
    assert revision(files.server, Tool("sql")) == "2"
    files.write(V3__c="-- groundwork: no transaction\nINSERT INTO t VALUES (1);\n")
    assert files.run()[0] == 0
    assert files.server.sql("SELECT count(*) FROM t") == "2"


def test_the_timeouts_reach_psql(files: Files) -> None:
    job = pod.with_timeouts({"spec": {"template": {"spec": {"containers": [{"name": "m"}]}}}}, 0.3, 5)
    options = job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
    files.write(V1__a="CREATE TABLE t (a int);").run()
    files.write(V2__b="ALTER TABLE t ADD b int;")
    with files.server.session("BEGIN", "LOCK TABLE t"):
        started = time.monotonic()
        code, said = files.run(PGOPTIONS=options)
        assert code == 1
        assert "lock timeout" in said
        assert time.monotonic() - started < 30
    assert files.run(PGOPTIONS=options)[0] == 0


# A dump and its verification


def dump(server: Server, folder: Path, path: str = "", keep: int = 3, name: str = "1.dump") -> tuple[int, str]:
    environment = server.environment(GROUNDWORK_FILE=name, GROUNDWORK_KEEP=str(keep))
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    (folder / "script.log").write_text("")
    script = Script(scripts.DUMP, folder, environment)
    code = script.wait()
    return code, script.log.strip().splitlines()[-1]


def fill(server: Server) -> None:
    server.sql(
        "CREATE TYPE mood AS ENUM ('fine', 'not')", "CREATE SCHEMA other",
        'CREATE TABLE staff (id bigserial PRIMARY KEY, "Name" text COLLATE "C", mood mood, born date, at timestamptz, '
        "pay numeric(9,2), f float8, raw bytea, more jsonb, took interval, twice int GENERATED ALWAYS AS (2) STORED)",
        'INSERT INTO staff ("Name", mood, born, at, pay, f, raw, more, took) '
        f"SELECT '{SECRET} ' || n, 'fine', '2024-02-29', "
        "'2024-03-01 12:00+05', n / 3.0, n / 7.0, decode('00ff', 'hex'), json_build_object('a', n), '1 day 2 s' "
        "FROM generate_series(1, 2000) n",
        "CREATE TABLE other.parts (a int, at date) PARTITION BY RANGE (at)",
        "CREATE TABLE other.parts_2024 PARTITION OF other.parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "INSERT INTO other.parts VALUES (1, '2024-05-05'), (NULL, '2024-06-06')",
        "CREATE VIEW fine AS SELECT * FROM staff WHERE mood = 'fine'",
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM staff",
        "CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at = now(); RETURN NEW; END $$",
        "CREATE TRIGGER up BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION up()",
    )  # fmt: skip


def test_a_dump_is_restored_and_compared(database: Server, folder: Path) -> None:
    fill(database)
    # Goes on writing while it is dumped, as an application does.
    (folder / "writes.sql").write_text("UPDATE staff SET pay = pay + 1 WHERE id = 1\n\\watch 0.05\n")
    writer = subprocess.Popen(
        ["psql", "-XAtqw", "-f", str(folder / "writes.sql")],
        env=database.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        code, said = dump(database, folder)
    finally:
        writer.kill()
        writer.wait()
    assert code == 0, said
    result = json.loads(said)
    assert result["verified"] is True
    assert (result["file"], result["tables"], result["rows"]) == ("1.dump", 2, 2002)
    kept = folder / "1.dump"
    assert result["bytes"] == kept.stat().st_size
    # It serves for what it is made for.
    database.sql("CREATE DATABASE again OWNER app", as_user="postgres", database="postgres")
    try:
        subprocess.run(["pg_restore", "--exit-on-error", "-d", "again", str(kept)], env=database.environment(),
                       check=True)  # fmt: skip
        assert database.sql("SELECT count(*) FROM staff", database="again") == "2000"
    finally:
        database.sql("DROP DATABASE again", as_user="postgres", database="postgres")
    assert sorted(one.name for one in folder.iterdir()) == ["1.dump", "script.log", "writes.sql"]


def test_old_dumps_make_room(database: Server, folder: Path) -> None:
    database.sql("CREATE TABLE t (a int)")
    for number in range(3):
        assert dump(database, folder, keep=2, name=f"{number}.dump")[0] == 0
        time.sleep(0.02)
    assert sorted(one.name for one in folder.glob("*.dump")) == ["1.dump", "2.dump"]


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("DELETE FROM staff WHERE id = 7", "differs from the database: table public.staff"),
        ("UPDATE staff SET pay = 0 WHERE id = 7", "differs from the database: table public.staff"),
        ("DROP VIEW fine", "differs from the database: v public.fine"),
    ],
)
def test_a_restored_dump_that_differs_is_none(database: Server, folder: Path, loss: str, said: str) -> None:
    fill(database)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        lossy = Path(name) / "pg_restore"
        real = database.programs / "pg_restore"
        lossy.write_text(f'#!/bin/sh\n{real} "$@" || exit\nexec psql -XAtqw -c "{loss}"\n')
        lossy.chmod(0o755)
        code, output = dump(database, folder, path=name)
    assert code == 1
    assert said in output
    assert SECRET not in output
    assert list(folder.glob("*.dump*")) == []


def test_what_may_not_be_read_cannot_be_dumped(database: Server, folder: Path) -> None:
    database.sql("CREATE TABLE of_root (a int)", as_user="postgres")
    try:
        code, said = dump(database, folder)
    finally:
        database.sql("DROP TABLE of_root", as_user="postgres")
    assert code == 1
    assert "permission denied for table of_root" in said
    assert list(folder.glob("*.dump*")) == []


# What the plan's scripts write down


def alembic_project(folder: Path, *revisions: tuple[str, str | None, str]) -> Path:
    """A project with revisions: name, the one before, and the SQL that it executes."""
    versions = folder / "app" / "alembic" / "versions"
    versions.mkdir(parents=True)
    (folder / "app" / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/alembic\n")
    shutil.copy(ROOT / "reference_app" / "alembic" / "script.py.mako", folder / "app" / "alembic")
    (folder / "app" / "alembic" / "env.py").write_text(
        "from alembic import context\nfrom sqlalchemy import create_engine\n"
        "if context.is_offline_mode():\n"
        "    context.configure(dialect_name='postgresql', literal_binds=True)\n"
        "    with context.begin_transaction():\n        context.run_migrations()\n"
        "else:\n"
        "    with create_engine('postgresql+psycopg://').connect() as connection:\n"
        "        context.configure(connection=connection)\n"
        "        with context.begin_transaction():\n            context.run_migrations()\n"
    )
    for name, before, body in revisions:
        (versions / f"{name}.py").write_text(
            f"from alembic import op\nrevision = {name!r}\ndown_revision = {before!r}\n\ndef upgrade():\n    {body}\n"
        )
    return folder / "app"


def written(server: Server, folder: Path, project: Path, before: str, tool: Tool) -> tools.Plan:
    """What the plan's container writes down."""
    (folder / "revision").write_text(f"{before}\n")
    environment = server.environment(GROUNDWORK_FOLDER=str(folder), HOME=str(folder))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(["sh", "-c", tool.plan_script], cwd=project, env=environment, check=True)
    names = ("heads", "heads.code", "heads.error", "plan.sql", "plan.code", "plan.error")
    files = {name: (folder / name).read_text() if (folder / name).exists() else None for name in names}
    return tools.read_plan(tool, before, files)


ALEMBIC = Tool("alembic", ("alembic", "upgrade", "head"))


def test_what_alembic_is_about_to_do(database: Server, folder: Path) -> None:
    project = alembic_project(
        folder,
        ("0001", None, "op.execute('CREATE TABLE staff (a int)')"),
        ("0002", "0001", "op.execute('UPDATE staff SET a = 1; DROP TABLE old')"),
        ("0003", "0002", "op.execute('CREATE TABLE more (a int)')"),
    )
    plan = written(database, folder, project, "0001", ALEMBIC)
    assert plan.heads == ("0003",)
    assert plan.expected == "0003"
    assert plan.steps == ("0002", "0003")
    assert "CREATE TABLE staff" not in str(plan.sql)
    assert "DROP TABLE" in str(plan.sql)
    assert plan.analysis.destructive
    fresh = written(database, folder, project, "", ALEMBIC)
    assert fresh.steps == ("0001", "0002", "0003")
    idle = written(database, folder, project, "0003", ALEMBIC)
    assert idle.idle
    assert idle.expected == "0003"
    with pytest.raises(Exception, match="which its image does not know"):
        written(database, folder, project, "0009", ALEMBIC)
    # Nothing of it was carried out.
    assert database.sql("SELECT to_regclass('staff')") == ""


def test_what_alembic_cannot_render(database: Server, folder: Path) -> None:
    project = alembic_project(
        folder,
        ("0001", None, "op.execute('CREATE TABLE staff (a int)')"),
        ("0002", "0001", f"raise RuntimeError('needs a connection: {SECRET}')"),
    )
    plan = written(database, folder, project, "0001", ALEMBIC)
    assert [one.kind for one in plan.analysis.destructive] == ["unknown"]
    assert plan.expected == "0002"
    assert SECRET not in str(plan.analysis)


def test_several_heads(database: Server, folder: Path) -> None:
    project = alembic_project(folder, ("0001", None, "pass"), ("0002", "0001", "pass"), ("0003", "0001", "pass"))
    with pytest.raises(Exception, match="has 2 heads") as caught:
        written(database, folder, project, "0001", ALEMBIC)
    assert "0002, 0003" in str(caught.value)
    meant = Tool("alembic", ("alembic", "upgrade", "heads"))
    assert written(database, folder, project, "0001", meant).expected == "0002,0003"


def test_the_reference_applications_plan(database: Server, folder: Path) -> None:
    source = ROOT / "reference_app" / "src"
    words = ("env", f"PYTHONPATH={source}", "DOMAIN_MODULE=medical_inventory", "bin/alembic", "upgrade", "head")
    plan = written(database, folder, ROOT / "reference_app", "", Tool("alembic", words))
    assert plan.steps[0] == "0001"
    assert plan.expected == plan.steps[-1]


def test_a_command_of_ones_own(database: Server, folder: Path) -> None:
    tool = Tool("command", ("migrate",), render=("printf", "DROP TABLE %s;", "staff"))
    plan = written(database, folder, folder, "", tool)
    assert plan.sql == "DROP TABLE staff;"
    silent = written(database, folder, folder, "", Tool("command", ("migrate",), render=("false",)))
    assert [one.kind for one in silent.analysis.destructive] == ["unknown"]


DJANGO = """#!/bin/sh
# Prints what Django's own command prints.
case $* in
  "migrate --plan") echo "Planned operations:" ;;
  "showmigrations --plan")
    echo "[X]  auth.0001_initial"
    echo "[ ]  shop.0002_drop"
    echo "[ ]  shop.0003_program" ;;
  "sqlmigrate shop 0002_drop")
    printf 'BEGIN;\\n--\\n-- Remove field a\\n--\\nALTER TABLE "t" DROP COLUMN "a" CASCADE;\\nCOMMIT;\\n' ;;
  "sqlmigrate shop 0003_program")
    printf 'BEGIN;\\n--\\n-- Raw Python operation\\n--\\n-- THIS OPERATION CANNOT BE WRITTEN AS SQL\\nCOMMIT;\\n' ;;
  *) exit 9 ;;
esac
"""


def test_what_django_is_about_to_do(database: Server, folder: Path) -> None:
    (folder / "manage.py").write_text(DJANGO)
    tool = Tool("django", ("sh", "manage.py", "migrate"))
    plan = written(database, folder, folder, "auth.0001_initial,shop.0001_initial", tool)
    assert plan.steps == ("shop.0002_drop", "shop.0003_program")
    assert plan.expected == "auth.0001_initial,shop.0003_program"
    assert "unknown" in [one.kind for one in plan.analysis.destructive]


def test_files_are_copied_out_of_the_image(database: Server, folder: Path) -> None:
    (folder / "image").mkdir()
    (folder / "image" / "V1__a.sql").write_text("SELECT 1;")
    tool = Tool("sql", path=str(folder / "image"))
    done = subprocess.run(["sh", "-c", tool.plan_script], env=database.environment(GROUNDWORK_FOLDER=str(folder)),
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "sql" / "V1__a.sql").exists()
    empty = Tool("sql", path=str(folder / "nothing"))
    done = subprocess.run(["sh", "-c", empty.plan_script], env=database.environment(GROUNDWORK_FOLDER=str(folder)),
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "has no *.sql files" in done.stderr
