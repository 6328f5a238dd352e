"""Cardio.AI.Pro's HTTP interface and task: an ECG comes in, its analysis goes to the store and to every client."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection

from reference_app import metrics, tasks
from reference_app.domains.cardioai_pro import generator, measures, store
from reference_app.domains.cardioai_pro.recording import BINARY, CSV, JSON, LARGEST, Recording, read
from reference_app.domains.cardioai_pro.rhythm import analyse
from reference_app.problems import Problem
from reference_app.services import Done, Services, Task
from reference_app.uploads import Uploads

Identity = Annotated[uuid.UUID, Path(description="The analysis' id.")]
_PREFIX = "/api"


def routes(services: Services) -> APIRouter:
    """POST and GET /api/analyses, GET /api/analyses/{id} and its signal, /api/statistics, /api/samples/{seed}."""
    router = APIRouter(prefix=_PREFIX)
    uploads = Uploads(services.settings, (JSON, CSV), "ecg", LARGEST)

    @router.post("/analyses", status_code=201)
    async def create(
        request: Request,
        wait: bool = True,
        sample_rate: Annotated[float | None, Query(description="Hz, where the ECG does not say; 500.")] = None,
        unit: Annotated[str, Query(description="mV or uV, where the ECG does not say.")] = "mV",
    ) -> Response:
        """Analyses an ECG of one lead: JSON, CSV or 16-bit microvolts, as the body or as the field `ecg` of a form.

        With `wait=false` the answer is a task, and the result comes over the WebSocket and at GET /api/tasks/{id}.
        """
        started = time.perf_counter()
        with measures.concurrent.track_inprogress():
            async with uploads.receive(request) as upload:
                recording, digest = read(upload.data, upload.declared, sample_rate, unit), upload.digest
            if not wait:
                return await tasks.enqueue(
                    services, "analyse", None, lambda connection, task: store.keep(connection, task, recording, digest)
                )
            analysis = await services.pool.run(lambda: describe(services, str(uuid.uuid4()), recording, digest, "api"))

            def both(connection: Connection) -> None:
                store.keep(connection, analysis["id"], recording, digest)
                store.save(connection, analysis)

            before = time.perf_counter()
            await services.require_database().run(both)
            metrics.stage_seconds.labels("store").observe(time.perf_counter() - before)
        seconds = time.perf_counter() - started
        count(analysis, "direct", seconds)
        body = encode(analysis)
        await services.streams.publish(message(body))
        headers = {
            "Location": f"{_PREFIX}/analyses/{analysis['id']}",
            "Server-Timing": f"analyse;dur={analysis['milliseconds']}, all;dur={seconds * 1000:.1f}",
        }
        return Response(body, 201, headers, media_type=JSON)

    @router.get("/analyses")
    async def listing(
        limit: Annotated[int, Query(ge=1, le=200)] = 20, before: uuid.UUID | None = None
    ) -> dict[str, Any]:
        """The newest analyses without their details; `before` is the id of the last one seen."""
        found = await services.require_database().run(
            lambda connection: store.newest(connection, limit, str(before) if before else None)
        )
        return {"analyses": found}

    @router.get("/analyses/{identity}")
    async def one(identity: Identity) -> dict[str, Any]:
        """One analysis."""
        found = await services.require_database().run(lambda connection: store.find(connection, str(identity)))
        if found is None:
            raise Problem(404, "not_found", f"there is no analysis {identity}")
        return found

    @router.get("/analyses/{identity}/signal")
    async def signal(identity: Identity) -> Response:
        """The recording: microvolts as signed 16-bit numbers, little-endian; X-Sample-Rate says how many a second."""
        found = await services.require_database().run(lambda connection: store.recording_of(connection, str(identity)))
        if found is None:
            raise Problem(404, "not_found", f"there is no recording {identity}")
        return Response(found[0].packed(), headers={"X-Sample-Rate": f"{found[0].rate:g}"}, media_type=BINARY)

    @router.get("/statistics")
    async def statistics(days: Annotated[int, Query(ge=1, le=366)] = 7) -> dict[str, Any]:
        """Analyses a day, by rhythm, as beat last had them counted."""
        first = (datetime.now(UTC) - timedelta(days=days - 1)).date()
        return {"days": await services.require_database().run(lambda connection: store.statistics(connection, first))}

    @router.get("/samples/{seed}.{form}")
    async def sample(
        seed: Annotated[int, Path(ge=0, lt=1 << 32)],
        form: Literal["json", "csv", "bin"],
        rhythm: Literal["normal", "bradycardia", "tachycardia", "irregular", "pause"] = "normal",
        heart_rate: Annotated[float | None, Query(ge=25, le=240)] = None,
        noise: Annotated[float, Query(ge=0, le=0.5)] = 0.02,
        wander: Annotated[float, Query(ge=0, le=2)] = 0.2,
    ) -> Response:
        """A drawn ECG of 10 s at 500 Hz; the header X-Truth says what it shows, as JSON."""
        drawn = await services.pool.run(lambda: generator.draw(seed, rhythm, heart_rate, noise, wander))
        truth = {"heart_rate": drawn.heart_rate, "rhythm": drawn.rhythm, "beats": len(drawn.beats)}
        body, kind = _written(drawn.recording, form)
        return Response(body, headers={"X-Truth": json.dumps(truth)}, media_type=kind)

    return router


def perform(services: Services, task: Task) -> Done:
    """What the worker does; the analysis has the task's id, so that a task done twice is stored once."""
    database = services.require_database()
    with measures.concurrent.track_inprogress():
        found = database.call(lambda connection: store.recording_of(connection, task.id))
        if found is None:
            raise Problem(410, "expired", "its recording was no longer there")
        recording, digest, arrived = found
        analysis = describe(services, task.id, recording, digest, "worker")
        database.call(lambda connection: store.save(connection, analysis))
    count(analysis, "queued", (datetime.now(UTC) - arrived).total_seconds())
    return Done(f"{_PREFIX}/analyses/{task.id}", (message(encode(analysis)),))


def describe(services: Services, identity: str, recording: Recording, digest: str, source: str) -> dict[str, Any]:
    """Analyses a recording; the result as the API shows it."""
    before = time.perf_counter()
    found = analyse(recording)
    seconds = time.perf_counter() - before
    metrics.stage_seconds.labels("analyse").observe(seconds)
    return {
        "id": identity,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **found.as_dict(),
        "recording": {"digest": digest, "sample_rate": recording.rate, "samples": len(recording.samples)},
        "milliseconds": round(seconds * 1000, 2),
        "source": source,
        "replica": services.settings.replica,
    }


def count(analysis: dict[str, Any], path: str, seconds: float) -> None:
    """Counts a stored analysis in the metrics."""
    metrics.results.labels(analysis["source"]).inc()
    measures.rhythms.labels(analysis["rhythm"]).inc()
    measures.latency.labels(path).observe(max(0.0, seconds))


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def message(body: bytes) -> bytes:
    """What WebSocket clients get for an analysis."""
    return b'{"type":"analysis","analysis":' + body + b"}"


def _written(recording: Recording, form: str) -> tuple[bytes, str]:
    if form == "bin":
        return recording.packed(), BINARY
    values = recording.samples.tolist()
    if form == "json":
        return encode({"sample_rate": recording.rate, "unit": "mV", "samples": values}), JSON
    rows = (f"{place / recording.rate:.3f},{value:.3f}" for place, value in enumerate(values))
    return "\n".join(("time_s,mV", *rows, "")).encode(), CSV
