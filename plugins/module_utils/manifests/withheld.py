# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a system's file asks for and its compilation leaves out: nothing is dropped without a word.

Each entry names the object, or the key of the system's file where there is no one object, what would bring it, and why
it is not there: the environment does not count on a capability, or the collection does not derive it yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.capabilities import EFFECTS, PENDING
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import (
    AnyStore,
    Component,
    PostgreSQL,
    Redis,
    System,
)

# What no capability brings and is not derived yet, with what is done without it.
UNDERIVED = {
    "database_scaling": "the number of instances stays at the least",
    "extensions": "the database has none of its extensions",
    "hibernation": "the environment never sleeps",
    "maintenance": "nothing of it is planned by the collection",
    "outside": "network policies refuse what is outside",
    "pooler": "components connect to the primary itself",
    "priority": "pods have the cluster's default priority",
    "redis_cluster": "Redis runs as one server",
    "requires": "the cluster is not measured before",
    "seed": "the database is not filled",
    "secrets": "components do not mount it",
    "static": "only routes are served",
    "tenants": "nothing beside the variables of the components",
}


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Withheld:
    """One thing that is left out.

    :param object: ``Kind/name``, or a key of the system's file.
    :param needs: the capability that brings it, or nothing where the collection does not derive it yet.
    :param why: as a sentence without a full stop.
    """

    object: str
    needs: str
    why: str


def withheld(system: System) -> list[Withheld]:
    """Everything that is left out, sorted."""
    return sorted({one for name, need in wanted(system) if (one := _judged(system, name, need)) is not None})


def wanted(system: System) -> Iterator[tuple[str, str]]:
    """Objects, or keys, that the file asks for beyond what every cluster can do, each with what brings it."""
    for component in system.components.values():
        yield from _placement(component)
        yield from _component(component)
        yield from _public(component)
    for store in system.stores.values():
        yield from _store(store)
    yield from _system(system)
    yield from _sight(system)


def _judged(system: System, name: str, need: str) -> Withheld | None:
    if need in UNDERIVED:
        return Withheld(name, "", f"not derived yet: {UNDERIVED[need]}")
    if need not in system.capabilities:
        return Withheld(name, need, f"{system.environment} does not count on {need}: {EFFECTS[need]}")
    if need in PENDING:
        return Withheld(name, need, f"not derived yet: {EFFECTS[need]}")
    return None


def _placement(component: Component) -> Iterator[tuple[str, str]]:
    name = f"Deployment/{component.name}"
    if component.without_gpu:
        yield name, "gpu"
    if component.node_pool is not None:
        yield name, "node_pools"
    if component.spot:
        yield name, "spot"
    if component.priority is not None:
        yield name, "priority"
    if component.secrets:
        yield name, "secrets"


def _component(component: Component) -> Iterator[tuple[str, str]]:
    name = component.name
    if component.scaling.automatic and component.scaling.metrics:
        yield f"ScaledObject/{name}", "keda"
    if component.vertical is not None:
        yield f"VerticalPodAutoscaler/{name}", "vpa"
    if component.scrape is not None:
        yield f"ServiceMonitor/{name}", "prometheus_operator"
    if component.proxy is not None and component.proxy.static is not None:
        yield f"Deployment/{name}", "static"


def _public(component: Component) -> Iterator[tuple[str, str]]:
    public = component.public
    if public is None or public.host is None:
        return
    yield f"HTTPRoute/{component.name}", "gateway"
    if public.rate_limit is not None:
        yield f"BackendTrafficPolicy/{component.name}", "gateway"
    if public.tls:
        yield f"Certificate/{component.name}", "certificates"
    if public.waf:
        yield f"EnvoyExtensionPolicy/{component.name}", "waf"


def _store(store: AnyStore) -> Iterator[tuple[str, str]]:
    if store.vertical is not None:
        yield f"VerticalPodAutoscaler/{store.name}", "vpa"
    if store.priority is not None:
        yield f"stores.{store.name}.priority", "priority"
    if isinstance(store, PostgreSQL):
        yield from _postgresql(store)
    elif isinstance(store, Redis) and store.mode == "cluster":
        yield f"StatefulSet/{store.name}", "redis_cluster"
    elif isinstance(store, Redis) and store.mode == "sentinel":
        yield f"StatefulSet/{store.name}", "redis_sentinel"


def _postgresql(store: PostgreSQL) -> Iterator[tuple[str, str]]:
    if store.scaling.automatic:
        yield f"HorizontalPodAutoscaler/{store.name}", "database_scaling"
    if store.extensions:
        yield f"Database/{store.name}", "extensions"
    if store.pooler is not None:
        yield f"Pooler/{store.name}", "pooler"
    if store.backup is not None:
        yield f"ObjectStore/{store.name}", "pg_backup"
        if store.backup.schedule is not None:
            yield f"ScheduledBackup/{store.name}", "pg_backup"
        if store.backup.dump is not None:
            yield f"CronJob/{store.name}-dump", "pg_backup"


def _system(system: System) -> Iterator[tuple[str, str]]:
    for secret in system.secrets.values():
        if secret.external is not None or secret.rotate is not None:
            yield f"ExternalSecret/{secret.name}", "external_secrets"
    demands: dict[str, tuple[object, str]] = {
        "snapshots": (system.snapshots, "snapshots"),
        "cost": (system.cost, "cast_ai"),
        "hibernation": (system.hibernation, "hibernation"),
        "maintenance": (system.maintenance, "maintenance"),
        "tenants": (system.tenants, "tenants"),
        "requires": (system.requires.minimum or system.requires.recommended or system.requires.kubernetes, "requires"),
        "outside": (system.outside, "outside"),
    }
    yield from ((key, need) for key, (asked, need) in demands.items() if asked)
    if system.seed is not None:
        yield "Job/seed", "seed"
    for rule in ("encrypted_traffic", "encrypted_secrets"):
        if rule in system.compliance:
            yield f"compliance.{rule}", rule.replace("traffic", "network")


def _sight(system: System) -> Iterator[tuple[str, str]]:
    need = "prometheus_operator"
    if system.alerts or system.metrics or system.objectives.availability is not None:
        yield f"PrometheusRule/{system.namespace}", need
    for name in system.dashboards:
        yield f"ConfigMap/dashboard-{name}", need
    monitoring = system.monitoring
    if monitoring.retention is not None or monitoring.storage is not None or monitoring.dashboards_storage is not None:
        yield "monitoring", need
    if system.tracing is not None:
        yield "tracing", "tracing"
