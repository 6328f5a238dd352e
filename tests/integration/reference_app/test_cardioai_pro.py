"""Cardio.AI.Pro's real processes on a real PostgreSQL and a real Redis: api with WebSocket, worker, beat, frontend."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from .conftest import PASSWORDS, Answer, Replica, Site, Stores, eventually

pytest.importorskip("scipy", reason="scipy not installed: pip install -r reference_app/requirements.lock")

DOMAIN = "cardioai_pro"


@pytest.fixture(scope="module")
def site(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two replicas of the api, which stream as well, and a worker."""
    made = Site(stores, tmp_path_factory.mktemp(DOMAIN), stores.prepare(DOMAIN))
    try:
        for name in ("api-1", "api-2"):
            made.replica(name, "serve", "api", "websocket")
        made.replica("worker-1", "worker")
        yield made
    finally:
        made.kill()


def drawn(seed: int, rhythm: str = "normal") -> Any:
    from reference_app.domains.cardioai_pro.generator import draw

    return draw(seed, rhythm)


def post(replica: Replica, recording: Any, query: str = "") -> Answer:
    return replica.ask("POST", f"/api/analyses{query}", recording.packed(), Content_Type="application/octet-stream")


def queued(replica: Replica, recording: Any) -> str:
    """Queues an analysis as soon as a worker is there; returns its id."""

    def attempt() -> Answer | None:
        answer = post(replica, recording, "?wait=false")
        assert answer.status in (202, 503), answer.body
        return answer if answer.status == 202 else None

    answer = eventually("it is queued", attempt)
    assert answer.headers["location"] == f"/api/tasks/{answer.json['task']['id']}"
    return str(answer.json["task"]["id"])


def ended(replica: Replica, task: str) -> dict[str, Any]:
    found = replica.ask("GET", f"/api/tasks/{task}").json["task"]
    assert found["state"] != "queued"
    return dict(found)


@contextlib.contextmanager
def listening(replica: Replica) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{replica.port}/ws", proxy=None) as socket:
        assert json.loads(socket.recv(timeout=10)) == {"type": "hello", "replica": replica.name, "domain": DOMAIN}
        yield socket


def of(socket: ClientConnection, identity: str) -> dict[str, Any]:
    """The analysis with that id, once it is streamed."""
    deadline = time.monotonic() + 30
    while True:
        message = json.loads(socket.recv(timeout=max(0.1, deadline - time.monotonic())))
        if message["type"] == "analysis" and message["analysis"]["id"] == identity:
            return dict(message["analysis"])


def metric(replica: Replica, name: str) -> float:
    lines = replica.ask("GET", "/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


@pytest.mark.parametrize("rhythm", ["normal", "bradycardia", "tachycardia", "irregular", "pause"])
def test_an_analysis_is_stored_and_streamed_by_every_replica(site: Site, rhythm: str) -> None:
    one, other = site.replicas["api-1"], site.replicas["api-2"]
    ecg = drawn(40, rhythm)
    with listening(one) as first, listening(other) as second:
        answer = post(one, ecg.recording)
        assert (answer.status, answer.json["rhythm"]) == (201, rhythm), answer.body
        assert abs(answer.json["heart_rate"] - ecg.heart_rate) < 2
        for socket in (first, second):
            assert of(socket, answer.json["id"]) == answer.json
    stored = other.ask("GET", answer.headers["location"]).json
    assert stored == answer.json
    signal_ = other.ask("GET", f"/api/analyses/{stored['id']}/signal")
    assert (signal_.body, signal_.headers["x-sample-rate"]) == (ecg.recording.packed(), "500")
    listed = one.ask("GET", "/api/analyses?limit=2").json["analyses"]
    assert listed[0]["id"] == stored["id"]
    for before in listed[1:]:
        assert one.ask("GET", f"/api/analyses?limit=1&before={stored['id']}").json["analyses"] == [before]


def test_the_worker_analyses_what_was_queued_and_any_replica_streams_it(site: Site) -> None:
    ecg = drawn(50, "irregular")
    with listening(site.replicas["api-2"]) as socket:
        task = queued(site.replicas["api-1"], ecg.recording)
        analysis = of(socket, task)
    assert (analysis["rhythm"], analysis["replica"], analysis["source"]) == ("irregular", "worker-1", "worker")
    found = eventually("the task has ended", lambda: ended(site.replicas["api-2"], task))
    assert found["result"] == {"location": f"/api/analyses/{task}"}
    assert site.replicas["api-2"].ask("GET", found["result"]["location"]).json == analysis
    text = site.replicas["worker-1"].ask("GET", "/metrics").body.decode()
    assert 'ecg_processing_latency_seconds_count{path="queued"}' in text


def test_a_hundred_at_once_are_all_analysed(site: Site) -> None:
    recordings = [drawn(1000 + number).recording for number in range(100)]
    apis = [site.replicas["api-1"], site.replicas["api-2"]]
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda pair: post(apis[pair[0] % 2], pair[1]), enumerate(recordings)))
    assert [answer.status for answer in answers] == [201] * 100
    times = sorted(answer.json["milliseconds"] for answer in answers)
    print(f"analysis of 10 s: median {statistics.median(times):.1f} ms, slowest {times[-1]:.1f} ms, 100 at once")
    assert metric(apis[0], "ecg_concurrent_analyses") == 0


