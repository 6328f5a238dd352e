# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this machine can hold an embedded cluster: asked before anything is changed, one sentence for each no."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import cgroups, network
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Runner
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import (
    CNI_PLUGINS,
    Layout,
)

PYTHON = (3, 11)
DEBIAN = 12
MEMORY_GIB = 3.5
DISK_GIB = 8.0
# What compiling adds from empty caches: Go's two caches, image layers and archives.
BUILD_DISK_GIB = 14.0
_GIB = 1024**3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Programs by the Debian package that brings them.
PROGRAMS = {
    "containerd": ("containerd", "ctr", "containerd-shim-runc-v2"),
    "runc": ("runc",),
    "iptables": ("iptables", "iptables-save", "iptables-restore"),
    "ipset": ("ipset",),
    "conntrack": ("conntrack",),
    "iproute2": ("ip",),
    "util-linux": ("nsenter", "unshare"),
    "mount": ("mount", "umount"),
}
PLUGINS_PACKAGE = "containernetworking-plugins"
PLUGINS = ("bridge", "host-local", "portmap", "loopback")
_SYSCTL_BRIDGE = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def program(name: str) -> Path | None:
    """Where a program is, looked for in the system's folders."""
    found = shutil.which(name, path=_PATH)
    return Path(found) if found else None


@dataclass(frozen=True)
class Machine:
    """What the checks ask of the machine; tests give answers of their own."""

    user: int = field(default_factory=os.geteuid)
    python: tuple[int, int] = field(default_factory=lambda: (sys.version_info.major, sys.version_info.minor))
    os_release: str = field(default_factory=lambda: _text(Path("/etc/os-release")))
    meminfo: str = field(default_factory=lambda: _text(Path("/proc/meminfo")))
    filesystems: str = field(default_factory=lambda: _text(Path("/proc/filesystems")))
    bridge_filter: bool = field(default_factory=_SYSCTL_BRIDGE.exists)
    program: Callable[[str], Path | None] = program
    plugins: Path = CNI_PLUGINS
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    controllers: Callable[[], set[str]] = field(default_factory=lambda: _controllers)


def load_modules(machine: Machine, runner: Runner) -> None:
    """Ask the kernel for what may be a module; whether it came is for :func:`check` to see."""
    if "overlay" not in machine.filesystems:
        runner(["modprobe", "overlay"])
    if not machine.bridge_filter:
        runner(["modprobe", "br_netfilter"])


def check(layout: Layout, runner: Runner, machine: Machine, *, new: bool) -> None:
    """Refuse a machine that cannot hold the cluster.

    :param new: whether the cluster's network is yet to be made.
    :raises Failure: ``not_root``, ``python_too_old``, ``debian_too_old``, ``packages_missing``, ``kernel_lacks``,
        ``too_little_memory``, ``too_little_disk`` or ``subnet_in_use``.
    """
    _check_user(machine)
    _check_versions(machine)
    _check_packages(machine)
    _check_kernel(machine)
    if new:
        _check_memory(machine)
        _check_disk(layout.state_root, machine, DISK_GIB)
        _check_network(layout, runner)


def check_machine(machine: Machine | None = None, *, fresh: bool = True) -> None:
    """Refuse a machine on which `make up` cannot work, before even its packages are installed.

    :param fresh: whether nothing was prepared yet, so that memory and the disk for compiling must still be there.
    :raises Failure: ``not_root``, ``python_too_old``, ``debian_too_old``, ``too_little_memory`` or ``too_little_disk``.
    """
    machine = machine or Machine()
    _check_user(machine)
    _check_versions(machine)
    if fresh:
        _check_memory(machine)
        _check_disk(Path.home(), machine, BUILD_DISK_GIB)


def _check_user(machine: Machine) -> None:
    if machine.user != 0:
        raise Failure(
            "not_root",
            "The embedded cluster",
            "needs root",
            f"this is user {machine.user}",
            "run it as root, or name a cluster of your own in local_cluster_kubeconfig",
        )


def _check_versions(machine: Machine) -> None:
    if machine.python < PYTHON:
        have, want = (".".join(map(str, version)) for version in (machine.python, PYTHON))
        raise Failure(
            "python_too_old",
            f"Python {have}",
            f"is too old: {want} is the oldest that works",
            hint="install a newer one",
        )
    release = dict(line.split("=", 1) for line in machine.os_release.splitlines() if "=" in line)
    version = release.get("VERSION_ID", "").strip('"')
    if release.get("ID", "").strip('"') == "debian" and version.isdigit() and int(version) < DEBIAN:
        raise Failure(
            "debian_too_old",
            f"Debian {version}",
            f"is too old: {DEBIAN} is the oldest that works",
            hint="upgrade the machine",
        )


def _check_packages(machine: Machine) -> None:
    missing = [package for package, names in PROGRAMS.items() if not all(machine.program(name) for name in names)]
    if not all((machine.plugins / name).exists() for name in PLUGINS):
        missing.append(PLUGINS_PACKAGE)
    if missing:
        raise Failure(
            "packages_missing",
            "This machine",
            "lacks what the embedded cluster runs on",
            ", ".join(missing),
            f"install it: apt-get install --no-install-recommends {' '.join(missing)}",
        )


def _check_kernel(machine: Machine) -> None:
    lacking = []
    if "overlay" not in machine.filesystems:
        lacking.append("the overlay file system")
    if not machine.bridge_filter:
        lacking.append("br_netfilter")
    lacking += [f"the {name} control group" for name in ("cpu", "memory", "pids") if name not in machine.controllers()]
    if lacking:
        raise Failure(
            "kernel_lacks",
            "The kernel",
            f"lacks {' and '.join(lacking)}",
            hint="load the module or boot a kernel that has it; in a container, use the machine itself",
        )


def _check_memory(machine: Machine) -> None:
    sizes = dict(line.split(":", 1) for line in machine.meminfo.splitlines() if ":" in line)
    total = int(sizes.get("MemTotal", "0 kB").split()[0]) * 1024 / _GIB
    available = int(sizes.get("MemAvailable", "0 kB").split()[0]) * 1024 / _GIB
    if total < MEMORY_GIB or available < MEMORY_GIB / 2:
        raise Failure(
            "too_little_memory",
            "This machine",
            f"has too little memory: the cluster and its systems need {MEMORY_GIB:g} GiB, half of it free",
            f"{total:.1f} GiB, {available:.1f} GiB available",
            "end what is not needed, or use a larger machine",
        )


def _check_disk(folder: Path, machine: Machine, needed: float) -> None:
    place = folder
    while not place.exists():
        place = place.parent
    free = machine.free_bytes(place) / _GIB
    if free < needed:
        raise Failure(
            "too_little_disk",
            f"The disk of {folder}",
            f"has too little room: {needed:g} GiB are needed",
            f"{free:.1f} GiB free",
            "make room",
        )


def _check_network(layout: Layout, runner: Runner) -> None:
    other = network.collision(layout, runner)
    hint = "set local_cluster_subnet to a free private network such as 10.210.7.0/24"
    if other:
        raise Failure("subnet_in_use", f"Subnet {layout.subnet}", "is already in use on this machine", other, hint)


def _controllers() -> set[str]:
    """Controllers of both versions that this machine's hierarchies offer."""
    found: set[str] = set()
    for root in cgroups.hierarchies():
        unified = root / "cgroup.controllers"
        found |= set(_text(unified).split()) if unified.exists() else set()
    for line in _text(Path("/proc/cgroups")).splitlines():
        fields: Sequence[str] = line.split()
        if len(fields) == 4 and fields[3] == "1":
            found.add(fields[0])
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
