"""What a client sees: photographs counted, results streamed, bad input refused, models switched under way."""

from __future__ import annotations

import contextlib
import http.cookies
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.deployment import NAMESPACE, Deployment, eventually


@contextlib.contextmanager
def stream(address: str, cookie: str = "") -> Iterator[tuple[ClientConnection, str, str]]:
    """A WebSocket client: its connection, the replica that it is on, and the cookie that keeps it there."""
    headers = {"Cookie": cookie} if cookie else {}
    with connect(f"ws://{address}/ws", additional_headers=headers, open_timeout=20) as socket:
        hello = json.loads(socket.recv(timeout=20))
        assert hello["type"] == "hello"
        given = http.cookies.SimpleCookie(socket.response.headers.get("Set-Cookie", "") if socket.response else "")
        yield socket, str(hello["replica"]), "; ".join(f"{key}={item.value}" for key, item in given.items()) or cookie


def receive(socket: ClientConnection, wanted: str, timeout: float = 20) -> tuple[dict[str, Any], float]:
    """Wait for the result with that id; returns it and when it came."""
    deadline = time.monotonic() + timeout
    while True:
        message = json.loads(socket.recv(timeout=max(0.1, deadline - time.monotonic())))
        text = json.dumps(message)
        if wanted in text:
            return message, time.monotonic()


def test_a_photograph_is_counted_and_reaches_clients_on_every_replica(deployment: Deployment) -> None:
    photograph, truth = deployment.photograph(seed=int(time.time()), items=20)
    with contextlib.ExitStack() as stack:
        sockets: dict[str, ClientConnection] = {}
        for _ in range(40):
            socket, replica, _cookie = stack.enter_context(stream(deployment.url.removeprefix("http://")))
            sockets.setdefault(replica, socket)
            if len(sockets) >= 2:
                break
        assert len(sockets) >= 2, f"forty clients all met {sockets}"
        started = time.monotonic()
        answer = deployment.http("/detections", photograph)
        answered = time.monotonic() - started
        assert answer.status in (200, 201), answer.body[:500]
        result = answer.json
        assert result["count"] == sum(truth.values()) == 20, (result["count"], truth)
        print(f"counted {result['count']} in {answered * 1000:.0f} ms by {answer.headers.get('X-Replica')}")
        for replica, socket in sockets.items():
            _message, when = receive(socket, str(result["id"]))
            print(f"streamed by {replica} after {(when - started) * 1000:.0f} ms")
    stored = deployment.http(f"/detections/{result['id']}")
    assert stored.status == 200
    assert stored.json["count"] == result["count"]


def test_a_websocket_client_stays_on_its_replica_through_either_proxy(deployment: Deployment) -> None:
    """Two proxies that know nothing of each other must lead the same client to the same pod."""
    proxies = [pod["metadata"]["name"] for pod in deployment.pods("proxy")]
    assert len(proxies) >= 2
    with stream(deployment.url.removeprefix("http://")) as (_socket, home, cookie):
        pass
    assert cookie, "the proxy gave no cookie"
    seen: dict[str, Counter[str]] = {}
    others: dict[str, Counter[str]] = {}
    for proxy in proxies:
        seen[proxy], others[proxy] = Counter(), Counter()
        with deployment.forwarded(proxy, 8080) as address:
            for _ in range(15):
                with stream(address, cookie) as (_socket, replica, _same):
                    seen[proxy][replica] += 1
                with stream(address) as (_socket, replica, _own):
                    others[proxy][replica] += 1
    print(f"with one cookie: {seen}; without: {others}")
    assert all(set(replicas) == {home} for replicas in seen.values())
    assert all(len(replicas) >= 2 for replicas in others.values()), "clients without a cookie are not spread"


@pytest.mark.parametrize(
    ("name", "body", "statuses"),
    [
        ("text", b"no photograph at all", {400, 415, 422}),
        ("empty", b"", {400, 411, 415, 422}),
        ("cut short", b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\x00" * 64, {400, 415, 422}),
        ("50 MB", b"\xff\xd8" + b"\x00" * (50 * 1024 * 1024), {413}),
    ],
)
def test_what_is_no_photograph_gets_a_4xx_with_json(
    deployment: Deployment, name: str, body: bytes, statuses: set[int]
) -> None:
    answer = deployment.http("/detections", body)
    print(name, answer.status, answer.body[:200])
    assert answer.status in statuses
    assert isinstance(answer.json, dict)
    assert deployment.http("/readyz").status == 200


def test_a_model_is_published_and_rolled_back_without_a_restart(deployment: Deployment) -> None:
    def running() -> dict[str, int]:
        return {
            pod["metadata"]["uid"]: sum(item["restartCount"] for item in pod["status"]["containerStatuses"])
            for component in ("api", "websocket", "proxy")
            for pod in deployment.pods(component)
        }

    def models() -> set[str]:
        """The model that answers, asked often enough to meet every replica; each time with a new photograph."""
        return {str(deployment.http("/detections", drawn).json["model"]) for drawn in photographs}

    photographs = [deployment.photograph(seed=int(time.time()) + number, items=3)[0] for number in range(6)]
    before = running()
    was = models()
    version = f"e2e-{int(time.time())}"
    run = deployment.play("playbooks/models.yml", "--limit=medical_inventory", f"--extra-vars=models_version={version}")
    print(run.output[-1500:])
    eventually(
        "every replica uses the new model", lambda: all(version in model for model in models()), timeout=60, every=1
    )
    deployment.play("playbooks/models.yml", "--limit=medical_inventory", "--extra-vars=models_state=rolled_back")
    eventually("every replica is back", lambda: models() == was, timeout=60, every=1)
    assert running() == before
    assert NAMESPACE
