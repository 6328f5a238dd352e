# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a schema cannot say: names that must exist, bounds that must fit each other, things that must differ."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import build, build_parts
from ansible_collections.groundwork.platform.plugins.module_utils.model.checks_demands import DemandChecks
from ansible_collections.groundwork.platform.plugins.module_utils.model.checks_frame import Path, Plain
from ansible_collections.groundwork.platform.plugins.module_utils.model.checks_work import WorkChecks
from ansible_collections.groundwork.platform.plugins.module_utils.model.keys.common import LABEL
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Problem, nearest
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
    bytes_text,
    cpu_text,
    seconds,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Amount, InfluxDB

# Variables that stores and the compiler set; a value of the user's would silently lose, or win, against them. Two
# stores with the same ones can't be told apart by a component.
DERIVED_ENV = {
    "postgresql": (
        "PGHOST",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGPASSWORD",
        "PGSSLMODE",
        "PGSSLROOTCERT",
    ),
    "redis": ("{prefix}_HOST", "{prefix}_PORT", "{prefix}_PASSWORD"),
    "influxdb": ("{prefix}_VERSION", "{prefix}_URL", "{prefix}_BUCKET", "{prefix}_USER", "{prefix}_PASSWORD"),
}
# What stores add to their name for Services and the like.
SUFFIXES = {"postgresql": ("-rw", "-ro", "-r"), "redis": ("-nodes",), "influxdb": ("-nodes", "-setup")}
RESERVED_PATHS = ("/tmp", "/etc/groundwork", "/proc", "/sys", "/dev")  # noqa: S108 - a path in a container
RESERVED_NAMES = {
    "migrate": "the migration",
    "default": "the namespace's own service account",
    "default-deny": "the network policy that denies everything else",
    "allow-dns": "the network policy that allows DNS",
}
SHORTEST_RETENTION = 3600
"""Seconds; InfluxDB refuses shorter ones."""
LONGEST_POLICY = 1800
"""Seconds; the autoscaler refuses longer periods."""
LONGEST_STABILIZATION = 3600
POSTGRESQL_CONNECTIONS = 100
"""What max_connections is where nothing is said."""


