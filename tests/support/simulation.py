"""A gate on simulated time: what the watches report and what checks answer is a script, and nothing really waits."""

from __future__ import annotations

import copy
import functools
import heapq
import itertools
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, Resource, WatchEvent
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError, Clock
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health import checks, gate, watching
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import kind_of

START = 1000.0
_CLUSTER_WIDE = ("Node", "StorageClass", "Namespace", "CustomResourceDefinition", "PersistentVolume", "APIService")


class Simulation:
    """A cluster whose objects change when a script says so.

    :param objects: what is there at the beginning.
    """

    def __init__(self, *objects: Object) -> None:
        self.time = START
        self.clock = Clock(lambda: self.time, self._sleep)
        self.transport = self
        self.objects = [copy.deepcopy(obj) for obj in objects]
        self.log: dict[tuple[str, str], list[str]] = {}
        """Lines by pod and container."""
        self.secrets: dict[str, Object] = {}
        """Whatever is asked for by name, with its data."""
        self.refusals: dict[str, Failure] = {}
        """Names that are not told, and why."""
        self.delays: dict[str, float] = {}
        """Seconds until an answer."""
        self.denied: set[str] = set()
        """Kinds that may not be watched."""
        self.asked: list[str] = []
        """Logs and Secrets that were asked for."""
        self.told: list[tuple[float, str]] = []
        """Progress: seconds since the start, and the line."""
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._number = itertools.count()
        self._watchers: list[Any] = []

    # What the script says

    def at(self, seconds: float, *objects: Object, gone: bool = False) -> None:
        """Objects change at a moment, in seconds from the start."""
        for obj in copy.deepcopy(objects):
            self.call(seconds, functools.partial(self._change, obj, gone))

    def call(self, seconds: float, action: Callable[[], Any]) -> None:
        """Do something at a moment."""
        heapq.heappush(self._events, (START + seconds, next(self._number), action))

    def lose(self, seconds: float, lasting: float, error: Exception) -> None:
        """All watches lose the server for a while."""
        for kind, moment in (("LOST", seconds), ("BACK", seconds + lasting)):
            self.call(moment, lambda kind=kind: [WatchEvent(kind, item, error=error) for item in self._watchers])

    # What a cluster has

    def find_resource(self, api_version: str, kind: str, fresh: bool = False) -> Resource:
        group, _slash, version = api_version.rpartition("/")
        return Resource(group, version, kind, kind.lower() + "s", kind not in _CLUSTER_WIDE)

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        for obj in self.objects:
            if obj["kind"] == resource.kind and obj["metadata"]["name"] == name:
                return obj
        return None

    def logs(
        self, namespace: str, pod: str, container: str, tail: int = 20, previous: bool = False, timeout: float = 5.0
    ) -> list[str]:
        self.asked.append(f"log {pod}/{container}")
        return self.log.get((pod, container), [])

    def request(self, method: str, path: str, **_more: Any) -> Any:
        self.asked.append(path)
        name = path.rpartition("/")[2]
        self.time += self.delays.get(name, 0.0)
        if name in self.refusals:
            raise self.refusals[name]
        found = self.secrets.get(name)
        if found is None:
            raise ApiError("not_found", path, "finds nothing", status=404)
        return found

    def server_time(self) -> float:
        return self.time

    # The simulation

    def _sleep(self, seconds: float) -> None:
        self.time += seconds

    def _change(self, obj: Object, gone: bool) -> list[WatchEvent]:
        key = (kind_of(obj), obj["metadata"].get("namespace"), obj["metadata"]["name"])
        self.objects = [
            item
            for item in self.objects
            if (kind_of(item), item["metadata"].get("namespace"), item["metadata"]["name"]) != key
        ]
        if not gone:
            self.objects.append(obj)
        kind = "DELETED" if gone else "MODIFIED"
        return [WatchEvent(kind, item, [copy.deepcopy(obj)]) for item in self._watchers if item.kind == kind_of(obj)]

    def put(self, event: Any) -> None:
        self.call(self.time - START, lambda: [event])

    def empty(self) -> bool:
        return not self._events or self._events[0][0] > self.time

    def get_nowait(self) -> Any:
        raise queue.Empty

    def wait(self, timeout: float) -> Any:
        """The next event within a time, as a queue gives it."""
        ends = self.time + timeout
        while self._events and self._events[0][0] <= ends:
            moment, _number, action = heapq.heappop(self._events)
            self.time = max(self.time, moment)
            found = action()
            events = found if isinstance(found, list) else []
            for event in events[1:]:
                self.put(event)
            if events:
                return events[0]
        self.time = ends
        raise queue.Empty


class _Queue:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.put, self.empty, self.get_nowait = simulation.put, simulation.empty, simulation.get_nowait

    def get(self, timeout: float) -> Any:
        return self._simulation.wait(timeout)


class _Watcher:
    def __init__(
        self, cluster: Simulation, resource: Resource, sink: Any, namespace: str | None = None, fields: str = ""
    ) -> None:
        self.resource, self.namespace, self.kind = resource, namespace, (resource.group, resource.kind)
        self._simulation, self._sink = cluster, sink

    def start(self) -> _Watcher:
        simulation = self._simulation
        if self.resource.kind in simulation.denied:
            error = ApiError("forbidden", f"List of {self.resource.plural}", "is forbidden", "may not list", status=403)
            for _time in range(2):
                self._sink(WatchEvent("DENIED", self, error=error))
            return self
        simulation._watchers.append(self)
        items = [copy.deepcopy(obj) for obj in simulation.objects if kind_of(obj) == self.kind]
        self._sink(WatchEvent("SYNC", self, items))
        return self

    def stop(self, join: float = 0.0) -> None:
        if self in self._simulation._watchers:
            self._simulation._watchers.remove(self)


class _Runner:
    def __init__(self, cluster: Simulation, standings: checks.Standings, sink: Any) -> None:
        self._simulation, self._standings = cluster, standings
        self._memory: dict[str, Any] = {}
        self._stopped = False

    def start(self) -> _Runner:
        self._simulation.call(self._simulation.time - START, self._ask)
        return self

    def now(self) -> None:
        self._simulation.call(self._simulation.time - START, lambda: [self.ask()])

    def ask(self) -> checks.CheckEvent:
        outcome = self._standings.check.measure(self._simulation, self._memory)  # type: ignore[arg-type]
        return checks.CheckEvent(self._standings, outcome, self._simulation.time)

    def stop(self) -> None:
        self._stopped = True

    def _ask(self) -> list[checks.CheckEvent]:
        if self._stopped:
            return []
        self._simulation.call(self._simulation.time - START + self._standings.check.interval, self._ask)
        return [self.ask()]


class Told:
    """Keeps the progress with its time."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def update(self, text: str) -> None:
        told = self._simulation.told
        if not told or told[-1][1] != text:
            told.append((self._simulation.time - START, text))


@contextmanager
def simulated(simulation: Simulation, targets: list[Object], **options: Any) -> Iterator[gate.Gate]:
    """A gate on the simulation."""
    with (
        mock.patch.object(watching, "Watcher", _Watcher),
        mock.patch.object(checks, "Runner", _Runner),
        mock.patch.object(watching, "SimpleQueue", lambda: _Queue(simulation)),
    ):
        yield gate.Gate(simulation, targets, progress=Told(simulation), **{"existing": True, **options})  # type: ignore[arg-type]
