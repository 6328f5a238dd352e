"""Work that the client does not wait for: queued by the api, done by the worker (Celery on Redis).

State and result are in PostgreSQL. The data waits in Redis beside the queue for as long as a task may wait, or a domain
keeps it in PostgreSQL: then the key beside the queue is an empty ticket, and a task without one is known to be lost and
can be sent again. A task that is delivered twice is done twice and stored once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
import threading
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import APIRouter, Response
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from reference_app import metrics
from reference_app.problems import Problem
from reference_app.services import Done, Task
from reference_app.task_table import tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from reference_app.services import Services
    from reference_app.settings import Settings

log = logging.getLogger(__name__)

TASK, PERIODIC = "reference_app.perform", "reference_app.periodic"
WAITS_AT_MOST = 3600
_BEAT, _ALIVE = 5, 15


def make_celery(settings: Settings) -> Celery:
    """The Celery application. Imported late: an api that never queues anything starts faster without it."""
    from celery import Celery

    app = Celery("reference_app", broker=settings.redis_url)
    app.conf.update(
        task_default_queue=settings.key("tasks"),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # A worker that dies in the middle leaves its task to another one.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": 120,
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "max_retries": 1,
        },
    )
    return app


_celery: dict[str, Celery] = {}


def _send(settings: Settings, task: str, kind: str, options: dict[str, Any]) -> None:
    app = _celery.setdefault("app", make_celery(settings)) if not _celery else _celery["app"]
    app.send_task(TASK, args=[task, kind, options], task_id=task, retry=False)


async def enqueue(
    services: Services, kind: str, data: bytes | None, save: Callable[[Connection, str], None] | None = None
) -> Response:
    """Queues work on `data` and answers 202 with the task; raises Problem 503 when nobody would do it.

    Without `data` the domain keeps what is to be worked on: `save` stores it under the task's id, in the transaction
    that makes the task.
    """
    settings = services.settings
    alive = await services.streams.attempt("workers", lambda redis: redis.exists(settings.key("workers")))
    if alive is None:
        raise Problem(
            503, "queue_away", "Redis cannot be reached, so nothing can be queued: post without wait=false", 5
        )
    if not alive:
        raise Problem(503, "no_worker", "no worker is running, so nothing can be queued: post without wait=false", 30)
    task = str(uuid.uuid4())
    options = {} if data is None else {"digest": hashlib.sha256(data).hexdigest()}

    def begin(connection: Connection) -> None:
        connection.execute(insert(tasks).on_conflict_do_nothing(), {"id": task, "kind": kind, "state": "queued"})
        if save:
            save(connection, task)

    await services.require_database().run(begin)
    try:
        kept = await services.streams.attempt(
            "queue", lambda redis: redis.set(settings.key("task", task), data or b"", ex=WAITS_AT_MOST)
        )
        if not kept:
            raise ConnectionError("Redis did not take the data")  # noqa: TRY301
        await asyncio.to_thread(_send, settings, task, kind, options)
    except Exception as error:
        log.warning("queueing failed: %s", type(error).__name__)
        await services.require_database().run(
            lambda connection: finish(connection, task, "failed", error="it could not be queued")
        )
        raise Problem(503, "queue_away", "the task could not be queued: try again, or without wait=false", 5) from error
    metrics.tasks.labels("queued").inc()
    return Response(
        json.dumps({"task": {"id": task, "state": "queued"}}),
        202,
        {"Location": f"{services.require_domain().prefix}/tasks/{task}"},
        media_type="application/json",
    )


def waiting(connection: Connection) -> int:
    """How many tasks were queued and have not ended."""
    return connection.execute(select(func.count()).where(tasks.c.state == "queued")).scalar_one()


def finish(connection: Connection, task: str, state: str, result: Any = None, error: str | None = None) -> None:
    """Records how a task ended; the first outcome stays."""
    connection.execute(
        update(tasks)
        .where(tasks.c.id == task, tasks.c.state == "queued")
        .values(state=state, result=result, error=error, finished_at=func.now())
    )


def routes(services: Services) -> APIRouter:
    """GET /tasks/{id}."""
    router = APIRouter()

    @router.get("/tasks/{identity}")
    async def one(identity: uuid.UUID) -> dict[str, Any]:
        """A task: queued, done (with where its result is) or failed (with why)."""
        row = await services.require_database().run(
            lambda connection: connection.execute(select(tasks).where(tasks.c.id == str(identity))).one_or_none()
        )
        if row is None:
            raise Problem(404, "not_found", f"there is no task {identity}")
        shown = {"id": row.id, "state": row.state, "created_at": row.created_at, "finished_at": row.finished_at}
        extra = {name: value for name in ("result", "error") if (value := getattr(row, name)) is not None}
        return {"task": shown | extra}

    return router


class Worker:
    """Takes tasks from the queue until told to stop."""

    def __init__(self, services: Services) -> None:
        self._services, self._settings = services, services.settings
        self._redis = BlockingRedis(
            host=self._settings.redis_host,
            port=self._settings.redis_port,
            password=self._settings.redis_password or None,
            socket_timeout=5,
            socket_connect_timeout=2,
        )
        self.celery = make_celery(self._settings)

        # Functions, as Celery cannot bind itself to methods.
        @self.celery.task(name=TASK, bind=True, max_retries=8)  # type: ignore[untyped-decorator]
        def perform(celery_task: Any, task: str, kind: str, options: dict[str, Any]) -> None:
            self._perform(celery_task, task, kind, options)

        @self.celery.task(name=PERIODIC)  # type: ignore[untyped-decorator]
        def periodic(name: str) -> None:
            self._periodic(name)

        self._stopped = threading.Event()

    def run(self, concurrency: int) -> None:
        """Runs until SIGTERM: what has begun is finished, nothing new is taken."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            self.celery.worker_main(
                ["worker", "--pool=threads", f"--concurrency={concurrency}", "--without-gossip", "--without-mingle"]
            )
        finally:
            self._stopped.set()

    def _beat(self) -> None:
        """Says that somebody is there; the api refuses to queue otherwise."""
        while not self._stopped.wait(_BEAT if self._say_alive() else 1):
            pass

    def _say_alive(self) -> bool:
        try:
            self._redis.set(self._settings.key("workers"), self._settings.replica, ex=_ALIVE)
        except (RedisError, OSError):
            return False
        return True

    def _perform(self, celery_task: Any, task: str, kind: str, options: dict[str, Any]) -> None:
        started = time.monotonic()
        key = self._settings.key("task", task)
        try:
            done = self._do(Task(task, kind, self._data(key, options), options))
            self._end(task, "done", result={"location": done.location})
            for message in done.messages:
                self._redis.publish(self._settings.key("results"), message)
        except Problem as problem:
            if problem.status >= 500:
                self._again(celery_task, key, problem, min(60, 2**celery_task.request.retries))
            self._end(task, "failed", error=problem.message)
        except (RedisError, OSError) as error:
            self._again(celery_task, key, error, 2)
        self._redis.delete(key)
        log.info("task ended", extra={"task": task, "kind": kind, "seconds": round(time.monotonic() - started, 3)})

    def _do(self, task: Task) -> Done:
        return self._services.require_domain().perform(self._services, task)

    def _again(self, celery_task: Any, key: str, error: Exception, countdown: int) -> NoReturn:
        """Has it delivered once more; after the last time its ticket goes, so that it counts as lost."""
        if celery_task.request.retries >= celery_task.max_retries:
            self._redis.delete(key)
        raise celery_task.retry(exc=error, countdown=countdown) from error

    def _data(self, key: str, options: dict[str, Any]) -> bytes:
        data: Any = self._redis.get(key)
        if data is None and "digest" in options:
            raise Problem(410, "expired", "its data was no longer there")
        return bytes(data or b"")

    def _periodic(self, name: str) -> None:
        """Runs what beat asks for; a failure is counted, and healed by the next time."""
        try:
            self._services.require_domain().periodic[name].run(self._services, self)
        except Exception as error:
            metrics.periodic.labels(name, "failed").inc()
            log.warning("periodic %s failed: %s", name, type(error).__name__, exc_info=not isinstance(error, Problem))
        else:
            metrics.periodic.labels(name, "done").inc()

    def requeue_lost(self, after: float = 60.0) -> int:
        """Sends tasks again that Redis has lost: queued for `after` seconds, and their ticket is gone.

        Only for domains that keep their tasks' data. Returns how many there were.
        """
        before = func.now() - timedelta(seconds=after)
        query = select(tasks.c.id, tasks.c.kind).where(tasks.c.state == "queued", tasks.c.created_at < before)
        rows = self._services.require_database().call(
            lambda connection: connection.execute(query.order_by(tasks.c.created_at).limit(1000)).all()
        )
        lost = 0
        for row in rows:
            # Whoever makes the ticket sends the task: several workers may be doing this at once.
            key = self._settings.key("task", row.id)
            if self._redis.set(key, b"", ex=WAITS_AT_MOST, nx=True):
                try:
                    _send(self._settings, row.id, row.kind, {})
                except Exception:
                    self._redis.delete(key)
                    raise
                lost += 1
                metrics.tasks.labels("requeued").inc()
        return lost

    def _end(self, task: str, state: str, result: Any = None, error: str | None = None) -> None:
        self._services.require_database().call(lambda connection: finish(connection, task, state, result, error))
        metrics.tasks.labels(state).inc()


def run_beat(services: Services) -> None:
    """Queues the domain's periodic tasks until SIGTERM.

    Nothing is kept on disk: after a restart each comes first when its period has passed. Two of these at once (while
    one replaces the other) have everything done twice, which does no harm.
    """
    from celery.beat import Scheduler, Service

    settings = services.settings
    app = make_celery(settings)
    app.conf.beat_schedule = {
        name: {"task": PERIODIC, "args": [name], "schedule": periodic.every, "options": {"expires": periodic.every}}
        for name, periodic in services.require_domain().periodic.items()
    }
    # It sleeps for as long as its longest interval, signal or not.
    service = Service(app, max_interval=1, scheduler_cls=Scheduler)
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda _signal, _frame: service.stop())
    service.start()
