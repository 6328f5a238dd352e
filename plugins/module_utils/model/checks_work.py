# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of how components work: queues, autoscalers beside each other, what they mount and show outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import build_parts
from ansible_collections.groundwork.platform.plugins.module_utils.model.checks_frame import Frame, Path, Plain
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import Problem
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
    bytes_text,
    cpu_text,
    millicores,
    number_of_bytes,
)

_ROLES = ("worker", "scheduler")
_RESOURCES = ("cpu", "memory")
# What a component that must be alone cannot have.
_NOT_ALONE = ("port", "scale_on", "scale_up", "scale_down", "spot", "strategy", "keep_available")


class WorkChecks(Frame):
    """Of each component by itself, and of its queue."""

    def _work(self) -> Iterator[Problem]:
        for name, component in self.components.items():
            path: Path = ("components", name)
            yield from self._queue(path, component)
            yield from self._alone(path, component)
            yield from self._targets(path, component)
            yield from self._vertical(path, component)
            yield from self._secret_mounts(path, component)
            yield from self._served(path, component)
            yield from self._public_routes(path, component)
        for name, store in self.stores.items():
            yield from self._store_vertical(("stores", name), store)

    def _queue(self, path: Path, component: Plain) -> Iterator[Problem]:
        if all(role in component for role in _ROLES):
            yield self._problem((*path, "scheduler"), "a worker that is the scheduler", "two components")
        for role in _ROLES:
            if role in component:
                yield from self._holds_tasks((*path, role, "queue"), component[role]["queue"])

    def _holds_tasks(self, path: Path, name: str) -> Iterator[Problem]:
        """A queue loses nothing: Celery cannot split it over a cluster, and what is evicted is not done."""
        if name not in self._stores_of("redis"):
            if self.stores.get(name, {}).get("type") != "stand-in":
                yield self._unknown(path, name, self._stores_of("redis"), "a redis store")
            return
        store = self.stores[name]
        if store["mode"] == "cluster":
            expected = "a redis store of mode standalone or sentinel: Celery cannot use a Redis Cluster as its broker"
            yield self._problem(path, f'"{name}", a Redis Cluster', expected)
        if store["eviction"] != "noeviction":
            expected = "a redis store with noeviction: an evicted task would be lost"
            yield self._problem(path, f'"{name}", which evicts ({store["eviction"]})', expected)

    def _alone(self, path: Path, component: Plain) -> Iterator[Problem]:
        if "scheduler" not in component:
            return
        if component["replicas"] not in (0, 1):
            expected = "1: two schedulers would post everything twice"
            yield self._problem((*path, "replicas"), "more than one scheduler", expected)
        for key in _NOT_ALONE:
            if component.get(key) and key in self._written(*map(str, path)):
                yield self._problem((*path, key), key, "none: a scheduler is one pod that answers nobody")

    def _targets(self, path: Path, component: Plain) -> Iterator[Problem]:
        scale_on, bounds = component["scale_on"], component["replicas"]
        targets = {name: target for name, target in scale_on.items() if name not in _RESOURCES}
        for name, target in targets.items():
            at: Path = (*path, "scale_on", name)
            if name not in self.data["metrics"]:
                yield self._unknown(
                    at, name, [*_RESOURCES, *self.data["metrics"]], "cpu, memory or a metric of `metrics`"
                )
                continue
            if ("per_replica" in target) == ("value" in target):
                found = "both per_replica and value" if "value" in target else "neither per_replica nor value"
                yield self._problem(at, found, "one of the two")
            if "ahead" in target and "query" not in self.data["metrics"][name]:
                yield self._problem(
                    (*at, "ahead"), target["ahead"], f"a query of metrics.{name}, which can be predicted"
                )
        ranged = isinstance(bounds, dict) and bounds["min"] < bounds["max"]
        if targets and ranged and not set(scale_on) & set(_RESOURCES) and "keda" not in self.counted_on:
            expected = "cpu or memory beside, or capabilities.keda: true"
            yield self._problem((*path, "scale_on"), "only metrics that nobody scales on here", expected)
        below = component.get("scale_down", {}).get("below")
        held = [scale_on[resource] for resource in _RESOURCES if resource in scale_on]
        if below is not None and (not held or below >= min(held)):
            expected = "less than what scale_on holds" if held else "cpu or memory in scale_on, of which this is a part"
            yield self._problem((*path, "scale_down", "below"), str(below), expected)

    def _vertical(self, path: Path, component: Plain) -> Iterator[Problem]:
        vertical = component.get("vertical")
        if vertical is None:
            return
        yield from self._bounds((*path, "vertical"), vertical)
        bounds = component["replicas"]
        ranged = isinstance(bounds, dict) and bounds["min"] < bounds["max"]
        owns = [resource for resource in _RESOURCES if resource in vertical] or list(_RESOURCES)
        both = [resource for resource in owns if ranged and resource in component["scale_on"]]
        if vertical["mode"] == "auto" and both:
            free = " or ".join(resource for resource in _RESOURCES if resource not in component["scale_on"])
            expected = "mode: recommend" + (f", or bounds for {free} alone" if free else "")
            found = f"auto for {' and '.join(both)}, which scale_on owns"
            yield self._problem((*path, "vertical", "mode"), found, expected)

    def _store_vertical(self, path: Path, store: Plain) -> Iterator[Problem]:
        vertical = store.get("vertical")
        if vertical is None:
            return
        yield from self._bounds((*path, "vertical"), vertical)
        if vertical["mode"] == "auto":
            expected = "recommend: a store is only restarted by a switchover"
            yield self._problem((*path, "vertical", "mode"), "auto", expected)

    def _bounds(self, path: Path, vertical: Plain) -> Iterator[Problem]:
        numbers: dict[str, tuple[Callable[[Any], int], Callable[[int], str]]] = {
            "cpu": (millicores, cpu_text),
            "memory": (number_of_bytes, bytes_text),
        }
        for key, (number, text) in numbers.items():
            if key in vertical:
                bounds = build_parts.bounds(vertical[key], number)
                if bounds.least > bounds.most:
                    found = f"at least {text(bounds.least)} and at most {text(bounds.most)}"
                    yield self._problem((*path, key), found, "the least up to the most")

    def _secret_mounts(self, path: Path, component: Plain) -> Iterator[Problem]:
        taken = {folder: name for name, folder in component["volumes"].items()}
        for name, folder in component["secrets"].items():
            at: Path = (*path, "secrets", name)
            if name not in self.data["secrets"]:
                yield self._unknown(at, name, self.data["secrets"], "a secret of the system")
            if folder in taken:
                yield self._problem(at, f"{folder}, where {taken[folder]} is", "a path of its own")
            taken[folder] = name

    def _served(self, path: Path, component: Plain) -> Iterator[Problem]:
        proxy = component.get("proxy")
        if proxy is None:
            return
        if not proxy["routes"] and "static" not in proxy:
            yield self._problem((*path, "proxy"), "nothing to serve", "routes, or static files of its image")
        if "static" in proxy and not component.get("image"):
            yield self._problem((*path, "proxy", "static"), proxy["static"], "an image that has the files")
        if component["env"]:
            yield self._problem((*path, "env"), "env", "none: a proxy takes nothing from the environment")

    def _public_routes(self, path: Path, component: Plain) -> Iterator[Problem]:
        public = component.get("public", {})
        for route, to in public.get("routes", {}).items():
            name = to if isinstance(to, str) else to["to"]
            at: Path = (*path, "public", "routes", route)
            targets = [one for one in self.components if self._has_port(one)]
            yield from self._named(at, name, targets, "a component with a port")
        if public.get("routes") and "host" not in public:
            yield self._problem((*path, "public", "host"), "nothing", "the host whose paths are routed")
        if public and "host" not in public and "node_port" not in public:
            yield self._problem((*path, "public"), "no way in", "a host, a node_port, or both")
