"""The proxy's configuration and its loop, tried with a real nginx on loopback against small backends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import proxy
from ansible_collections.groundwork.platform.plugins.module_utils.model.system import load
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import System
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
NGINX = os.environ.get("GROUNDWORK_NGINX") or shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None, reason="no nginx: apt-get install nginx-core, or name one in GROUNDWORK_NGINX"
)
SESSION = re.compile(r"gw_session=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax$")


class Backend:
    """A replica: says who it is, and does what a request's path asks for."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.name, self.seen = address, Counter[str]()
        self.connections: list[socket.socket] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                backend.connections.append(self.request)
                super().setup()

            def do_GET(self) -> None:
                backend.seen[f"{self.command} {self.path}"] += 1
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                if self.path.startswith("/drop"):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if self.path.startswith("/slow"):
                    time.sleep(1.5)
                if self.headers.get("Upgrade") == "websocket":
                    self.upgrade()
                    return
                answer = {"replica": backend.name, "path": self.path, "bytes": len(body), "headers": dict(self.headers)}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def upgrade(self) -> None:
                """Not the real protocol: a proxy passes bytes through after the 101, so echo them."""
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                self.send_header("X-Replica", backend.name)
                self.end_headers()
                while data := self.connection.recv(100):
                    self.connection.sendall(data)
                self.close_connection = True

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                pass

        self.server = Server((address, port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Die as a killed pod does: nothing listens, and open connections are gone."""
        self.server.shutdown()
        self.server.server_close()
        for one in self.connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    """Four replicas: the same port on four addresses, as pods have it."""
    port = free_port()
    made = [Backend(f"127.0.0.{number}", port) for number in range(1, 5)]
    yield made
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def system() -> System:
    return load("medical_inventory", [ROOT / "systems"], "local").system


class Running:
    """One proxy: the program of its container, with look-ups answered from a file."""

    def __init__(self, folder: Path, system: System, hosts: Path, port: int, drain: int = 10) -> None:
        component = system.components["proxy"]
        assert component.proxy is not None
        self.port, self.runtime, self.output = free_port(), folder / "run", folder / "output"
        config, tools = folder / "config", folder / "bin"
        config.mkdir(parents=True)
        tools.mkdir()
        text = proxy.configuration(system, component.proxy, port=self.port, runtime=str(self.runtime))
        # In its container all processes are one user; started as root, workers would be another.
        user = "user root;\n" if os.geteuid() == 0 else ""
        (config / "nginx.conf").write_text(user + text.replace("listen ", "listen 127.0.0.1:"))
        table = proxy.upstream_table(system, component.proxy).replace(" 8000 ", f" {port} ")
        (config / "upstreams").write_text(table)
        (tools / "getent").write_text(
            f'#!/bin/sh\ngrep "^$2 " {hosts} | while read -r _ a; do echo "$a STREAM $2"; done\n'
        )
        (tools / "getent").chmod(0o755)
        (tools / "nginx").symlink_to(str(NGINX))
        (config / "proxy.sh").write_text(proxy.script(drain=drain, folder=str(config), runtime=str(self.runtime)))
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["/bin/sh", str(config / "proxy.sh")],
                stdout=output,
                stderr=output,
                env={"PATH": f"{tools}:/usr/sbin:/usr/bin:/bin", "GROUNDWORK_PROXY_INTERVAL": "0.2"},
            )
        self.wait(lambda: self.get("/healthz")[0] == 200)

    def wait(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if condition():
                    return
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], dict[str, object]]:
        return self.request("GET", path, **headers)

    def replica(self, session: str) -> str:
        return str(self.get("/ws", Cookie=f"gw_session={session}")[2]["replica"])

    def reloads(self) -> int:
        return self.output.read_text().count("nginx reloaded")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture
def hosts(tmp_path: Path, backends: list[Backend]) -> Path:
    file = tmp_path / "hosts"
    write_hosts(file, backends[:3])
    return file


def write_hosts(file: Path, pods: list[Backend], service: str = "127.0.0.1") -> None:
    lines = [f"websocket-pods {one.name}" for one in pods]
    new = file.with_suffix(".new")
    new.write_text("\n".join([*lines, f"api {service}", ""]))
    new.replace(file)


@pytest.fixture
def proxies(tmp_path: Path, system: System, hosts: Path, backends: list[Backend]) -> Iterator[list[Running]]:
    made: list[Running] = []
    try:
        for name in ("one", "two"):
            made.append(Running(tmp_path / name, system, hosts, backends[0].port))
        yield made
    finally:
        codes = [one.stop() for one in made]
        assert codes == [0] * len(codes)


def test_nginx_accepts_the_configuration_of_every_environment(tmp_path: Path) -> None:
    for environment in ("local", "dev", "staging", "prod"):
        system = load("medical_inventory", [ROOT / "systems"], environment).system
        component = system.components["proxy"]
        assert component.proxy is not None
        folder = tmp_path / environment
        folder.mkdir()
        (folder / "nginx.conf").write_text(proxy.configuration(system, component.proxy, runtime=str(folder)))
        names = [line.split()[0] for line in proxy.upstream_table(system, component.proxy).splitlines()]
        (folder / "upstreams.conf").write_text(
            "".join(f"upstream {name} {{ server 127.0.0.1:1; }}\n" for name in names)
        )
        done = subprocess.run(
            [str(NGINX), "-t", "-e", "stderr", "-c", str(folder / "nginx.conf")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "warn" not in done.stderr


def test_one_client_meets_the_same_replica_through_either_proxy(
    proxies: list[Running], backends: list[Backend]
) -> None:
    met: Counter[str] = Counter()
    for _ in range(60):
        session = secrets.token_hex(16)
        first = proxies[0].replica(session)
        assert proxies[1].replica(session) == first
        met[first] += 1
    assert set(met) == {one.name for one in backends[:3]}, "every replica has clients"


def test_a_new_client_gets_a_cookie_that_leads_it_back(proxies: list[Running]) -> None:
    for _ in range(20):
        status, headers, answer = proxies[0].get("/ws")
        assert status == 200
        match = SESSION.match(headers["Set-Cookie"])
        assert match, headers["Set-Cookie"]
        assert proxies[1].replica(match.group(1)) == answer["replica"]
    headers = proxies[0].get("/ws", Cookie=f"gw_session={'a' * 32}")[1]
    assert "Set-Cookie" not in headers, "a client that has one keeps it"
    assert "Set-Cookie" in proxies[0].get("/ws", Cookie="gw_session=made-up")[1]
    assert proxies[0].get("/ws", X_Forwarded_Proto="https")[1]["Set-Cookie"].endswith("; Secure")
    assert "Set-Cookie" not in proxies[0].get("/")[1], "only where a session matters"


def test_a_websocket_is_upgraded_and_survives_a_reload(
    proxies: list[Running], backends: list[Backend], hosts: Path
) -> None:
    with socket.create_connection(("127.0.0.1", proxies[0].port), timeout=10) as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1000)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Set-Cookie: gw_session=" in head
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        before = proxies[0].reloads()
        write_hosts(hosts, backends[:4])
        proxies[0].wait(lambda: proxies[0].reloads() > before)
        client.sendall(b"still there")
        assert client.recv(100) == b"still there"


def test_nothing_but_websockets_is_upgraded(proxies: list[Running]) -> None:
    headers = proxies[0].get("/", Upgrade="h2c", Connection="Upgrade")[2]["headers"]
    assert isinstance(headers, dict)
    assert "Upgrade" not in headers


def test_routes(proxies: list[Running]) -> None:
    for path, replica in (("/detections?limit=1", "127.0.0.1"), ("/wsx", "127.0.0.1")):
        answer = proxies[0].get(path)[2]
        assert (answer["path"], answer["replica"]) == (path, replica)
    assert proxies[0].get("/ws/x")[1].get("Set-Cookie"), "what is below a route belongs to it"
    assert proxies[0].get("/healthz")[2] == {"status": "ok"}
    assert proxies[0].get("/readyz")[0] == 200


def test_a_body_over_the_limit_is_refused_in_json(proxies: list[Running]) -> None:
    limit = 20 * 1024**2
    assert proxies[0].request("POST", "/detections", b"x" * limit)[2]["bytes"] == limit
    status, headers, answer = proxies[0].request(
        "POST", "/detections", b"x" * (limit + 1), X_Request_ID="abcdef-123456"
    )
    assert status == 413
    assert headers["Content-Type"] == "application/json"
    error = answer["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["request_id"]) == ("too_large", "abcdef-123456")
    assert "20 MiB" in str(error["message"])
    assert proxies[0].get("/")[0] == 200


def test_only_what_does_no_harm_twice_is_tried_twice(proxies: list[Running], backends: list[Backend]) -> None:
    status, _, answer = proxies[0].get("/drop")
    assert status == 502
    assert isinstance(answer["error"], dict)
    assert answer["error"]["code"] == "bad_gateway"
    assert backends[0].seen["GET /drop"] > 1
    assert proxies[0].request("POST", "/drop", b"x")[0] == 502
    assert backends[0].seen["POST /drop"] == 1


def test_a_dead_replica_is_passed_over(proxies: list[Running], backends: list[Backend]) -> None:
    sessions = [secrets.token_hex(16) for _ in range(40)]
    before = {session: proxies[0].replica(session) for session in sessions}
    dead = backends[1]
    dead.close()
    after = {session: proxies[0].replica(session) for session in sessions}
    assert dead.name not in after.values()
    assert all(after[one] == before[one] for one in sessions if before[one] != dead.name)
    assert after == {session: proxies[1].replica(session) for session in sessions}, "both proxies chose the same other"


def test_a_new_replica_takes_its_share_and_no_more(
    proxies: list[Running], backends: list[Backend], hosts: Path
) -> None:
    sessions = [secrets.token_hex(16) for _ in range(80)]
    before = {session: proxies[0].replica(session) for session in sessions}
    write_hosts(hosts, list(reversed(backends)))
    after: list[dict[str, str]] = [{}, {}]

    def agreed() -> bool:
        # A worker of the old configuration may still answer for a moment after the new ones have started.
        after[:] = [{session: one.replica(session) for session in sessions} for one in proxies]
        return after[0] == after[1] and backends[3].name in after[0].values()

    for one in proxies:
        one.wait(lambda one=one: one.reloads() == 1)
    proxies[0].wait(agreed)
    moved = [session for session in sessions if before[session] != after[0][session]]
    assert all(after[0][session] == backends[3].name for session in moved)
    assert 0 < len(moved) < len(sessions) / 2


def test_without_an_answer_from_dns_the_last_good_one_holds(
    proxies: list[Running], hosts: Path, backends: list[Backend]
) -> None:
    hosts.write_text("")
    time.sleep(1)
    assert proxies[0].get("/")[0] == 200
    assert proxies[0].get("/ws")[0] == 200
    assert proxies[0].reloads() == 0
    hosts.write_text("websocket-pods not-an-address;\napi 127.0.0.1\n")
    proxies[0].wait(lambda: "keeps the old ones" in proxies[0].output.read_text())
    assert proxies[0].get("/ws")[0] == 200


def test_it_starts_before_anything_that_it_routes_to(tmp_path: Path, system: System, backends: list[Backend]) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    running = Running(tmp_path / "early", system, hosts, backends[0].port)
    try:
        status, headers, answer = running.get("/")
        assert (status, headers["Content-Type"]) == (502, "application/json")
        assert answer["error"]
        write_hosts(hosts, backends)
        running.wait(lambda: running.get("/")[0] == 200)
    finally:
        assert running.stop() == 0


def test_the_end_waits_for_requests_under_way(
    tmp_path: Path, system: System, hosts: Path, backends: list[Backend]
) -> None:
    running = Running(tmp_path / "ending", system, hosts, backends[0].port)
    outcome: list[int] = []
    slow = threading.Thread(target=lambda: outcome.append(running.get("/slow")[0]))
    slow.start()
    running.wait(lambda: backends[0].seen["GET /slow"] == 1)
    began = time.monotonic()
    assert running.stop() == 0
    slow.join()
    assert outcome == [200]
    assert time.monotonic() - began < 8, "no longer than it takes"


def test_the_end_does_not_wait_for_ever(tmp_path: Path, system: System, hosts: Path, backends: list[Backend]) -> None:
    running = Running(tmp_path / "bounded", system, hosts, backends[0].port, drain=1)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 101"
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 6


def test_a_dead_nginx_ends_the_container(tmp_path: Path, system: System, hosts: Path, backends: list[Backend]) -> None:
    running = Running(tmp_path / "dead", system, hosts, backends[0].port)
    try:
        master = (running.runtime / "nginx.pid").read_text().strip()
        workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        os.kill(int(master), signal.SIGKILL)
        assert running.process.wait(10) == 1, "so that the kubelet restarts it"
        # In a container they end with its first process; here nobody ends them.
        for worker in workers:
            os.kill(int(worker), signal.SIGKILL)
    finally:
        running.stop()


def test_the_log_is_json_and_tells_nothing_private(proxies: list[Running]) -> None:
    proxies[0].get("/drop?patient=Eve")
    proxies[0].get("/detections?patient=Eve", Cookie=f"gw_session={'b' * 32}", User_Agent='odd "agent"')
    log = proxies[0].output
    proxies[0].wait(lambda: '"/detections"' in log.read_text())
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"time"')]
    entry = next(one for one in entries if one["path"] == "/detections")
    assert (entry["status"], entry["method"], entry["agent"]) == (200, "GET", 'odd "agent"')
    assert "Eve" not in log.read_text()
    assert "b" * 32 not in log.read_text()
    assert all(one["path"] != "/healthz" for one in entries)


def test_the_files_fit_a_configmap(system: System) -> None:
    files = proxy.files(system, system.components["proxy"])
    assert yaml.safe_load(yaml.safe_dump(files)) == files
    assert sum(map(len, files.values())) < 100_000
