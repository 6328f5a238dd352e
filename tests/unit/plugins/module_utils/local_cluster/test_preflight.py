"""A machine that cannot hold the cluster is refused in one sentence, before anything is changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import preflight
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Completed
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout
from tests.unit.plugins.module_utils.local_cluster.support import Recorder, recorded

GIB = 1024**3


@pytest.fixture
def machine(tmp_path: Path) -> preflight.Machine:
    for name in preflight.PLUGINS:
        (tmp_path / name).touch()
    return preflight.Machine(
        user=0,
        python=(3, 11),
        os_release='ID=debian\nVERSION_ID="12"\n',
        meminfo="MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n",
        filesystems="nodev\toverlay\n",
        bridge_filter=True,
        program=lambda name: Path("/usr/bin") / name,
        plugins=tmp_path,
        free_bytes=lambda path: 100 * GIB,
        controllers=lambda: {"cpu", "memory", "pids"},
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of("c", tmp_path, "10.211.7.0/24", state_root=tmp_path / "state" / "deeper")


ROUTES = Recorder({"ip -json -4 route": recorded("ip/routes.json")})


def test_a_fit_machine_passes(machine: preflight.Machine, layout: Layout) -> None:
    preflight.check(layout, ROUTES, machine, new=True)


def without(name: str) -> Any:
    return lambda asked: None if asked == name else Path("/usr/bin") / asked


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"user": 1000}, "not_root", ["needs root", "user 1000", "as root"]),
        ({"python": (3, 9)}, "python_too_old", ["Python 3.9 is too old", "3.11"]),
        ({"os_release": "ID=debian\nVERSION_ID=11\n"}, "debian_too_old", ["Debian 11 is too old", "12"]),
        ({"meminfo": "MemTotal: 2000000 kB\nMemAvailable: 1900000 kB\n"}, "too_little_memory", ["1.9 GiB", "3.5 GiB"]),
        ({"meminfo": "MemTotal: 8000000 kB\nMemAvailable: 900000 kB\n"}, "too_little_memory", ["0.9 GiB available"]),
        ({"free_bytes": lambda path: GIB}, "too_little_disk", ["1.0 GiB free", "8 GiB"]),
        ({"program": without("runc")}, "packages_missing", ["apt-get install", "runc"]),
        ({"program": without("iptables-restore")}, "packages_missing", ["iptables"]),
        ({"plugins": Path("/nowhere")}, "packages_missing", ["containernetworking-plugins"]),
        ({"filesystems": ""}, "kernel_lacks", ["overlay"]),
        ({"bridge_filter": False}, "kernel_lacks", ["br_netfilter"]),
        ({"controllers": lambda: {"cpu"}}, "kernel_lacks", ["memory control group", "pids control group"]),
    ],
)
def test_what_does_not_fit_is_said(
    machine: preflight.Machine, layout: Layout, changes: dict[str, Any], code: str, said: list[str]
) -> None:
    with pytest.raises(Failure) as caught:
        preflight.check(layout, ROUTES, dataclasses.replace(machine, **changes), new=True)
    assert caught.value.code == code
    assert caught.value.sentence.count("\n") == 0
    for part in said:
        assert part in caught.value.sentence
    assert not layout.state.exists()


@pytest.mark.parametrize(
    ("subnet", "evidence"), [("10.210.7.0/24", "10.210.0.0/16 dev vpn0"), ("192.0.2.0/24", "192.0.2.0/24 dev eth0")]
)
def test_a_subnet_in_use_is_said_with_who_uses_it(
    machine: preflight.Machine, tmp_path: Path, subnet: str, evidence: str
) -> None:
    layout = Layout.of("c", tmp_path, subnet, state_root=tmp_path / "state")
    with pytest.raises(Failure, match=evidence) as caught:
        preflight.check(layout, ROUTES, machine, new=True)
    assert caught.value.code == "subnet_in_use"
    assert "local_cluster_subnet" in caught.value.sentence


def test_the_clusters_own_link_is_no_collision(machine: preflight.Machine, layout: Layout) -> None:
    own = f'[{{"dst":"10.211.7.0/24","dev":"{layout.host_link}"}}]'
    preflight.check(layout, Recorder({"ip -json -4 route": Completed(0, own)}), machine, new=True)


def test_a_cluster_that_exists_is_not_refused_for_what_it_uses_itself(
    machine: preflight.Machine, layout: Layout
) -> None:
    busy = dataclasses.replace(machine, meminfo="MemTotal: 8000000 kB\nMemAvailable: 1 kB\n", free_bytes=lambda path: 0)
    preflight.check(layout, Recorder(), busy, new=False)


def test_before_anything_is_installed_only_the_machine_itself_is_judged(machine: preflight.Machine) -> None:
    bare = dataclasses.replace(machine, program=lambda name: None, plugins=Path("/nowhere"), filesystems="")
    preflight.check_machine(fresh=True, machine=bare)


def test_the_kernel_is_asked_for_its_modules_where_they_are_missing(machine: preflight.Machine) -> None:
    runner = Recorder()
    preflight.load_modules(dataclasses.replace(machine, filesystems="", bridge_filter=False), runner)
    assert runner.commands == ["modprobe overlay", "modprobe br_netfilter"]
    preflight.load_modules(machine, quiet := Recorder())
    assert quiet.commands == []