def test_what_redis_lost_is_sent_again_by_beat(site: Site) -> None:
    """Recordings are in PostgreSQL: an empty Redis costs time and nothing else."""
    api, worker = site.replicas["api-1"], site.replicas.pop("worker-1")
    task = queued(api, drawn(60).recording)
    eventually("the task has ended", lambda: ended(api, task))
    # The worker says every few seconds that it is there; for a moment the api still believes it.
    worker.stop(signal.SIGKILL)
    lost = [queued(api, drawn(61 + number, "pause").recording) for number in range(3)]
    eventually("the queue is seen", lambda: metric(api, "ecg_analysis_queue_length") == 3)
    redis = pytest.importorskip("redis").Redis(
        port=int(site.stores.environment["REDIS_PORT"]), password=PASSWORDS["REDIS_PASSWORD"]
    )
    redis.flushall()
    # They are taken for lost after a minute.
    site.stores.sql("UPDATE tasks SET created_at = created_at - interval '2 minutes'", database=DOMAIN)
    site.replica("worker-2", "worker")
    time.sleep(1)
    assert {api.ask("GET", f"/api/tasks/{one}").json["task"]["state"] for one in lost} == {"queued"}
    beat = site.replica("beat-1", "beat")
    found = [eventually("it is done", lambda one=one: ended(api, one), timeout=90) for one in lost]
    assert {one["state"] for one in found} == {"done"}
    assert api.ask("GET", f"/api/analyses/{lost[0]}").json["rhythm"] == "pause"
    eventually("the queue is empty", lambda: metric(api, "ecg_analysis_queue_length") == 0)
    assert 'periodic_total{name="requeue_lost",result="done"}' in worker_metrics(site)
    assert beat.stop() == 0


def worker_metrics(site: Site) -> str:
    return site.replicas["worker-2"].ask("GET", "/metrics").body.decode()


def test_the_day_is_counted(site: Site) -> None:
    """As beat asks for each minute."""
    from reference_app.domains.cardioai_pro import domain

    from reference_app import services, settings

    api = site.replicas["api-1"]
    post(api, drawn(70, "tachycardia").recording)
    rows = site.stores.sql("SELECT rhythm, count(*) FROM analyses GROUP BY rhythm", database=DOMAIN)
    expected = {name: int(number) for name, number in (row.split("|") for row in rows.splitlines())}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environment.items():
            patch.setenv(name, value)
        parts = services.make(settings.read(roles=frozenset(("worker",))), ("worker",))
        for _ in range(2):
            domain.DOMAIN.periodic["daily_statistics"].run(parts, None)  # type: ignore[arg-type]
        parts.require_database().close()
    days = api.ask("GET", "/api/statistics").json["days"]
    assert len(days) == 1
    assert {name: one["analyses"] for name, one in days[0]["rhythms"].items()} == expected
    assert days[0]["analyses"] == sum(expected.values())
    assert days[0]["rhythms"]["tachycardia"]["mean_heart_rate"] > 100


def test_the_frontend_serves_the_page_without_any_store(site: Site) -> None:
    frontend = site.replica("frontend-1", "serve", "frontend", PGHOST="nowhere", REDIS_HOST="nowhere")
    page = frontend.ask("GET", "/")
    assert (page.status, b"app.js" in page.body) == (200, True)
    assert frontend.ask("GET", "/app.js").headers["content-type"].startswith("text/javascript")
    assert frontend.ask("GET", "/health").json["checks"] == {}
    print(f"frontend: {frontend.resident():.0f} MiB resident")
    assert frontend.resident() < 100
    assert frontend.stop() == 0


def test_without_redis_ecgs_are_still_analysed(site: Site) -> None:
    api = site.replicas["api-1"]
    site.stores.redis.stop(signal.SIGKILL)
    try:
        assert post(api, drawn(80).recording).status == 201
        refused = post(api, drawn(81).recording, "?wait=false")
        assert (refused.status, refused.json["error"]["code"]) == (503, "queue_away")
    finally:
        site.stores.redis.start()
    eventually("all is well again", lambda: api.ask("GET", "/health").json["status"] == "ready")
