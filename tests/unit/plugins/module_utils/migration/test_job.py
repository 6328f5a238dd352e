"""How a migration's Job is made and named."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import job_name, prepared

JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "migrate"},
    "spec": {
        "ttlSecondsAfterFinished": 60,
        "template": {"spec": {"containers": [{"name": "m", "image": "app@sha256:1", "command": ["a"], "env": []}]}},
    },
}


def changed(**container: Any) -> dict[str, Any]:
    job = copy.deepcopy(JOB)
    job["spec"]["template"]["spec"]["containers"][0].update(container)
    return job


def test_the_name_follows_image_and_arguments_only() -> None:
    assert job_name(JOB) == job_name(changed(env=[{"name": "x", "value": "y"}]))
    names = {
        job_name(JOB),
        job_name(changed(image="app@sha256:2")),
        job_name(changed(command=["b"])),
        job_name(changed(args=["c"])),
    }
    assert len(names) == 4
    assert job_name(JOB).startswith("migrate-")
    long = copy.deepcopy(JOB)
    long["metadata"]["name"] = "m" * 80
    assert len(job_name(long)) <= 63


def test_what_a_tag_points_at_is_pulled_anew() -> None:
    def policy(**container: Any) -> str | None:
        made = prepared(changed(**container), "n", 90)["spec"]["template"]["spec"]["containers"][0]
        return str(made["imagePullPolicy"]) if "imagePullPolicy" in made else None

    assert policy() is None
    assert policy(image="app:1.0") == "Always"
    assert policy(image="app:1.0", imagePullPolicy="Never") == "Never"


def test_it_is_tried_once_and_kept() -> None:
    job = prepared(JOB, "n", 90)
    assert job["metadata"]["namespace"] == "n"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["activeDeadlineSeconds"] == 90
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert JOB["spec"]["ttlSecondsAfterFinished"] == 60


@pytest.mark.parametrize("definition", [{"kind": "Pod"}, {"kind": "Job", "metadata": {"name": "x"}, "spec": {}}, {}])
def test_what_is_no_job(definition: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        prepared(definition, None, 1)
    assert caught.value.code == "bad_migration"
