"""An InfluxDB of the tests' own, as the compiler configures it, in a folder and on free ports of loopback."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system
from tests.support import medical_inventory
from tests.support.ports import free_port

MISSING = "" if shutil.which("influxd") and shutil.which("influx") else "no InfluxDB: apt-get install influxdb"
ADMIN = "a-secret-of-the-administrator"
PASSWORD = "a-secret-of-the-application"
TOKEN = "a-token-of-the-administrator"


def stages(version: str, namespace: str = "shop", **store: Any) -> dict[str, Any]:
    """A compilation with a store ``series`` that the component api talks to."""
    overrides = {
        "namespace": namespace,
        "components": {"api": {"talks_to": ["postgres", "redis", "series"]}},
        "stores": {"series": {"type": "influxdb", "version": version, "database": "shop", **store}},
    }
    result: dict[str, Any] = compile_system(
        "medical_inventory", [medical_inventory.ROOT / "systems"], "local", overrides, {}, medical_inventory.PINS
    )["stages"]
    return result


def compiled(version: str, **store: Any) -> list[dict[str, Any]]:
    """The objects that the store consists of."""
    found: list[dict[str, Any]] = stages(version, **store)["stores"]
    return found


def data(objects: list[dict[str, Any]], name: str) -> dict[str, str]:
    """What is in a ConfigMap."""
    found: dict[str, str] = next(
        one["data"] for one in objects if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", name)
    )
    return found


@dataclasses.dataclass
class Setup:
    """How a run of the setup ended."""

    status: int
    output: str


def run_setup(folder: Path, port: int, objects: list[dict[str, Any]], timeout: float = 60) -> Setup:
    """Do what the setup Job's container does."""
    place = folder / "setup"
    shutil.rmtree(place, ignore_errors=True)
    for part in ("files", "auth", "tmp"):
        (place / part).mkdir(parents=True)
    for name, text in data(objects, "series-setup").items():
        for old, new in (
            ("/tmp", f"{place}/tmp"),
            ("sleep 2", "sleep 0.1"),
        ):
            text = text.replace(old, new)
        (place / "files" / name).write_text(text)
    for name, value in (("admin-password", ADMIN), ("password", PASSWORD), ("admin-token", TOKEN)):
        (place / "auth" / name).write_text(value)
    job = next(one for one in objects if one["kind"] == "Job" and one["metadata"]["name"].startswith("series-setup"))
    environment = {one["name"]: one["value"] for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    done = subprocess.run(
        ["/bin/sh", str(place / "files" / "setup.sh")],
        env={
            **environment,
            "AUTH": f"{place}/auth",
            "SERVER": "127.0.0.1",
            "PORT": str(port),
            "PATH": os.environ["PATH"],
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )
    return Setup(done.returncode, done.stdout)


class Server:
    """What the StatefulSet's container does with version 1."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = data(compiled("1"), "series-config")["influxdb.conf"]
        for old, new in (
            ('":8086"', f'"127.0.0.1:{self.port}"'),
            ("127.0.0.1:8088", f"127.0.0.1:{free_port()}"),
            ("/var/lib/influxdb", f"{folder}/data"),
        ):
            assert old in text
            text = text.replace(old, new)
        (folder / "influxdb.conf").write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start it, and return once it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["influxd", "-config", str(self.folder / "influxdb.conf")], stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        """Whether its readiness probe would succeed."""
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                return bool(answer.status == 204)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> int:
        """End it as Kubernetes does; its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        status = self.process.wait(30)
        self.process = None
        return status

    def setup(self, **store: Any) -> Setup:
        """Run the setup of a store that the system's file describes so."""
        return run_setup(self.folder, self.port, compiled("1", **store))

    def ask(self, statement: str, user: str = "admin", password: str = ADMIN) -> str:
        """What the client shows, its errors included."""
        done = subprocess.run(
            ["influx", "-host", "127.0.0.1", "-port", str(self.port), "-format", "csv", "-execute", statement],
            env={
                "INFLUX_USERNAME": user,
                "INFLUX_PASSWORD": password,
                "HOME": str(self.folder),
                "PATH": os.environ["PATH"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout.strip()
