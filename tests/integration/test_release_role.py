"""The role system and the playbooks around releases, run against a real API server; the kubelet is simulated."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from tests.integration.test_release import healthy
from tests.support.control_plane import CONTEXT, ControlPlane
from tests.support.deployment import Deployment, Run
from tests.support.kubelet import Kubelet

SYSTEM = {
    "image": "example/shop:1",
    "components": {
        "api": {"args": ["serve"], "port": 8000, "replicas": 2, "env": {"MODE": "plain"}},
        "worker": {"args": ["work"]},
    },
}


class Site:
    """An inventory of one cluster and one system of its own."""

    def __init__(self, folder: Path, plane: ControlPlane, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.namespace = f"shop-{uuid.uuid4().hex[:8]}"
        system = folder / "systems" / "shop"
        (system / "environments").mkdir(parents=True)
        (system / "system.yml").write_text(yaml.safe_dump({**SYSTEM, "namespace": self.namespace}))
        (system / "environments" / "dev.yml").write_text("")
        here = {"cluster_kubeconfig": str(plane.kubeconfig), "cluster_context": CONTEXT, "cluster_prerequisites": []}
        shop = {
            "system_cluster": "here",
            "system_environment": "dev",
            "system_path": [str(folder / "systems")],
            "system_components_timeout": 300,
        }
        everywhere = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        children = {"clusters": {"hosts": {"here": here}}, "systems": {"hosts": {"shop": shop}}}
        inventory = folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": everywhere, "children": children}}))
        self.deployment = Deployment([inventory], folder, {"ANSIBLE_DISPLAY_OK_HOSTS": "true", "COLUMNS": "1000"})

    def play(self, playbook: str = "playbooks/systems.yml", *arguments: str, expect: int = 0, **overrides: Any) -> Run:
        variables = {"system_overrides": overrides} if overrides else {}
        extra = f"--extra-vars={json.dumps(variables)}"
        run = self.deployment.play(playbook, extra, *arguments, expect=expect, timeout=600)
        print(run.output[-5000:])
        return run

    def get(self, api_version: str, kind: str, name: str) -> Object | None:
        return self.cluster.get(self.cluster.resource(api_version, kind), name, self.namespace)

    def image(self) -> str:
        live = self.get("apps/v1", "Deployment", "api")
        assert live is not None
        return str(live["spec"]["template"]["spec"]["containers"][0]["image"])


def words(run: Run) -> str:
    return " ".join(run.output.split())


@pytest.fixture
def site(tmp_path: Path, control_plane: ControlPlane, cluster: Cluster) -> Iterator[Site]:
    made = Site(tmp_path, control_plane, cluster)
    with Kubelet(cluster, made.namespace, healthy("shop:2")):
        yield made
    cluster.delete(cluster.resource("v1", "Namespace"), made.namespace)


def test_releases_failures_and_returns(site: Site) -> None:
    first = site.play()
    assert first.changed > 0
    second = site.play()
    assert second.changed == 0

    failed = site.play(expect=2, image="example/shop:2", components={"worker": {"enabled": False}})
    said = words(failed)
    assert "image_not_found" in said or "not found" in said
    assert "Release 2 was rolled back: release 1 serves again, recorded as release 3." in said
    assert site.image() == "example/shop:1"
    assert site.get("apps/v1", "Deployment", "worker") is not None
    assert site.play().changed == 0, "what was rolled back to is what the files say"

    gone = site.play(image="example/shop:3", components={"worker": {"enabled": False}})
    assert gone.changed > 0
    assert site.get("apps/v1", "Deployment", "worker") is None
    assert site.get("v1", "ServiceAccount", "worker") is None
    assert site.image() == "example/shop:3"

    history = site.play("playbooks/history.yml")
    assert history.changed == 0
    for line in ("4 deployed", "3 superseded", "2 rolled_back", "1 superseded"):
        assert line in words(history)

    planned = site.play("playbooks/rollback.yml", "--check", "--diff")
    assert "example/shop:3" in planned.output
    assert site.image() == "example/shop:3"
    back = site.play("playbooks/rollback.yml")
    assert "release 3 serves again, recorded as release 5" in words(back) or "release 1 serves again" in words(back)
    assert site.image() == "example/shop:1"
    assert site.get("apps/v1", "Deployment", "worker") is not None

    refused = site.play("playbooks/rollback.yml", "--extra-vars=rollback_to=2", expect=2)
    assert "release 2 of shop is failed" in words(refused).lower() or "cannot be returned to" in words(refused)


def test_keep_and_pause_are_as_the_file_says(site: Site) -> None:
    site.play()
    kept = site.play(expect=2, image="example/shop:2", on_failure="keep")
    assert "Release 2 stays as it is, as asked for" in words(kept)
    assert site.image() == "example/shop:2"
    paused = site.play(expect=2, image="example/shop:2", on_failure="pause")
    assert "rollout resume deployment/api deployment/worker" in words(paused)
    live = site.get("apps/v1", "Deployment", "api")
    assert live and live["spec"]["paused"] is True
    site.play(image="example/shop:3")
    live = site.get("apps/v1", "Deployment", "api")
    assert live and "paused" not in live["spec"]


def test_a_mistake_in_the_file_touches_nothing(site: Site) -> None:
    site.play()
    refused = site.play(expect=2, components={"api": {"prot": 1}})
    assert "did you mean port" in words(refused)
    assert "rolled back" not in words(refused)
    assert site.play().changed == 0
