"""A client of any system: requests over one kept-alive connection, WebSockets that note what arrives, figures.

Needs the standard library and `websockets`.
"""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect


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

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. An idle connection that the proxy has closed meanwhile is opened again, once.

        :param kind: the body's media type.
        """
        fresh = self._connection is None
        sent = ({"Content-Type": kind} if kind else {}) | dict(headers or {})
        try:
            return self._request(method, path, body, sent)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if fresh:
                raise self._unreachable(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        try:
            return self._request(method, path, body, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        if self._connection is None:
            secure = self._parts.scheme == "https"
            make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            self._connection = make(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
        started = time.perf_counter()
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        data = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, data, time.perf_counter() - started, started)

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


@dataclass
class Listener:
    """A WebSocket client: the replica that it is connected to, and when each result of a kind arrived."""

    socket: ClientConnection
    replica: str
    kind: str
    arrived: dict[str, float] = field(default_factory=dict)
    ended: str = ""
    news: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """Notes what arrives until the connection ends."""
        try:
            for text in self.socket:
                now = time.perf_counter()
                message = json.loads(text)
                if message.get("type") == self.kind:
                    with self.news:
                        self.arrived[message[self.kind]["id"]] = now
                        self.news.notify_all()
        except (ConnectionClosed, OSError) as error:
            self.ended = str(error)
        with self.news:
            self.news.notify_all()

    def wait_for(self, identity: str, timeout: float = 5.0) -> float | None:
        """When the result with that id arrived, by time.perf_counter(); None when it did not."""
        with self.news:
            self.news.wait_for(lambda: identity in self.arrived or bool(self.ended), timeout)
            return self.arrived.get(identity)


@contextmanager
def listen(url: str, kind: str) -> Iterator[Listener]:
    """A WebSocket client, connected and greeted, that notes results of a kind."""
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
        listener = Listener(socket, str(hello.get("replica", "an unnamed replica")), kind)
        thread = threading.Thread(target=listener.run, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            socket.close()
            thread.join(3)


def listen_on_all(stack: ExitStack, url: str, kind: str, wanted: int = 2, attempts: int = 24) -> list[Listener]:
    """Clients on as many different replicas as can be had, at most `wanted`: each new client may land anywhere."""
    found: dict[str, Listener] = {}
    for _ in range(attempts):
        with ExitStack() as attempt:
            listener = attempt.enter_context(listen(url, kind))
            if listener.replica not in found:
                found[listener.replica] = listener
                stack.push(attempt.pop_all())
        if len(found) >= wanted:
            break
    return list(found.values())


def figures(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum, rounded to a tenth; empty when there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
        "max": round(ordered[-1], 1),
    }


def print_figures(rows: Mapping[str, Mapping[str, float]]) -> None:
    """A table of figures, a row each."""
    width = max(len(name) for name in rows)
    print(f"  {'':<{width}} {'median':>8} {'p95':>8} {'max':>8}")
    for name, row in rows.items():
        print(f"  {name:<{width}}" + "".join(f" {row.get(key, 0):>8.1f}" for key in ("median", "p95", "max")))
