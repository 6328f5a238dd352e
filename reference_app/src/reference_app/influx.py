"""InfluxDB: points go in as line protocol and a range of them comes back, whichever version serves.

Two back ends: a user with a password writes to a database and retention policy (`/write`: version 1, and version 2 for
users that can write and query and nothing else), a token to a bucket (`/api/v2/write`). `INFLUX_BUCKET` is
`database/policy` for both, as version 2 reads a bucket's name itself, and InfluxQL on `/query` is answered to both.
A point has its time from the start, so that a batch that is sent twice is stored once and may always be tried again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import gzip
import http.client
import json
import logging
import math
import random
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode, urlsplit

from reference_app import metrics
from reference_app.problems import Problem
from reference_app.settings import InfluxSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
Value: TypeAlias = "float | int | bool | str"

BATCH = 5000
"""Points in a request, as InfluxData advises."""
LINGER = 1.0
"""Seconds for which a point waits for others."""
RETRY_AFTER = 5
_COMPRESS_FROM = 1024
_CONNECTIONS = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_PASSING = frozenset((401, 403, 404, 408, 429))
_FAILURES = (OSError, http.client.HTTPException)
_INTEGERS = range(-(2**63), 2**63)
# Line protocol cannot say these: what a backslash stands before loses it, and a line ends with its line.
_UNSPEAKABLE = re.compile(r"[\n\r\0]|\\(?=[,= \\]|$)")
_COMPUTED = "mean_"
"""What version 1 puts in front of a field that it has averaged."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one time.

    Tags are indexed and of few values; an empty one is none. Time in nanoseconds since 1970. Integers and floats are
    different types, and a field has one for ever.
    """

    measurement: str
    fields: Mapping[str, Value]
    tags: Mapping[str, str] = field(default_factory=dict)
    time: int = field(default_factory=time.time_ns)

    def line(self) -> bytes:
        """The point in line protocol; raises ValueError where that cannot hold it."""
        tags = "".join(
            f",{_name(key, 'tag')}={_escaped(value, ',= ', f'tag {key}')}"
            for key, value in sorted(self.tags.items())
            if value
        )
        fields = ",".join(f"{_name(key, 'field')}={_value(key, value)}" for key, value in self.fields.items())
        if not fields:
            raise ValueError(f"a point of {self.measurement!r} has no field")
        if self.time not in _INTEGERS:
            raise ValueError(f"{self.time} is no time in nanoseconds")
        if self.measurement.startswith(("_", "#")) or not self.measurement:
            raise ValueError(f"{self.measurement!r} is no name of a measurement")
        measurement = _escaped(self.measurement, ", ", "measurement")
        return f"{measurement}{tags} {fields} {self.time}".encode()


def _name(name: str, kind: str) -> str:
    if not name or name.startswith("_") or name == "time":
        raise ValueError(f"{name!r} is no name of a {kind}")
    return _escaped(name, ",= ", kind)


def _escaped(text: str, special: str, what: str) -> str:
    if _UNSPEAKABLE.search(text):
        raise ValueError(f"line protocol cannot hold the {what} {text!r}: a new line, or a backslash where one escapes")
    return "".join(f"\\{character}" if character in special else character for character in text)


def _value(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise ValueError(f"field {name} is an integer of more than 64 bits: {value}")
        return f"{value}i"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"field {name} is {value}, which InfluxDB does not store")
        return repr(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Away(Exception):
    """InfluxDB did not do it now and may do it later; `wait` is what it asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """InfluxDB will never do it; `points` is how many of them it did not take, where it says so."""

    def __init__(self, reason: str, points: int | None = None) -> None:
        super().__init__(reason)
        self.points = points


