"""What a process shares between its parts, and the domain that it serves."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar, cast

from fastapi import APIRouter

from reference_app.database import Database
from reference_app.influx import Influx
from reference_app.models import ModelReader, ModelStore
from reference_app.problems import Problem
from reference_app.settings import Settings, SettingsError
from reference_app.streams import Streams

T = TypeVar("T")


class Domain(Protocol):
    """A system's own kind of work. A module in `reference_app.domains` offers one as `DOMAIN`."""

    name: str
    ready_statement: str
    reader: ModelReader[Any]

    def routes(self, services: Services) -> APIRouter:
        """The domain's part of the HTTP interface."""

    def perform(self, services: Services, task: str, data: bytes, options: dict[str, Any]) -> list[bytes]:
        """What the worker does for a task: stores the result and returns the messages to publish."""


def load_domain(name: str) -> Domain:
    """The domain that DOMAIN_MODULE names; raises SettingsError."""
    package = f"reference_app.domains.{name}"
    if not name.isidentifier() or find_spec(package) is None:
        raise SettingsError(f"the environment's DOMAIN_MODULE names {name!r}, and there is no such domain")
    return cast("Domain", import_module(f"{package}.domain").DOMAIN)


class Pool:
    """Threads for work that takes the processor: few, and with a bounded queue, so that a burst ends in 503."""

    def __init__(self, threads: int, waiting: int = 32, patience: float = 20.0) -> None:
        self._threads = ThreadPoolExecutor(threads, "detector")
        self._room, self._patience = threads + waiting, patience

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread; raises Problem 503 when too much is waiting."""
        if self._room <= 0:
            raise Problem(503, "busy", "too many photographs are waiting: try again shortly", 1)
        self._room -= 1
        try:
            context = contextvars.copy_context()
            running = asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work))
            return await asyncio.wait_for(running, self._patience)
        except TimeoutError:
            raise Problem(503, "busy", f"the work did not end within {self._patience:g} s", 2) from None
        finally:
            self._room += 1

    def close(self) -> None:
        """Waits for what runs."""
        self._threads.shutdown(wait=True, cancel_futures=True)


@dataclass
class Services:
    """The parts of one process. One that only streams has no domain: it hands on what others say, and starts faster."""

    settings: Settings
    domain: Domain | None
    models: ModelStore[Any] | None
    streams: Streams
    database: Database | None
    influx: Influx
    pool: Pool
    started: float = field(default_factory=time.monotonic)

    def require_database(self) -> Database:
        """The database of a process that has one."""
        if self.database is None:
            raise Problem(404, "not_here", "this replica has no database")
        return self.database

    def require_domain(self) -> tuple[Domain, ModelStore[Any]]:
        """The domain, and its model, of a process that has one."""
        if self.domain is None or self.models is None:
            raise Problem(404, "not_here", "this replica does no work of its own")
        return self.domain, self.models


def make(settings: Settings, roles: Iterable[str] = ("api",)) -> Services:
    """Builds the parts for a process that plays `roles`; nothing connects yet. Raises SettingsError."""
    domain = load_domain(settings.domain) if set(roles) & {"api", "worker"} else None
    return Services(
        settings=settings,
        domain=domain,
        models=ModelStore(settings.model_path, domain.reader) if domain else None,
        streams=Streams(settings),
        database=Database(settings) if settings.database else None,
        influx=Influx(settings.influx),
        pool=Pool(settings.detectors),
    )
