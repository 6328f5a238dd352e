"""What is put around the container that migrates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import pod, restore_point
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import Database
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import prepared
from ansible_collections.groundwork.platform.plugins.module_utils.migration.tools import Tool
from tests.support import medical_inventory as support

DATABASE = Database.of({"cluster": "postgres", "name": "shop"})
ALEMBIC = Tool("alembic", ("alembic", "upgrade", "head"))


def compiled() -> dict[str, Any]:
    return prepared(support.shared("prod")["stages"]["migration"], None, 600)


def guarded(tool: Tool = ALEMBIC, **options: Any) -> dict[str, Any]:
    job = pod.guarded(compiled(), DATABASE, "postgres:17", tool, pod.Lock(timeout=120), **options)
    return dict(job["spec"]["template"]["spec"])


def test_the_order_of_things() -> None:
    spec = guarded()
    assert [one["name"] for one in spec["initContainers"]] == [pod.LOCK, pod.PLAN, pod.GATE]
    lock, plan, gate = spec["initContainers"]
    assert lock["restartPolicy"] == "Always"
    assert "restartPolicy" not in plan
    assert "restartPolicy" not in gate
    # Longer than the lock is waited for: the kubelet must not end the container that still waits.
    assert lock["startupProbe"]["failureThreshold"] * lock["startupProbe"]["periodSeconds"] > 120 + 60
    assert lock["image"] == gate["image"] == "postgres:17"
    assert plan["image"] == spec["containers"][0]["image"]
    assert len(spec["containers"]) == 1


@pytest.mark.parametrize("tool", [ALEMBIC, Tool("sql", path="/sql"), Tool("command", ("x",))])
def test_everything_is_restricted(tool: Tool) -> None:
    spec = guarded(tool)
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in [*spec["initContainers"], *spec["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        for side in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][side])
    assert all("hostPath" not in volume for volume in spec["volumes"])
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(names) == len(set(names))
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert {one["name"] for one in container["volumeMounts"]} <= set(names)


def test_no_user_is_taken_from_the_image() -> None:
    job = {"spec": {"template": {"spec": {"containers": [{"name": "m", "image": "app"}]}}}}
    made = pod.guarded(job, DATABASE, "postgres:17", ALEMBIC, pod.Lock())
    assert made["spec"]["template"]["spec"]["initContainers"][0]["securityContext"]["runAsUser"] == pod.USER
    assert "runAsUser" not in guarded()["initContainers"][0]["securityContext"]


def test_the_plan_can_change_nothing() -> None:
    plan = guarded()["initContainers"][1]
    options = [one["value"] for one in plan["env"] if one["name"] == "PGOPTIONS"]
    assert options == ["-c default_transaction_read_only=on -c statement_timeout=60s"]
    assert 'alembic upgrade --sql "${r:+$r:}"head' in plan["command"][2]


def test_passwords_are_only_referred_to() -> None:
    for container in guarded()["initContainers"]:
        for one in container["env"]:
            if "PASSWORD" in one["name"]:
                assert set(one) == {"name", "valueFrom"}
    ca = next(one for one in guarded()["volumes"] if one["name"] == "groundwork-ca")
    assert ca["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_sql_files_run_by_psql_with_the_jobs_timeouts() -> None:
    spec = guarded(Tool("sql"), files="schema")
    main = spec["containers"][0]
    assert main["image"] == "postgres:17"
    assert main["command"][-1] == "run"
    assert {"name": "GROUNDWORK_SQL", "value": "/groundwork-sql"} in main["env"]
    assert any(one["name"] == "PGOPTIONS" and "lock_timeout" in one["value"] for one in main["env"])
    assert [one["name"] for one in spec["initContainers"]] == [pod.LOCK, pod.GATE]


def test_timeouts_are_added_to_what_the_job_says() -> None:
    job = {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "PGOPTIONS", "value": "-c a=b"}]}]}}}}
    made = pod.with_timeouts(job, 10, None)
    assert made["spec"]["template"]["spec"]["containers"][0]["env"] == [
        {"name": "PGOPTIONS", "value": "-c a=b -c lock_timeout=10000ms"}
    ]
    assert pod.with_timeouts(job, None, None) is job


def test_the_lock_is_polled_and_the_sessions_own() -> None:
    query = pod.Lock(key=-5).query
    assert "pg_try_advisory_lock(-5)" in query
    assert "pg_advisory_lock" not in query
    assert "xact" not in query
    # As pg_locks splits a bigint.
    assert "l.classid = 4294967295 AND l.objid = 4294967291" in query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"pid": 7, "application": "psql", "user": "me", "address": null, "since": "2024-01-01 10:00:00"}',
         "pid 7, application psql, user me, connected since 2024-01-01 10:00:00 UTC"),
        ("{}", "a session that was gone when it was looked for"),
        ("half a li", "a session that was gone when it was looked for"),
    ],
)  # fmt: skip
def test_the_holder_in_words(text: str, expected: str) -> None:
    assert pod.holder(text) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "lacks host and name and secret and image"),
        ({"host": "h", "name": "n", "secret": "s"}, "lacks image"),
        ({"cluster": "c", "host": "h"}, "is named by cluster and by host"),
    ],
)
def test_a_database_that_cannot_be_meant(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Failure, match=said):
        Database.of(options)


def test_a_restore_points_pod_lives_under_the_same_rules() -> None:
    job = compiled()
    job["spec"]["template"]["metadata"]["labels"] |= {"batch.kubernetes.io/controller-uid": "u", "job-name": "j"}
    options = {"type": "dump", "size": "5Gi"}
    made = restore_point.Dump(options, job, DATABASE, "postgres:17").manifest("20240101t000000", 600)
    spec, original = made["spec"]["template"]["spec"], job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == original["serviceAccountName"]
    labels = made["spec"]["template"]["metadata"]["labels"]
    # The network policy that lets the migration reach the database lets this reach it.
    assert labels["app.kubernetes.io/name"] == "migrate"
    assert not any("controller-uid" in key or "job-name" in key for key in labels)
    assert "groundwork.platform/migration" not in made["metadata"]["labels"]
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 26
    context = spec["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert len(made["metadata"]["name"]) <= 63
    assert "password" not in json.dumps(made).lower().replace("pgpassword", "").replace('"key": "password"', "")
