# ruff: noqa: S608 - SQL of the tests' own
"""Migrations of a known database: a real API server, real scripts, a real PostgreSQL; only the nodes are played."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils import pod_exec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import ddl, pod, restore_point
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import Database
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import JOBS, Migration, Outcome
from ansible_collections.groundwork.platform.plugins.module_utils.migration.options import settings_of
from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import Records
from ansible_collections.groundwork.platform.plugins.module_utils.migration.tools import Tool
from tests.support import medical_inventory as support
from tests.support import postgres
from tests.support.kubelet import PODS, wait_until
from tests.support.pod_runner import CONFIG_MAPS, SECRETS, PodRunner
from tests.support.postgres import PASSWORD, Server

VALUE = "a-value-that-nobody-may-see"
pytestmark = [
    pytest.mark.skipif(
        postgres.find_programs() is None,
        reason=f"no PostgreSQL: apt-get install postgresql, or name its programs' folder in {postgres.VARIABLE}",
    ),
    pytest.mark.skipif(ddl.parser is None, reason="no pglast: pip install pglast"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres.running() as one:
        yield one


@dataclasses.dataclass
class World:
    """A namespace with a database, and nodes that run pods."""

    cluster: Cluster
    namespace: str
    server: Server
    runner: PodRunner

    def definition(self, script: str, image: str = "1") -> Object:
        """A Job whose container runs a script of the shell."""
        secret = {"name": "postgres-app", "key": "password"}
        env = [
            {"name": "PGUSER", "value": "app"}, {"name": "PGDATABASE", "value": "shop"},
            {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": secret}},
        ]  # fmt: skip
        container = {
            "name": "migrate",
            "image": f"app@sha256:{image * 64}",
            "command": ["sh", "-ec", script],
            "env": env,
        }
        spec = {"template": {"spec": {"containers": [container]}}}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}, "spec": spec}

    def migration(self, script: str, image: str = "1", timeout: float = 120, **options: Any) -> Migration:
        """A migration by a script, whose revision is the row of a table."""
        params = {
            "definition": self.definition(script, image),
            "database": {"cluster": "postgres", "name": "shop"},
            "tool": "command",
            "revision_query": "SELECT coalesce(max(n)::text, '') FROM version",
            **options,
        }
        expand_only = params.pop("expand_only", False)
        timeouts = params.pop("lock_timeout", None), params.pop("statement_timeout", None)
        return Migration(self.cluster, params["definition"], self.namespace, timeout, None, settings_of(params),
                         expand_only, timeouts)  # fmt: skip

    def sql(self, sql: str, image: str = "1", revision: int = 1, **options: Any) -> Migration:
        """A migration by psql that can be rendered."""
        script = f"psql -XAtqw -v ON_ERROR_STOP=1 -c \"$SQL\" -c 'INSERT INTO version VALUES ({revision})'"
        migration = self.migration(script, image, render=["sh", "-c", "printf '%s' \"$SQL\""], **options)
        migration.job["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "SQL", "value": sql})
        return migration

    def record(self, job: str) -> dict[str, Any]:
        return Records(self.cluster, self.namespace).all()[job]

    def locks(self) -> int:
        return int(self.server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))


@pytest.fixture
def world(cluster: Cluster, namespace: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    server.sql("DROP OWNED BY app", "CREATE SCHEMA IF NOT EXISTS public", "GRANT ALL ON SCHEMA public TO app",
               as_user="postgres")  # fmt: skip
    server.sql("CREATE TABLE version (n int)", "CREATE TABLE staff (id int, name text)",
               f"INSERT INTO staff VALUES (1, '{VALUE}')")  # fmt: skip
    for name, data in (("app", {"username": "app", "password": PASSWORD}), ("ca", {"ca.crt": "none"})):
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        metadata = {"name": f"postgres-{name}", "namespace": namespace}
        cluster.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})
    reach = server.environment()
    reach = {key: reach[key] for key in ("PATH", "PGHOST", "PGPORT", "PGSSLMODE", "LC_ALL")}
    reach["PATH"] = f"{Path(sys.executable).parent}:{reach['PATH']}"
    with PodRunner(cluster, namespace, reach) as runner:
        monkeypatch.setattr(cluster, "logs", runner.logs)
        monkeypatch.setattr(pod_exec, "run", runner.exec)
        runner.primary("postgres", server.environment("postgres"))
        yield World(cluster, namespace, server, runner)


def failure(migration: Migration) -> Failure:
    with pytest.raises(Failure) as caught:
        migration.run()
    everything = json.dumps(caught.value.as_dict()) + caught.value.sentence
    assert PASSWORD not in everything
    assert VALUE not in everything
    return caught.value


def test_it_migrates_alone_and_says_what_came_of_it(world: World) -> None:
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    migration = world.migration(f"""
        test "$(psql -XAtqw -c "{held}")" = 1
        test "$(psql -XAtqw -c 'SHOW lock_timeout'),$(psql -XAtqw -c 'SHOW statement_timeout')" = 7s,3min
        psql -qw -c "CREATE TABLE t (a int)" -c "INSERT INTO version VALUES (1)"
        """, destructive="allow", lock_timeout=7, statement_timeout=180)  # fmt: skip
    assert migration.look().action == "run"
    outcome = migration.run()
    assert (outcome.action, outcome.revision_before, outcome.revision) == ("run", "", "1")
    assert [one["kind"] for one in outcome.destructive or []] == ["unknown"]
    assert outcome.database == {
        "cluster": "postgres", "name": "shop", "tool": "command",
        "revision_query": "SELECT coalesce(max(n)::text, '') FROM version",
    }  # fmt: skip
    assert world.locks() == 0
    record = world.record(outcome.job)
    assert record["outcome"] == "succeeded"
    assert record["revision"] == {"before": "", "after": "1"}
    assert PASSWORD not in json.dumps(
        [record, dataclasses.asdict(outcome), world.cluster.get(JOBS, outcome.job, world.namespace)]
    )
    again = world.migration(migration._command()[2], destructive="allow")
    assert again.run().action == "unchanged"
    assert again.look().revision == "1"


def test_a_schema_that_was_restored_since_is_migrated_again(world: World) -> None:
    assert world.sql("CREATE TABLE t (a int)").run().action == "run"
    world.server.sql("DELETE FROM version", "DROP TABLE t")
    assert world.sql("CREATE TABLE t (a int)").look().action == "run"
    again = world.sql("CREATE TABLE t (a int)").run()
    assert (again.action, again.revision) == ("run", "1")
    assert again.notes == ["the schema is at no revision, not at 1 as recorded: it is migrated again"]


def test_a_newer_schema_is_left_alone(world: World) -> None:
    first = world.sql("CREATE TABLE t (a int)")
    first.run()
    world.sql("CREATE TABLE u (a int)", "2", revision=2).run()
    outcome = world.sql("CREATE TABLE t (a int)").run()
    assert (outcome.action, outcome.revision) == ("unchanged", "2")
    assert "is newer" in outcome.notes[0]


def test_a_destructive_migration_is_refused_by_name(world: World) -> None:
    sql = f"CREATE TABLE t (a int); UPDATE staff SET name = '{VALUE}';\nALTER TABLE staff DROP COLUMN name"
    told = failure(world.sql(sql))
    assert told.code == "destructive"
    assert "line 2 drops column name with its contents (ALTER TABLE staff DROP COLUMN name)" in told.sentence
    assert "UPDATE staff SET name = '...'" in told.sentence
    # Nothing was changed, nothing is left behind, and others may go on.
    assert world.server.sql("SELECT to_regclass('t') IS NULL, count(name) FROM staff") == "t|1"
    wait_until(lambda: world.locks() == 0)
    job = world.sql(sql).name
    assert world.record(job)["outcome"] == "failed"
    wait_until(lambda: not world.cluster.list(PODS, world.namespace, f"batch.kubernetes.io/job-name={job}").items)
    # Told to, it goes on, and names the same.
    outcome = world.sql(sql, destructive="allow").run()
    assert [one["kind"] for one in outcome.destructive or []] == ["loses_data", "loses_data"]
    assert VALUE not in json.dumps(dataclasses.asdict(outcome)) + json.dumps(world.record(outcome.job))


def test_types_are_judged_by_what_they_are_now(world: World) -> None:
    world.server.sql("ALTER TABLE staff ADD short varchar(10)")
    outcome = world.sql("ALTER TABLE staff ALTER short TYPE varchar(20); ALTER TABLE staff ALTER id TYPE bigint").run()
    assert outcome.destructive == []
    assert [one["kind"] for one in outcome.locks] == ["locks"]
    told = failure(world.sql("ALTER TABLE staff ALTER short TYPE varchar(5)", "2", 2))
    assert "narrows staff.short from character varying(20) to varchar(5)" in told.sentence


def test_an_empty_database_has_nothing_to_lose(world: World) -> None:
    world.server.sql("DROP TABLE staff", "DROP TABLE version")
    migration = world.migration("psql -qw -c 'CREATE TABLE version (n int)'", tool="alembic", revision_query="")
    outcome = migration.run()
    assert outcome.destructive == []


def test_a_dump_is_made_before_a_destructive_migration(world: World) -> None:
    options = {"destructive": "restore_point", "restore_point": {"type": "dump", "size": "1Gi", "keep": 2}}
    outcome = world.sql("DROP TABLE staff", **options).run()
    point = outcome.restore_point or {}
    assert point["type"] == "dump"
    assert point["verified"] is True
    assert (point["tables"], point["rows"], point["claim"]) == (2, 1, restore_point.CLAIM)
    assert (world.runner.folder / f"claim-{restore_point.CLAIM}" / point["file"]).stat().st_size == point["bytes"]
    assert world.record(outcome.job)["restore_point"] == point
    claim = world.cluster.get(restore_point.CLAIMS, restore_point.CLAIM, world.namespace)
    assert claim is not None
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert world.server.sql("SELECT to_regclass('staff') IS NULL") == "t"


def test_a_restore_point_that_fails_stops_the_migration(world: World) -> None:
    world.server.sql("CREATE TABLE of_another (a int)", as_user="postgres")
    try:
        options = {"destructive": "restore_point", "restore_point": {"type": "dump", "size": "1Gi"}}
        told = failure(world.sql("DROP TABLE staff", **options))
    finally:
        world.server.sql("DROP TABLE of_another", as_user="postgres")
    assert told.code == "restore_point_failed"
    assert "permission denied for table of_another" in told.sentence
    assert world.server.sql("SELECT count(*) FROM staff") == "1"
    wait_until(lambda: world.locks() == 0)


def test_a_restore_point_by_a_command(world: World) -> None:
    good = ["sh", "-c", 'psql -XAtqw -c "SELECT count(*) FROM staff"; echo \'{"snapshot": "s-1"}\'']
    point = {"type": "command", "image": "backup", "command": good}
    outcome = world.sql("DROP TABLE staff", destructive="restore_point", restore_point=point).run()
    assert (outcome.restore_point or {})["snapshot"] == "s-1"
    silent = {**point, "command": ["sh", "-c", "echo done"]}
    told = failure(world.sql("DROP TABLE version", "2", 2, destructive="restore_point", restore_point=silent))
    assert told.code == "restore_point_failed"
    assert "does not say what it made" in told.sentence


@pytest.mark.parametrize(
    ("point", "code", "said"),
    [
        ({"type": "snapshot"}, "restore_point_unavailable", "Restore point snapshot cannot be made"),
        ({"type": "pg_backup"}, "restore_point_unavailable", "Restore point pg_backup"),
        ({"type": "magic"}, "restore_point_unavailable", "Restore point magic is of an unknown type"),
        (None, "restore_point_unavailable", "without a type"),
        ({"type": "command", "image": "x"}, "bad_restore_point", "lacks command"),
        ({"type": "dump", "image": "x"}, "bad_restore_point", "has image"),
    ],
)
def test_a_restore_point_that_is_not_there_is_refused_by_name(
    world: World, point: dict[str, Any] | None, code: str, said: str
) -> None:
    with pytest.raises(Failure) as caught:
        world.sql("SELECT 1", destructive="restore_point", restore_point=point)
    assert caught.value.code == code
    assert said in caught.value.sentence
    assert world.cluster.list(JOBS, world.namespace).items == []


def test_a_lock_that_somebody_holds(world: World) -> None:
    with world.server.session(f"SELECT pg_advisory_lock({pod.KEY})", application="an engineer") as other:
        pid = other.ask("SELECT pg_backend_pid()")
        told = failure(world.sql("CREATE TABLE t (a int)", lock={"timeout": 2}))
    assert told.code == "locked"
    assert f"pid {pid}, application an engineer, user app" in told.evidence
    assert f"pg_terminate_backend({pid})" in told.hint
    assert world.server.sql("SELECT to_regclass('t') IS NULL") == "t"
    assert world.sql("CREATE TABLE t (a int)").run().action == "run"


def test_what_speaks_against_it_now(world: World) -> None:
    with world.server.session("BEGIN", "SELECT * FROM staff", application="shell"):
        time.sleep(1.1)
        options = {"preflight": {"idle_in_transaction": 1}}
        told = failure(world.sql("ALTER TABLE staff ADD a int", **options))
        assert told.code == "preflight"
        assert "application shell" in told.sentence
        limits = {"idle_in_transaction": 1, "warn": ["idle_in_transaction"], "ignore": ["long_transaction"]}
        warned = world.sql("ALTER TABLE staff ADD a int", preflight=limits, lock_timeout=0.2)
        # Only warned, it runs into the lock itself: the timeout keeps it from holding everybody else up.
        late = failure(warned)
        assert late.code == "migration_failed"
        assert "lock timeout" in json.dumps(late.as_dict())
    assert world.sql("ALTER TABLE staff ADD a int").run().action == "run"


def test_it_waits_for_what_goes_away(world: World) -> None:
    with world.server.session("BEGIN", "SELECT * FROM staff") as other:
        time.sleep(1.1)
        threading.Timer(3, lambda: other.ask("ROLLBACK")).start()
        outcome = world.sql("ALTER TABLE staff ADD a int", preflight={"idle_in_transaction": 1, "wait": 60}).run()
        assert outcome.action == "run"


def alembic(world: World, folder: Path, script: str, image: str = "1", **options: Any) -> Migration:
    """A migration by an Alembic that is played by a script of the shell."""
    program = folder / "alembic"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    migration = world.migration("", image, tool="alembic", revision_query="", **options)
    container = migration.job["spec"]["template"]["spec"]["containers"][0]
    container["command"] = [str(program), "upgrade", "head"]
    definition = {**migration.job, "metadata": {"name": "migrate"}}
    params = {
        "definition": definition,
        "database": {"cluster": "postgres", "name": "shop"},
        "tool": "alembic",
        **options,
    }
    return Migration(world.cluster, definition, world.namespace, 120, None, settings_of(params))


PLAYED = """case $* in
heads) echo '0002 (head)' ;;
"upgrade --sql 0001:head") printf -- '-- Running upgrade 0001 -> 0002\\n\\nCREATE TABLE t (a int);\\n' ;;
"upgrade --sql 0002:head") ;;
"upgrade head") %s ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="groundwork-app-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_job_that_is_complete_and_has_not_migrated(world: World, folder: Path) -> None:
    world.server.sql("CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('0001')")
    told = failure(alembic(world, folder, PLAYED % "true"))
    assert told.code == "revision_unexpected"
    assert "is Complete, but the schema is at 0001 and not at 0002" in told.sentence
    assert "it has not moved" in told.sentence
    update = "psql -XAtqw -c \"UPDATE alembic_version SET version_num = '0002'\""
    migration = alembic(world, folder, PLAYED % update)
    assert world.record(migration.name)["outcome"] == "failed"
    outcome = migration.run()
    assert (outcome.action, outcome.revision_before, outcome.revision) == ("run", "0001", "0002")
    assert outcome.destructive == []
    # Another image without new revisions: nothing is looked for that could be in the way.
    with world.server.session("BEGIN", "SELECT 1 FROM staff"):
        again = alembic(
            world, folder, PLAYED % "true", "2", preflight={"idle_in_transaction": 0, "long_transaction": 0}
        )
        assert again.run().revision == "0002"


