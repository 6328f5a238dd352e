"""Which roles a cluster gets, from what its systems declare."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError

from ansible_collections.groundwork.platform.plugins.lookup.prerequisites import LookupModule

INVENTORY: dict[str, dict[str, Any]] = {
    "medical_inventory": {"system_cluster": "here", "system_environment": "local"},
    "copy": {"system_cluster": "there", "system_environment": "local", "system_name": "medical_inventory"},
    "unknown": {"system_cluster": "there", "system_environment": "local"},
}


def ask(*clusters: str) -> list[str]:
    return LookupModule().run(list(clusters), {"groups": {"systems": list(INVENTORY)}, "hostvars": INVENTORY})


@pytest.mark.parametrize("cluster", ["here", "there"])
def test_roles_come_in_the_order_in_which_they_run(cluster: str) -> None:
    assert ask(cluster) == ["metrics_server", "cloudnative_pg"]


def test_a_cluster_without_systems_needs_nothing() -> None:
    assert ask("elsewhere") == []


def test_it_takes_one_cluster() -> None:
    with pytest.raises(AnsibleError):
        ask("here", "there")
