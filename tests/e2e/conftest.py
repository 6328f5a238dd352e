"""Two clusters for the whole session.

Molecule makes and removes the first; the tests look deeper at what it left running. The second is for tests that
want a node, the system's database, or the system in trouble: so the two can be used at the same time, each by a process
of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.deployment import LOCAL, ROOT, VENV, Deployment, Run, environment

# Set to keep the clusters after the tests and to take them as they are before them: for writing tests.
KEEP = "GROUNDWORK_E2E_KEEP"
# Molecule's own choice is shared by all checkouts whose folders have the same name.
FOLDER = ROOT / ".cache" / "molecule"
# Files whose tests use the second cluster.
SECOND = {"test_catalogue", "test_faults", "test_interrupted", "test_migration"}


class ByCluster(LoadScopeScheduling):
    """Gives the tests of each cluster to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return "second" if Path(nodeid.split("::")[0]).stem in SECOND else "molecule"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCluster:
    """How the tests are shared out, where there are several processes."""
    return ByCluster(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the test that makes the second cluster the hard way."""
    items.sort(key=lambda item: item.path.stem != "test_interrupted")


def molecule(*arguments: str) -> Run:
    """Run a Molecule command of the scenario default from the root, as a person does."""
    command = [str(VENV / "molecule"), *arguments[:1], "--scenario-name=default", *arguments[1:]]
    started = time.monotonic()
    env = environment(NO_COLOR="1", COLUMNS="200", MOLECULE_EPHEMERAL_DIRECTORY=str(FOLDER / "default"))
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=2700, check=False,
    )  # fmt: skip
    run = Run(done.returncode, done.stdout, time.monotonic() - started)
    print(f"molecule {' '.join(arguments)}: {run.code} after {run.seconds:.0f} s")
    return run


class Scenario:
    """What Molecule did, and the deployment that it left."""

    def __init__(self, tested: Run | None, deployment: Deployment) -> None:
        self.tested = tested
        self.deployment = deployment


@pytest.fixture(scope="session")
def scenario() -> Iterator[Scenario]:
    """``molecule test`` without its last step; that step, the removal, follows when all tests are done."""
    inventories = [LOCAL, ROOT / "molecule" / "inventory.yml"]
    deployment = Deployment(inventories, FOLDER / "cluster", {"MOLECULE_PROJECT_DIRECTORY": str(ROOT)})
    keep = bool(os.environ.get(KEEP))
    tested = None
    if not keep or not deployment.kubeconfig.exists():
        # What Molecule remembers of a run that was killed would have it skip the creation.
        shutil.rmtree(FOLDER / "default", ignore_errors=True)
        tested = molecule("test", "--destroy=never")
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


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The second cluster, which may not be there yet; removed at the end whatever happened."""
    keep = bool(os.environ.get(KEEP))
    folder = ROOT / ".cache" / "beside" if keep else tmp_path_factory.mktemp("beside")
    folder.mkdir(parents=True, exist_ok=True)
    deployment = Deployment.beside(folder, "beside")
    yield deployment
    if not keep:
        deployment.play("playbooks/down.yml")


@pytest.fixture(scope="session")
def second(beside: Deployment) -> Deployment:
    """Medical Inventory, running on the second cluster."""
    beside.play("site.yml")
    return beside