def test_an_image_by_tag_is_asked_each_time_and_changes_nothing(world: World, folder: Path) -> None:
    world.server.sql("CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('0001')")
    update = "psql -XAtqw -c \"UPDATE alembic_version SET version_num = '0002'\""
    actions = []
    for _time in range(2):
        migration = alembic(world, folder, PLAYED % update)
        definition = {**migration.job, "metadata": {"name": "migrate"}}
        definition["spec"]["template"]["spec"]["containers"][0]["image"] = "app:1.0"
        actions.append(Migration(world.cluster, definition, world.namespace, 120, None, migration.settings).run())
    assert [one.action for one in actions] == ["run", "unchanged"]
    assert [one.revision for one in actions] == ["0002", "0002"]


def test_a_lock_that_is_lost_to_another_stops_the_migration(world: World) -> None:
    migration = world.migration("sleep 60", destructive="allow")
    caught: list[Failure] = []
    thread = threading.Thread(target=lambda: caught.append(failure(migration)))
    thread.start()
    activity = "FROM pg_stat_activity WHERE application_name = 'groundwork-migration-lock'"
    labels = f"batch.kubernetes.io/job-name={migration.name}"

    def runs() -> Any:
        status = world.cluster.list(PODS, world.namespace, labels).items[0]["status"]
        return status["containerStatuses"][0]["state"].get("running")

    wait_until(runs, 60)
    with world.server.session() as other:
        other.ask(f"SELECT pg_terminate_backend(pid), pg_advisory_lock({pod.KEY}) {activity}")
        thread.join(60)
    assert [one.code for one in caught] == ["lock_lost"]
    assert "application someone" in caught[0].evidence


