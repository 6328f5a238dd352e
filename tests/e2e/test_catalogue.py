"""Broken releases made for real are condemned for the right reason, and what only looks broken is not."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.catalogue import registry as registry_module
from tests.support.catalogue.broken import BROKEN
from tests.support.catalogue.case import Broken, Healing
from tests.support.catalogue.healing import HEALING
from tests.support.catalogue.run import Seen, run_all, table
from tests.support.deployment import ROOT, Deployment

PORT = 5000
OUTPUT = ROOT / "tests" / "output" / "catalogue.md"


@pytest.fixture(scope="module")
def registry(deployment: Deployment) -> Iterator[str]:
    """The stand-in for a registry, on the loopback of the node."""
    cache = Path(deployment.status["cache"]) if "cache" in deployment.status else Path.home() / ".cache"
    archive = max((cache / "groundwork.platform" / "images").glob("pause-*.tar"), key=lambda path: path.stat().st_mtime)
    program = [sys.executable, str(Path(str(registry_module.__file__))), str(PORT), str(archive)]
    process = subprocess.Popen(["ip", "netns", "exec", deployment.name, *program])
    try:
        yield f"127.0.0.1:{PORT}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def seen(deployment: Deployment, registry: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What came of every case, by its name."""
    images = yaml.safe_load((deployment.directory / "images.yml").read_text())
    shell = next(present for published, present in images.items() if "/redis:" in published)
    pause = next(present for published, present in images.items() if "/pause:" in published)
    started = time.monotonic()
    made = run_all(
        deployment.kubeconfig, [*BROKEN, *HEALING], shell, pause, registry, tmp_path_factory.mktemp("catalogue")
    )
    print(f"{len(made)} releases in {time.monotonic() - started:.0f} s")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(f"{table(made[: len(BROKEN)])}\n{table(made[len(BROKEN) :])}")
    return {item.case.name: item for item in made}


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_release_is_condemned_for_its_cause(case: Broken, seen: dict[str, Seen]) -> None:
    found = seen[case.name]
    print(f"{found.code} after {found.seconds:.1f} s: {found.sentence}")
    assert re.fullmatch(case.code, found.code), found.sentence
    for pattern in case.says:
        assert re.search(pattern, found.sentence), (pattern, found.sentence)


@pytest.mark.parametrize("case", HEALING, ids=lambda case: case.name)
def test_a_release_that_heals_is_not_condemned(case: Healing, seen: dict[str, Seen]) -> None:
    found = seen[case.name]
    assert found.code == "", found.sentence
    assert found.looked, f"it never looked broken: nothing matched {case.looks}"


def test_no_secret_is_in_any_verdict(seen: dict[str, Seen]) -> None:
    told = [item.case.name for item in seen.values() if "seeded-secret" in item.sentence + item.data]
    assert not told
