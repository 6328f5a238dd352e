"""The HTTP interface without stores: what is accepted, what is refused and how, and that it keeps answering."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from reference_app.domains.medical_inventory.generator import photograph
from reference_app.logs import JsonFormatter

from reference_app import services, settings
from tests.support import application
from tests.support.asgi import Answer, ask

DRAWN = photograph(11, 6)
JPEG = {"Content-Type": "image/jpeg"}


class Site(application.Site):
    """Medical Inventory."""

    def detect(self, *chunks: bytes, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        return self.ask("POST", "/detections", *chunks, headers=JPEG if headers is None else headers, **more)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def form(parts: Iterable[tuple[str, str, bytes]], boundary: str = "xyz") -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, kind, data in parts:
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        ).encode()
        body += data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def test_a_photograph_is_counted(site: Site) -> None:
    answer = site.detect(DRAWN.jpeg)
    assert answer.status == 201
    assert answer.json["counts"] == DRAWN.counts
    assert answer.json["count"] == 6
    assert answer.json["model"]["source"] == "built-in"
    assert answer.headers["location"] == f"/detections/{answer.json['id']}"
    assert answer.headers["x-replica"] == answer.json["replica"] == "api-1"
    assert site.database.calls == 1


def test_a_body_in_many_chunks_and_a_form_are_the_same(site: Site) -> None:
    chunks = [DRAWN.jpeg[at : at + 1000] for at in range(0, len(DRAWN.jpeg), 1000)]
    assert site.detect(*chunks).json["counts"] == DRAWN.counts
    body, headers = form([("comment", "text/plain", b"hello"), ("photo", "image/jpeg", DRAWN.jpeg)])
    answer = site.detect(*(body[at : at + 777] for at in range(0, len(body), 777)), headers=headers)
    assert answer.status == 201
    assert answer.json["counts"] == DRAWN.counts


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", JPEG, 400, "photo_empty"),
        (b"no photograph", JPEG, 415, "photo_not_an_image"),
        (DRAWN.jpeg, {"Content-Type": "text/plain"}, 415, "content_type"),
        (DRAWN.jpeg, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "content_type"),
        (DRAWN.jpeg, {}, 415, "content_type"),
        (DRAWN.jpeg, {"Content-Type": "image/png"}, 415, "content_type"),
        (DRAWN.jpeg[:-100], JPEG, 422, "photo_truncated"),
        (DRAWN.jpeg, {**JPEG, "Content-Length": "many"}, 400, "content_length"),
        (b"\0" * (21 << 20), JPEG, 413, "photo_too_large"),
        (b"", {**JPEG, "Content-Length": str(50 << 20)}, 413, "photo_too_large"),
        (b"--xyz\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}, 400, "multipart"),
        (b"rubbish", {"Content-Type": "multipart/form-data; boundary=xyz"}, 400, "multipart"),
        (b"rubbish", {"Content-Type": "multipart/form-data"}, 400, "multipart"),
    ],
)
def test_bad_input_is_refused_and_the_next_photograph_served(
    site: Site, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    chunks = [body[at : at + (1 << 16)] for at in range(0, len(body), 1 << 16)]
    answer = site.detect(*chunks, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["message"]
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]
    assert site.detect(DRAWN.jpeg).status == 201


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([("picture", "image/jpeg", DRAWN.jpeg)], 400, "multipart"),
        ([("photo", "text/plain", DRAWN.jpeg)], 415, "content_type"),
        ([("photo", "image/jpeg", b"")], 400, "photo_empty"),
    ],
)
def test_a_form_without_a_photograph_is_refused(site: Site, parts: list[Any], status: int, code: str) -> None:
    body, headers = form(parts)
    answer = site.detect(body, headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


def test_a_form_that_ends_early_is_refused(site: Site) -> None:
    body, headers = form([("photo", "image/jpeg", DRAWN.jpeg)])
    assert site.detect(body[: len(body) // 2], headers=headers).json["error"]["code"] == "multipart"


def test_a_stalled_upload_ends(site: Site) -> None:
    answer = site.detect(DRAWN.jpeg[:1000], DRAWN.jpeg[1000:], pause=0.5)
    assert (answer.status, answer.json["error"]["code"]) == (408, "upload_stalled")


def test_uploads_together_stay_within_their_memory(tmp_path: Path) -> None:
    site = Site(tmp_path, upload_budget=1 << 20, upload_limit=1 << 20)

    async def both() -> list[Answer]:
        headers = {**JPEG, "Content-Length": str(len(DRAWN.jpeg))}
        return await asyncio.gather(
            *(ask(site.app, "POST", "/detections", [DRAWN.jpeg], headers, pause=0.05) for _ in range(12))
        )

    assert [answer.status for answer in asyncio.run(both())] == [201] * 12


def test_postgresql_away_is_a_503_with_retry_after(site: Site) -> None:
    site.database.away = True
    answer = site.detect(DRAWN.jpeg)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.json["error"]["code"] == "database_away"
    site.database.away = False
    assert site.detect(DRAWN.jpeg).status == 201


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("DELETE", "/detections", 405, "method_not_allowed"),
        ("GET", "/detections/17", 422, "invalid"),
        ("GET", "/detections?limit=0", 422, "invalid"),
        ("GET", "/samples/1.jpg?items=61", 422, "invalid"),
        ("POST", "/detections?wait=false", 400, "photo_empty"),
    ],
)
def test_errors_have_one_form(site: Site, method: str, path: str, status: int, code: str) -> None:
    answer = site.ask(method, path, headers=JPEG)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


def test_nothing_is_queued_without_redis(site: Site) -> None:
    answer = site.ask("POST", "/detections?wait=false", DRAWN.jpeg, headers=JPEG)
    assert (answer.status, answer.json["error"]["code"]) == (503, "queue_away")


def test_a_defect_is_a_500_in_json(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_work: Any) -> None:
        raise ZeroDivisionError

    site.database.run = broken  # type: ignore[method-assign]
    answer = site.detect(DRAWN.jpeg)
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal")
    assert "ZeroDivisionError" not in answer.body.decode()
    assert "ZeroDivisionError" in caplog.text


def test_samples_say_what_is_on_them(site: Site) -> None:
    answer = site.ask("GET", "/samples/11.jpg?items=6")
    assert answer.body == DRAWN.jpeg
    assert json.loads(answer.headers["x-truth"]) == DRAWN.counts


def test_a_request_id_is_kept_or_replaced(site: Site) -> None:
    assert site.ask("GET", "/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert "\n" not in site.ask("GET", "/healthz", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"]


def test_metrics_have_routes_and_no_paths(site: Site) -> None:
    site.detect(DRAWN.jpeg)
    site.ask("GET", "/wp-admin.php")
    text = site.ask("GET", "/metrics").body.decode()
    assert 'http_requests_total{method="POST",route="/detections",status="201"}' in text
    assert "wp-admin" not in text
    assert 'model_info{digest="built-in",source="built-in",version="built-in"} 1.0' in text


def test_readiness_needs_everything_once_then_only_what_it_cannot_do_without(tmp_path: Path) -> None:
    site = Site(tmp_path, ready_grace=0.0)
    health = site.app.state.health
    problem = {"redis": "refused"}
    site.parts.streams.check = lambda: asyncio.sleep(0, problem["redis"])  # type: ignore[method-assign]

    def ready() -> tuple[int, Any]:
        asyncio.run(health.look())
        answer = site.ask("GET", "/readyz")
        return answer.status, answer.json

    assert ready()[0] == 503, "Redis was never reached: its password may be wrong"
    problem["redis"] = ""
    assert ready() == (200, {**ready()[1], "status": "ready"})
    problem["redis"] = "refused"
    status, body = ready()
    assert (status, body["status"], body["checks"]) == (200, "degraded", {"database": "ok", "redis": "refused"})
    site.database.away = True
    ready()
    assert ready()[0] == 503
    site.database.away = False
    assert ready()[0] == 200
    health.draining = True
    assert ready()[1]["status"] == "stopping"
    assert site.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "environment",
    [{"PORT": "x"}, {"PORT": "70000"}, {"LOG_LEVEL": "loud"}, {"READY_WHILE": "postgres"}, {"DATABASE_POOL": "1.5"}],
)
def test_settings_that_cannot_be_used_are_named(environment: dict[str, str]) -> None:
    with pytest.raises(settings.SettingsError, match=next(iter(environment))):
        settings.read(environment)


@pytest.mark.parametrize("name", ["nothing", "../x", "medical-inventory", ""])
def test_a_domain_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(settings.SettingsError, match="DOMAIN_MODULE"):
        services.load_domain(name)


def test_redis_password_is_quoted_and_kept_out_of_keys() -> None:
    read = settings.read({"REDIS_HOST": "redis", "REDIS_PASSWORD": "a/b@c"})
    assert read.redis_url == "redis://:a%2Fb%40c@redis:6379/0"
    assert read.key("cache", "x") == "medical_inventory:cache:x"


def test_logs_are_one_json_object_a_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "two\nlines %s", ("here",), None)
    record.status = 201
    line = JsonFormatter("api-1").format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["replica"], parsed["status"]) == ("two\nlines here", "api-1", 201)
