# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP to one API server: a pool of connections, patience with what passes, and errors that name their cause."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import json
import os
import random
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import Connection, Credentials
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_http import Answer, Channel, Channels
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a TCP and TLS connection."""
READ_TIMEOUT = 65.0
"""Seconds to wait for an answer: the API server itself gives up after 60."""
FIRST_PATIENCE = 8.0
"""Seconds for which a server that has never answered is tried again: a wrong address should be said soon."""
PATIENCE = 120.0
"""Seconds for which a server that has answered before is tried again: a restarting one comes back."""
POOL_SIZE = 16
_PATH = "/:@!$&'()*+,;=~%"

# Connections that are silently cut (a firewall, a lost node) are noticed after about 25 s although a watch
# reads for long.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_NODELAY", 1))
        if hasattr(socket, name)
    ),
]


@functools.cache
def _urllib3() -> Any:
    """The library for long answers and proxies; it takes a noticeable part of a module's start to load."""
    return importlib.import_module("urllib3")


@dataclasses.dataclass(eq=False)
class ApiError(Failure):
    """The API server answered, and the answer is no.

    :param status: the HTTP status.
    :param reason: as in ``metav1.Status``: NotFound, Conflict, Invalid, Forbidden ...
    :param message: the server's own words.
    :param causes: ``details.causes`` of the answer: reason, field and message each.
    :param retry_after: seconds that the server asks to wait, or None.
    """

    status: int = 0
    reason: str = ""
    message: str = ""
    causes: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    retry_after: float | None = None

    @property
    def webhook_unavailable(self) -> bool:
        """Whether a webhook could not be asked: the one that has just been deployed is not up yet."""
        return self.status >= 500 and any(
            text in self.message
            for text in ("failed calling webhook", "conversion webhook for", "error trying to reach service")
        )

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed in a moment."""
        if self.status == 500:
            # An unspecific 500 is a defect or a broken webhook; these are the ones known to pass.
            passing = ("etcdserver", "connection refused", "timed out", "request timed out", "leader changed")
            # A webhook that is away may come back, but only the caller knows whether to wait for it.
            return not self.webhook_unavailable and any(text in self.message for text in passing)
        if self.status == 422:
            # Right after its start, a server that has no addresses for Services yet calls the Service invalid.
            return "allocator not ready" in self.message
        if self.status == 403:
            # Right after its start a server's authoriser does not know the roles yet; and quotas may not be
            # counted yet.
            return "status unknown for quota" in self.message or "not yet ready to handle request" in self.message
        return self.status in (429, 502, 503, 504) and not self.webhook_unavailable

    def as_dict(self) -> dict[str, str]:
        """Only the fields that every failure has."""
        return Failure(self.code, self.object, self.cause, self.evidence, self.hint).as_dict()


@dataclasses.dataclass(eq=False)
class Unreachable(Failure):
    """No answer: refused, reset, timed out, no such name."""

    def as_dict(self) -> dict[str, str]:
        """Only the fields that every failure has."""
        return Failure(self.code, self.object, self.cause, self.evidence, self.hint).as_dict()


@dataclasses.dataclass
class Clock:
    """Time, so that tests can simulate it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Stream:
    """The lines of one long answer, and a way to end it from another thread."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._closed = False

    def lines(self) -> Iterator[bytes]:
        """Each whole line as it arrives; ends when the server ends the answer.

        :raises Unreachable: the connection broke.
        """
        rest = b""
        try:
            for chunk in self._response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        except (_urllib3().exceptions.HTTPError, OSError, ValueError) as error:
            raise Unreachable("unreachable", "The API server", "ended a watch", _words(error)) from error
        except AttributeError as error:
            # http.client reads on from a file that it has dropped, when another thread closes the answer.
            if not self._closed:
                raise
            raise Unreachable("unreachable", "The API server", "ended a watch", "it was closed here") from error
        if rest:
            yield rest

    def close(self) -> None:
        """End it; a reader blocked in :meth:`lines` returns."""
        self._closed = True
        with contextlib.suppress(Exception):
            self._response.shutdown()
        with contextlib.suppress(Exception):
            self._response.release_conn()


class Transport:
    """Requests to one API server. Safe to use from several threads.

    :param connection: where and who.
    :param patience: seconds for which transient errors of one request are retried, once the server has answered at all.
    """

    def __init__(self, connection: Connection, patience: float = PATIENCE, clock: Clock | None = None) -> None:
        if importlib.util.find_spec("urllib3") is None:
            raise Failure(
                "missing_library",
                "The Python package urllib3",
                "is not installed",
                hint="install the collection's requirements.txt, for example with the package kubernetes",
            )
        self.connection = connection
        self.patience = patience
        self.clock = clock or Clock()
        self.requests = 0
        """How many requests have been sent."""
        self._lock = threading.RLock()
        self._credentials: Credentials | None = None
        self._pool: Any = None
        self._channels: Channels | None = None
        self._answered = False
        self._dated = ("", 0.0)
        self._prefix = urlsplit(connection.server).path.rstrip("/")

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        patience: float | None = None,
        timeout: float = READ_TIMEOUT,
    ) -> Any:
        """Send one request, and again after transient errors until patience ends; return the decoded JSON.

        All that is sent through here is idempotent or guarded by a resourceVersion, so that sending it twice is safe.

        :param patience: seconds; the transport's own by default, 0 tries once.
        :param timeout: seconds for each try.
        :raises ApiError: the server refused.
        :raises Unreachable: no answer within the patience.
        """
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else None

        def attempt() -> Any:
            return self._send(method, path, query, data, content_type, timeout=timeout).body

        text = self._retrying(attempt, method, path, patience)
        return json.loads(text) if text else None

    def text(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        patience: float | None = None,
        timeout: float = READ_TIMEOUT,
    ) -> str:
        """Read something that is not JSON, such as a log.

        :param timeout: seconds for each try, where whoever the server asks (a node) may be gone.
        """

        def attempt() -> Any:
            return self._send("GET", path, query, None, "", accept="*/*", timeout=timeout).body

        return bytes(self._retrying(attempt, "GET", path, patience)).decode("utf-8", errors="replace")

    def exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = READ_TIMEOUT,
    ) -> Answer:
        """Ask once what is behind the API server (a proxied Service), and take any status for an answer.

        :param timeout: seconds to wait for it.
        :raises Unreachable: no answer.
        """
        answer: Answer = self._send(
            method, path, query, None, "", accept="*/*", timeout=timeout, headers=headers, any_status=True
        )
        return answer

    def stream(self, path: str, query: Mapping[str, Any]) -> Stream:
        """Open a long answer. Tried once: whoever watches has its own way to go on.

        :raises ApiError: the server refused.
        :raises Unreachable: no connection.
        """
        return Stream(self._send("GET", path, query, None, "", stream=True))

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()
            if self._channels is not None:
                self._channels.close()
            self._pool = self._channels = None

    def _retrying(self, attempt: Callable[[], Any], method: str, path: str, patience: float | None) -> Any:
        started = self.clock.now()
        delay = 0.1
        while True:
            try:
                return attempt()
            except (ApiError, Unreachable) as error:
                if isinstance(error, ApiError) and not error.transient:
                    raise
                if isinstance(error, Unreachable) and error.code != "unreachable":
                    raise
                limit = self._limit(patience)
                wait = getattr(error, "retry_after", None)
                wait = delay * random.uniform(0.8, 1.2) if wait is None else wait  # noqa: S311 - jitter
                if self.clock.now() + wait - started > limit:
                    raise
                self.clock.sleep(wait)
                delay = min(delay * 2, 3.0)

    def _limit(self, patience: float | None) -> float:
        limit = self.patience if patience is None else patience
        return limit if self._answered else min(limit, FIRST_PATIENCE)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: bytes | None,
        content_type: str,
        stream: bool = False,
        accept: str = "application/json",
        timeout: float = READ_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        any_status: bool = False,
    ) -> Any:
        target = self._prefix + quote(path, safe=_PATH) + ("?" + urlencode(query) if query else "")
        for again in (False, True):
            held = self._ready(renew=again)
            sent = [("User-Agent", "groundwork.platform"), ("Accept", accept), *held.headers.items()]
            sent += [*self.connection.headers, *([("Content-Type", content_type)] if body is not None else [])]
            sent = [(name, value) for name, value in sent if name not in (headers or {})]
            sent += list((headers or {}).items())
            self.requests += 1
            try:
                if stream or self.connection.proxy or timeout != READ_TIMEOUT:
                    response = self._pooled(method, target, sent, body, stream, timeout)
                else:
                    response = self._direct(method, target, sent, body)
            except OSError as error:
                raise self._unreachable(error) from error
            self._answered = True
            self._dated = (response.headers.get("date") or "", self.clock.now())
            # Credentials may have been renewed meanwhile by whoever issues them: ask once more with fresh ones.
            if response.status == 401 and not again and self._renewable():
                if not isinstance(response, Answer):
                    response.drain_conn()
                continue
            break
        if response.status < 300 or any_status:
            return response
        raise self._refused(response, method, path)

    def server_time(self) -> float | None:
        """The API server's clock now, in seconds since the epoch: the ``Date`` of its last answer (RFC 9110, 6.6.1).

        None if it has sent none. It is good to a second.
        """
        # Here, since few runs need it and it takes its time to load.
        import email.utils

        text, at = self._dated
        try:
            return email.utils.parsedate_to_datetime(text).timestamp() + self.clock.now() - at
        except (TypeError, ValueError):
            return None

    def _direct(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None) -> Answer:
        with self._lock:
            if self._channels is None:
                self._channels = Channels(self._opener(), POOL_SIZE)
            channels = self._channels
        lines = [f"{method} {target} HTTP/1.1", f"Host: {urlsplit(self.connection.server).netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if any("\r" in line or "\n" in line for line in lines):
            raise Failure("credentials", self.connection.source, "holds a header with a line break in it")
        if body is not None or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body or b'')}")
        return channels.exchange("\r\n".join([*lines, "\r\n"]).encode("latin-1") + (body or b""))

    def _pooled(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | None,
        stream: bool,
        seconds: float,
    ) -> Any:
        with self._lock:
            if self._pool is None:
                self._pool = self._open(self._ready())
            pool = self._pool
        urllib3 = _urllib3()
        several = urllib3.HTTPHeaderDict()
        for name, value in headers:
            several.add(name, value)
        timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT, seconds), read=None if stream else seconds)
        options = {"retries": False, "redirect": False, "preload_content": not stream, "timeout": timeout}
        try:
            response = pool.request(method, target, body=body, headers=several, **options)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from error
        if stream:
            return response
        fields = {str(name).lower(): str(value) for name, value in response.headers.items()}
        return Answer(int(response.status), fields, bytes(response.data))

    def _renewable(self) -> bool:
        with self._lock:
            return self._credentials is not None and self._credentials.renewable

    def _ready(self, renew: bool = False) -> Credentials:
        """The credentials to use now; new ones, and new connections, when the old ones have run out."""
        with self._lock:
            held = self._credentials
            # Ten seconds early, so that a request does not meet its credentials' end on the way.
            if held is None or renew or (held.expires is not None and held.expires - 10 < time.time()):
                fresh = self.connection.credentials()
                if held is not None and (held.certificate, held.key) != (fresh.certificate, fresh.key):
                    self._pool = self._channels = None
                self._credentials = held = fresh
            return held

    def _opener(self) -> Callable[[], Channel]:
        """What opens a connection with the credentials of now."""
        host, port, secure = self._server()
        context = self.tls(self._ready()) if secure else None
        name = self.connection.tls_server_name or host
        return lambda: Channel((host, port), context, name, _KEEPALIVE, CONNECT_TIMEOUT, READ_TIMEOUT)

    def _server(self) -> tuple[str, int, bool]:
        """Host, port, and whether it speaks TLS."""
        parts = urlsplit(self.connection.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            source, server = self.connection.source, self.connection.server
            raise Failure("kubeconfig_invalid", source, f'names a server "{server}" that is no URL')
        secure = parts.scheme == "https"
        return parts.hostname, parts.port or (443 if secure else 80), secure

    def _open(self, credentials: Credentials) -> Any:
        urllib3 = _urllib3()
        connection = self.connection
        host, port, secure = self._server()
        options: dict[str, Any] = {
            "maxsize": POOL_SIZE,
            "block": False,
            "socket_options": _KEEPALIVE,
        }
        tls: dict[str, Any] = {}
        if secure:
            tls["ssl_context"] = self.tls(credentials)
            if connection.tls_server_name:
                tls["server_hostname"] = tls["assert_hostname"] = connection.tls_server_name
            if not connection.verify:
                tls["cert_reqs"], tls["assert_hostname"] = "CERT_NONE", False
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if connection.proxy:
            manager = urllib3.ProxyManager(connection.proxy, **options, **tls)
            return manager.connection_from_url(connection.server)
        kind = urllib3.HTTPSConnectionPool if secure else urllib3.HTTPConnectionPool
        return kind(host, port, **options, **tls)

    def tls(self, credentials: Credentials) -> ssl.SSLContext:
        """What a connection to the API server trusts and shows, for those that are not made here.

        :raises Failure: ``tls`` or ``credentials``: what the kubeconfig holds cannot be used.
        """
        connection = self.connection
        try:
            context = ssl.create_default_context(cadata=connection.authority)
        except (ssl.SSLError, ValueError) as error:
            raise Failure("tls", connection.source, "holds a certificate authority that is no certificate") from error
        # Python 3.13 made it strict about extensions that many clusters' own authorities lack.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if not connection.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if credentials.certificate and credentials.key:
            try:
                with _readable(credentials.certificate + "\n" + credentials.key) as path:
                    context.load_cert_chain(path)
            except ssl.SSLError as error:
                cause = "holds a client certificate and key that do not fit together or are damaged"
                raise Failure("credentials", connection.source, cause, hint="get a new kubeconfig") from error
        return context

    def _unreachable(self, error: Exception) -> Unreachable:
        where = f"API server {self.connection.server}"
        text = _words(error)
        if isinstance(error, ssl.SSLError) or "SSLError" in type(error).__name__:
            if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
                why = text.split("certificate verify failed:")[-1].split("(_ssl")[0].strip() or text
                return Unreachable(
                    "tls",
                    where,
                    "presents a certificate that is not trusted",
                    why,
                    f"correct ca_cert or host; the connection comes from {self.connection.source}",
                )
            if "EOF" not in text and "reset" not in text.lower():
                return Unreachable("tls", where, "does not speak TLS as expected", text, "correct host")
        hint = f"check that it runs and that {self.connection.source} is the cluster that is meant"
        return Unreachable("unreachable", where, "does not answer", text, hint)

    def _refused(self, response: Any, method: str, path: str) -> ApiError:
        if isinstance(response, Answer):
            raw, after = response.body, response.headers.get("retry-after")
        else:
            raw = bytes(response.read() if not response.data else response.data)
            after = response.headers.get("Retry-After")
            response.release_conn()
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        body = body if isinstance(body, dict) else {}
        reason = str(body.get("reason") or "")
        message = str(body.get("message") or raw[:300].decode("utf-8", errors="replace")).strip()
        details = body.get("details") or {}
        after = after or details.get("retryAfterSeconds")
        code, cause, hint = _explanation(response.status, reason)
        subject = f"{method} {path}"
        if response.status == 401:
            subject, cause = f"API server {self.connection.server}", f"{cause} of {self.connection.source}"
        return ApiError(
            code=code,
            object=subject,
            cause=cause,
            evidence=message,
            hint=hint,
            status=response.status,
            reason=reason,
            message=message,
            causes=list(details.get("causes") or []),
            retry_after=_seconds(after),
        )


def _explanation(status: int, reason: str) -> tuple[str, str, str]:
    """Code, cause and hint for an answer that is no."""
    if status == 401:
        return "unauthorised", "does not accept the credentials", "renew the kubeconfig or the token"
    if status == 403:
        return "forbidden", "is forbidden", "grant that verb on that resource to this user, or use another one"
    if status == 404:
        return "not_found", "finds nothing", ""
    if status == 409:
        return "conflict", "conflicts with what is there", ""
    if status == 410:
        return "expired", "asks for a version that is no longer kept", ""
    if status in (400, 422):
        return "invalid", "is not accepted", "correct the object"
    if status == 429:
        return "throttled", "is throttled by the API server", "run again later"
    return "api_error", f"failed with status {status}" + (f" {reason}" if reason else ""), ""


def _seconds(value: Any) -> float | None:
    try:
        return min(float(value), 30.0) if value is not None else None
    except (TypeError, ValueError):
        return None


def _words(error: BaseException) -> str:
    """What a low-level error says, without the wrapping of pools and addresses of objects."""
    innermost: BaseException = error
    while True:
        inner = getattr(innermost, "reason", None) or innermost.__cause__ or innermost.__context__
        if not isinstance(inner, BaseException) or inner is innermost:
            break
        innermost = inner
    text = innermost.strerror if isinstance(innermost, OSError) and innermost.strerror else str(innermost)
    text = text.split(">: ")[-1].strip()
    return text or type(innermost).__name__


@contextlib.contextmanager
def _readable(pem: str) -> Iterator[str]:
    """A path under which OpenSSL can read a key that should never lie in a folder."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("client")
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem.encode())
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.NamedTemporaryFile("wb", suffix=".pem") as temporary:
        temporary.write(pem.encode())
        temporary.flush()
        yield temporary.name
