"""Patches: strategic merge, and an error for each that does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.patches import merged
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import SystemInvalid
from tests.support import medical_inventory as support


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
        (
            {"containers": [{"name": "a", "image": "x"}, {"name": "b"}]},
            {"containers": [{"name": "a", "env": [{"name": "N", "value": "1"}]}, {"name": "c"}]},
            {
                "containers": [
                    {"name": "a", "image": "x", "env": [{"name": "N", "value": "1"}]},
                    {"name": "b"},
                    {"name": "c"},
                ]
            },
        ),
        (
            {"env": [{"name": "A"}, {"name": "B"}]},
            {"env": [{"name": "A", "$patch": "delete"}]},
            {"env": [{"name": "B"}]},
        ),
        ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "delete"}}, {}),
        (
            {"ports": [{"port": 80, "name": "x"}]},
            {"ports": [{"port": 80, "nodePort": 1}]},
            {"ports": [{"port": 80, "name": "x", "nodePort": 1}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({}, {"containers": [{"name": "a", "x": None}]}, {"containers": [{"name": "a"}]}),
    ],
)
def test_strategic_merge(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


def test_patches_come_last_and_reach_every_stage() -> None:
    result = support.compiled(
        "local",
        {
            "patches": {
                "Namespace/medical-inventory": {"metadata": {"annotations": {"owner": "clinic"}}},
                "Cluster/postgres": {"spec": {"logLevel": "debug"}},
                "Job/migrate": {"spec": {"activeDeadlineSeconds": 60}},
                "Deployment/api": {
                    "spec": {
                        "minReadySeconds": 3,
                        "template": {"spec": {"containers": [{"name": "api", "env": [{"name": "X", "value": "1"}]}]}},
                    }
                },
            }
        },
    )
    assert support.find(result, "Namespace", "medical-inventory")["metadata"]["annotations"] == {"owner": "clinic"}
    assert support.find(result, "Cluster", "postgres")["spec"]["logLevel"] == "debug"
    assert result["stages"]["migration"]["spec"]["activeDeadlineSeconds"] == 60
    api = support.find(result, "Deployment", "api")
    assert api["spec"]["minReadySeconds"] == 3
    plain = support.find(support.shared("local"), "Deployment", "api")
    env = api["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [*plain["spec"]["template"]["spec"]["containers"][0]["env"], {"name": "X", "value": "1"}]


def test_a_patch_must_hit_and_must_not_rename() -> None:
    with pytest.raises(SystemInvalid) as found:
        support.compiled(
            "local",
            {
                "patches": {
                    "Deployment/apii": {"spec": {}},
                    "CronJob/backup": {},
                    "Deployment/api": {"metadata": {"name": "x"}},
                }
            },
        )
    said = [str(problem) for problem in found.value.problems]
    assert said == [
        "system_overrides: patches.CronJob/backup: found a patch that matches nothing, expected an object of the "
        "system",
        "system_overrides: patches.Deployment/api: found a change of kind, name or namespace, expected changes of the "
        "object itself only",
        "system_overrides: patches.Deployment/apii: found a patch that matches nothing, expected an object of the "
        "system (Deployment/api, Deployment/proxy or Deployment/websocket); did you mean Deployment/api?",
    ]
