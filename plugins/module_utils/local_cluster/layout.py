# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where everything of one embedded cluster is, derived from its name and its checkout."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import re
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

STATE_ROOT = Path("/var/lib/groundwork.platform")
RUN_ROOT = Path("/run/groundwork.platform")
NETNS_ROOT = Path("/run/netns")
CNI_PLUGINS = Path("/usr/lib/cni")

API_PORT = 6443
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
DNS_DOMAIN = "cluster.local"

# The node's name is the cluster's, so it must be a DNS label; 40 leaves room in the names made from it.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_DEFAULT_NAME = re.compile(r"groundwork-([0-9a-f]{6})")


def default_name(checkout: Path) -> str:
    """The cluster's name for a checkout: two checkouts on one machine never share a cluster by accident."""
    return f"groundwork-{_token(str(checkout.resolve()))}"


def default_subnet(name: str) -> ipaddress.IPv4Network:
    """A /24 between 10.200.0.0 and the pods' range that follows from the name: clusters rarely collide."""
    number = int(_link_token(name), 16)
    return ipaddress.IPv4Network((f"10.{200 + number % 40}.{number // 40 % 256}.0", 24))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names, folders and addresses of one embedded cluster.

    :param name: the cluster's name, a DNS label of at most 40 characters; also the node's name.
    :param checkout: the checkout that the cluster belongs to; only it may change or remove the cluster.
    :param subnet: of the link between host and node; host has the first address, node the second.
    :param state_root: holds one folder per cluster with what must survive a reboot.
    :param run_root: holds one folder per cluster with sockets and what a reboot may lose.
    """

    name: str
    checkout: Path
    subnet: ipaddress.IPv4Network
    state_root: Path = STATE_ROOT
    run_root: Path = RUN_ROOT

    @classmethod
    def of(cls, name: str, checkout: Path, subnet: str = "", *, state_root: Path = STATE_ROOT) -> Layout:
        """The layout for what a user wrote; an empty name or subnet takes the default.

        :raises Failure: ``bad_name`` or ``bad_subnet``.
        """
        checkout = checkout.resolve()
        name = name or default_name(checkout)
        if not _NAME.fullmatch(name):
            raise Failure(
                "bad_name",
                f"Local cluster name '{name}'",
                "is not a DNS label of at most 40 characters",
                hint="set local_cluster_name to lower-case letters, digits and '-'",
            )
        return cls(name, checkout, _subnet(subnet) if subnet else default_subnet(name), state_root)

    @property
    def state(self) -> Path:
        """The folder with what must survive a reboot."""
        return self.state_root / self.name

    @property
    def run(self) -> Path:
        """The folder with sockets."""
        return self.run_root / self.name

    @property
    def mark(self) -> Path:
        """Names the checkout that the cluster belongs to."""
        return self.state / "mark.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes the cluster; outside its folders, which come and go under it."""
        return self.run_root / f"{self.name}.lock"

    @property
    def pki(self) -> Path:
        """The folder of certificates and keys."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """The folder of what the components read."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """The folder of the components' logs."""
        return self.state / "logs"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd is reached from the host."""
        return self.run / "containerd" / "containerd.sock"

    @property
    def netns(self) -> Path:
        """The node's network namespace."""
        return NETNS_ROOT / self.name

    @property
    def host_link(self) -> str:
        """The host's end of the veth pair; at most 15 characters, as the kernel demands."""
        return f"gw-{_link_token(self.name)}"

    @property
    def host_address(self) -> str:
        """The host's address on the link to the node."""
        return str(self.subnet.network_address + 1)

    @property
    def node_address(self) -> str:
        """The node's address: API server and NodePorts answer here."""
        return str(self.subnet.network_address + 2)

    @property
    def server(self) -> str:
        """The API server's URL, reachable from the host and from pods."""
        return f"https://{self.node_address}:{API_PORT}"


def _subnet(text: str) -> ipaddress.IPv4Network:
    problem = ""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        network, problem = ipaddress.IPv4Network("10.0.0.0/24"), str(error)
    reserved = (ipaddress.IPv4Network(POD_CIDR), ipaddress.IPv4Network(SERVICE_CIDR))
    if not problem and network.prefixlen > 29:
        problem = "it has fewer than six usable addresses"
    if not problem and not network.is_private:
        problem = "its addresses are public"
    for other in reserved:
        if not problem and network.overlaps(other):
            problem = f"it overlaps {other}, which the cluster uses inside"
    if problem:
        raise Failure(
            "bad_subnet",
            f"Local cluster subnet '{text}'",
            "cannot be used",
            problem,
            "set local_cluster_subnet to a private IPv4 network such as 10.210.7.0/24",
        )
    return network


def _token(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _link_token(name: str) -> str:
    match = _DEFAULT_NAME.fullmatch(name)
    return match.group(1) if match else _token(name)
