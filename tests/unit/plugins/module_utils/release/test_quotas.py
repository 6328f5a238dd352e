"""Quotas never get smaller while something still runs that leaves."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.release.quotas import larger, number


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2), (3, 3), ("1Gi", 2**30), ("1.5Gi", 1.5 * 2**30), ("1k", 1000), ("x", 0)]
)
def test_amounts(text: Any, value: float) -> None:
    assert float(number(text)) == value


def test_each_amount_is_the_larger_one() -> None:
    wanted = {"limits.cpu": "1500m", "limits.memory": "2Gi", "pods": "9", "requests.nvidia.com/gpu": "1"}
    live = {"hard": {"limits.cpu": "2", "limits.memory": "1024Mi", "pods": "9", "services": "3"}}
    # A limit that is new might be too small for what leaves, and one that goes may go at once.
    assert larger(wanted, live) == {"limits.cpu": "2", "limits.memory": "2Gi", "pods": "9"}


def test_a_quota_that_is_not_there_yet_is_as_it_shall_be() -> None:
    assert larger({"pods": "9"}, {}) == {"pods": "9"}
