"""A small API server in this process, with faults on demand: for what a real one does only when it is in trouble."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object

_RESOURCES = {
    "v1": ("Pod", "Event", "Service", "Node", "PersistentVolumeClaim", "Secret", "ConfigMap"),
    "apps/v1": ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"),
    "discovery.k8s.io/v1": ("EndpointSlice",),
    "storage.k8s.io/v1": ("StorageClass",),
    "batch/v1": ("Job",),
}
_CLUSTER_WIDE = ("Node", "StorageClass")
Fault = Callable[["Handler", str, dict[str, str]], bool]
"""Answers a request itself and returns True, or leaves it alone."""


def plural(kind: str) -> str:
    """The name of a kind in URLs."""
    return "storageclasses" if kind == "StorageClass" else kind.lower() + "s"


class FakeApi:
    """Serves lists, objects and watches over HTTP on loopback.

    :param objects: what is there at the beginning.
    """

    def __init__(self, *objects: Object) -> None:
        self.token = "right"
        """The only one that is accepted."""
        self.requests: list[str] = []
        """Method and path of what was asked for; a watch's is followed by its version."""
        self.fault: Fault | None = None
        self.logs: dict[str, str] = {}
        """By the pod's name."""
        self.services: dict[str, int] = {}
        """What is behind the proxy subresource: ``name:port`` to a port on loopback."""
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._watches: list[tuple[str, queue.SimpleQueue[Any]]] = []
        self._lock = threading.Lock()
        self._version = 100
        for obj in objects:
            self.put(obj)
        api = self

        class Bound(Handler):
            server_api = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self._server.server_address[1])

    def __enter__(self) -> FakeApi:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self.break_watches()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, path: Path, port: int = 0, user: dict[str, Any] | None = None) -> str:
        """Write a kubeconfig for it, and return its path.

        :param port: of a proxy in front of it.
        """
        server = f"http://127.0.0.1:{port or self.port}"
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": server}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "users": [{"name": "fake", "user": user or {"token": "right"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(document))
        return str(path)

    def put(self, obj: Object) -> None:
        """Create or change an object."""
        with self._lock:
            self._version += 1
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
            key = (plural(obj["kind"]), str(obj["metadata"].get("namespace") or ""), obj["metadata"]["name"])
            kind = "MODIFIED" if key in self._objects else "ADDED"
            self._objects[key] = obj
            for collection, waiting in self._watches:
                if collection == key[0]:
                    waiting.put({"type": kind, "object": obj})

    def break_watches(self, *last: dict[str, Any]) -> None:
        """End all watches, after a last event for each."""
        with self._lock:
            for _collection, waiting in self._watches:
                for event in last:
                    waiting.put(event)
                waiting.put(None)

    def find(self, collection: str, namespace: str, name: str) -> Object | None:
        """One object."""
        with self._lock:
            return self._objects.get((collection, namespace, name))

    def listing(self, collection: str) -> tuple[list[Object], str]:
        """All objects of a kind, and the version."""
        with self._lock:
            return [obj for key, obj in self._objects.items() if key[0] == collection], str(self._version)

    @contextlib.contextmanager
    def watching(self, collection: str, version: int) -> Any:
        """The events of a watch as a queue, from a version on."""
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            for key, obj in self._objects.items():
                if key[0] == collection and int(obj["metadata"]["resourceVersion"]) > version:
                    waiting.put({"type": "MODIFIED", "object": obj})
            self._watches.append((collection, waiting))
        try:
            yield waiting
        finally:
            with self._lock:
                self._watches.remove((collection, waiting))


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server_api: FakeApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, body: Any, **headers: str) -> None:
        """Send one answer."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, reason: str, message: str = "", **headers: str) -> None:
        """Send a Status as an API server does."""
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "message": message or reason,
        }
        self.answer(status, {**body, "code": status}, **headers)

    def do_GET(self) -> None:
        api, parts = self.server_api, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        version = f" from {query.get('resourceVersion')}" if "watch" in query else ""
        api.requests.append(f"GET {parts.path}{version}")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.headers.get("Authorization") != f"Bearer {api.token}":
                self.refuse(401, "Unauthorized")
            elif api.fault is None or not api.fault(self, parts.path, query):
                self._serve(parts.path, query)

    def _serve(self, path: str, query: dict[str, str]) -> None:
        api_version, rest = _split(path)
        if not rest:
            self._discovery(api_version)
            return
        namespace = ""
        if rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if len(rest) > 2 and rest[0] == "services" and rest[2] == "proxy":
            self._proxy(rest[1], "/".join(rest[3:]))
        elif len(rest) == 3 and rest[2] == "log":
            self.answer(200, self.server_api.logs.get(rest[1], ""))
        elif len(rest) == 2:
            found = self.server_api.find(rest[0], namespace, rest[1])
            self.answer(200, found) if found else self.refuse(404, "NotFound")
        elif query.get("watch") == "true":
            self._watch(rest[0], int(query.get("resourceVersion") or 0))
        else:
            items, version = self.server_api.listing(rest[0])
            self.answer(200, {"kind": "List", "metadata": {"resourceVersion": version}, "items": items})

    def _proxy(self, service: str, path: str) -> None:
        port = self.server_api.services.get(service)
        if port is None:
            self.refuse(503, "ServiceUnavailable", f'no endpoints available for service "{service}"')
            return
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        query = urlsplit(self.path).query
        with contextlib.closing(connection):
            try:
                connection.request("GET", f"/{path}" + (f"?{query}" if query else ""))
                response = connection.getresponse()
                data = response.read()
            except OSError as error:
                self.refuse(503, "ServiceUnavailable", f"error trying to reach service: {error}")
                return
        self.send_response(response.status)
        self.send_header("Content-Type", response.getheader("Content-Type") or "")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _discovery(self, api_version: str) -> None:
        kinds = _RESOURCES.get(api_version)
        if kinds is None:
            self.refuse(404, "NotFound")
            return
        resources = [
            {"name": plural(kind), "kind": kind, "namespaced": kind not in _CLUSTER_WIDE, "verbs": ["list", "watch"]}
            for kind in kinds
        ]
        self.answer(200, {"kind": "APIResourceList", "groupVersion": api_version, "resources": resources})

    def _watch(self, collection: str, version: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.server_api.watching(collection, version) as waiting:
            while True:
                event = waiting.get()
                if event is None:
                    self.wfile.write(b"0\r\n\r\n")
                    return
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _split(path: str) -> tuple[str, list[str]]:
    """apiVersion, and the rest of a path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        return parts[1], parts[2:]
    return "/".join(parts[1:3]), parts[3:]


class Proxy:
    """A TCP proxy on loopback in front of a port, which can be cut like a cable."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[socket.socket] = []
        self._closed = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._closed = True
        self._open.set()
        self.drop()
        self._listener.close()

    def cut(self) -> None:
        """From now on nothing passes, in either direction, and nobody is told."""
        self._open.clear()

    def mend(self) -> None:
        """Let everything pass again, what was on its way included."""
        self._open.set()

    def drop(self) -> None:
        """Close all connections that are open."""
        for one in self._pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pairs.clear()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _address = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                time.sleep(0.01)
                continue
            self._pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
