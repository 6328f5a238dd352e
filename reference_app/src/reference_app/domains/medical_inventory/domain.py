"""Medical Inventory's HTTP interface and task: a photograph comes in, its items go to the store and to every client."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from reference_app import metrics, tasks
from reference_app.domains.medical_inventory import detector, photograph, store
from reference_app.domains.medical_inventory.model import Model, built_in, parse
from reference_app.models import Loaded
from reference_app.problems import Problem
from reference_app.services import Domain, Done, Services, Task
from reference_app.uploads import ANY, Uploads

JSON = "application/json"
Identity = Annotated[uuid.UUID, Path(description="The detection's id.")]


class Reader:
    """Reads this domain's models."""

    def parse(self, text: bytes) -> Model:
        """Reads a model file; raises ModelProblem."""
        return parse(text)

    def built_in(self) -> Model:
        """The model inside the package."""
        return built_in()


class MedicalInventory(Domain):
    """The domain."""

    name = "medical_inventory"
    tasks = True
    ready_statement = "SELECT 1 FROM items LIMIT 0"
    reader = Reader()

    def routes(self, services: Services) -> APIRouter:
        """POST /detections, GET /detections, GET /detections/{id}, GET /samples/{seed}.jpg."""
        router = APIRouter()
        uploads = Uploads(services.settings, photograph.FORMATS, "photo")

        @router.post("/detections", status_code=201)
        async def detect(request: Request, wait: bool = True) -> Response:
            """Counts and names the items on a photograph: the body itself, or the field `photo` of a form.

            With `wait=false` the answer is a task, and the result comes over the WebSocket and at GET /tasks/{id}.
            """
            async with uploads.receive(request) as upload:
                started = time.perf_counter()
                header = inspect(upload.data, upload.declared)
                if not wait:
                    return await tasks.enqueue(services, "detect", upload.data)
                found, source = await self._items(services, upload.data, upload.digest, header)
            loaded = services.require_models().current
            detection = describe(services, str(uuid.uuid4()), upload.digest, len(upload.data), header, found, loaded)
            before = time.perf_counter()
            await services.require_database().run(lambda connection: store.save(connection, detection))
            metrics.stage_seconds.labels("store").observe(time.perf_counter() - before)
            count(detection, source)
            detection["cached"] = source == "cache"
            body = encode(detection)
            await services.streams.publish(
                message(body), {} if source == "cache" else {cache_key(upload.digest, loaded): encode(found)}
            )
            timing = f"all;dur={(time.perf_counter() - started) * 1000:.1f}"
            return Response(
                body, 201, {"Location": f"/detections/{detection['id']}", "Server-Timing": timing}, media_type=JSON
            )

        @router.get("/detections")
        async def listing(
            limit: Annotated[int, Query(ge=1, le=200)] = 20, before: uuid.UUID | None = None
        ) -> dict[str, Any]:
            """The newest detections without their items; `before` is the id of the last one seen."""
            found = await services.require_database().run(
                lambda connection: store.newest(connection, limit, str(before) if before else None)
            )
            return {"detections": found}

        @router.get("/detections/{identity}")
        async def one(identity: Identity) -> dict[str, Any]:
            """One detection with its items."""
            found = await services.require_database().run(lambda connection: store.find(connection, str(identity)))
            if found is None:
                raise Problem(404, "not_found", f"there is no detection {identity}")
            return found

        @router.get("/samples/{seed}.jpg")
        async def sample(
            seed: Annotated[int, Path(ge=0, lt=1 << 32)], items: Annotated[int, Query(ge=0, le=60)] = 20
        ) -> Response:
            """A generated photograph; the header X-Truth says what is on it, as JSON."""
            from reference_app.domains.medical_inventory.generator import photograph as generate

            drawn = await services.pool.run(lambda: generate(seed, items))
            return Response(drawn.jpeg, headers={"X-Truth": json.dumps(drawn.counts)}, media_type=photograph.JPEG)

        return router

    def perform(self, services: Services, task: Task) -> Done:
        """What the worker does; the detection has the task's id, so that a task done twice is stored once."""
        data = task.data
        header = photograph.inspect(data)
        loaded = services.require_models().current
        found = [item.as_dict() for item in detector.detect(data, header, loaded.model)]
        detection = describe(services, task.id, task.options["digest"], len(data), header, found, loaded)
        services.require_database().call(lambda connection: store.save(connection, detection))
        count(detection, "worker")
        return Done(f"/detections/{task.id}", (message(encode(detection | {"cached": False})),))

    async def _items(
        self, services: Services, data: bytes, digest: str, header: photograph.Header
    ) -> tuple[list[dict[str, Any]], str]:
        """The items, from the cache or by looking."""
        loaded = services.require_models().current
        cached = await services.streams.cached(cache_key(digest, loaded))
        if cached is not None:
            return json.loads(cached), "cache"
        before = time.perf_counter()
        found = await services.pool.run(lambda: detector.detect(data, header, loaded.model))
        metrics.stage_seconds.labels("detect").observe(time.perf_counter() - before)
        return [item.as_dict() for item in found], "detector"


def inspect(data: bytes, declared: str) -> photograph.Header:
    """The photograph's header; raises Problem, also when the client declared another type than it sent."""
    header = photograph.inspect(data)
    if declared not in (ANY, header.media_type):
        raise Problem(415, "content_type", f"the photograph is {header.media_type} but was sent as {declared}")
    return header


def cache_key(digest: str, loaded: Loaded[Model]) -> str:
    """By photograph and model: a new model looks at every photograph again."""
    return f"{digest}:{loaded.digest}"


def describe(
    services: Services,
    identity: str,
    digest: str,
    size: int,
    header: photograph.Header,
    found: list[dict[str, Any]],
    loaded: Loaded[Model],
) -> dict[str, Any]:
    """A detection, as the API shows it."""
    return {
        "id": identity,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "count": len(found),
        "counts": dict(sorted(Counter(item["label"] for item in found).items())),
        "items": found,
        "photo": {
            "digest": digest,
            "media_type": header.media_type,
            "size": size,
            "width": header.width,
            "height": header.height,
        },
        "model": {"version": loaded.model.version, "digest": loaded.digest, "source": loaded.source},
        "replica": services.settings.replica,
    }


def count(detection: dict[str, Any], source: str) -> None:
    """Counts a stored detection in the metrics."""
    metrics.results.labels(source).inc()
    for label, number in detection["counts"].items():
        metrics.items.labels(label).inc(number)


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def message(body: bytes) -> bytes:
    """What WebSocket clients get for a detection."""
    return b'{"type":"detection","detection":' + body + b"}"


DOMAIN = MedicalInventory()
