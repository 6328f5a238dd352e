"""Whether this replica is alive, ready, or stopping; dependencies are looked at in the background.

Ready for the first time means that everything configured has been reached once: a wrong password never gets traffic.
After that a dependency which goes away takes readiness only where the replica is of no use without it, and only after
a grace: all replicas lose a shared database at the same moment, and a 503 with a reason serves better than no answer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from reference_app import metrics
from reference_app.services import Services


@dataclass
class Dependency:
    """One dependency, as last seen; `away_since` by the monotonic clock."""

    reached: bool = False
    problem: str = "not looked at yet"
    away_since: float = field(default_factory=time.monotonic)


class Health:
    """Looks at the dependencies and the model, and decides on readiness."""

    def __init__(self, services: Services) -> None:
        self._services, self._settings = services, services.settings
        wanted = set(self._settings.ready_at_start | self._settings.ready_while)
        if services.streams.configured:
            wanted.add("redis")
        if services.database:
            wanted.add("database")
        if services.influx.configured:
            wanted.add("influxdb")
        self.dependencies = {name: Dependency() for name in sorted(wanted)}
        self.draining = False
        self._was_ready = False

    async def watch(self) -> None:
        """Looks every few seconds, more often while something is away; runs until cancelled."""
        while True:
            await self.look()
            calm = all(dependency.reached and not dependency.problem for dependency in self.dependencies.values())
            await asyncio.sleep(3.0 if calm else 0.5)

    async def watch_model(self) -> None:
        """Looks at the model volume; runs until cancelled."""
        models = self._services.models
        while models is not None:
            await asyncio.to_thread(models.refresh)
            await asyncio.sleep(self._settings.model_interval)

    async def look(self) -> None:
        """One look at every dependency, at the same time."""
        await asyncio.gather(*(self._look_at(name) for name in self.dependencies))

    async def _look_at(self, name: str) -> None:
        dependency = self.dependencies[name]
        if name == "redis":
            problem = await self._services.streams.check()
        elif name == "influxdb":
            problem = await self._services.influx.check()
        elif self._services.database and self._services.domain:
            problem = await self._services.database.check(self._services.domain.ready_statement)
        else:
            problem = "this process uses no database"
        if problem and not dependency.problem:
            dependency.away_since = time.monotonic()
        dependency.problem = problem
        dependency.reached = dependency.reached or not problem
        metrics.dependency_up.labels(name).set(0 if problem else 1)

    def status(self) -> tuple[bool, dict[str, Any]]:
        """Whether traffic should come here, and why."""
        missing = [name for name in self._settings.ready_at_start if not self.dependencies[name].reached]
        lost = [
            name
            for name in self._settings.ready_while
            if (dependency := self.dependencies[name]).problem
            and time.monotonic() - dependency.away_since > self._settings.ready_grace
        ]
        self._was_ready = self._was_ready or not missing
        ready = self._was_ready and not lost and not self.draining
        metrics.ready.set(1 if ready else 0)
        degraded = any(dependency.problem for dependency in self.dependencies.values())
        model = self._services.models.current.describe() if self._services.models else None
        state = "stopping" if self.draining else "ready" if ready else "unready"
        return ready, {
            "status": "degraded" if ready and (degraded or "problem" in (model or {})) else state,
            "replica": self._settings.replica,
            "domain": self._settings.domain,
            "checks": {name: dependency.problem or "ok" for name, dependency in self.dependencies.items()},
        } | ({"model": model} if model else {})