class Checks(WorkChecks, DemandChecks):
    """All cross-references of one system."""

    def problems(self) -> Iterator[Problem]:
        """Everything that does not fit together."""
        yield from self._namespace()
        yield from self._names()
        for name, component in self.components.items():
            path: Path = ("components", name)
            yield from self._runs_something(name, component)
            yield from self._references(path, component)
            yield from self._scaling(path, component)
            yield from self._amounts((*path, "resources"), component["resources"])
            yield from self._environment(path, component)
            yield from self._mounts(path, component)
            yield from self._strategy(path, component)
            if component["enabled"]:
                yield from self._needs_capability(path, component)
        yield from self._public()
        for name, store in self.stores.items():
            if store["type"] not in DERIVED_ENV:
                continue  # a stand-in
            yield from self._amounts(("stores", name, "resources"), store["resources"])
            yield from self._store(("stores", name), store)
        yield from self._migration()
        yield from self._network()
        yield from self._work()
        yield from self._demands()

    def _namespace(self) -> Iterator[Problem]:
        """The one that is given is the schema's business; one that is derived may be no name at all."""
        if not re.fullmatch(LABEL, self.data.get("namespace", build.namespace(self.name))):
            yield self._problem(("namespace",), "nothing", f"a name, since {self.name} is none for a namespace")

    def _names(self) -> Iterator[Problem]:
        """Components and stores share the names of Services, and so does what stores make for themselves."""
        taken = dict(RESERVED_NAMES)
        for name, store in self.stores.items():
            suffixes = SUFFIXES.get(store["type"], ())
            taken.update({name + suffix: f"the store {name}" for suffix in suffixes})
        for section, more in (("stores", {}), ("components", {name: f"the store {name}" for name in self.stores})):
            users = {**taken, **more}
            for name in self.data[section]:
                if name in users:
                    yield self._problem((section, name), f'the name "{name}"', f"one that {users[name]} does not use")
        inside = {"tmp": "temporary files", "config": "the proxy's configuration"}
        inside.update({f"{name}-ca": f"the store {name}" for name in self.stores})
        for name in self.data["volumes"]:
            if name in inside:
                yield self._problem(("volumes", name), f'the name "{name}"', f"one that no pod uses for {inside[name]}")
        for name in self.components:
            if name.endswith("-pods") and name.removesuffix("-pods") in self.components:
                other = name.removesuffix("-pods")
                yield self._problem(("components", name), f'the name "{name}"', f"one that {other}'s pods do not use")

    def _runs_something(self, name: str, component: Plain) -> Iterator[Problem]:
        path = ("components", name)
        if "proxy" in component:
            for key in ("port", "command", "args", "user", "worker", "scheduler"):
                if key in self.tree.at(*path).plain():
                    yield self._problem((*path, key), key, "none: a proxy's is derived")
            return
        if not component.get("image") and not self.data.get("image"):
            yield self._problem(path, "no image", "image here, or for the whole system", self._misspelt(name))
        elif not any(component.get(key) for key in ("image", "command", "args")):
            yield self._problem(path, "nothing to run", "image, command or args", self._misspelt(name))
        for key in ("sticky", "public"):
            if component.get(key) and "port" not in component:
                yield self._problem((*path, key), "no port", f"a port, which {key} needs")

    def _misspelt(self, name: str) -> str:
        """A component that says nothing is often another one's override, misspelt."""
        return nearest(name, (other for other in self.components if other != name))

    def _references(self, path: Path, component: Plain) -> Iterator[Problem]:
        own = str(path[-1])
        known = {*self.components, *self.stores, *self.data["outside"]} - {own}
        for index, name in enumerate(component["talks_to"]):
            at: Path = (*path, "talks_to", index)
            if name not in known:
                yield self._unknown(at, name, known, "a component or store")
            elif name in self.components and not self._has_port(name):
                yield self._problem(at, f'"{name}", which has no port', "a component with a port, or a store")
        yield from self._told_apart((*path, "talks_to"), component)
        for name in component["volumes"]:
            if name not in self.data["volumes"]:
                yield self._unknown((*path, "volumes", name), name, self.data["volumes"], "a volume of the system")
        if "proxy" in component:
            yield from self._routes((*path, "proxy", "routes"), component["proxy"]["routes"], own)

    def _told_apart(self, path: Path, component: Plain) -> Iterator[Problem]:
        """No two stores of a component may bring the same variables."""
        seen: dict[tuple[str, ...], str] = {}
        for name in self._reached(component):
            variables = self._variables(name)
            if variables and variables in seen:
                kind = self.stores[name]["type"]
                more = ", or an env_prefix of its own for one of them" if "env_prefix" in self.stores[name] else ""
                expected = f"one {kind} store for each component{more}"
                yield self._problem(path, f"{seen[variables]} and {name}", expected)
            seen[variables] = name

    def _reached(self, component: Plain) -> list[str]:
        """Names that a component talks to, its queue included."""
        queues = [component[role]["queue"] for role in ("worker", "scheduler") if role in component]
        return [*component["talks_to"], *(queue for queue in queues if queue not in component["talks_to"])]

    def _variables(self, name: str) -> tuple[str, ...]:
        """Variables that a store brings to whoever talks to it."""
        store = self.stores.get(name, {})
        return tuple(
            variable.format(prefix=store.get("env_prefix", ""))
            for variable in DERIVED_ENV.get(store.get("type", ""), ())
        )

    def _routes(self, path: Path, routes: Plain, own: str) -> Iterator[Problem]:
        targets = {name for name in self.components if name != own and self._has_port(name)}
        canonical: dict[str, str] = {}
        for route, to in routes.items():
            name = to if isinstance(to, str) else to["to"]
            at: Path = (*path, route) if isinstance(to, str) else (*path, route, "to")
            if name not in targets:
                yield self._unknown(at, name, targets, "a component with a port")
            bare = route.rstrip("/")
            if bare in canonical:
                yield self._problem((*path, route), f"{route} beside {canonical[bare]}", "each path once")
            canonical[bare] = route
            if bare in ("/healthz", "/readyz"):
                yield self._problem((*path, route), route, "a path other than the proxy's own /healthz and /readyz")

    def _scaling(self, path: Path, component: Plain) -> Iterator[Problem]:
        replicas = component["replicas"]
        smallest = replicas["min"] if isinstance(replicas, dict) else replicas
        if isinstance(replicas, dict):
            if replicas["min"] > replicas["max"]:
                yield self._problem(
                    (*path, "replicas"), f"min {replicas['min']} above max {replicas['max']}", "min up to max"
                )
            if replicas["min"] < replicas["max"] and not component["scale_on"]:
                yield self._problem((*path, "scale_on"), "nothing", "cpu or memory, which decides between min and max")
        available = component.get("keep_available")
        if available is not None and component["enabled"] and available >= smallest:
            expected = f"fewer than the {smallest} replicas that there may be, or no node could ever be drained"
            yield self._problem((*path, "keep_available"), str(available), expected)
        for key in ("scale_up", "scale_down"):
            yield from self._scale_rule((*path, key), component.get(key))

    def _scale_rule(self, path: Path, rule: Plain | None) -> Iterator[Problem]:
        if rule is None:
            return
        if seconds(rule["stabilize"]) > LONGEST_STABILIZATION:
            yield self._problem((*path, "stabilize"), rule["stabilize"], "at most 1h")
        for index, policy in enumerate(rule["policies"]):
            if not 0 < seconds(policy["every"]) <= LONGEST_POLICY:
                yield self._problem((*path, "policies", index, "every"), policy["every"], "from 1s to 30m")

    def _amounts(self, path: Path, resources: Plain) -> Iterator[Problem]:
        amounts = build_parts.resources(resources)
        texts: dict[str, Callable[[int], str]] = {
            "cpu": cpu_text,
            "memory": bytes_text,
            "ephemeral_storage": bytes_text,
        }
        for key, text in texts.items():
            amount: Amount = getattr(amounts, key)
            if amount.request > amount.limit:
                found = f"a request of {text(amount.request)} above the limit of {text(amount.limit)}"
                yield self._problem((*path, key), found, "a request up to the limit")
            if amount.request == 0:
                yield self._problem((*path, key), "a request of nothing", "more than zero")

    def _environment(self, path: Path, component: Plain) -> Iterator[Problem]:
        derived = {"PORT": "port"}
        for name in self._reached(component):
            derived.update(dict.fromkeys(self._variables(name), name))
        if "proxy" in component:
            return
        for at, variables in (((*path, "env"), component["env"]), (("env",), self.data["env"])):
            for variable in variables:
                if variable in derived:
                    expected = f"none: it follows from {derived[variable]}"
                    yield self._problem((*at, variable), f"the variable {variable}", expected)

    def _mounts(self, path: Path, component: Plain) -> Iterator[Problem]:
        seen: dict[str, str] = {}
        mounted = [("volumes", *entry) for entry in component["volumes"].items()]
        mounted += [("secrets", *entry) for entry in component["secrets"].items()]
        for section, name, folder in mounted:
            at = (*path, section, name)
            reserved = [one for one in RESERVED_PATHS if folder == one or folder.startswith(one + "/")]
            if reserved or folder.strip("/") == "":
                yield self._problem(at, folder, "a path that the container does not need for itself")
            if folder in seen:
                yield self._problem(at, f"{folder}, where {seen[folder]} is", "a path of its own")
            seen[folder] = name

    def _strategy(self, path: Path, component: Plain) -> Iterator[Problem]:
        strategy, name = component["strategy"], str(path[-1])
        at: Path = (*path, "strategy")
        steps = strategy.get("steps", [100])
        if steps != sorted(set(steps)) or steps[-1] != 100:
            yield self._problem((*at, "steps"), ", ".join(map(str, steps)), "percentages that rise to 100")
        if strategy["type"] == "blue_green" and not self._has_port(name):
            yield self._problem((*at, "type"), "blue_green without a port", "a port, by which the Service can switch")
        for suffix in {"blue_green": ("blue", "green"), "canary": ("canary", "stable")}.get(strategy["type"], ()):
            if f"{name}-{suffix}" in self.components or f"{name}-{suffix}" in self.stores:
                yield self._problem(at, f"a Deployment {name}-{suffix}", "a name that nothing else of the system has")

    def _needs_capability(self, path: Path, component: Plain) -> Iterator[Problem]:
        if component.get("gpu", {}).get("required") and "gpu" not in self.counted_on:
            expected = "capabilities.gpu: true where the cluster has GPUs, gpu.required: false, or enabled: false"
            yield self._problem((*path, "gpu"), "GPUs in an environment that does not count on any", expected)
        host = component.get("public", {}).get("host")
        if host and "gateway" in self.counted_on and "domain" not in self.data:
            yield self._problem(("domain",), "nothing", f"the domain below which {host} is public")

    def _public(self) -> Iterator[Problem]:
        for key in ("host", "node_port"):
            seen: dict[Any, str] = {}
            for name, component in self.components.items():
                value = component.get("public", {}).get(key)
                if value is None or not component["enabled"]:
                    continue
                if value in seen:
                    yield self._problem(
                        ("components", name, "public", key), f"{value}, as {seen[value]} has", "one of its own"
                    )
                seen[value] = name

    def _store(self, path: Path, store: Plain) -> Iterator[Problem]:
        if store["type"] == "influxdb":
            yield from self._retention(path, store)
        if store["type"] != "postgresql":
            return
        yield from self._postgresql(path, store)
        instances = store["instances"]
        fewest = instances["min"] if isinstance(instances, dict) else instances
        if store["synchronous_replicas"] >= fewest:
            expected = f"fewer than the {fewest} instances"
            yield self._problem((*path, "synchronous_replicas"), str(store["synchronous_replicas"]), expected)
        for key in ("database", "owner"):
            if store.get(key, "") in ("postgres", "template0", "template1", "streaming_replica"):
                yield self._problem((*path, key), store[key], "a name that PostgreSQL does not use itself")

    def _retention(self, path: Path, store: Plain) -> Iterator[Problem]:
        """InfluxDB's own bounds, and averages that outlive what they are made of."""
        retention = seconds(store["retention"])
        if retention < SHORTEST_RETENTION or retention % 3600:
            yield self._problem((*path, "retention"), store["retention"], "whole hours, at least 1h")
        for name, copy in store["downsampling"].items():
            at: Path = (*path, "downsampling", name)
            every, keep = seconds(copy["every"]), seconds(copy["keep"])
            if name == InfluxDB.RAW:
                yield self._problem(at, f'the name "{name}"', "one that the points themselves do not use")
            if not 60 <= every <= retention // 2:
                expected = f"at least 1m, and at most half of the {store['retention']} that points are kept"
                yield self._problem((*at, "every"), copy["every"], expected)
            if keep <= retention or keep % 3600:
                expected = f"whole hours, and more than the {store['retention']} that points themselves are kept"
                yield self._problem((*at, "keep"), copy["keep"], expected)

    def _postgresql(self, path: Path, store: Plain) -> Iterator[Problem]:
        instances, parameters = store["instances"], store["parameters"]
        if isinstance(instances, dict):
            if instances["min"] > instances["max"]:
                found = f"min {instances['min']} above max {instances['max']}"
                yield self._problem((*path, "instances"), found, "min up to max")
            if instances["min"] < instances["max"] and not store["scale_on"]:
                expected = "cpu or memory, which decides between min and max"
                yield self._problem((*path, "scale_on"), "nothing", expected)
        pooler = store.get("pooler")
        if pooler is not None:
            opened = pooler["instances"] * pooler["pool_size"]
            given = str(parameters.get("max_connections", ""))
            most = int(given) if given.isdecimal() else POSTGRESQL_CONNECTIONS
            if opened > most:
                expected = f"no more than the {most} of parameters.max_connections"
                yield self._problem((*path, "pooler", "pool_size"), f"{opened} connections of all poolers", expected)

    def _migration(self) -> Iterator[Problem]:
        migration = self.data.get("migration")
        if migration is None:
            return
        at: Path = ("migration", "component")
        name = migration["component"]
        if name not in self.components:
            yield self._unknown(at, name, self.components, "a component")
        elif not self.components[name]["enabled"] or "proxy" in self.components[name]:
            yield self._problem(at, f'"{name}", which does not run here', "a component that runs in every environment")
        yield from self._amounts(("migration", "resources"), migration["resources"])
        yield from self._migrated(migration)

    def _migrated(self, migration: Plain) -> Iterator[Problem]:
        """The store that is migrated, and what is made of it before."""
        reached = self.components.get(migration["component"], {}).get("talks_to", [])
        databases = sorted(name for name, store in self.data["stores"].items() if store["type"] == "postgresql")
        candidates = [name for name in databases if name in reached]
        store = migration.get("store")
        if store is not None and store not in candidates:
            expected = f"a PostgreSQL store that {migration['component']} talks to"
            yield self._problem(("migration", "store"), f'"{store}"', expected)
        point = migration["restore_point"]
        if point["type"] == "command" and migration["destructive"] == "restore_point":
            for key in ("image", "command"):
                if key not in point:
                    yield self._problem(("migration", "restore_point", key), "nothing", f"the {key} that makes it")

    def _network(self) -> Iterator[Problem]:
        for index, cidr in enumerate(self.data["network"]["api_server_cidrs"]):
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                yield self._problem(
                    ("network", "api_server_cidrs", index), cidr, f"a network such as 10.0.0.0/24 ({error})"
                )