def test_a_run_that_takes_over_decides(world: World) -> None:
    interrupted = world.sql("CREATE TABLE t (a int)")
    world.cluster.create(JOBS, interrupted._complete())
    outcome = world.sql("CREATE TABLE t (a int)").run()
    assert (outcome.action, outcome.revision) == ("attached", "1")


def test_a_run_that_ended_while_nobody_watched(world: World, folder: Path) -> None:
    migration = world.sql("CREATE TABLE t (a int)")
    migration.run()
    world.cluster.delete(CONFIG_MAPS, "groundwork-migrations", world.namespace)
    again = world.sql("CREATE TABLE t (a int)").run()
    assert (again.action, again.revision) == ("unchanged", "1")


def test_a_migration_that_fails_says_why_without_values(world: World) -> None:
    world.server.sql("ALTER TABLE staff ADD UNIQUE (name)")
    sql = f"INSERT INTO staff VALUES (2, 'other'); INSERT INTO staff VALUES (3, '{VALUE}')"
    told = failure(world.sql(sql))
    assert told.code == "migration_failed"
    assert "duplicate key value violates unique constraint" in json.dumps(told.as_dict())
    record = world.record(world.sql(sql).name)
    assert record["outcome"] == "failed"
    assert VALUE not in json.dumps(record)
    assert world.server.sql("SELECT count(*) FROM staff") == "1"


