"""The application's real processes on a real PostgreSQL and a real Redis, in good and bad luck."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.models import publish

from .conftest import PASSWORDS, SOURCE, Answer, Replica, Site, Stores, eventually

MODEL = SOURCE / "reference_app" / "domains" / "medical_inventory" / "model.json"


def photograph(seed: int, items: int = 20) -> Any:
    from reference_app.domains.medical_inventory.generator import photograph as draw

    return draw(seed, items)


@contextlib.contextmanager
def listening(replica: Replica) -> Any:
    with connect(f"ws://127.0.0.1:{replica.port}/ws", proxy=None) as socket:
        hello = json.loads(socket.recv(timeout=10))
        assert hello == {"type": "hello", "replica": replica.name, "domain": "medical_inventory"}
        yield socket


def next_of(socket: ClientConnection, kind: str = "detection", timeout: float = 15) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while True:
        message = json.loads(socket.recv(timeout=max(0.1, deadline - time.monotonic())))
        if message["type"] == kind:
            return dict(message)


def test_the_migration_is_the_one_that_existing_databases_have(stores: Stores) -> None:
    assert stores.alembic("heads").stdout.split() == ["0002", "(head)"]
    assert stores.sql("SELECT version_num FROM alembic_version") == "0002"
    assert "CREATE TABLE detections" in stores.alembic("upgrade", "head", "--sql").stdout


def test_a_result_is_stored_and_reaches_every_websocket_replica(site: Site) -> None:
    api, other = site.replicas["api-1"], site.replicas["api-2"]
    drawn = photograph(100)
    with listening(site.replicas["ws-1"]) as first, listening(site.replicas["ws-2"]) as second:
        answer = api.detect(drawn.jpeg)
        assert answer.status == 201, answer.body
        assert answer.json["counts"] == drawn.counts
        assert (answer.json["cached"], answer.headers["x-replica"]) == (False, "api-1")
        for socket in (first, second):
            assert next_of(socket)["detection"] == answer.json
        again = other.detect(drawn.jpeg)
        assert (again.json["cached"], again.json["items"]) == (True, answer.json["items"])
        assert again.json["id"] != answer.json["id"]
        assert next_of(first)["detection"]["id"] == again.json["id"]
    stored = other.ask("GET", answer.headers["location"]).json
    assert {key: stored[key] for key in ("id", "count", "counts", "items", "photo", "replica")} == {
        key: answer.json[key] for key in ("id", "count", "counts", "items", "photo", "replica")
    }
    listed = api.ask("GET", "/detections?limit=1").json["detections"]
    assert [one["id"] for one in listed] == [again.json["id"]]
    before = api.ask("GET", f"/detections?limit=1&before={again.json['id']}").json["detections"]
    assert [one["id"] for one in before] == [answer.json["id"]]
    assert api.ask("GET", "/detections/00000000-0000-0000-0000-000000000000").status == 404


def test_bad_input_leaves_the_service_answering_in_bounded_memory(site: Site) -> None:
    api = site.replicas["api-1"]
    good = photograph(101).jpeg
    for body, statuses in (
        (b"", {400}),
        (b"x", {415}),
        (b"\0" * (50 << 20), {413}),
        (good[:-5000], {422}),
        (good[:10] + b"\0" * len(good), {422}),
    ):
        answer = api.detect(body)
        assert answer.status in statuses, answer.body
        assert answer.json["error"]["code"]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: api.detect(b"\xff\xd8\xff" + b"\0" * (19 << 20)), range(32)))
    assert {answer.status for answer in answers} <= {422, 503}
    assert api.detect(good).status == 201
    print(f"resident after 32 uploads of 19 MB, 16 at once: {api.resident():.0f} MiB")
    assert api.resident() < 320


def test_a_client_that_leaves_in_the_middle_of_an_upload_is_no_defect(site: Site) -> None:
    import socket

    api = site.replicas["api-1"]
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", api.port)) as raw:
            raw.sendall(
                b"POST /detections HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\nx"
            )
    assert api.detect(photograph(102, 3).jpeg).status == 201
    assert "a request failed" not in api.log.read_text()


def test_redis_away_slows_nothing_and_stops_nothing(site: Site) -> None:
    api = site.replicas["api-1"]
    with listening(site.replicas["ws-1"]) as socket:
        site.stores.redis.stop(signal.SIGKILL)
        try:
            answers = [api.detect(photograph(200 + number, 3).jpeg) for number in range(5)]
            assert {answer.status for answer in answers} == {201}
            assert max(answer.seconds for answer in answers) < 5
            status = eventually("it is said", lambda: api.ask("GET", "/readyz").json["status"] == "degraded")
            assert status
            assert api.ready()
            refused = api.detect(photograph(206, 3).jpeg, query="?wait=false")
            assert (refused.status, refused.json["error"]["code"]) == (503, "queue_away")
        finally:
            site.stores.redis.start()
        next_of(socket, "gap")

        def heard() -> bool:
            identity = api.detect(photograph(int(time.time()), 3).jpeg).json["id"]
            with contextlib.suppress(TimeoutError):
                return bool(next_of(socket, timeout=1)["detection"]["id"] == identity)
            return False

        eventually("results are streamed again", heard)
    eventually("all is well again", lambda: api.ask("GET", "/readyz").json["status"] == "ready")


def test_postgresql_away_is_a_503_and_comes_back_by_itself(site: Site) -> None:
    api = site.replicas["api-1"]
    photo = photograph(300, 3).jpeg
    site.stores.postgres.stop(signal.SIGQUIT)
    try:
        answer = api.detect(photo)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5"), answer.body
        assert answer.json["error"]["code"] == "database_away"
        assert answer.seconds < 8
        quick = api.detect(photo)
        assert (quick.status, quick.seconds < 4) == (503, True), quick.seconds
        assert api.ask("GET", "/healthz").status == 200
    finally:
        site.stores.postgres.start()
    eventually("photographs are stored again", lambda: api.detect(photo).status == 201)


def test_a_restart_of_postgresql_in_between_is_hardly_noticed(site: Site) -> None:
    """Pooled connections are dead afterwards; no request may fail for that."""
    api = site.replicas["api-1"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: api.detect(photograph(400 + n, 1).jpeg), range(8)))
    site.stores.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'medical%'")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: api.detect(photograph(420 + n, 1).jpeg), range(8)))
    assert {answer.status for answer in answers} == {201}


def test_a_failover_to_a_new_primary_is_waited_for(site: Site) -> None:
    """The old primary answers, but takes no writes any more; then the address leads to one that does."""
    api = site.replicas["api-1"]
    assert api.detect(photograph(450, 1).jpeg).status == 201
    site.stores.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    site.stores.sql("SELECT pg_reload_conf()")
    try:
        time.sleep(0.3)
        refused = api.detect(photograph(451, 1).jpeg)
        assert (refused.status, refused.json["error"]["code"]) == (503, "database_away")
        restore = threading.Timer(0.8, back, [site.stores])
        time.sleep(4)
        restore.start()
        answers = []
        eventually("it is written again", lambda: answers.append(api.detect(photograph(452, 1).jpeg)) or good(answers))
        restore.join()
    finally:
        back(site.stores)


def back(stores: Stores) -> None:
    stores.sql("ALTER SYSTEM RESET default_transaction_read_only")
    stores.sql("SELECT pg_reload_conf()")


def good(answers: list[Answer]) -> bool:
    return answers[-1].status == 201


def test_a_missing_migration_is_said_and_not_ready(site: Site) -> None:
    site.stores.sql("CREATE DATABASE empty", database="postgres")
    try:
        replica = Replica(
            "api-empty",
            ["serve", "api"],
            site.folder,
            {
                **site.stores.environment,
                "PYTHONPATH": str(SOURCE),
                "PGDATABASE": "empty",
                "MODEL_PATH": str(site.models),
            },
        )
        replica.start()
        try:
            eventually("it answers", lambda: replica.ask("GET", "/healthz").status == 200, timeout=60)
            problem = "the migration has not run yet"
            eventually("it says so", lambda: replica.ask("GET", "/readyz").json["checks"]["database"] == problem)
            assert not replica.ready()
            answer = replica.detect(photograph(460, 1).jpeg)
            assert (answer.status, answer.json["error"]["code"]) == (503, "database_not_migrated")
        finally:
            replica.stop(signal.SIGKILL)
    finally:
        site.stores.sql("DROP DATABASE empty WITH (FORCE)", database="postgres")


def test_a_model_is_switched_under_load_without_a_failed_request(site: Site) -> None:
    api = site.replicas["api-2"]
    template = json.loads(MODEL.read_text())
    photo, seen, stop = photograph(500, 5).jpeg, [], threading.Event()

    def load() -> None:
        while not stop.is_set():
            answer = api.detect(photo)
            seen.append((answer.status, answer.json.get("model", {}).get("version")))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in ("1.0.0", "2.0.0"):
            publish(site.models, version, json.dumps({**template, "version": version}).encode())
            eventually(f"{version} answers", lambda version=version: (201, version) in seen)
        publish(site.models, "3.0.0", b'{"format": 9}')
        eventually("it is refused", lambda: "problem" in api.ask("GET", "/readyz").json["model"])
        assert "model_broken 1.0" in api.ask("GET", "/metrics").body.decode()
        count = len(seen)
        eventually("it goes on", lambda: len(seen) > count + 5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {201}
    assert seen[-1][1] == "2.0.0"


def test_a_task_is_done_by_the_worker_and_streamed(site: Site) -> None:
    api = site.replicas["api-1"]
    drawn = photograph(600)
    refused = api.detect(drawn.jpeg, query="?wait=false")
    assert (refused.status, refused.json["error"]["code"]) == (503, "no_worker")
    site.replica("worker-1", "worker")
    with listening(site.replicas["ws-2"]) as socket:
        eventually("it is queued", lambda: queued(api, drawn.jpeg))
        detection = next_of(socket, timeout=60)["detection"]
    assert (detection["counts"], detection["replica"]) == (drawn.counts, "worker-1")
    assert api.ask("GET", f"/detections/{detection['id']}").json["counts"] == drawn.counts
    task = eventually("it is done", lambda: done(api, detection["id"]))
    assert task["result"] == {"location": f"/detections/{detection['id']}"}
    worker = site.replicas["worker-1"]
    assert worker.ask("GET", "/healthz").status == 200
    # The worker judges what the header does not show: bytes that decode to nothing.
    damaged = drawn.jpeg[:700] + b"\0" * 2000 + b"\xff\xd9"
    answer = api.detect(damaged, query="?wait=false")
    if answer.status == 202:
        eventually("it ends", lambda: done(api, answer.json["task"]["id"])["state"] in ("done", "failed"))
    assert worker.stop() in (0, -15)


def queued(api: Replica, photo: bytes) -> bool:
    answer = api.detect(photo, query="?wait=false")
    assert answer.status in (202, 503), answer.body
    return answer.status == 202


def done(api: Replica, identity: str) -> dict[str, Any]:
    task = api.ask("GET", f"/tasks/{identity}").json["task"]
    assert task["state"] != "queued"
    return dict(task)


def test_stopping_is_gentle(site: Site) -> None:
    """Unready first, then WebSockets are sent elsewhere; what is being answered is answered."""
    streaming = site.replica("ws-3", "serve", "websocket")
    with listening(streaming) as socket:
        assert streaming.process
        streaming.process.send_signal(signal.SIGTERM)
        eventually("it is unready", lambda: not streaming.ready(), timeout=5, every=0.02)
        assert streaming.ask("GET", "/readyz").json["status"] == "stopping"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=15)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1001
    assert streaming.process.wait(30) == 0
    api = site.replica("api-3", "serve", "api")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(api.detect, photograph(700 + number).jpeg) for number in range(8)]
        time.sleep(0.1)
        assert api.process
        api.process.send_signal(signal.SIGTERM)
        assert {future.result().status for future in running} == {201}
    assert api.process.wait(30) == 0


def test_a_slow_websocket_client_is_sent_away_and_the_others_are_served(site: Site) -> None:
    redis = pytest.importorskip("redis").Redis(
        port=int(site.stores.environment["REDIS_PORT"]), password=PASSWORDS["REDIS_PASSWORD"]
    )
    message = json.dumps({"type": "detection", "detection": {"id": "x", "filler": "y" * 20_000}})
    address = f"ws://127.0.0.1:{site.replicas['ws-1'].port}/ws"
    with connect(address, proxy=None, max_queue=1) as slow, listening(site.replicas["ws-1"]) as quick:
        for _ in range(1500):
            redis.publish("medical_inventory:results", message)
            next_of(quick)
        with pytest.raises((ConnectionClosed, TimeoutError)):
            while True:
                slow.recv(timeout=5)
        metrics = site.replicas["ws-1"].ask("GET", "/metrics").body.decode()
    assert 'websocket_messages_total{result="dropped"} 0.0' not in metrics
    assert 'websocket_messages_total{result="dropped"}' in metrics


def test_starting_is_quick_and_small(site: Site) -> None:
    started = time.monotonic()
    replica = site.replica("api-4", "serve", "api")
    print(f"ready after {time.monotonic() - started:.1f} s, {replica.resident():.0f} MiB resident")
    assert replica.resident() < 160
    replica.stop()


def test_logs_are_json_and_hold_no_secret(site: Site) -> None:
    text = site.logs()
    for secret in PASSWORDS.values():
        assert secret not in text
    lines = [line for line in text.splitlines() if line.startswith("{")]
    assert len(lines) > 50
    parsed = [json.loads(line) for line in lines]
    assert all({"time", "level", "message", "replica"} <= set(line) for line in parsed)
    assert any(line.get("request_id") for line in parsed)
    assert not [line for line in parsed if "exception" in line], [line for line in parsed if "exception" in line][:3]


def test_a_wrong_setting_is_one_sentence(site: Site, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(SOURCE), "DOMAIN_MODULE": "nothing"}
    replica = Replica("wrong", ["serve", "api"], tmp_path, environment)
    replica.start()
    assert replica.process
    assert replica.process.wait(30) == 1
    assert replica.log.read_text().strip().count("\n") == 0
    assert "there is no such domain" in replica.log.read_text()
