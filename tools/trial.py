"""A client of Medical Inventory: posts photographs, listens on WebSockets, and measures both.

Used by `make try` and by the benchmark. Needs the standard library and `websockets`.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

LARGEST = 20 * 1024 * 1024


class TrialError(Exception):
    """What went wrong and what to do, in one sentence."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status, headers with lower-case names, body, and the seconds it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    started: float

    @property
    def replica(self) -> str:
        """The api replica that answered."""
        return self.headers.get("x-replica", "an unnamed replica")

    def json(self) -> Any:
        """The body; raises TrialError when it is no JSON or an error."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if self.status >= 400 or value is None:
            reason = (value or {}).get("error", {}).get("message", "") if isinstance(value, dict) else ""
            raise TrialError(
                f"The system answered {self.status}: {reason or self.body[:200].decode('utf-8', 'replace').strip()}"
            )
        return value


def media_type(photo: bytes) -> str:
    """The media type by the first bytes."""
    if photo.startswith(b"\x89PNG"):
        return "image/png"
    if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if photo.startswith(b"\xff\xd8") else "application/octet-stream"


class Client:
    """One kept-alive HTTP connection to the system at `url`; not for several threads."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TrialError(f"{url!r} is no address: write it as http://host:port.")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._parts, self._timeout = parts, timeout
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Answer:
        """One request. An idle connection that the proxy has closed meanwhile is opened again, once."""
        fresh = self._connection is None
        try:
            return self._request(method, path, body, kind)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if fresh:
                raise self._unreachable(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        try:
            return self._request(method, path, body, kind)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error

    def _request(self, method: str, path: str, body: bytes | None, kind: str) -> Answer:
        if self._connection is None:
            secure = self._parts.scheme == "https"
            make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            self._connection = make(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
        started = time.perf_counter()
        self._connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = self._connection.getresponse()
        data = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, data, time.perf_counter() - started, started)

    def _unreachable(self, error: Exception) -> TrialError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return TrialError(
            f"Nothing answers at {self.url} ({reason}): bring the system up with `make up` and look at it with "
            f"`make status`, or name another address with --url."
        )

    def check(self) -> None:
        """Raises TrialError when nothing answers, or what answers is not ready."""
        answer = self.request("GET", "/readyz")
        if answer.status != 200:
            raise TrialError(
                f"The system at {self.url} is not ready (it answered {answer.status} to /readyz): see `make status`."
            )

    def detect(self, photo: bytes) -> Answer:
        """Posts a photograph."""
        return self.request("POST", "/detections", photo, media_type(photo))

    def sample(self, seed: int, items: int = 20) -> tuple[bytes, dict[str, int]]:
        """A photograph that the system generates, and how many of each label are on it."""
        answer = self.request("GET", f"/samples/{seed}.jpg?items={items}")
        if answer.status != 200:
            answer.json()
            raise TrialError(f"The system answered {answer.status} when asked for a generated photograph.")
        return answer.body, json.loads(answer.headers.get("x-truth", "{}"))


@dataclass
class Listener:
    """A WebSocket client: the replica that it is connected to, and when each detection arrived."""

    socket: ClientConnection
    replica: str
    arrived: dict[str, float] = field(default_factory=dict)
    ended: str = ""
    news: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """Notes what arrives until the connection ends."""
        try:
            for text in self.socket:
                now = time.perf_counter()
                message = json.loads(text)
                if message.get("type") == "detection":
                    with self.news:
                        self.arrived[message["detection"]["id"]] = now
                        self.news.notify_all()
        except (ConnectionClosed, OSError) as error:
            self.ended = str(error)
        with self.news:
            self.news.notify_all()

    def wait_for(self, identity: str, timeout: float = 5.0) -> float | None:
        """When the detection arrived, by time.perf_counter(); None when it did not."""
        with self.news:
            self.news.wait_for(lambda: identity in self.arrived or bool(self.ended), timeout)
            return self.arrived.get(identity)


@contextmanager
def listen(url: str) -> Iterator[Listener]:
    """A WebSocket client, connected and greeted."""
    address = "ws" + url.removeprefix("http") + "/ws"
    with ExitStack() as stack:
        try:
            options = {"open_timeout": 10, "close_timeout": 2, "max_size": None, "compression": None, "proxy": None}
            socket = stack.enter_context(connect(address, **options))
            hello = json.loads(socket.recv(timeout=10))
        except (OSError, WebSocketException, ValueError) as error:
            raise TrialError(
                f"No WebSocket at {address} ({str(error).strip() or type(error).__name__}): see `make status` and "
                f"`make logs`."
            ) from error
        listener = Listener(socket, str(hello.get("replica", "an unnamed replica")))
        thread = threading.Thread(target=listener.run, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            socket.close()
            thread.join(3)


def listen_on_all(stack: ExitStack, url: str, wanted: int = 2, attempts: int = 24) -> list[Listener]:
    """Clients on as many different replicas as can be had, at most `wanted`: each new client may land anywhere."""
    found: dict[str, Listener] = {}
    for _ in range(attempts):
        with ExitStack() as attempt:
            listener = attempt.enter_context(listen(url))
            if listener.replica not in found:
                found[listener.replica] = listener
                stack.push(attempt.pop_all())
        if len(found) >= wanted:
            break
    return list(found.values())


def distinct(photo: bytes, mark: bytes) -> bytes:
    """The same JPEG with a comment in it: other bytes, another digest, so that no cache knows it."""
    comment = b"\xff\xfe" + (len(mark) + 2).to_bytes(2) + mark
    return photo[:2] + comment + photo[2:]


def measure(
    url: str, count: int = 200, warm_up: int = 20, say: Callable[[str], None] = lambda _text: None
) -> dict[str, Any]:
    """Posts `warm_up` + `count` photographs one after the other, none ever from the cache.

    Returns milliseconds: `http` and `websocket` (per replica, from the start of the request) with median, p95, max;
    also `wrong`, the number of answers whose counts differ from what is on the photograph, and `missed`.
    """
    run = os.urandom(8).hex()
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        client.check()
        say("fetching 20 generated photographs")
        samples = [client.sample(seed) for seed in range(20)]
        listeners = listen_on_all(stack, client.url)
        times: list[float] = []
        late: dict[str, list[float]] = {listener.replica: [] for listener in listeners}
        wrong = missed = 0
        replicas: dict[str, int] = {}
        for number in range(-warm_up, count):
            photo, truth = samples[number % len(samples)]
            answer = client.detect(distinct(photo, f"{run} {number}".encode()))
            detection = answer.json()
            if detection.get("cached"):
                raise TrialError("A photograph came from the cache, so the figures would not be honest.")
            if number % 50 == 0:
                say(f"{max(number, 0)} of {count} photographs")
            arrivals = {listener.replica: listener.wait_for(detection["id"]) for listener in listeners}
            if number < 0:
                continue
            times.append(answer.seconds * 1000)
            replicas[answer.replica] = replicas.get(answer.replica, 0) + 1
            wrong += detection["counts"] != truth
            for replica, arrived in arrivals.items():
                if arrived is None:
                    missed += 1
                else:
                    late[replica].append((arrived - answer.started) * 1000)
    return {
        "count": count,
        "photo_bytes": round(statistics.mean(len(photo) for photo, _ in samples)),
        "http": _figures(times),
        "api_replicas": replicas,
        "websocket": {replica: _figures(values) for replica, values in late.items()},
        "wrong": wrong,
        "missed": missed,
    }


def _figures(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
        "max": round(ordered[-1], 1),
    }
