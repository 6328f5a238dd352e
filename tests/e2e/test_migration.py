"""Migrations of Medical Inventory's database, on real nodes: lock, refusals, restore point and revision."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import ddl, pod, restore_point
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import JOBS, RECORD, Migration
from ansible_collections.groundwork.platform.plugins.module_utils.migration.options import settings_of
from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import CONFIG_MAPS, Records
from tests.support.deployment import NAMESPACE, Deployment, eventually

DATABASE = "medical_inventory"
NAME = "e2e-migrate"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
PROGRAM = """
import os, psycopg
with psycopg.connect(autocommit=True, application_name="e2e") as connection:
    connection.execute(os.environ["SQL"])
    connection.execute("INSERT INTO e2e_version VALUES (%s)", [int(os.environ["REVISION"])])
"""


class Database:
    """Migrations of the running system's database, by a Job like its own."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.cluster = Cluster(ClusterAuth(kubeconfig=str(deployment.kubeconfig)))
        jobs = [
            one for one in self.cluster.list(JOBS, NAMESPACE).items if one["metadata"]["name"].startswith("migrate-")
        ]
        assert jobs, "the release has left no migration's Job"
        self.original = max(jobs, key=lambda one: str(one["metadata"]["creationTimestamp"]))

    def sql(self, statement: str) -> str:
        return self.deployment.sql(statement)

    def definition(self, sql: str, revision: int) -> Object:
        """The system's own migration Job, with another command."""
        template = self.original["spec"]["template"]
        labels = {
            key: value for key, value in template["metadata"]["labels"].items() if key.startswith("app.kubernetes.io/")
        }
        spec = json.loads(json.dumps(template["spec"]))
        spec.pop("initContainers", None)
        spec["volumes"] = [one for one in spec["volumes"] if not one["name"].startswith("groundwork")]
        main = spec["containers"][0]
        # Another nonce is another migration.
        main["command"] = ["python3", "-c", f"{PROGRAM}# {uuid.uuid4()}"]
        main["env"] += [{"name": "SQL", "value": sql}, {"name": "REVISION", "value": str(revision)}]
        return {
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": NAME, "labels": labels},
            "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}},
        }  # fmt: skip

    def migration(self, sql: str, revision: int = 1, **options: Any) -> Migration:
        params = {
            "definition": self.definition(sql, revision),
            "database": {"cluster": "postgres", "name": DATABASE},
            "tool": "command",
            "revision_query": "SELECT coalesce(max(n)::text, '') FROM e2e_version",
            "render": ["sh", "-c", "printf '%s' \"$SQL\""],
            **options,
        }
        return Migration(self.cluster, params["definition"], NAMESPACE, 300, None, settings_of(params))


@pytest.fixture
def database(second: Deployment) -> Iterator[Database]:
    made = Database(second)
    owner = made.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
    rows = "SELECT n AS id, 'x' AS name FROM generate_series(1, 1000) n"
    made.sql(f'SET ROLE "{owner}"; CREATE TABLE e2e_version (n int); CREATE TABLE e2e_staff AS {rows}')
    try:
        yield made
    finally:
        for job in made.cluster.list(JOBS, NAMESPACE).items:
            if job["metadata"]["name"].startswith(NAME):
                made.cluster.delete(JOBS, job["metadata"]["name"], NAMESPACE)
        made.cluster.delete(restore_point.CLAIMS, restore_point.CLAIM, NAMESPACE)
        entries = [name for name in Records(made.cluster, NAMESPACE).all() if name.startswith(NAME)]
        made.cluster.merge(CONFIG_MAPS, RECORD, NAMESPACE, {"data": dict.fromkeys(entries)})
        made.sql("DROP TABLE IF EXISTS e2e_version, e2e_staff, e2e_more")
        made.cluster.close()


