"""What cannot work is refused in one sentence that says what to do, before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import LOCAL, ROOT, Deployment

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "far", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "me", "user": {"token": "recognisable-secret-token"}}],
    "contexts": [{"name": "far", "context": {"cluster": "far", "user": "me"}}],
    "current-context": "far",
}


def refused(inventory: list[Path], tmp_path: Path, variables: dict[str, Any], *arguments: str) -> str:
    """Run site.yml with these variables, which must fail; returns its output on one line."""
    deployment = Deployment(inventory, tmp_path / "cluster")
    run = deployment.play("site.yml", f"--extra-vars={json.dumps(variables)}", *arguments, expect=2, timeout=120)
    assert "Traceback" not in run.output
    assert "recognisable-secret-token" not in run.output
    assert run.changed == 0
    return " ".join(run.output.split())


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A kubeconfig whose one context leads nowhere."""
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(KUBECONFIG))
    return file


PROD = [ROOT / "inventories" / "prod"]


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    said = refused(PROD, tmp_path, {"cluster_kubeconfig": str(missing), "cluster_context": "prod"})
    assert str(missing) in said


def test_a_context_that_the_kubeconfig_does_not_have(tmp_path: Path, kubeconfig: Path) -> None:
    said = refused(PROD, tmp_path, {"cluster_kubeconfig": str(kubeconfig), "cluster_context": "near"})
    assert "near" in said
    assert "far" in said, "the contexts that there are are not named"


def test_the_current_context_is_not_taken(tmp_path: Path, kubeconfig: Path) -> None:
    said = refused(PROD, tmp_path, {"cluster_kubeconfig": str(kubeconfig)})
    assert "has no connection yet" in said


def test_an_api_server_that_does_not_answer(tmp_path: Path, kubeconfig: Path) -> None:
    said = refused(PROD, tmp_path, {"cluster_kubeconfig": str(kubeconfig), "cluster_context": "far"})
    assert "127.0.0.1:9" in said


def test_a_cluster_that_the_inventory_does_not_have(tmp_path: Path, kubeconfig: Path) -> None:
    variables = {"cluster_kubeconfig": str(kubeconfig), "cluster_context": "far", "system_cluster": "elsewhere"}
    said = refused(PROD, tmp_path, variables, "--limit=medical_inventory")
    assert "elsewhere" in said


def test_an_unknown_provider(tmp_path: Path) -> None:
    variables = {"local_cluster_provider": "mainframe", "local_cluster_directory": str(tmp_path / "cluster")}
    said = refused([LOCAL], tmp_path, variables)
    assert "mainframe" in said
    assert "embedded" in said, "the providers that there are are not named"
    assert not (tmp_path / "cluster").exists()


def test_a_subnet_that_is_in_use(tmp_path: Path) -> None:
    """The loopback network is always there."""
    variables = {
        "local_cluster_provider": "embedded",
        "local_cluster_name": "groundwork-c0ffee",
        "local_cluster_subnet": "127.0.0.0/24",
        "local_cluster_directory": str(tmp_path / "cluster"),
    }
    said = refused([LOCAL], tmp_path, variables)
    assert "127.0.0.0/24" in said
    assert not Path("/var/lib/groundwork.platform/groundwork-c0ffee").exists()


def test_a_kubeconfig_of_the_user_is_not_replaced_by_another(tmp_path: Path, kubeconfig: Path) -> None:
    variables = {"local_cluster_kubeconfig": str(kubeconfig), "local_cluster_directory": str(tmp_path / "cluster")}
    said = refused([LOCAL], tmp_path, variables)
    assert "127.0.0.1:9" in said or str(kubeconfig) in said