class Transport:
    """HTTP with a few connections that are kept; safe in any thread."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings, self._url = settings, urlsplit(settings.url)
        self._tls = ssl.create_default_context(cafile=settings.ca or None) if self._url.scheme == "https" else None
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._headers = {"Authorization": _authorization(settings), "User-Agent": "reference-app"}

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and the JSON of the body, if it is any; raises Away where there is no answer."""
        sent = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            connection, reused = self._take()
            try:
                connection.request(method, path, body, sent)
                answer = connection.getresponse()
                data = answer.read()
            except _FAILURES as error:
                connection.close()
                # The server may have closed a connection that nobody used.
                if reused and isinstance(error, ConnectionError):
                    continue
                raise Away(str(error) or type(error).__name__) from error
            if answer.will_close or len(self._idle) >= _CONNECTIONS:
                connection.close()
            else:
                self._idle.append(connection)
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, _json(data)

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with contextlib.suppress(IndexError):
            return self._idle.pop(), True
        host, port = self._url.hostname or "", self._url.port or 8086
        timeout = self._settings.timeout
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls), False
        return http.client.HTTPConnection(host, port, timeout=timeout), False


def _authorization(settings: InfluxSettings) -> str:
    if settings.token:
        return f"Token {settings.token}"
    return "Basic " + base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()


