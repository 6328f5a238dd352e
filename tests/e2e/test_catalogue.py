"""Broken releases made for real are condemned for the right reason, and what only looks broken is not."""

from __future__ import annotations

import os
import re
import time

import pytest
import yaml

from tests.support.catalogue.broken import BROKEN
from tests.support.catalogue.case import Broken, Healing
from tests.support.catalogue.healing import HEALING
from tests.support.catalogue.run import Seen, page, registry_at, run_all
from tests.support.deployment import ROOT, Deployment

PAGE = ROOT / "docs" / "broken_releases.md"
# Set to write the page with what this run saw; else it is left as it is, and a copy is put aside.
WRITE = "GROUNDWORK_WRITE_CATALOGUE"
ASIDE = ROOT / "tests" / "output" / PAGE.name


@pytest.fixture(scope="module")
def seen(second: Deployment) -> dict[str, Seen]:
    """What came of every case, by its name."""
    images = yaml.safe_load((second.directory / "images.yml").read_text())
    shell = next(present for published, present in images.items() if "/redis:" in published)
    pause = next(present for published, present in images.items() if "/pause:" in published)
    started = time.monotonic()
    with registry_at(second.name) as registry:
        made = run_all(second.kubeconfig, [*BROKEN, *HEALING], shell, pause, registry)
    print(f"{len(made)} releases in {time.monotonic() - started:.0f} s")
    path = PAGE if os.environ.get(WRITE) else ASIDE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(made[: len(BROKEN)], made[len(BROKEN) :]))
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
