# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment counts on its cluster for, and what of it is not delivered yet and is therefore said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ansible_collections.groundwork.platform.plugins.module_utils.model.types import PostgreSQL, Redis, System

# What the system does without each capability, as the end of a sentence.
EFFECTS = {
    "apparmor": "pods run with the container runtime's own AppArmor profile",
    "cast_ai": "nobody looks after the cost of the nodes",
    "certificates": "no certificates are requested for public hosts",
    "encrypted_network": "the network may carry plain traffic between nodes",
    "encrypted_secrets": "whoever reads the API server's database reads Secrets",
    "external_secrets": "passwords are generated in the cluster instead of being fetched from a store outside",
    "gateway": "no routes are made, public components are reached by port-forward or by a route of the cluster's owner",
    "gpu": "what can do without GPUs runs on CPU",
    "keda": "scaling is by CPU and memory only",
    "node_pools": "pods are not tied to node pools",
    "pg_backup": "PostgreSQL is not archived: back it up by other means",
    "prometheus_operator": "no ServiceMonitors, alerts or dashboards are made",
    "redis_sentinel": "Redis runs as one server that is restarted, not failed over",
    "snapshots": "volumes are not snapshotted",
    "spot": "pods run on any node",
    "tracing": "no traces are sent",
    "vpa": "no resource recommendations are made",
    "waf": "no web application firewall looks at requests",
}
DELIVERED = {"gpu"}
"""Capabilities for which everything is derived; the others are said to be pending where they are counted on."""
PENDING = {name: effect for name, effect in EFFECTS.items() if name not in DELIVERED}


@dataclasses.dataclass(frozen=True, slots=True)
class Capabilities:
    """A system's stand with its cluster.

    :param declared: what the environment counts on.
    :param needed: what the compiled objects cannot do without: CRDs, metrics, devices.
    :param pending: what is counted or depended on and not delivered yet, by name, with what happens instead.
    """

    declared: tuple[str, ...]
    needed: tuple[str, ...]
    pending: dict[str, str]


def capabilities(system: System) -> Capabilities:
    """Derive a system's capabilities."""
    wanted = {*system.capabilities, *_implied(system)}
    return Capabilities(
        declared=system.capabilities,
        needed=tuple(sorted(set(_needed(system)))),
        pending={name: PENDING[name] for name in sorted(wanted) if name in PENDING},
    )


def notes(system: System) -> list[str]:
    """What differs here from what the system's file says at large, one sentence each."""
    found = [f"{name} does not run in {system.environment}" for name in system.disabled]
    found += [
        f"{name} is counted on and not delivered yet: {effect}" for name, effect in capabilities(system).pending.items()
    ]
    for component in system.components.values():
        public = component.public
        if public is not None and public.node_port is not None:
            found.append(f"{component.name} is public over port {public.node_port} of every node, without TLS")
    return found


def _implied(system: System) -> Iterator[str]:
    if any(isinstance(store, Redis) and store.mode == "sentinel" for store in system.stores.values()):
        yield "redis_sentinel"


def _needed(system: System) -> Iterator[str]:
    if any(isinstance(store, PostgreSQL) for store in system.stores.values()):
        yield "cloudnative_pg"
    for component in system.components.values():
        if component.scaling.automatic:
            yield "metrics_server"
        if component.gpu is not None:
            yield "gpu"
