"""The ASGI application: routes of the roles that this process plays, one JSON form of errors, ids, metrics and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reference_app import __version__, metrics, pages, tasks
from reference_app.health import Health
from reference_app.logs import request_id
from reference_app.problems import Problem
from reference_app.services import Services
from reference_app.websocket import Hub

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_QUIET = frozenset(("/health", "/healthz", "/readyz", "/metrics"))
_READS = frozenset(("GET", "HEAD", "OPTIONS"))
_CLIENT_LEFT = 499


def create_app(services: Services, roles: Iterable[str]) -> FastAPI:
    """The application for a process that plays `roles`; of a worker and of beat only health and metrics."""
    roles = frozenset(roles)
    health, hub = Health(services), Hub(services)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # The first look at the model comes before the first request: none is answered by the wrong one.
        if services.models:
            await asyncio.to_thread(services.models.refresh)
        running = [asyncio.create_task(health.watch()), asyncio.create_task(health.watch_model())]
        if "websocket" in roles:
            running.append(asyncio.create_task(hub.listen()))
        if services.domain and roles & {"api", "worker"}:
            running.append(asyncio.create_task(services.domain.watch(services)))
        yield
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await services.streams.close()
        await asyncio.to_thread(services.influx.close)
        services.pool.close()
        if services.database:
            services.database.close()

    app = FastAPI(title=f"{services.settings.domain} (reference)", version=__version__, lifespan=lifespan)
    app.state.health, app.state.hub = health, hub
    _add_errors(app)
    _add_health(app, health)
    if "websocket" in roles:
        app.include_router(hub.routes())
    if "api" in roles:
        domain = services.require_domain()
        app.include_router(domain.routes(services))
        if domain.tasks:
            app.include_router(tasks.routes(services), prefix=domain.prefix)
    if "frontend" in roles:
        app.include_router(pages.routes(services.require_domain()))
    if "issuer" in roles:
        # Imported here: the library that signs takes as long to load as all the rest.
        from reference_app import issuer

        app.include_router(issuer.routes(services.settings.tokens))
    app.add_middleware(Observe, replica=services.settings.replica)
    return app


def _add_health(app: FastAPI, health: Health) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def alive() -> dict[str, str]:
        """The process answers; what it depends on does not matter here: a restart would heal none of it."""
        return {"status": "alive"}

    @app.get("/health", include_in_schema=False)
    @app.get("/readyz", include_in_schema=False)
    async def ready() -> JSONResponse:
        """Whether traffic should come here."""
        good, status = health.status()
        return JSONResponse(status, 200 if good else 503)

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})


def _answer(problem: Problem) -> JSONResponse:
    headers = {"Retry-After": str(problem.retry_after)} if problem.retry_after else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.body(request_id.get()), problem.status, headers)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def known(request: Request, problem: Problem) -> JSONResponse:
        if request.method not in _READS and problem.status < 500:
            metrics.refused.labels(problem.code).inc()
        return _answer(problem)

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed"}
        answer = _answer(Problem(error.status_code, codes.get(error.status_code, "http"), str(error.detail)))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _answer(Problem(422, "invalid", f"{where}: {first['msg']}"[:300]))

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_LEFT)


class Observe:
    """Gives every request an id, names the replica, measures, logs, and turns a defect into a 500 in JSON."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app, self._replica = app, replica.encode("latin-1", "replace")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = _identify(scope)
        token = request_id.set(identity)
        status, started, began = 0, time.perf_counter(), False

        async def answer(message: Message) -> None:
            nonlocal status, began
            if message["type"] == "http.response.start":
                status, began = message["status"], True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", identity.encode()),
                    (b"x-replica", self._replica),
                ]
            await send(message)

        metrics.requests_running.inc()
        try:
            await self._app(scope, receive, answer)
        except Exception:
            log.exception("a request failed")
            if began:
                raise
            await _send_defect(answer, identity)
        finally:
            metrics.requests_running.dec()
            self._record(scope, status or 500, time.perf_counter() - started)
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The route, not the path: ids and what scanners ask for would each become a time series.
        route = getattr(scope.get("route"), "path", "none")
        metrics.requests.labels(scope["method"], route, str(status)).inc()
        metrics.request_seconds.labels(scope["method"], route).observe(seconds)
        quiet = scope["path"] in _QUIET and status < 500
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "milliseconds": round(seconds * 1000, 1),
            },
        )


def _identify(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex
    return uuid.uuid4().hex


async def _send_defect(answer: Send, identity: str) -> None:
    problem = Problem(500, "internal", "the request failed for a reason that is in the logs")
    body: Any = json.dumps(problem.body(identity)).encode()
    await answer({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"application/json")]})
    await answer({"type": "http.response.body", "body": body})
