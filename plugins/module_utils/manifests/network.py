# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network policies: nothing may talk to anything, except what the system's file names and what that needs to work."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import migration
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import Context, Manifest
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import (
    AnyStore,
    Component,
    InfluxDB,
    PostgreSQL,
    Redis,
)

POSTGRESQL_PORT = 5432
POSTGRESQL_STATUS_PORT = 8000
"""Where an instance tells the operator, and the other instances, how it is."""
REDIS_PORT = 6379
INFLUXDB_PORT = 8086


def network_policies(context: Context) -> list[Manifest]:
    """All policies of the namespace."""
    system = context.system
    policies = [_deny_all(context), _allow_dns(context)]
    policies += [_component(context, component) for component in system.components.values()]
    for store in system.stores.values():
        if isinstance(store, PostgreSQL):
            policies.append(_postgresql(context, store))
        elif isinstance(store, InfluxDB):
            policies += _influxdb(context, store)
        else:
            policies.append(_redis(context, store))
    if system.migration is not None:
        policies.append(_migration(context))
    return policies


def store_labels(context: Context, store: AnyStore) -> dict[str, str]:
    """Labels by which a store's pods are found."""
    if isinstance(store, PostgreSQL):
        return {"cnpg.io/cluster": store.name}
    return context.selector(store.name)


def store_port(store: AnyStore) -> int:
    """The port on which a store serves its clients."""
    if isinstance(store, InfluxDB):
        return INFLUXDB_PORT
    return POSTGRESQL_PORT if isinstance(store, PostgreSQL) else REDIS_PORT


def clients_of(context: Context, name: str) -> list[dict[str, str]]:
    """Labels of all pods that talk to a component or store, sorted by name; the migration does as its component."""
    system = context.system
    clients = [one.name for one in system.components.values() if name in one.talks_to]
    run = system.migration
    if run is not None and name in system.stores and name in system.components[run.component].talks_to:
        clients.append(migration.NAME)
    return [context.selector(client) for client in sorted(clients)]


def _policy(
    context: Context,
    name: str,
    pods: dict[str, str],
    ingress: list[Manifest] | None = None,
    egress: list[Manifest] | None = None,
) -> Manifest:
    policy = context.object("networking.k8s.io/v1", "NetworkPolicy", name, context.labels(name, "network"))
    policy["spec"] = {"podSelector": {"matchLabels": pods} if pods else {}, "policyTypes": []}
    for kind, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            policy["spec"]["policyTypes"].append(kind)
            if rules:
                policy["spec"][kind.lower()] = rules
    return policy


def _deny_all(context: Context) -> Manifest:
    return _policy(context, "default-deny", {}, ingress=[], egress=[])


def _allow_dns(context: Context) -> Manifest:
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return _policy(context, "allow-dns", {}, egress=[{"to": [peer], "ports": ports}])


def _component(context: Context, component: Component) -> Manifest:
    ingress: list[Manifest] = []
    clients = clients_of(context, component.name)
    if component.port is not None:
        ingress += _rules("from", clients, [component.port])
        if component.public is not None:
            ingress.append(_from_outside(context, component, component.port))
    return _policy(
        context, component.name, context.selector(component.name), ingress, _to_targets(context, component.talks_to)
    )


def _from_outside(context: Context, component: Component, port: int) -> Manifest:
    """Through the gateway where there is one; a NodePort shows addresses of nodes or clients, which nobody can list."""
    rule: Manifest = {"ports": _ports([port])}
    if component.public is not None and component.public.node_port is not None:
        return rule
    namespace = context.system.network.gateway_namespace
    return {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}], **rule}


def _to_targets(context: Context, names: Iterable[str]) -> list[Manifest]:
    rules = []
    for name in names:
        store = context.system.stores.get(name)
        component = context.system.components.get(name)
        if store is not None:
            rules += _rules("to", [store_labels(context, store)], [store_port(store)])
        elif component is not None and component.port is not None:
            rules += _rules("to", [context.selector(name)], [component.port])
    return rules


def _migration(context: Context) -> Manifest:
    run = context.system.migration
    names = context.system.components[run.component].talks_to if run is not None else ()
    stores = [name for name in names if name in context.system.stores]
    return _policy(context, migration.NAME, context.selector(migration.NAME), [], _to_targets(context, stores))


def _redis(context: Context, store: Redis) -> Manifest:
    """Clients, and nobody else."""
    return _policy(
        context,
        store.name,
        store_labels(context, store),
        _rules("from", clients_of(context, store.name), [REDIS_PORT]),
        [],
    )


def _influxdb(context: Context, store: InfluxDB) -> list[Manifest]:
    """Clients and the setup, which reaches nothing else."""
    own, setup = store_labels(context, store), context.selector(f"{store.name}-setup")
    clients = [*clients_of(context, store.name), setup]
    return [
        _policy(context, store.name, own, _rules("from", clients, [INFLUXDB_PORT]), []),
        _policy(context, f"{store.name}-setup", setup, [], _rules("to", [own], [INFLUXDB_PORT])),
    ]


def _postgresql(context: Context, store: PostgreSQL) -> Manifest:
    """Clients, the other instances, the operator, and the API server, to which every instance's manager reports."""
    network = context.system.network
    own = store_labels(context, store)
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": network.database_operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "cloudnative-pg"}},
    }
    between = [POSTGRESQL_PORT, POSTGRESQL_STATUS_PORT]
    return _policy(
        context,
        store.name,
        own,
        [
            *_rules("from", clients_of(context, store.name), [POSTGRESQL_PORT]),
            *_rules("from", [own], between),
            {"from": [operator], "ports": _ports(between)},
        ],
        [
            *_rules("to", [own], between),
            {
                "to": [{"ipBlock": {"cidr": cidr}} for cidr in network.api_server_cidrs],
                "ports": _ports(network.api_server_ports),
            },
        ],
    )


def _rules(direction: str, pods: list[dict[str, str]], ports: Iterable[int]) -> list[Manifest]:
    """One rule for all the pods, or none where there are none: a rule without peers would allow everybody."""
    if not pods:
        return []
    return [{direction: [{"podSelector": {"matchLabels": labels}} for labels in pods], "ports": _ports(ports)}]


def _ports(ports: Iterable[int]) -> list[Manifest]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
