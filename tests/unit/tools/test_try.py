"""`make try`: what it prints, and one sentence for whatever is in the way."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from websockets.sync.server import Server, ServerConnection, serve

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("groundwork_try", TOOLS / "try.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["groundwork_try"] = module
    spec.loader.exec_module(module)
    return module


def detection(number: int, cached: bool = False) -> dict[str, Any]:
    return {
        "id": f"id-{number}",
        "count": 2,
        "counts": {"vial": 2},
        "items": [{"label": "vial", "confidence": 0.9, "box": {"x": 1, "y": 2, "width": 3, "height": 4}, "angle": 5.0}]
        * 2,
        "photo": {"width": 1280, "height": 960},
        "model": {"version": "1.0.0", "source": "volume"},
        "cached": cached,
    }


class Site:
    """A stand-in for the system: HTTP and WebSocket on one address, by a small relay to either server."""

    def __init__(self) -> None:
        self.clients: list[ServerConnection] = []
        self.posted: list[bytes] = []
        self.refuse: tuple[int, bytes] | None = None
        self.silent = self.unready = False
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "X-Replica": "api-1", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if site.unready and self.path == "/readyz":
                    self.answer(503, b"{}")
                    return
                self.answer(200, b"\xff\xd8\xffphoto" + self.path.encode(), X_Truth='{"vial": 2}')

            def do_POST(self) -> None:
                site.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
                if site.refuse:
                    self.answer(*site.refuse)
                    return
                body = json.dumps(detection(len(site.posted)))
                for client in site.clients:
                    if not site.silent:
                        client.send(f'{{"type":"detection","detection":{body}}}')
                self.answer(201, body.encode())

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.websocket: Server = serve(self.stream, "127.0.0.1", 0)
        for server in (self.http, self.websocket):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.front = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.front.getsockname()[1]}"
        threading.Thread(target=self.relay, daemon=True).start()

    def stream(self, client: ServerConnection) -> None:
        client.send(json.dumps({"type": "hello", "replica": f"ws-{len(self.clients) % 2}"}))
        self.clients.append(client)
        for _ in client:
            pass

    def relay(self) -> None:
        while True:
            try:
                client, _ = self.front.accept()
            except OSError:
                return
            first = client.recv(65536)
            port = self.websocket.socket if b"GET /ws" in first else self.http.socket
            server = socket.create_connection(port.getsockname())
            server.sendall(first)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    @staticmethod
    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.front.close()
        self.http.shutdown()
        self.http.server_close()
        self.websocket.shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def run(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["try.py", *arguments])
    code = tool.main()
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_photograph_comes_back_over_http_and_websocket(
    tool: ModuleType, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(tool, monkeypatch, capsys, "--url", site.url, "--seed", "5")
    assert (code, err) == (0, "")
    assert "HTTP        201 from api-1" in out
    assert "count       2 items" in out
    assert "vial             2     2" in out
    assert "WebSocket   the same detection from ws-0" in out


def test_ones_own_photograph_is_sent_as_it_is(
    tool: ModuleType, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "mine.png"
    photo.write_bytes(b"\x89PNG\r\n\x1a\nrest")
    code, out, _ = run(tool, monkeypatch, capsys, "--url", site.url, str(photo))
    assert code == 0
    assert site.posted == [photo.read_bytes()]
    assert "mine.png" in out


def test_a_refusal_is_shown_in_the_systems_own_words(
    tool: ModuleType, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.refuse = 422, b'{"error": {"message": "the photograph ends early"}}'
    assert run(tool, monkeypatch, capsys, "--url", site.url)[::2] == (
        1,
        "The system answered 422: the photograph ends early\n",
    )
    site.refuse = 502, b"<html>bad gateway</html>"
    assert "The system answered 502: <html>bad gateway" in run(tool, monkeypatch, capsys, "--url", site.url)[2]


def test_a_system_that_is_not_ready_is_said(
    tool: ModuleType, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.unready = True
    code, _, err = run(tool, monkeypatch, capsys, "--url", site.url)
    assert code == 1
    assert "is not ready" in err


def test_a_silent_websocket_is_said(
    tool: ModuleType, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.silent = True
    monkeypatch.setattr(sys.modules["trials.client"].Listener, "wait_for", lambda *_arguments: None)
    code, _, err = run(tool, monkeypatch, capsys, "--url", site.url)
    assert code == 1
    assert "did not hear of it" in err


def test_the_measurement_counts_replicas_and_times(
    tool: ModuleType, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(tool, monkeypatch, capsys, "--url", site.url, "--bench", "5", "--json")
    assert code == 0
    result = json.loads(out)
    assert set(result) >= {"median_ms", "p95_ms", "other_replica_median_ms"}
    assert set(result["websocket"]) == {"ws-0", "ws-1"}
    assert (result["wrong"], result["missed"]) == (0, 0)
    assert len(set(site.posted)) == len(site.posted) == 25, "no photograph may be sent twice"


def test_what_is_in_the_way_is_one_sentence(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> str:
        code, _, err = run(tool, monkeypatch, capsys, *arguments)
        assert code == 1
        assert err.count("\n") == 1
        return err

    assert "cannot be read" in error("--url", "http://127.0.0.1:9", str(tmp_path / "none.jpg"))
    assert "Nothing answers" in error("--url", "http://127.0.0.1:9")
    assert "is no address" in error("--url", "ftp://x")
    monkeypatch.setattr(tool, "CLUSTER", tmp_path / "inventories" / "local" / ".cluster")
    assert "run `make up` first" in error()
    tool.CLUSTER.mkdir(parents=True)
    (tool.CLUSTER / "status.json").write_text("{}")
    assert "names no node_address" in error()
    (tool.CLUSTER / "status.json").write_text("[")
    assert "cannot be read" in error()
    assert "choose one of cardioai_pro, " in error("--system", "nothing")
    large = tmp_path / "large.jpg"
    with large.open("wb") as stream:
        stream.truncate(21 << 20)
    assert "larger than 20 MB" in error("--url", "http://127.0.0.1:9", str(large))
