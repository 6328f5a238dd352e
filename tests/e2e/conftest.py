"""One cluster for the whole session, made and removed by Molecule; the tests look deeper at what it left running."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import LOCAL, ROOT, VENV, Deployment, Run, environment

# Set to keep the cluster after the tests and to take it as it is before them: for writing tests.
KEEP = "GROUNDWORK_E2E_KEEP"


def molecule(*arguments: str) -> Run:
    """Run a Molecule command of the scenario default from the root, as a person does."""
    command = [str(VENV / "molecule"), *arguments[:1], "--scenario-name=default", *arguments[1:]]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=environment(NO_COLOR="1", COLUMNS="200"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2700, check=False,
    )  # fmt: skip
    run = Run(done.returncode, done.stdout, time.monotonic() - started)
    print(f"molecule {' '.join(arguments)}: {run.code} after {run.seconds:.0f} s")
    return run


def ephemeral_directory() -> Path:
    """The folder that Molecule gives the scenario."""
    program = (
        "from molecule.config import Config;print(Config('molecule/default/molecule.yml').scenario.ephemeral_directory)"
    )
    done = subprocess.run(
        [str(VENV / "python"), "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip().splitlines()[-1])


class Scenario:
    """What Molecule did, and the deployment that it left."""

    def __init__(self, tested: Run | None, deployment: Deployment) -> None:
        self.tested = tested
        self.deployment = deployment


@pytest.fixture(scope="session")
def scenario() -> Iterator[Scenario]:
    """``molecule test`` without its last step; that step, the removal, follows when all tests are done."""
    folder = ephemeral_directory()
    deployment = Deployment(
        [LOCAL, ROOT / "molecule" / "inventory.yml"], folder / "cluster", {"MOLECULE_EPHEMERAL_DIRECTORY": str(folder)}
    )
    keep = bool(os.environ.get(KEEP))
    tested = None if keep and deployment.kubeconfig.exists() else molecule("test", "--destroy=never")
    yield Scenario(tested, deployment)
    if not keep:
        removed = molecule("destroy")
        assert removed.code == 0, f"molecule destroy failed:\n{removed.output[-6000:]}"


@pytest.fixture(scope="session")
def deployment(scenario: Scenario) -> Deployment:
    """Medical Inventory, running."""
    if scenario.tested is not None and scenario.tested.code != 0:
        pytest.fail(f"molecule test failed, so there is nothing to look at:\n{scenario.tested.output[-3000:]}")
    return scenario.deployment
