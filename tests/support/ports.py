"""Ports for the servers that tests start, safe among several test processes."""

from __future__ import annotations

import secrets
import socket

# Below the range from which the kernel takes the ports of outgoing connections (net.ipv4.ip_local_port_range), so that
# nothing but another test can take one between the asking and the use, and that is a chance of one in thousands.
RANGE = range(15000, 32000)


def free_port() -> int:
    """A TCP port that nothing listens on, on any address of this machine."""
    while True:
        port = secrets.choice(RANGE)
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)
