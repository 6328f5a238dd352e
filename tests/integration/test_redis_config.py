"""The configuration and scripts of Redis, tried with a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import common, redis
from ansible_collections.groundwork.platform.plugins.module_utils.model.system import load
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Redis
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("GROUNDWORK_REDIS", "")
PATH = ":".join(one for one in (FOLDER, os.environ.get("PATH", "")) if one)
pytestmark = pytest.mark.skipif(
    not (shutil.which("redis-server", path=PATH) and shutil.which("redis-cli", path=PATH)),
    reason="no Redis: apt-get install redis-server, or name a folder with its programs in GROUNDWORK_REDIS",
)
PASSWORD = "a-secret-that-nobody-may-see"


class Server:
    """What the StatefulSet's container does, in a folder of its own and on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        system = load("medical_inventory", [ROOT / "systems"], "local").system
        store = system.stores["redis"]
        assert isinstance(store, Redis)
        pins = {"redis": {"images": {"redis": "redis:8.0"}}}
        objects = redis.redis_objects(common.Context(system, {}, pins), store)
        files = next(one["data"] for one in objects if one["kind"] == "ConfigMap")
        for name, text in files.items():
            for old, new in (
                ("/etc/groundwork/redis-auth", f"{folder}/auth"),
                ("/etc/groundwork/redis", str(folder)),
                ("/tmp/redis", f"{folder}/run"),
                ("dir /data", f"dir {folder}/data"),
                ("6379", str(self.port)),
                ("bind * -::*", "bind 127.0.0.1"),
            ):
                text = text.replace(old, new)
            (folder / name).write_text(text)
        (folder / "auth").mkdir()
        (folder / "auth" / "password").write_text(PASSWORD)
        (folder / "data").mkdir()
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", str(self.folder / "start.sh")], stdout=log, stderr=log, env={"PATH": PATH}
            )
        deadline = time.monotonic() + 10
        while self.check() != 0:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def check(self) -> int:
        done = subprocess.run(
            ["/bin/sh", str(self.folder / "check.sh")], capture_output=True, check=False, env={"PATH": PATH}
        )
        return done.returncode

    def cli(self, *words: str, password: str = PASSWORD) -> str:
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *words],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": PATH, **({"REDISCLI_AUTH": password} if password else {})},
        )
        return (done.stdout + done.stderr).strip()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.stop()


def test_nobody_gets_in_without_the_password(server: Server) -> None:
    assert "NOAUTH" in server.cli("ping", password="")
    assert server.cli("ping") == "PONG"
    command_line = Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert PASSWORD not in command_line
    assert PASSWORD not in Path(f"/proc/{server.process.pid}/environ").read_text()
    assert PASSWORD not in (server.folder / "log").read_text()


def test_memory_and_eviction_are_those_of_the_system(server: Server) -> None:
    assert server.cli("config", "get", "maxmemory").split()[1] == str(128 * 1024**2 * 7 // 10)
    assert server.cli("config", "get", "maxmemory-policy").split()[1] == "volatile-lru"
    assert server.cli("config", "get", "appendonly").split()[1] == "yes"


def test_what_was_written_survives_an_orderly_end_and_a_kill(server: Server) -> None:
    assert server.cli("set", "one", "1") == "OK"
    assert server.stop() == 0
    assert server.check() != 0, "not ready while it does not run"
    server.start()
    assert server.cli("get", "one") == "1"
    server.cli("set", "two", "2")
    time.sleep(1.5)
    server.process.kill()
    server.process.wait()
    server.start()
    assert server.cli("get", "two") == "2", "at most the last second may be lost"
