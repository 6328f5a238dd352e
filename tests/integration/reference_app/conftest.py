"""A PostgreSQL and a Redis of the tests' own on free loopback ports, and the application's real processes on them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.ports import free_port

APP = Path(__file__).resolve().parents[3] / "reference_app"
SOURCE = APP / "src"
if str(SOURCE) not in sys.path:
    sys.path.insert(0, str(SOURCE))

PASSWORDS = {"PGPASSWORD": "postgres-secret-7a1", "REDIS_PASSWORD": "redis-secret-9c3"}
T = TypeVar("T")


def missing() -> str:
    """What the tests lack on this machine; empty when nothing."""
    packages = [name for name in ("cv2", "fastapi", "sqlalchemy", "celery") if importlib.util.find_spec(name) is None]
    if packages:
        return f"{', '.join(packages)} not installed: pip install -r reference_app/requirements.lock"
    if not postgres_binaries():
        return "no PostgreSQL server on this machine: apt-get install postgresql"
    if not shutil.which("redis-server"):
        return "no redis-server on this machine: apt-get install redis-server"
    return ""


def postgres_binaries() -> Path | None:
    """The folder with initdb and postgres, of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    here = Path(__file__).parent
    for item in items:
        if reason and here in Path(item.path).parents:
            item.add_marker(pytest.mark.skip(reason=reason))


def eventually(what: str, check: Callable[[], T], timeout: float = 30, every: float = 0.1) -> T:
    """Ask until the answer is true."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            answer = check()
            if answer:
                return answer
            last = answer
        except (OSError, http.client.HTTPException, AssertionError, subprocess.CalledProcessError) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"{what} did not come true within {timeout:g} s; last: {last!r}")


class Service:
    """A process that can be stopped, killed and started again with its data."""

    def __init__(self, command: list[str], log: Path, user: str | None = None, **environment: str) -> None:
        self.command, self.log, self.user = command, log, user
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, cwd="/", user=self.user
            )

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 40) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(timeout)
        self.process = None
        return code


@dataclasses.dataclass
class Answer:
    """An HTTP answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Replica(Service):
    """One process of the application."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name, self.port = name, free_port()
        log = folder / f"{name}.log"
        super().__init__(
            [sys.executable, str(APP / "bin" / command[0]), *command[1:]],
            log,
            **environment,
            PORT=str(self.port),
            POD_NAME=name,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, timeout: float = 30, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        started = time.monotonic()
        with contextlib.closing(connection):
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            data = response.read()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, found, data, time.monotonic() - started)

    def detect(self, photo: bytes, kind: str = "image/jpeg", query: str = "") -> Answer:
        return self.ask("POST", f"/detections{query}", photo, Content_Type=kind)

    def ready(self) -> bool:
        return self.ask("GET", "/readyz", timeout=5).status == 200

    def up(self) -> Replica:
        self.start()
        eventually(f"{self.name} is ready", self.ready, timeout=60)
        return self

    def resident(self) -> float:
        """Resident memory in MiB."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


