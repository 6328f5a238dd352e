# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 as far as requests to an API server need it: one request, one whole answer, and the connection kept.

Thousands of small requests are spent mostly in the client's own code: this does a third of the work that urllib3 and
http.client do for the same request. Proxies and answers that never end are left to urllib3.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence

CHUNK = 1 << 14
IDLE = 30.0
"""Seconds after which a connection is not used again: the server, or what is in between, may have closed it."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer, whatever its status.

    :param headers: names in lower case; of several with one name, the last.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Closed(OSError):
    """The server had closed a connection that was kept: nothing of the answer has arrived."""


class Broken(OSError):
    """The connection ended or spoke no HTTP in the middle of an answer."""


class Channel:
    """One connection.

    :param tls: None for plain HTTP.
    :param server_name: the name that the server's certificate has to have.
    :param options: of the socket, as ``setsockopt`` takes them.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        server_name: str,
        options: Sequence[tuple[int, int, int]],
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        plain = socket.create_connection(address, connect_timeout)
        try:
            for option in options:
                plain.setsockopt(*option)
            self._socket = tls.wrap_socket(plain, server_hostname=server_name) if tls else plain
        except BaseException:
            plain.close()
            raise
        self._socket.settimeout(read_timeout)
        self._buffer = bytearray()
        self._fresh = True
        self._used = time.monotonic()

    @property
    def stale(self) -> bool:
        """Whether it has not been used for so long that it may be gone."""
        return time.monotonic() - self._used > IDLE

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def exchange(self, request: bytes) -> tuple[Answer, bool]:
        """Send a request; returns the answer and whether the connection can be used again.

        :raises Closed: see there.
        :raises OSError: no connection any more, or nothing came in time.
        """
        old, self._fresh = not self._fresh, False
        try:
            self._socket.sendall(request)
            self._receive()
        except TimeoutError:
            raise
        except OSError as error:
            if old:
                raise Closed(str(error)) from error
            raise
        answer, keep = self._answer()
        self._used = time.monotonic()
        return answer, keep

    def _answer(self) -> tuple[Answer, bool]:
        while True:
            first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, _space, rest = first.partition(" ")
            if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
                raise Broken("the answer is no HTTP")
            status = int(rest[:3])
            if status >= 200:
                break
        headers = {}
        for line in lines:
            name, _colon, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length")
        keep = headers.get("connection", "").lower() != "close" and version != "HTTP/1.0"
        if status in (204, 304):
            data = b""
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            data = self._chunks()
        elif length is not None:
            data = self._exactly(int(length))
        else:
            data, keep = self._rest(), False
        return Answer(status, headers, data), keep

    def _receive(self) -> None:
        received = self._socket.recv(CHUNK)
        if not received:
            raise Broken("the connection was closed")
        self._buffer += received

    def _until(self, mark: bytes) -> bytes:
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark))
            self._receive()
        data = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return data

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive()
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def _chunks(self) -> bytes:
        parts = []
        while True:
            try:
                size = int(self._until(b"\r\n").split(b";")[0], 16)
            except ValueError:
                raise Broken("the answer is no HTTP") from None
            if size == 0:
                break
            parts.append(self._exactly(size))
            self._exactly(2)
        while self._until(b"\r\n"):
            pass
        return b"".join(parts)

    def _rest(self) -> bytes:
        with contextlib.suppress(Broken):
            while True:
                self._receive()
        return self._exactly(len(self._buffer))


class Channels:
    """Connections to one server that are not in use. Safe to use from several threads.

    :param open_one: makes a new connection.
    :param most: so many are kept; what is more is closed after use.
    """

    def __init__(self, open_one: Callable[[], Channel], most: int) -> None:
        self._open = open_one
        self._most = most
        self._idle: list[Channel] = []
        self._lock = threading.Lock()

    def exchange(self, request: bytes) -> Answer:
        """Send a request, over a new connection where the server has closed the idle ones.

        Only for requests that may arrive twice.

        :raises OSError: no answer.
        """
        while True:
            channel = self._take()
            try:
                answer, keep = channel.exchange(request)
            except Closed:
                channel.close()
                continue
            except BaseException:
                channel.close()
                raise
            self._give_back(channel, keep)
            return answer

    def close(self) -> None:
        """Close those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()

    def _take(self) -> Channel:
        while True:
            with self._lock:
                channel = self._idle.pop() if self._idle else None
            if channel is None:
                return self._open()
            if not channel.stale:
                return channel
            channel.close()

    def _give_back(self, channel: Channel, keep: bool) -> None:
        with self._lock:
            if keep and len(self._idle) < self._most:
                self._idle.append(channel)
                return
        channel.close()
