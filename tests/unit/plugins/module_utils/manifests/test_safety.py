"""What every pod, and the namespace around it, has for its safety."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import medical_inventory as support

ENVIRONMENTS = support.ENVIRONMENTS
PODS = [
    pytest.param(template, id=f"{environment}-{name}")
    for environment in ENVIRONMENTS
    for name, template in support.pod_templates(support.shared(environment)).items()
]


@pytest.mark.parametrize("template", PODS)
def test_pods_are_restricted(template: dict[str, Any]) -> None:
    pod = template["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["serviceAccountName"] not in ("", "default")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        }
        for side in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][side])
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    for volume in pod["volumes"]:
        assert set(volume) & {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("template", PODS)
def test_what_serves_is_probed_spread_and_leaves_gently(template: dict[str, Any]) -> None:
    pod = template["spec"]
    container = pod["containers"][0]
    if "ports" not in container:
        return
    assert container["readinessProbe"] != container["livenessProbe"]
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 120
    keys = [one["topologyKey"] for one in pod["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    if "lifecycle" in container:
        assert pod["terminationGracePeriodSeconds"] > container["lifecycle"]["preStop"]["sleep"]["seconds"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_rollout_has_fewer_pods_than_before(environment: str) -> None:
    for one in support.objects(support.shared(environment)):
        if one["kind"] == "Deployment":
            assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
            assert one["spec"]["revisionHistoryLimit"] == 5


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_budgets_never_keep_a_node_from_being_drained(environment: str) -> None:
    objects = support.objects(support.shared(environment))
    budgets = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "PodDisruptionBudget"}
    assert "postgres" not in budgets, "CloudNativePG makes its own"
    for budget in budgets.values():
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    scaled = {one["metadata"]["name"] for one in objects if one["kind"] == "HorizontalPodAutoscaler"}
    assert scaled <= set(budgets)


def test_keep_available_is_the_budget() -> None:
    result = support.compiled("prod", {"components": {"api": {"keep_available": 1}}})
    spec = support.find(result, "PodDisruptionBudget", "api")["spec"]
    assert spec["minAvailable"] == 1
    assert "maxUnavailable" not in spec


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_namespace_is_restricted_and_comes_first(environment: str) -> None:
    first = support.shared(environment)["stages"]["foundation"][0]
    assert first["kind"] == "Namespace"
    labels = first["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_service_account_is_there_and_has_no_token(environment: str) -> None:
    result = support.shared(environment)
    accounts = {one["metadata"]["name"]: one for one in support.objects(result) if one["kind"] == "ServiceAccount"}
    used = {template["spec"]["serviceAccountName"] for template in support.pod_templates(result).values()}
    assert used == set(accounts)
    assert all(one["automountServiceAccountToken"] is False for one in accounts.values())


def test_pull_secrets_reach_everything_that_pulls() -> None:
    result = support.compiled("prod", {"image_pull_secrets": ["registry"]})
    for one in support.objects(result):
        if one["kind"] == "ServiceAccount":
            assert one["imagePullSecrets"] == [{"name": "registry"}]
    assert support.find(result, "Cluster", "postgres")["spec"]["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_limits_hold_the_largest_container(environment: str) -> None:
    result = support.shared(environment)
    most = support.find(result, "LimitRange", "limits")["spec"]["limits"][0]["max"]
    from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
        millicores,
        number_of_bytes,
    )

    for template in support.pod_templates(result).values():
        limits = template["spec"]["containers"][0]["resources"]["limits"]
        assert millicores(limits["cpu"]) <= millicores(most["cpu"])
        assert number_of_bytes(limits["memory"]) <= number_of_bytes(most["memory"])
