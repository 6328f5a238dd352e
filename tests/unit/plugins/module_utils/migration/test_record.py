"""Whether an older image can run on the schema that is there."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import compatibility


def entry(before: str | None, after: str | None, destructive: Any = (), **changes: Any) -> dict[str, Any]:
    found = None if destructive is None else [{"why": f"drops {name}"} for name in destructive]
    return {
        "outcome": "succeeded", "finished": "2024-01-01T00:00:00Z", "revision": {"before": before, "after": after},
        "destructive": found, **changes,
    }  # fmt: skip


RECORDS = {
    "m-0": entry("", "1"),
    "m-1": entry("1", "2"),
    "m-2": entry("2", "3", ["column a"]),
    "m-3": entry("3", "4", None),
    "m-4": entry("4", "5", ["column b"], expand_only=True),
    "m-5": entry("5", "6", outcome="failed"),
    "m-6": {"outcome": "succeeded"},
}


@pytest.mark.parametrize(
    ("recorded", "live", "compatible", "reason"),
    [
        ("1", "1", True, "as it was then"),
        ("", None, True, "neither has"),
        ("1", "2", True, "what was migrated since then only added"),
        ("", "2", True, "only added"),
        ("1", "3", False, "m-2 (2 to 3) drops column a"),
        ("3", "4", False, "nobody knows what migration m-3"),
        ("4", "5", True, "only added"),
        ("5", "6", False, "no record tells"),
        ("2", "1", False, "no record tells"),
        ("1", "elsewhere", False, "no record tells"),
        ("1", None, False, "no record tells"),
    ],
)
def test_compatibility(recorded: str | None, live: str | None, compatible: bool, reason: str) -> None:
    found = compatibility(recorded, live, RECORDS)
    assert found.compatible is compatible
    assert reason in found.reason
    assert bool(found.forbidding) == ("migration m-" in found.reason)


def test_the_way_is_named() -> None:
    assert compatibility("1", "4", RECORDS).between == ("m-1", "m-2", "m-3")


def test_a_circle_ends() -> None:
    records = {"a": entry("1", "2"), "b": entry("2", "1")}
    assert not compatibility("1", "3", records).compatible
    assert compatibility("2", "1", records).compatible
