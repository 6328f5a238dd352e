"""A real API server accepts every object of every environment, and Pod Security every pod."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system
from tests.support import upstream
from tests.support.control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
PINS = yaml.safe_load((ROOT / "roles/components/vars/main.yml").read_text())["components"]
ENVIRONMENTS = ("local", "dev", "staging", "prod")


class Server:
    """An API server and its kubectl."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def apply(self, objects: list[dict[str, Any]] | str, *options: str) -> subprocess.CompletedProcess[str]:
        """Apply by server-side apply; the caller judges the outcome."""
        text = objects if isinstance(objects, str) else yaml.safe_dump_all(objects)
        return self.kubectl("apply", "--server-side", *options, "-f", "-", text=text)

    def kubectl(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(self.plane.binary), "kubectl", "--kubeconfig", str(self.plane.kubeconfig), *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[Server]:
    files = upstream.cloudnative_pg_crds()
    if not files:
        pytest.skip(upstream.MISSING)
    server = Server(control_plane)
    crds = "\n---\n".join(file.read_text() for file in files)
    done = server.apply(crds)
    assert done.returncode == 0, done.stderr
    yield server
    server.kubectl("delete", "namespace", *(f"try-{environment}" for environment in ENVIRONMENTS), "--wait=false")
    server.kubectl("delete", "--wait=false", "-f", "-", text=crds)


def compiled(environment: str) -> dict[str, Any]:
    overrides = {"namespace": f"try-{environment}"}
    return compile_system("medical_inventory", [ROOT / "systems"], environment, overrides, {}, PINS)


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    template = workload["spec"]["template"]
    name = workload["metadata"]["name"]
    metadata = {**template["metadata"], "name": f"{name}-pod", "namespace": workload["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_object_is_accepted(server: Server, environment: str) -> None:
    stages = compiled(environment)["stages"]
    done = server.apply(stages["foundation"])
    assert done.returncode == 0, done.stderr
    workloads = [*stages["stores"], stages["migration"], *stages["components"]]
    done = server.apply(workloads, "--dry-run=server")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, "Pod Security or the API warns"
    assert len(done.stdout.splitlines()) == len(workloads)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_is_restricted_and_fits_the_limits(server: Server, environment: str) -> None:
    stages = compiled(environment)["stages"]
    assert server.apply(stages["foundation"]).returncode == 0
    workloads = [
        one for one in [*stages["stores"], *stages["components"]] if one["kind"] in ("Deployment", "StatefulSet")
    ]
    pods = [pod_of(one) for one in [*workloads, stages["migration"]]]
    for pod in pods:
        # What a StatefulSet makes of its claim templates.
        mounts = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        for name in sorted(mounts - {volume["name"] for volume in pod["spec"]["volumes"]}):
            pod["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    done = server.apply(pods, "--dry-run=server")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_second_apply_changes_nothing(server: Server, environment: str) -> None:
    """Our amounts and defaults are in the form to which the API server brings them, so no run finds a difference."""
    stages = compiled(environment)["stages"]
    everything = [*stages["foundation"], *stages["stores"], stages["migration"], *stages["components"]]
    first = server.apply(everything, "-o", "yaml")
    second = server.apply(everything, "-o", "yaml")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    for before, after, ours in zip(items(first.stdout), items(second.stdout), everything, strict=True):
        assert before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] or not spec_changed(
            before, after
        )
        assert_within(ours, after, f"{ours['kind']}/{ours['metadata']['name']}")


def items(text: str) -> list[dict[str, Any]]:
    return [one for document in yaml.safe_load_all(text) for one in document.get("items", [document])]


def spec_changed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before.get("spec") != after.get("spec")


def assert_within(ours: Any, theirs: Any, path: str) -> None:
    """Everything that we say is what the server has, to the letter."""
    if isinstance(ours, dict):
        assert isinstance(theirs, dict), path
        for key, value in ours.items():
            assert key in theirs, f"{path}.{key} is gone"
            assert_within(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_within(one, other, f"{path}[{index}]")
    else:
        assert ours == theirs, f"{path}: {ours!r} became {theirs!r}"
