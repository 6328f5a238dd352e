"""The catalogue of broken releases: enough of them, each with one name, and all on the page of the documentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.support.catalogue.broken import BROKEN
from tests.support.catalogue.healing import HEALING

PAGE = Path(__file__).resolve().parents[3] / "docs" / "broken_releases.md"


def test_there_are_as_many_as_promised() -> None:
    assert len(BROKEN) >= 40
    assert len(HEALING) >= 10
    assert [name for name, count in Counter(case.name for case in [*BROKEN, *HEALING]).items() if count > 1] == []


def test_the_page_has_each_of_them() -> None:
    page = PAGE.read_text()
    absent = [case.name for case in [*BROKEN, *HEALING] if f"| {case.what} |" not in page]
    assert not absent, "make catalogue writes the page anew"
