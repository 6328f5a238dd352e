"""Migrations as Jobs on a real API server."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import JOBS, RECORD, Migration
from ansible_collections.groundwork.platform.plugins.module_utils.migration.lease import LeaseLock
from tests.support import kubelet
from tests.support.kubelet import Kubelet, wait_until


def definition(image: str = "app@sha256:" + "1" * 64) -> Object:
    container = {"name": "migrate", "image": image, "command": ["alembic", "upgrade", "head"]}
    spec = {"ttlSecondsAfterFinished": 1, "template": {"spec": {"containers": [container]}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}, "spec": spec}


def record(cluster: Cluster, namespace: str, job: str) -> dict[str, Any]:
    found = cluster.get(cluster.resource("v1", "ConfigMap"), RECORD, namespace)
    return dict(json.loads((found or {"data": {}})["data"].get(job, "{}")))


def test_runs_once_for_each_image(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace, kubelet.succeeded):
        assert Migration(cluster, definition(), namespace).look().action == "run"
        first = Migration(cluster, definition(), namespace).run()
        assert first.action == "run"
        assert first.command == ["alembic", "upgrade", "head"]
        assert record(cluster, namespace, first.job)["outcome"] == "succeeded"
        assert Migration(cluster, definition(), namespace).look().action == "unchanged"
        assert Migration(cluster, definition(), namespace).run().action == "unchanged"
        # The record holds although somebody has tidied the Job up.
        cluster.delete(JOBS, first.job, namespace)
        wait_until(lambda: cluster.get(JOBS, first.job, namespace) is None)
        assert Migration(cluster, definition(), namespace).run().action == "unchanged"
        other = Migration(cluster, definition("app@sha256:" + "2" * 64), namespace).run()
        assert other.action == "run"
        assert other.job != first.job


def test_a_tag_may_point_elsewhere(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace, kubelet.succeeded):
        uids = set()
        for _time in range(2):
            outcome = Migration(cluster, definition("app:1.0"), namespace).run()
            assert outcome.action == "run"
            job = cluster.get(JOBS, outcome.job, namespace)
            assert job is not None
            assert job["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"
            uids.add(job["metadata"]["uid"])
        assert len(uids) == 2
        look = Migration(cluster, definition("app:1.0"), namespace).look()
        assert look.action == "unchanged"
        assert "named by a tag" in look.notes[0]


def test_a_failed_migration_says_why_and_runs_again(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace, kubelet.failed), pytest.raises(Failure) as caught:
        Migration(cluster, definition(), namespace, 30).run()
    assert caught.value.code == "migration_failed"
    assert "exit code 3" in caught.value.sentence
    job = caught.value.object.rpartition("/")[2]
    assert record(cluster, namespace, job)["outcome"] == "failed"
    with Kubelet(cluster, namespace, kubelet.succeeded):
        assert Migration(cluster, definition(), namespace, 30).run().action == "run"
    assert record(cluster, namespace, job)["outcome"] == "succeeded"


def test_attaches_to_a_job_that_runs(cluster: Cluster, namespace: str) -> None:
    interrupted = Migration(cluster, definition(), namespace)
    cluster.create(JOBS, interrupted.job)
    with Kubelet(cluster, namespace, kubelet.running) as nodes:
        threading.Timer(1.5, lambda: nodes.now_behave(kubelet.succeeded)).start()
        assert Migration(cluster, definition(), namespace, 30).run().action == "attached"
        assert len(cluster.list(JOBS, namespace).items) == 1


def test_two_controllers_migrate_once(cluster: Cluster, namespace: str) -> None:
    outcomes: list[str] = []

    def migrate() -> None:
        outcomes.append(Migration(cluster, definition(), namespace, 40).run().action)

    with Kubelet(cluster, namespace, kubelet.running) as nodes:
        threads = [threading.Thread(target=migrate) for _number in range(3)]
        for thread in threads:
            thread.start()
        wait_until(nodes.pods)
        time.sleep(1)
        nodes.now_behave(kubelet.succeeded)
        for thread in threads:
            thread.join(40)
        assert sorted(outcomes) == ["run", "unchanged", "unchanged"]
        assert len(cluster.list(JOBS, namespace).items) == 1


def test_a_job_that_cannot_start_is_suspended(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace, kubelet.waiting("ErrImagePull", "manifest unknown: not found")):
        with pytest.raises(Failure) as caught:
            Migration(cluster, definition(), namespace, 60).run()
        assert caught.value.code == "image_not_found"
        job = cluster.list(JOBS, namespace).items[0]
        assert job["spec"]["suspend"] is True
    with Kubelet(cluster, namespace, kubelet.succeeded):
        assert Migration(cluster, definition(), namespace, 60).run().action == "run"


def test_a_lease_of_a_dead_holder_runs_out(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = "ansible_collections.groundwork.platform.plugins.module_utils.migration.lease"
    monkeypatch.setattr(f"{lease}.DURATION", 2)
    dead = LeaseLock(cluster, namespace, "lock")
    dead._acquire(5)
    with pytest.raises(Failure) as caught, LeaseLock(cluster, namespace, "lock").held(0.5):
        pass
    assert caught.value.code == "locked"
    assert dead.identity in caught.value.sentence
    with LeaseLock(cluster, namespace, "lock").held(10):
        pass
