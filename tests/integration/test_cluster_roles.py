"""The roles that look at a cluster before they touch it, run as plays against a real API server without nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from tests.support.control_plane import CONTEXT, ControlPlane
from tests.support.deployment import Deployment, Run

METRICS = "v1beta1.metrics.k8s.io"


class Inventory:
    """One cluster without systems, as an inventory of a user's own has it."""

    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        self.folder = folder
        self.variables: dict[str, Any] = {
            "cluster_kubeconfig": str(plane.kubeconfig),
            "cluster_context": CONTEXT,
            "cluster_prerequisites": [],
        }

    def play(self, *arguments: str, expect: int = 0, **variables: Any) -> Run:
        """Run the playbook of the prerequisites with further variables of the host."""
        clusters = {"hosts": {"here": {**self.variables, **variables}}}
        everywhere = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": everywhere, "children": {"clusters": clusters}}}))
        environment = {"ANSIBLE_DISPLAY_OK_HOSTS": "true"}
        deployment = Deployment([inventory], self.folder, environment)
        return deployment.play("playbooks/prerequisites.yml", *arguments, expect=expect, timeout=120)


@pytest.fixture
def inventory(tmp_path: Path, control_plane: ControlPlane) -> Inventory:
    """Takes variables, and runs the playbook."""
    return Inventory(tmp_path, control_plane)


@pytest.fixture
def foreign_metrics(cluster: Cluster) -> Iterator[None]:
    """Resource metrics that somebody else serves."""
    services = cluster.resource("apiregistration.k8s.io/v1", "APIService")
    spec = {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "provider", "namespace": "kube-system", "port": 443},
    }
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    cluster.create(services, {**kind, "metadata": {"name": METRICS}, "spec": spec})
    yield
    cluster.delete(services, METRICS)


def words(run: Run) -> str:
    """The output on one line."""
    return " ".join(run.output.split())


def uid(cluster: Cluster) -> str:
    """What identifies the cluster."""
    system = cluster.get(cluster.resource("v1", "Namespace"), "kube-system")
    assert system is not None
    return str(system["metadata"]["uid"])


def test_an_unrecorded_cluster_is_told_with_the_line_to_add(inventory: Inventory, cluster: Cluster) -> None:
    run = inventory.play()
    assert run.changed == 0
    assert f"cluster_uid: {uid(cluster)}" in words(run)


def test_the_recorded_cluster_needs_no_notice(inventory: Inventory, cluster: Cluster) -> None:
    assert "is not recorded" not in words(inventory.play(cluster_uid=uid(cluster)))


def test_another_cluster_than_the_recorded_one_is_refused(inventory: Inventory, cluster: Cluster) -> None:
    said = words(inventory.play(expect=2, cluster_uid="another"))
    assert uid(cluster) in said
    assert "another" in said


def test_a_server_that_is_too_old_is_refused_unless_asked_for(inventory: Inventory) -> None:
    said = words(inventory.play(expect=2, preflight_oldest="1.99"))
    assert "older than 1.99" in said
    inventory.play(preflight_oldest="1.99", preflight_any_version=True)


def test_a_server_newer_than_tested_is_warned_about(inventory: Inventory) -> None:
    assert "nothing newer was tested" in words(inventory.play(preflight_newest="1.30", preflight_oldest="1.30"))


def test_metrics_of_somebody_else_are_left_alone(inventory: Inventory, cluster: Cluster, foreign_metrics: None) -> None:
    run = inventory.play(cluster_prerequisites=["metrics_server"])
    assert "kube-system/provider already; metrics-server is not installed" in words(run)
    assert run.changed == 0
    deployments = cluster.resource("apps/v1", "Deployment")
    assert cluster.get(deployments, "metrics-server", "kube-system") is None


def test_check_mode_shows_what_would_be_installed_and_installs_nothing(inventory: Inventory, cluster: Cluster) -> None:
    image = "mirror.example/metrics-server@sha256:" + "0" * 64
    images = {"registry.k8s.io/metrics-server/metrics-server:v0.9.0": image}
    run = inventory.play("--check", "--diff", cluster_prerequisites=["metrics_server"], cluster_images=images)
    assert run.changed == 1
    assert image in run.output
    assert cluster.get(cluster.resource("apps/v1", "Deployment"), "metrics-server", "kube-system") is None


def test_metrics_server_is_admitted_where_pods_are_restricted(
    inventory: Inventory, cluster: Cluster, namespace: str
) -> None:
    """Without nodes nothing gets ready; what is applied, and that its pods would be admitted, is seen all the same."""
    run = inventory.play(
        expect=2, cluster_prerequisites=["metrics_server"], metrics_server_wait_timeout=5, metrics_server_replicas=2
    )
    try:
        assert "did not get ready within 5 s" in words(run)
        deployment = cluster.get(cluster.resource("apps/v1", "Deployment"), "metrics-server", "kube-system")
        assert deployment is not None
        budget = cluster.get(cluster.resource("policy/v1", "PodDisruptionBudget"), "metrics-server", "kube-system")
        assert budget is not None
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        restricted = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        cluster.apply(cluster.resource("v1", "Namespace"), restricted)
        spec = {**deployment["spec"]["template"]["spec"], "serviceAccountName": "default", "serviceAccount": "default"}
        spec.pop("priorityClassName")
        metadata = {"name": "probe", "namespace": namespace}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        cluster.create(cluster.resource("v1", "Pod"), pod, dry_run=True)
    finally:
        for api_version, kind, name, where in (
            ("apps/v1", "Deployment", "metrics-server", "kube-system"),
            ("policy/v1", "PodDisruptionBudget", "metrics-server", "kube-system"),
            ("apiregistration.k8s.io/v1", "APIService", METRICS, None),
        ):
            cluster.delete(cluster.resource(api_version, kind), name, where)
