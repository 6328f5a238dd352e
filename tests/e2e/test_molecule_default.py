"""The scenario itself: create, converge, nothing left to change, it works."""

from __future__ import annotations

import re

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import default_name
from tests.e2e.conftest import Scenario
from tests.support.deployment import ROOT, Deployment


def test_molecule_takes_the_whole_path(scenario: Scenario) -> None:
    if scenario.tested is None:
        pytest.skip("the cluster of an earlier run was kept")
    output = scenario.tested.output
    assert scenario.tested.code == 0, output[-12000:]
    steps = re.findall(r"^default (?:>|➜) (\w+): Executed: (\w+)", output, re.MULTILINE)
    print(steps)
    for step in ("syntax", "create", "converge", "idempotence", "verify"):
        assert (step, "Successful") in steps, f"{step} is not among the steps that succeeded: {steps}"
    print("\n".join(line for line in output.splitlines() if "changed=" in line))


def test_the_cluster_of_make_up_is_another_one(deployment: Deployment) -> None:
    assert deployment.name != default_name(ROOT)