def test_the_pods_are_admitted_where_only_restricted_ones_are(world: World) -> None:
    namespaces = world.cluster.resource("v1", "Namespace")
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    world.cluster.merge(namespaces, world.namespace, None, {"metadata": {"labels": labels}})
    stages = support.compiled("prod", {"namespace": world.namespace})["stages"]
    migration = Migration(world.cluster, stages["migration"], world.namespace)
    database = Database.of({"cluster": "postgres", "name": "shop"})
    tool = Tool("alembic", ("alembic", "upgrade", "head"))
    job = pod.guarded(migration.job, database, "postgres:17", tool, pod.Lock())
    point = restore_point.Dump({"type": "dump"}, migration.job, database, "postgres:17").manifest("1", 60)
    plain = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    for number, template in enumerate((job["spec"]["template"], point["spec"]["template"])):
        spec = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
        metadata = {"name": f"p{number}", "namespace": world.namespace}
        world.cluster.create(
            PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry_run=True
        )
    with pytest.raises(Failure, match="PodSecurity"):
        metadata = {"name": "plain", "namespace": world.namespace}
        world.cluster.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **plain}, dry_run=True)


def test_two_controllers(world: World) -> None:
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(world.sql("CREATE TABLE t (a int)").run()))
        for _number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert sorted(one.action for one in outcomes) == ["run", "unchanged"]