def _json(data: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(data)
    return None


def _reason(status: int, answer: Any) -> str:
    """Why it says no, in its own words: `error` of version 1, `message` of version 2."""
    said = (answer.get("error") or answer.get("message")) if isinstance(answer, dict) else None
    return f"HTTP {status}: {str(said)[:300]}" if said else f"HTTP {status}"


class Backend:
    """What both do alike, and `_write_path`, in which they differ."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings, self._transport = settings, Transport(settings)
        self._database = settings.bucket.partition("/")[0]

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes a batch, in parts where it is too large; raises Away or Refused."""
        body, more = b"\n".join(lines), {}
        if len(body) >= _COMPRESS_FROM:
            body, more = gzip.compress(body, 1), {"Content_Encoding": "gzip"}
        path = self._write_path()
        status, headers, answer = self._transport.ask(
            "POST", path, body, Content_Type="text/plain; charset=utf-8", **more
        )
        if status < 300:
            return
        reason = _reason(status, answer)
        if status == 413 and len(lines) > 1:
            self._write_halves(lines)
        elif status >= 500 or status in _PASSING or "not found" in reason:
            raise Away(reason, _seconds(headers.get("retry-after", "")))
        else:
            dropped = re.search(r"dropped=(\d+)", reason)
            raise Refused(reason, int(dropped[1]) if dropped else None)

    def _write_halves(self, lines: Sequence[bytes]) -> None:
        """One half that is refused must not keep the other from being written."""
        refused: list[Refused] = []
        middle = len(lines) // 2
        for half in (lines[:middle], lines[middle:]):
            try:
                self.write(half)
            except Refused as error:
                refused.append(Refused(str(error), len(half) if error.points is None else error.points))
        if refused:
            raise Refused(str(refused[0]), sum(error.points or 0 for error in refused))

    def query(self, statement: str) -> list[dict[str, Any]]:
        """The series that an InfluxQL statement finds; raises Away or Refused."""
        question = urlencode({"db": self._database, "epoch": "ns", "q": statement})
        status, headers, answer = self._transport.ask("GET", f"/query?{question}", Accept="application/json")
        if status >= 500 or status in _PASSING:
            raise Away(_reason(status, answer), _seconds(headers.get("retry-after", "")))
        if status >= 300 or not isinstance(answer, dict):
            raise Refused(_reason(status, answer))
        result = answer.get("results", [{}])[0]
        if error := result.get("error"):
            raise (Away if "not found" in error else Refused)(str(error)[:300])
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def _write_path(self) -> str:
        raise NotImplementedError

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()


class User(Backend):
    """Writes to a database and retention policy."""

    def _write_path(self) -> str:
        database, _, policy = self._settings.bucket.partition("/")
        return "/write?" + urlencode({"db": database, "rp": policy})


class Token(Backend):
    """Writes to a bucket of an organisation."""

    def _write_path(self) -> str:
        return "/api/v2/write?" + urlencode({"org": self._settings.org, "bucket": self._settings.bucket})


def _seconds(text: str) -> float:
    return min(float(text), 60.0) if text.isdigit() else 0.0


class Influx:
    """Writes and reads. `offer` never waits and may lose points, `write` returns once they are stored.

    Nothing connects before the first point; without INFLUX_URL nothing ever does, and offered points are forgotten.
    """

    def __init__(self, settings: InfluxSettings, backend: Backend | None = None) -> None:
        self._settings = settings
        kind = Token if settings.token else User
        self._backend = backend or (kind(settings) if settings.url else None)
        self._threads = ThreadPoolExecutor(_CONNECTIONS, "influx")
        self._queue: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        self._closing: float | None = None

    @property
    def configured(self) -> bool:
        """Whether there is an InfluxDB at all."""
        return self._backend is not None

    def offer(self, *points: Point) -> None:
        """Queues points and returns at once, in any thread; raises ValueError for one that cannot be written.

        While InfluxDB is away they wait, and beyond the queue's length the oldest are dropped and counted.
        """
        lines = [point.line() for point in points]
        if self._backend is None or not lines:
            return
        with self._changed:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_for_ever, name="influx-writer", daemon=True)
                self._writer.start()
            self._queue.extend(lines)
            self._shorten()
            self._changed.notify_all()

    async def write(self, *points: Point) -> None:
        """Writes points and returns once they are stored.

        Raises Problem 503 where InfluxDB stays away beyond the deadline, 422 where it refuses them, and ValueError.
        """
        await self._in_thread(self.write_blocking, *points)

    def write_blocking(self, *points: Point) -> None:
        """What `write` does, for code that is in a thread already."""
        backend, lines = self._require(), [point.line() for point in points]
        for batch in _batches(lines):
            try:
                self._insist(lambda batch=batch: backend.write(batch))  # type: ignore[misc]
            except Refused as error:
                metrics.influx_points.labels("refused").inc(len(batch) if error.points is None else error.points)
                raise Problem(422, "influx_refused", f"InfluxDB refuses the points: {error}") from error
            metrics.influx_points.labels("written").inc(len(batch))

    async def read(
        self,
        measurement: str,
        start: int,
        stop: int,
        tags: Mapping[str, str] | None = None,
        fields: Iterable[str] = (),
        limit: int = 10_000,
        copy: str = "",
    ) -> list[Point]:
        """The points from `start` up to, not including, `stop` (nanoseconds since 1970), by time.

        `tags` are values that they must have, `fields` those to read (all where none is named). Of more than `limit`
        the newest come. `copy` names averages, which are kept longer; they have the fields' own names. Whole numbers
        come as int, whatever was written. Raises Problem 503 while InfluxDB is away.
        """
        return await self._in_thread(lambda: self.read_blocking(measurement, start, stop, tags, fields, limit, copy))

    def read_blocking(
        self,
        measurement: str,
        start: int,
        stop: int,
        tags: Mapping[str, str] | None = None,
        fields: Iterable[str] = (),
        limit: int = 10_000,
        copy: str = "",
    ) -> list[Point]:
        """What `read` does, for code that is in a thread already."""
        backend = self._require()
        prefix = _COMPUTED if copy and self._settings.version == 1 else ""
        columns = ", ".join(_identifier(prefix + name) for name in fields) or "*"
        conditions = [f"time >= {start:d}", f"time < {stop:d}"]
        conditions += [f"{_identifier(name)} = {_literal(value)}" for name, value in sorted((tags or {}).items())]
        database, _, policy = self._settings.bucket.partition("/")
        source = ".".join(_identifier(name) for name in (database, copy or policy, measurement))
        # Every name and value in it is quoted: version 2 takes no bound parameters.
        statement = (
            f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)} "  # noqa: S608
            f"GROUP BY * ORDER BY time DESC LIMIT {limit:d}"
        )
        try:
            series = self._insist(lambda: backend.query(statement))
        except Refused as error:
            raise Problem(422, "influx_refused", f"InfluxDB refuses the question: {error}") from error
        points = sorted((point for one in series for point in _points(one, prefix)), key=lambda point: point.time)
        return points[-limit:]

    async def check(self) -> str:
        """Empty when InfluxDB lets this replica in and has its database, else what is wrong."""
        if self._backend is None:
            return "INFLUX_URL is not set"
        try:
            await asyncio.wait_for(self._in_thread(self._probe), 4)
        except (Away, Refused, TimeoutError) as error:
            return (str(error) or type(error).__name__).splitlines()[0][:200]
        return ""

    def close(self, within: float = 5.0) -> None:
        """Writes what is queued, as far as that goes within so many seconds, and closes the connections."""
        with self._changed:
            self._closing = time.monotonic() + within
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join(within + self._settings.timeout)
        if self._backend is not None:
            self._backend.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _require(self) -> Backend:
        if self._backend is None:
            raise Problem(503, "influx_away", "there is no InfluxDB here: INFLUX_URL is not set")
        return self._backend

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work, *arguments))

    def _probe(self) -> None:
        """A measurement that nobody has: whether database and policy are there and may be read."""
        source = ".".join(_identifier(name) for name in self._settings.bucket.partition("/")[::2])
        self._require().query(f'SELECT * FROM {source}."none" LIMIT 1')  # noqa: S608

    def _insist(self, work: Callable[[], T]) -> T:
        """Tries until the deadline; raises Problem 503 then, and Refused at once."""
        give_up = time.monotonic() + self._settings.deadline
        for pause in _pauses():
            try:
                return work()
            except Away as error:
                pause = max(pause, error.wait)
                if time.monotonic() + pause > give_up:
                    log.warning("InfluxDB is away: %s", error)
                    message = "InfluxDB cannot be reached: try again shortly"
                    raise Problem(503, "influx_away", message, RETRY_AFTER) from error
                metrics.influx_retries.inc()
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _write_for_ever(self) -> None:
        """The thread that writes what was offered, until `close`."""
        pauses = _pauses()
        while batch := self._next_batch():
            try:
                self._require().write(batch)
            except Away as error:
                if self._give_up():
                    metrics.influx_points.labels("dropped").inc(len(batch) + len(self._queue))
                    log.warning("InfluxDB is away at the end, and queued points are lost: %s", error)
                    return
                self._put_back(batch)
                metrics.influx_retries.inc()
                log.warning("InfluxDB is away: %s", error)
                self._rest(max(next(pauses), error.wait))
                continue
            except Refused as error:
                lost = len(batch) if error.points is None else error.points
                metrics.influx_points.labels("refused").inc(lost)
                metrics.influx_points.labels("written").inc(len(batch) - lost)
                log.warning("InfluxDB refuses %d of %d points: %s", lost, len(batch), error)
            else:
                metrics.influx_points.labels("written").inc(len(batch))
            pauses = _pauses()

    def _next_batch(self) -> list[bytes]:
        """The oldest points, once there are enough or they have waited; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing is not None)
            self._changed.wait_for(lambda: len(self._queue) >= BATCH or self._closing is not None, LINGER)
            batch = [self._queue.popleft() for _number in range(min(BATCH, len(self._queue)))]
            metrics.influx_queue.set(len(self._queue))
            return batch

    def _put_back(self, batch: list[bytes]) -> None:
        with self._changed:
            self._queue.extendleft(reversed(batch))
            self._shorten()

    def _shorten(self) -> None:
        """Drops the oldest beyond the queue's length; the lock is held."""
        over = len(self._queue) - self._settings.queue
        if over > 0:
            metrics.influx_points.labels("dropped").inc(over)
            for _number in range(over):
                self._queue.popleft()
        metrics.influx_queue.set(len(self._queue))

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing is not None, seconds)
        if self._closing is not None:
            time.sleep(_FIRST_PAUSE)

    def _give_up(self) -> bool:
        return self._closing is not None and time.monotonic() > self._closing


def _pauses() -> Iterator[float]:
    """Twice as long each time, and never quite the same, so that replicas do not come back together."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
        pause = min(pause * 2, _LONGEST_PAUSE)


def _batches(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(lines), BATCH):
        yield lines[start : start + BATCH]


def _identifier(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _points(series: Mapping[str, Any], prefix: str) -> Iterator[Point]:
    tags = {name: value for name, value in series.get("tags", {}).items() if value}
    names = [name.removeprefix(prefix) for name in series["columns"][1:]]
    for moment, *values in series["values"]:
        fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        yield Point(series["name"], fields, tags, moment)
