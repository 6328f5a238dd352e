# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's network: a namespace of its own and one link to the host. Nothing else on the host changes."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Runner, check
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import SERVICE_CIDR, Layout

# Inside the namespace: pods are forwarded between, and Services also work between two pods on the one bridge.
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/ipv4/conf/all/rp_filter": "0",
}


def collision(layout: Layout, runner: Runner) -> str:
    """What on the host already uses addresses of the subnet, such as ``route 10.0.0.0/8 dev eth1``; empty if nothing.

    The default route and this cluster's own link do not count.
    """
    for route in _listed(runner, ["ip", "-json", "-4", "route", "show", "table", "all"]):
        destination = str(route.get("dst", "default"))
        if destination == "default" or route.get("dev") == layout.host_link:
            continue
        if _overlaps(destination, layout.subnet):
            return f"route {destination} dev {route.get('dev', '?')}"
    return ""


def exists(layout: Layout) -> bool:
    """Whether the namespace is there, by its name; a file of that name alone is what a reboot leaves."""
    return layout.netns.is_mount() or _is_namespace(layout.netns)


def ensure(layout: Layout, runner: Runner) -> None:
    """Make the namespace and the link, or complete what an interrupted run left of them."""
    if not exists(layout):
        layout.netns.unlink(missing_ok=True)
        check(runner, ["ip", "netns", "add", layout.name])
    inside = ["ip", "-netns", layout.name]
    host_end = _listed(runner, ["ip", "-json", "addr", "show", "dev", layout.host_link])
    node_end = _listed(runner, [*inside, "-json", "addr", "show", "dev", "eth0"])
    if not (host_end and node_end):
        # Half a pair is of no use: the other half may be in a namespace that has no name any more.
        runner(["ip", "link", "delete", layout.host_link])
        runner([*inside, "link", "delete", "eth0"])
        peer = ["peer", "name", "eth0", "netns", layout.name]
        check(runner, ["ip", "link", "add", layout.host_link, "type", "veth", *peer])
    length = layout.subnet.prefixlen
    check(runner, ["ip", "addr", "replace", f"{layout.host_address}/{length}", "dev", layout.host_link])
    check(runner, ["ip", "link", "set", layout.host_link, "up"])
    check(runner, [*inside, "addr", "replace", f"{layout.node_address}/{length}", "dev", "eth0"])
    check(runner, [*inside, "link", "set", "lo", "up"])
    check(runner, [*inside, "link", "set", "eth0", "up"])
    # Services need some route before kube-proxy's rules rewrite the destination. Everything else is refused at once:
    # the machine is no router for the cluster, and a program that asks for the Internet must not hang.
    check(runner, [*inside, "route", "replace", SERVICE_CIDR, "via", layout.host_address, "dev", "eth0"])
    check(runner, [*inside, "route", "replace", "unreachable", "default"])
    script = "\n".join(f"[ ! -e /proc/sys/{key} ] || echo {value} > /proc/sys/{key}" for key, value in _SYSCTLS.items())
    check(runner, ["nsenter", f"--net={layout.netns}", "/bin/sh", "-ec", script])


def remove(layout: Layout, runner: Runner) -> bool:
    """Remove the link and the namespace.

    :return: whether there was anything to remove.
    """
    # The namespace first: while a process in it lives on, the link would too, and its removal takes both ends.
    removed = False
    if _listed(runner, ["ip", "-json", "link", "show", "dev", layout.host_link]):
        check(runner, ["ip", "link", "delete", layout.host_link])
        removed = True
    if exists(layout):
        check(runner, ["ip", "netns", "delete", layout.name])
        removed = True
    elif layout.netns.exists():
        layout.netns.unlink(missing_ok=True)
        removed = True
    return removed


def _listed(runner: Runner, command: list[str]) -> list[dict[str, Any]]:
    """What an ``ip -json`` command lists; nothing when it fails, as it does for a link that is not there."""
    done = runner(command)
    if not done.ok or not done.stdout.strip():
        return []
    try:
        listed = json.loads(done.stdout)
    except ValueError as error:
        raise Failure("command_failed", f"Command '{' '.join(command)}'", "printed no JSON", str(error)) from error
    return [entry for entry in listed if entry]


def _overlaps(destination: str, subnet: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Network(destination, strict=False).overlaps(subnet)
    except ValueError:
        return False


def _is_namespace(path: Path) -> bool:
    """Python's is_mount misses a namespace bound on a file of a file system with the same device number."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False
