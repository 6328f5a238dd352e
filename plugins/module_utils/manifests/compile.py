# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiler: a system in, stages of Kubernetes objects out, the same to the byte for the same input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import (
    foundation,
    influxdb,
    migration,
    network,
    patches,
    postgresql,
    redis,
    workloads,
)
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.capabilities import capabilities, notes
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import Context, Manifest
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.withheld import withheld
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Problem, SystemInvalid
from ansible_collections.groundwork.platform.plugins.module_utils.model.system import Loaded, load, subject
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import InfluxDB, PostgreSQL, Redis, System


@dataclasses.dataclass(slots=True)
class Stages:
    """The objects in the order in which they are applied.

    :param secrets: what the module generated_secret makes.
    :param migration: the Job, or nothing where the system has none.
    """

    foundation: list[Manifest]
    secrets: list[dict[str, Any]]
    stores: list[Manifest]
    migration: Manifest | None
    components: list[Manifest]

    def objects(self) -> list[Manifest]:
        """All objects, in that order."""
        run = [self.migration] if self.migration is not None else []
        return [*self.foundation, *self.stores, *run, *self.components]


def compile_system(
    name: str,
    path: Iterable[str | Path],
    environment: str,
    overrides: Mapping[str, Any] | None = None,
    images: Mapping[str, str] | None = None,
    components: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Load, check and compile a system; the result is that of the module of the same name.

    :raises Failure: whatever is wrong, before anything is changed; all mistakes of the files at once.
    """
    loaded = load(name, path, environment, overrides)
    stages = compile_stages(loaded, images or {}, components or {})
    able = capabilities(loaded.system)
    return {
        "name": name,
        "environment": environment,
        "namespace": loaded.system.namespace,
        "stages": dataclasses.asdict(stages),
        "migration": _migration_options(loaded, images, components),
        "public": public(loaded.system),
        "smoke": smoke(loaded.system),
        "strategies": strategies(loaded.system),
        "on_failure": loaded.system.on_failure,
        "digest": digest(loaded),
        "capabilities": {"declared": list(able.declared), "needed": list(able.needed), "pending": dict(able.pending)},
        "withheld": [dataclasses.asdict(one) for one in withheld(loaded.system)],
        "notes": notes(loaded.system),
    }


def _migration_options(loaded: Loaded, images: Mapping[str, str] | None, pins: Mapping[str, Any] | None) -> Manifest:
    context = Context(loaded.system, images or {}, pins or {})
    run = loaded.system.migration
    return migration.migration_options(context, run) if run is not None else {}


def compile_stages(loaded: Loaded, images: Mapping[str, str], pins: Mapping[str, Any]) -> Stages:
    """Compile a loaded system and patch the result.

    :raises SystemInvalid: where a quota is too small, or a patch matches nothing or takes away what an object is.
    """
    context = Context(loaded.system, images, pins)
    misfits = [_misfit(loaded, *one) for one in foundation.misfits(context)]
    if misfits:
        raise SystemInvalid(subject(loaded.system.name, loaded.system.environment), misfits)
    stages = Stages(
        _foundation(context), _secrets(context), _stores(context), _migration(context), _components(context)
    )
    return _patched(_unique(stages, loaded), loaded)


def smoke(system: System) -> list[dict[str, Any]]:
    """What has to answer through its Service before a release is good, as the gate takes it.

    Only what any address may reach: the API server, through which the gate asks, has one that no policy could name.
    """
    return [
        {
            "name": f"smoke check of {name}",
            "service": {"name": name, "port": "http"},
            "path": component.health.ready,
        }
        for name, component in system.components.items()
        if component.public is not None and component.public.node_port is not None
    ]


def strategies(system: System) -> dict[str, dict[str, Any]]:
    """How components take over that are not simply rolled, as the module release takes it."""
    found: dict[str, dict[str, Any]] = {}
    for name, component in system.components.items():
        if component.strategy.type == "blue_green":
            found[name] = {"type": "blue_green", "keep_old": component.strategy.keep_old}
        elif component.strategy.type == "canary":
            steps = list(component.strategy.steps)
            found[name] = {"type": "canary", "steps": steps, "pause": component.strategy.pause}
    return found


def digest(loaded: Loaded) -> str:
    """What tells one version of a system's files from another, with everything merged over them."""
    text = json.dumps(loaded.tree.plain(), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def public(system: System) -> list[dict[str, Any]]:
    """What can be reached from outside, and how."""
    reachable = []
    for component in system.components.values():
        entry = component.public
        if entry is None:
            continue
        kind = "NodePort" if entry.node_port is not None else "ClusterIP"
        host = f"{entry.host}.{system.domain}" if entry.host and system.domain else ""
        routes = {route.path: route.component for route in component.proxy.routes} if component.proxy else {}
        port = 80 if component.proxy is not None else component.port
        reachable.append(
            {
                "name": component.name,
                "component": component.name,
                "service": component.name,
                "type": kind,
                "scheme": "http",
                "port": entry.node_port or port,
                "host": host,
                "routes": routes or {"/": component.name},
            }
        )
    return reachable


def _foundation(context: Context) -> list[Manifest]:
    return [
        foundation.namespace(context),
        foundation.quota(context),
        foundation.limit_range(context),
        *foundation.service_accounts(context),
        *network.network_policies(context),
        *(foundation.claim(context, volume) for volume in context.system.volumes.values()),
    ]


def _secrets(context: Context) -> list[dict[str, Any]]:
    secrets: list[dict[str, Any]] = []
    for store in context.system.stores.values():
        if isinstance(store, Redis):
            secrets.append(redis.redis_secret(context, store))
        elif isinstance(store, InfluxDB):
            secrets.append(influxdb.influxdb_secret(context, store))
    return secrets


def _stores(context: Context) -> list[Manifest]:
    objects: list[Manifest] = []
    for store in context.system.stores.values():
        if isinstance(store, PostgreSQL):
            objects += postgresql.postgresql_objects(context, store)
        elif isinstance(store, Redis):
            objects += redis.redis_objects(context, store)
        else:
            objects += influxdb.influxdb_objects(context, store)
    return objects


def _migration(context: Context) -> Manifest | None:
    run = context.system.migration
    return migration.migration_job(context, run) if run is not None else None


def _components(context: Context) -> list[Manifest]:
    made = [workloads.component_objects(context, component) for component in context.system.components.values()]
    return [one for objects in made for one in objects]


def _misfit(loaded: Loaded, key: str, given: str, needed: str) -> Problem:
    place = loaded.tree.at("quota", key).place
    return Problem(place, f"quota.{key}", given, f"at least {needed}, which all parts need at their largest")


def _unique(stages: Stages, loaded: Loaded) -> Stages:
    """A net under the checks of names: of two objects with one name, the second would silently win."""
    counted = Counter(patches.key_of(one) for one in stages.objects())
    twice = sorted(key for key, count in counted.items() if count > 1)
    if twice:
        place = loaded.tree.place
        problems = [Problem(place, "", f"two parts that both make {key}", "names that differ more") for key in twice]
        raise SystemInvalid(subject(loaded.system.name, loaded.system.environment), problems)
    return stages


def _patched(stages: Stages, loaded: Loaded) -> Stages:
    if not loaded.system.patches:
        return stages
    done, problems = patches.apply_patches(stages.objects(), loaded.system.patches, loaded.tree)
    if problems:
        raise SystemInvalid(subject(loaded.system.name, loaded.system.environment), problems)

    def after(objects: list[Manifest]) -> list[Manifest]:
        return [done.get(patches.key_of(one), one) for one in objects]

    run = after([stages.migration])[0] if stages.migration is not None else None
    return Stages(after(stages.foundation), stages.secrets, after(stages.stores), run, after(stages.components))
