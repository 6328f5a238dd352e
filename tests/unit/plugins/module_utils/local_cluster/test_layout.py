"""Names, folders and addresses follow from name and checkout."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import (
    POD_CIDR,
    SERVICE_CIDR,
    Layout,
    default_name,
    default_subnet,
)


def test_two_checkouts_never_share_a_name(tmp_path: Path) -> None:
    assert default_name(tmp_path / "a") != default_name(tmp_path / "b")


def test_a_checkout_has_one_name_by_whatever_link_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert default_name(tmp_path / "link") == default_name(tmp_path / "real")


def test_default_subnets_stay_clear_of_what_the_cluster_uses_inside() -> None:
    inside = [ipaddress.IPv4Network(POD_CIDR), ipaddress.IPv4Network(SERVICE_CIDR)]
    for number in range(0, 0xFFFFFF, 4099):
        subnet = default_subnet(f"groundwork-{number:06x}")
        assert subnet.is_private
        assert not any(subnet.overlaps(other) for other in inside)


@pytest.mark.parametrize("name", ["groundwork-0a1b2c", "a", "x" * 40])
def test_the_link_name_fits_the_kernel(tmp_path: Path, name: str) -> None:
    assert len(Layout.of(name, tmp_path).host_link) <= 15


def test_the_link_shows_the_token_of_a_default_name(tmp_path: Path) -> None:
    assert Layout.of("groundwork-0a1b2c", tmp_path).host_link == "gw-0a1b2c"


@pytest.mark.parametrize("name", ["Upper", "under_score", "-a", "a-", "x" * 41, "a/b", ".."])
def test_a_name_that_is_no_label_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match="is not a DNS label"):
        Layout.of(name, tmp_path)


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        ("10.1.2.3/24", "host bits"),
        ("nonsense", "Expected"),
        ("8.8.8.0/24", "public"),
        ("10.244.7.0/24", "overlaps 10.244.0.0/16"),
        ("10.0.0.0/8", "overlaps"),
        ("10.7.7.0/30", "fewer than six"),
    ],
)
def test_a_subnet_that_cannot_be_used_is_refused(tmp_path: Path, subnet: str, why: str) -> None:
    with pytest.raises(Failure, match=why) as caught:
        Layout.of("c", tmp_path, subnet)
    assert "local_cluster_subnet" in caught.value.sentence


def test_addresses(tmp_path: Path) -> None:
    layout = Layout.of("c", tmp_path, "10.210.7.0/24")
    assert (layout.host_address, layout.node_address) == ("10.210.7.1", "10.210.7.2")
    assert layout.server == "https://10.210.7.2:6443"