class Stores:
    """PostgreSQL and Redis."""

    def __init__(self, folder: Path) -> None:
        binaries = postgres_binaries()
        redis = shutil.which("redis-server")
        assert binaries
        assert redis
        # PostgreSQL refuses root.
        user = "nobody" if os.geteuid() == 0 else None
        self.data, self.binaries, self.user = folder / "postgres", binaries, user
        self.data.mkdir()
        if user:
            os.chown(self.data, pwd.getpwnam(user).pw_uid, -1)
        ports = {"PGPORT": str(free_port()), "REDIS_PORT": str(free_port())}
        self.environment = {
            "PGHOST": "127.0.0.1",
            "PGUSER": "app",
            "PGDATABASE": "app",
            "PGSSLMODE": "disable",
            "REDIS_HOST": "127.0.0.1",
            **PASSWORDS,
            **ports,
        }
        self._initialise()
        settings = {
            "port": ports["PGPORT"],
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        log = folder / "stores.log"
        log.touch()
        self.postgres = Service([str(binaries / "postgres"), "-D", str(self.data), *options], log, user)
        self.redis = Service(
            [
                *(redis, "--port", ports["REDIS_PORT"], "--bind", "127.0.0.1", "--save", ""),
                *("--requirepass", PASSWORDS["REDIS_PASSWORD"], "--dir", str(folder)),
            ],
            log,
        )
        self.start()
        self.sql("CREATE DATABASE app", database="postgres")

    def _initialise(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(PASSWORDS["PGPASSWORD"])
            file.flush()
            Path(file.name).chmod(0o644)
            subprocess.run(
                [self.binaries / "initdb", "-D", self.data, "-U", "app", "-A", "scram-sha-256", "--no-sync",
                 f"--pwfile={file.name}"],
                check=True, capture_output=True, user=self.user, cwd="/",
            )  # fmt: skip

    def start(self) -> None:
        self.postgres.start()
        self.redis.start()
        eventually("PostgreSQL answers", lambda: self.sql("SELECT 1", database="postgres"))

    def stop(self) -> None:
        self.postgres.stop(signal.SIGINT)
        self.redis.stop()

    def sql(self, statement: str, database: str = "app") -> str:
        done = subprocess.run(
            [self.binaries / "psql", "-XAtqc", statement, "-d", database],
            env={**os.environ, **self.environment}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip() or "done"

    def alembic(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(APP / "bin" / "alembic"), *arguments],
            cwd=APP, env={**os.environ, **self.environment, "PYTHONPATH": str(SOURCE), **environment},
            check=False, capture_output=True, text=True,
        )  # fmt: skip

    def prepare(self, domain: str) -> dict[str, str]:
        """Makes and migrates a database of the domain's own, whose owner is no superuser; returns its environment."""
        environment = {"DOMAIN_MODULE": domain, "PGDATABASE": domain, "PGUSER": domain}
        password = PASSWORDS["PGPASSWORD"]
        if domain not in self.sql("SELECT datname FROM pg_database", database="postgres").splitlines():
            self.sql(f"CREATE ROLE {domain} LOGIN PASSWORD '{password}'", database="postgres")
            self.sql(f"CREATE DATABASE {domain} OWNER {domain}", database="postgres")
        done = self.alembic("upgrade", "head", **environment)
        assert done.returncode == 0, done.stderr
        return {**self.environment, **environment}


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """Both stores, migrated. A test that stops one starts it again."""
    with tempfile.TemporaryDirectory(prefix="reference-app-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = Stores(folder)
        try:
            done = made.alembic("upgrade", "head")
            assert done.returncode == 0, done.stderr
            yield made
        finally:
            made.stop()


class Site:
    """Replicas by name on the common stores; `environment` says how the domain's are reached."""

    def __init__(self, stores: Stores, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.stores, self.folder = stores, folder
        self.environment = environment or stores.environment
        self.models = folder / "models"
        self.models.mkdir()
        self.replicas: dict[str, Replica] = {}

    def replica(self, name: str, *command: str, **environment: str) -> Replica:
        settings = {
            **self.environment,
            "PYTHONPATH": str(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "",
            "MODEL_PATH": str(self.models),
            "MODEL_INTERVAL": "0.2",
            "DRAIN_SECONDS": "1",
            **environment,
        }
        self.replicas[name] = Replica(name, list(command), self.folder, settings)
        return self.replicas[name].up()

    def kill(self) -> None:
        """Ends what still runs."""
        for replica in self.replicas.values():
            replica.stop(signal.SIGKILL)

    def logs(self) -> str:
        return "".join(replica.log.read_text() for replica in self.replicas.values())


@pytest.fixture(scope="module")
def site(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An application with two api and two websocket replicas, as on a cluster."""
    made = Site(stores, tmp_path_factory.mktemp("site"))
    try:
        for name in ("api-1", "api-2"):
            made.replica(name, "serve", "api")
        for name in ("ws-1", "ws-2"):
            made.replica(name, "serve", "websocket")
        yield made
    finally:
        made.kill()
