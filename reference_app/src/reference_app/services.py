"""What a process shares between its parts, and the domain that it serves."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastapi import APIRouter

from reference_app.database import Database
from reference_app.influx import Influx
from reference_app.models import ModelReader, ModelStore
from reference_app.problems import Problem
from reference_app.settings import Settings, find_domain
from reference_app.streams import Streams

if TYPE_CHECKING:
    from reference_app.tasks import Worker

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """Queued work: its id (and its result's, so that a task done twice is stored once), what to do, and with what.

    `data` is what the task was queued with; empty when the domain keeps it in the database.
    """

    id: str
    kind: str
    data: bytes
    options: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A task's outcome: the path at which its result is, and the messages for WebSocket clients."""

    location: str
    messages: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Periodic:
    """What beat has a worker do every so many seconds; it may happen twice, and must do no harm then."""

    every: float
    run: Callable[[Services, Worker], object]


class Domain:
    """A system's own kind of work. A package in `reference_app.domains` offers one as `domain.DOMAIN`.

    `ready_statement` is SQL that fails until the migration has run; `prefix` stands before the paths of tasks;
    `tasks` is whether work can be queued, `periodic` what beat has done; `pages` is a folder with the files that
    `serve frontend` serves, `reader` reads models where the domain has them.
    """

    name: str
    ready_statement: str
    prefix: str = ""
    tasks: bool = False
    periodic: Mapping[str, Periodic] = MappingProxyType({})
    pages: Path | None = None
    reader: ModelReader[Any] | None = None

    def routes(self, services: Services) -> APIRouter:
        """The domain's part of the HTTP interface."""
        raise NotImplementedError

    def perform(self, services: Services, task: Task) -> Done:
        """What the worker does for a task: stores the result. Problems below 500 are final, others are tried again."""
        raise NotImplementedError

    async def watch(self, services: Services) -> None:
        """Runs beside the requests of an api or worker until cancelled: gauges that have to be looked up."""


def load_domain(name: str) -> Domain:
    """The domain that DOMAIN_MODULE names; raises SettingsError."""
    return cast("Domain", import_module(f"{find_domain(name)}.domain").DOMAIN)


class Pool:
    """Threads for work that takes the processor: few, and with a bounded queue, so that a burst ends in 503."""

    def __init__(self, threads: int, waiting: int = 128, patience: float = 20.0) -> None:
        self._threads = ThreadPoolExecutor(threads, "work")
        self._room, self._patience = threads + waiting, patience

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread; raises Problem 503 when too much is waiting."""
        if self._room <= 0:
            raise Problem(503, "busy", "too much work is waiting: try again shortly", 1)
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

    def require_domain(self) -> Domain:
        """The domain of a process that has one."""
        if self.domain is None:
            raise Problem(404, "not_here", "this replica does no work of its own")
        return self.domain

    def require_models(self) -> ModelStore[Any]:
        """The model of a process that has one."""
        if self.models is None:
            raise Problem(404, "not_here", "this replica has no model")
        return self.models


def make(settings: Settings, roles: Iterable[str] = ("api",)) -> Services:
    """Builds the parts for a process that plays `roles`; nothing connects yet. Raises SettingsError."""
    roles = frozenset(roles)
    domain = load_domain(settings.domain) if roles & {"api", "worker", "beat", "frontend"} else None
    reader = domain.reader if domain and roles & {"api", "worker"} else None
    return Services(
        settings=settings,
        domain=domain,
        models=ModelStore(settings.model_path, reader) if reader else None,
        streams=Streams(settings),
        database=Database(settings) if settings.database else None,
        influx=Influx(settings.influx),
        pool=Pool(settings.detectors),
    )
