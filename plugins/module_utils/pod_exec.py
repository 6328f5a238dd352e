# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command in a container and feeds its standard input, and waits until it has ended.

kubernetes.core.k8s_cp ends the connection after the last byte was sent, not after the last one was written; what this
feeds is complete when the command says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import ssl
import threading
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

try:
    import websocket
except ImportError:  # pragma: no cover - said as a Failure when it is needed
    websocket = None  # type: ignore[assignment]

STDIN, STDOUT, STDERR, OUTCOME = range(4)
_CHUNK = 256 * 1024


@dataclasses.dataclass
class Outcome:
    """How a command ended.

    :param code: its exit status.
    """

    code: int
    stdout: str
    stderr: str


class _Input:
    """A file whose bytes become the command's standard input."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def write(self, data: bytes) -> int:
        for start in range(0, len(data), _CHUNK):
            self._socket.send_binary(bytes((STDIN,)) + data[start : start + _CHUNK])
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""


def run(
    cluster: Cluster,
    where: tuple[str, str, str],
    command: list[str],
    feed: Callable[[IO[bytes]], None] | None = None,
    hear: Callable[[str], None] | None = None,
    silence: float = 300.0,
) -> Outcome:
    """Run a command to its end.

    :param where: namespace, pod and container.
    :param feed: writes the command's standard input, while its output is already being read.
    :param hear: gets each line of standard error as it comes.
    :param silence: seconds without any output after which the command is given up.
    :raises Failure: ``exec`` when it could not be run or the connection broke.
    """
    namespace, pod, _container = where
    subject = f"A command in pod {pod} of namespace {namespace}"
    socket = _open(cluster, where, command, feed is not None, silence, subject)
    broken: list[Exception] = []
    writer = None
    if feed is not None:
        writer = threading.Thread(target=_write, args=(feed, socket, broken), daemon=True)
        writer.start()
    try:
        return _read(socket, hear, subject)
    finally:
        with contextlib.suppress(Exception):
            socket.close()
        if writer is not None:
            writer.join(5)
        # A defect of the feed, such as a file that vanished, explains more than what came of it.
        for error in broken:
            if not isinstance(error, (websocket.WebSocketException, ConnectionError, ssl.SSLError)):
                raise Failure("exec", subject, "did not get all of its input", str(error)) from error


def _write(feed: Callable[[IO[bytes]], None], socket: Any, broken: list[Exception]) -> None:
    try:
        feed(_Input(socket))  # type: ignore[arg-type]
    except Exception as error:
        broken.append(error)
        with contextlib.suppress(Exception):
            socket.close()


def _open(
    cluster: Cluster, where: tuple[str, str, str], command: list[str], stdin: bool, silence: float, subject: str
) -> Any:
    if websocket is None:
        cause = "cannot be run: the Python package websocket-client is not installed"
        raise Failure("exec", subject, cause, hint="install kubernetes, which brings it")
    connection = cluster.connection
    credentials = connection.credentials()
    query = [("container", where[2]), ("stdout", "true"), ("stderr", "true"), ("stdin", str(stdin).lower())]
    path = f"/api/v1/namespaces/{where[0]}/pods/{where[1]}/exec?" + urlencode(
        query + [("command", part) for part in command]
    )
    headers = [f"{name}: {value}" for name, value in [*credentials.headers.items(), *connection.headers]]
    options: dict[str, Any] = {"http_no_proxy": ["*"]}
    if connection.proxy:
        proxy = urlsplit(connection.proxy)
        options = {"http_proxy_host": proxy.hostname, "http_proxy_port": proxy.port, "proxy_type": "http"}
    if connection.server.startswith("https"):
        options["sslopt"] = {"context": cluster.transport.tls(credentials)}
        if connection.tls_server_name:
            options["sslopt"]["server_hostname"] = connection.tls_server_name
    try:
        return websocket.create_connection(
            "ws" + connection.server.removeprefix("http").rstrip("/") + path,
            timeout=silence,
            header=headers,
            subprotocols=["v4.channel.k8s.io"],
            enable_multithread=True,
            suppress_origin=True,
            **options,
        )
    except websocket.WebSocketBadStatusException as error:
        body = error.resp_body or b""
        try:
            reason = str(json.loads(body).get("message") or "")
        except ValueError:
            reason = body[:200].decode("utf-8", "replace")
        raise Failure("exec", subject, f"is refused with status {error.status_code}", reason) from None
    except (websocket.WebSocketException, OSError) as error:
        raise Failure("exec", subject, "cannot be run: the connection fails", str(error)) from error


def _read(socket: Any, hear: Callable[[str], None] | None, subject: str) -> Outcome:
    heard: dict[int, bytes] = {STDOUT: b"", STDERR: b"", OUTCOME: b""}
    told = 0
    while not heard[OUTCOME]:
        try:
            frame = socket.recv()
        except websocket.WebSocketTimeoutException as error:
            raise Failure("exec", subject, "has been silent for too long and is given up") from error
        except (websocket.WebSocketException, OSError) as error:
            raise Failure("exec", subject, "was cut off: the connection broke", str(error)) from error
        if not frame:
            raise Failure("exec", subject, "was cut off: the connection ended", heard[STDERR][-200:].decode())
        data = frame.encode() if isinstance(frame, str) else frame
        heard[data[0]] = heard.get(data[0], b"") + data[1:]
        *lines, _rest = heard[STDERR][told:].split(b"\n")
        for line in lines:
            told += len(line) + 1
            if hear is not None:
                hear(line.decode("utf-8", "replace"))
    status = json.loads(heard[OUTCOME])
    causes = (status.get("details") or {}).get("causes") or []
    code = next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), None)
    if status.get("status") != "Success" and code is None:
        raise Failure("exec", subject, "could not be started", str(status.get("message") or ""))
    return Outcome(code or 0, heard[STDOUT].decode("utf-8", "replace"), heard[STDERR].decode("utf-8", "replace"))