@contextlib.contextmanager
def session(deployment: Deployment, statement: str) -> Iterator[None]:
    """A session in the primary that stays for a minute after its statement, unless it is ended."""
    command = [
        *deployment._kubectl(), "exec", f"--namespace={NAMESPACE}", deployment.primary(), "--container=postgres", "--",
        "env", "PGAPPNAME=an-engineer", "psql", "-XAtq", "-d", DATABASE, "-c", statement, "-c", "SELECT pg_sleep(120)",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=deployment.env)
    ours = "FROM pg_stat_activity WHERE application_name = 'an-engineer'"
    try:
        eventually("the session is there", lambda: deployment.sql(f"SELECT count(*) {ours}") == "1")
        yield
    finally:
        deployment.sql(f"SELECT count(pg_terminate_backend(pid)) {ours}")
        process.kill()
        process.wait()


def failure(migration: Migration, deployment: Deployment) -> Failure:
    with pytest.raises(Failure) as caught:
        migration.run()
    everything = json.dumps(caught.value.as_dict())
    assert not [True for value in deployment.secret_values() if value in everything], "a secret is in the failure"
    return caught.value


def test_the_releases_own_migration(second: Deployment) -> None:
    cluster = Cluster(ClusterAuth(kubeconfig=str(second.kubeconfig)))
    entries = [entry for name, entry in Records(cluster, NAMESPACE).all().items() if name.startswith("migrate-")]
    live = second.sql("SELECT string_agg(version_num, ',') FROM alembic_version")
    newest = max(entries, key=lambda entry: entry["finished"])
    assert newest["outcome"] == "succeeded"
    assert newest["revision"]["after"] == live
    assert newest["destructive"] == []
    assert second.sql(LOCKS) == "0"
    cluster.close()


def test_a_lock_that_somebody_holds(database: Database) -> None:
    with session(database.deployment, f"SELECT pg_advisory_lock({pod.KEY})"):
        told = failure(database.migration("SELECT 1", lock={"timeout": 3}), database.deployment)
    assert told.code == "locked"
    assert "application an-engineer" in told.evidence
    assert database.sql("SELECT count(*) FROM e2e_version") == "0"


@pytest.mark.skipif(ddl.parser is None, reason="no pglast: pip install pglast")
def test_it_migrates_and_reads_the_revision(database: Database) -> None:
    outcome = database.migration("CREATE TABLE e2e_more (a int)").run()
    print(f"a guarded migration: {outcome.seconds:.1f} s")
    assert (outcome.action, outcome.revision_before, outcome.revision) == ("run", "", "1")
    assert outcome.destructive == []
    assert database.sql("SELECT to_regclass('e2e_more') IS NOT NULL") == "t"
    eventually("the lock is gone", lambda: database.sql(LOCKS) == "0")


def test_a_destructive_migration_is_refused(database: Database) -> None:
    told = failure(database.migration("DROP TABLE e2e_staff"), database.deployment)
    assert told.code == "destructive"
    assert "drops table e2e_staff" in told.sentence or "pglast" in told.sentence
    assert database.sql("SELECT count(*) FROM e2e_staff") == "1000"

    def pods() -> list[str]:
        names = [one["metadata"]["name"] for one in database.deployment.get("pods")]
        return [name for name in names if name.startswith(NAME)]

    eventually("its pod is gone", lambda: not pods())


def test_a_dump_is_made_and_verified_first(database: Database) -> None:
    point = {"type": "dump", "size": "1Gi"}
    outcome = database.migration("DROP TABLE e2e_staff", destructive="restore_point", restore_point=point).run()
    made = outcome.restore_point or {}
    print(
        f"a dump of {made.get('bytes')} bytes, {made.get('rows')} rows: {made.get('seconds')} s with its verification"
    )
    assert made["verified"] is True
    assert made["rows"] >= 1000
    assert outcome.revision == "1"
    assert database.sql("SELECT to_regclass('e2e_staff') IS NULL") == "t"


def test_somebody_in_the_middle_of_something(database: Database) -> None:
    with session(database.deployment, "BEGIN; SELECT 1 FROM e2e_staff"):
        limits = {"long_transaction": 0, "idle_in_transaction": 0}
        told = failure(database.migration("CREATE TABLE e2e_more (a int)", preflight=limits), database.deployment)
    assert told.code == "preflight"
    assert "application an-engineer" in told.sentence
