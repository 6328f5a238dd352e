"""Work that the client does not wait for: queued by the api, done by the worker (Celery on Redis).

The data waits in Redis beside the queue, for as long as a task may wait; state and result are in PostgreSQL. A task
that is delivered twice is done twice and stored once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from reference_app import metrics
from reference_app.problems import Problem
from reference_app.tables import tasks

if TYPE_CHECKING:
    from celery import Celery

    from reference_app.services import Services
    from reference_app.settings import Settings

log = logging.getLogger(__name__)

TASK = "reference_app.perform"
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


async def enqueue(services: Services, kind: str, data: bytes) -> Response:
    """Queues work on `data` and answers 202 with the task; raises Problem 503 when nobody would do it."""
    settings = services.settings
    alive = await services.streams.attempt("workers", lambda redis: redis.exists(settings.key("workers")))
    if alive is None:
        raise Problem(
            503, "queue_away", "Redis cannot be reached, so nothing can be queued: post without wait=false", 5
        )
    if not alive:
        raise Problem(503, "no_worker", "no worker is running, so nothing can be queued: post without wait=false", 30)
    task = str(uuid.uuid4())
    options = {"digest": hashlib.sha256(data).hexdigest()}
    await services.require_database().run(
        lambda connection: connection.execute(
            insert(tasks).on_conflict_do_nothing(), {"id": task, "kind": kind, "state": "queued"}
        )
    )
    try:
        kept = await services.streams.attempt(
            "queue", lambda redis: redis.set(settings.key("task", task), data, ex=WAITS_AT_MOST)
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
        {"Location": f"/tasks/{task}"},
        media_type="application/json",
    )


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

        # A function, as Celery cannot bind itself to a method.
        @self.celery.task(name=TASK, bind=True, max_retries=8)  # type: ignore[untyped-decorator]
        def perform(celery_task: Any, task: str, kind: str, options: dict[str, Any]) -> None:
            self._perform(celery_task, task, kind, options)

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
            messages = self._services.require_domain()[0].perform(self._services, task, self._data(key), options)
            self._end(task, "done", result={"location": f"/detections/{task}"})
            for message in messages:
                self._redis.publish(self._settings.key("results"), message)
        except Problem as problem:
            if problem.status >= 500:
                raise celery_task.retry(exc=problem, countdown=min(60, 2**celery_task.request.retries)) from problem
            self._end(task, "failed", error=problem.message)
        except (RedisError, OSError) as error:
            raise celery_task.retry(exc=error, countdown=2) from error
        self._redis.delete(key)
        log.info("task ended", extra={"task": task, "kind": kind, "seconds": round(time.monotonic() - started, 3)})

    def _data(self, key: str) -> bytes:
        data: Any = self._redis.get(key)
        if data is None:
            raise Problem(410, "expired", "its data was no longer there")
        return bytes(data)

    def _end(self, task: str, state: str, result: Any = None, error: str | None = None) -> None:
        self._services.require_database().call(lambda connection: finish(connection, task, state, result, error))
        metrics.tasks.labels(state).inc()