def elsewhere(world: World, **options: Any) -> Callable[..., Migration]:
    """Migrations of a database that CloudNativePG does not run."""

    def make(**more: Any) -> Migration:
        params = {
            "definition": world.definition("exit 9"),
            "database": {"host": "db.example", "name": "shop", "secret": "postgres-app", "image": "postgres:17"},
            **options,
            **more,
        }
        return Migration(world.cluster, params["definition"], world.namespace, 120, None, settings_of(params))

    return make


def test_sql_files_of_a_config_map_for_a_database_elsewhere(world: World) -> None:
    metadata = {"name": "schema", "namespace": world.namespace}
    files = {"V1__t.sql": "CREATE TABLE t (a int);", "V2__more.sql": f"INSERT INTO staff VALUES (2, '{VALUE}');"}
    world.cluster.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files})
    make = elsewhere(world, tool="sql", sql={"config_map": "schema"})
    first = make().run()
    assert (first.revision_before, first.revision, first.destructive) == ("", "2", [])
    assert world.server.sql("SELECT count(*) FROM staff") == "2"
    assert make().run().action == "unchanged"
    # Other files are another migration.
    world.cluster.merge(CONFIG_MAPS, "schema", world.namespace, {"data": {"V3__drop.sql": "DROP TABLE staff;"}})
    told = failure(make())
    assert told.code == "destructive"
    assert "line 2 drops table staff" in told.sentence
    assert make(destructive="allow").run().revision == "3"
    world.cluster.merge(CONFIG_MAPS, "schema", world.namespace, {"data": {"V1__t.sql": "SELECT 1;"}})
    assert "V1__t.sql has changed since it was applied" in failure(make()).sentence


def test_sql_files_of_an_image(world: World, folder: Path) -> None:
    (folder / "V1__t.sql").write_text("CREATE TABLE t (a int);")
    outcome = elsewhere(world, tool="sql", sql={"path": str(folder)})().run()
    assert outcome.revision == "1"


def test_a_password_that_is_wrong(world: World) -> None:
    wrong = base64.b64encode(b"wrong-password-nobody-may-see").decode()
    world.cluster.merge(SECRETS, "postgres-app", world.namespace, {"data": {"password": wrong}})
    told = failure(world.sql("SELECT 1"))
    assert told.code == "database_unreachable"
    assert "authentication failed" in told.sentence
    assert "wrong-password" not in told.sentence


def test_a_cluster_without_sidecars(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.cluster, "version", lambda: {"major": "1", "minor": "28+", "gitVersion": "v1.28.3"})
    told = failure(world.sql("SELECT 1"))
    assert told.code == "kubernetes_too_old"
    assert "v1.28.3" in told.sentence
    assert world.cluster.list(JOBS, world.namespace).items == []
