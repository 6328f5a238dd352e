"""A PostgreSQL server of the tests' own, in a temporary folder, without Kubernetes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

VARIABLE = "GROUNDWORK_POSTGRES"
PASSWORD = "a-password-that-nobody-may-see"


def find_programs() -> Path | None:
    """The folder with PostgreSQL's programs: the one that is named, else the newest of Debian's."""
    named = os.environ.get(VARIABLE)
    folders = [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def unprivileged() -> list[str]:
    """What lets a command run as a user that PostgreSQL does not refuse."""
    if os.getuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


class Server:
    """One server, with a user ``app`` that owns the database ``shop``, as CloudNativePG makes them.

    :param folder: its own; the user that runs it can write there.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.port = programs, folder, free_port()
        self.path = f"{programs}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        if os.getuid() == 0:
            shutil.chown(folder, "nobody")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        self._as_user("initdb", "-D", str(folder / "data"), "-U", "postgres", "-N", "-E", "UTF8", "--locale=C.UTF-8",
                      "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")  # fmt: skip
        self.start()
        self.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'", "CREATE DATABASE shop OWNER app", as_user="postgres",
                 database="postgres")  # fmt: skip

    def _as_user(self, program: str, *arguments: str) -> None:
        command = [*unprivileged(), str(self.programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              cwd="/", env={"PATH": self.path, "LC_ALL": "C"})  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -k {self.folder} -c max_connections=40"
        )
        self._as_user("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"),
                      "-o", f"{options} -c max_prepared_transactions=4", "start")  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        self._as_user("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", mode, "stop")

    def environment(self, user: str = "app", database: str = "shop", **more: str) -> dict[str, str]:
        """What a pod's containers have."""
        return {
            "PATH": self.path, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": user, "PGPASSWORD": PASSWORD,
            "PGDATABASE": database, "PGSSLMODE": "prefer", "LC_ALL": "C.UTF-8", **more,
        }  # fmt: skip

    def sql(self, *statements: str, as_user: str = "app", database: str = "shop") -> str:
        """Run statements, each by itself, and return what they print."""
        command = ["psql", "-XAtqw", "-v", "ON_ERROR_STOP=1"]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env=self.environment(as_user, database))  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def session(self, *statements: str, application: str = "someone", user: str = "app") -> Iterator[Session]:
        """A session that stays after its statements."""
        process = subprocess.Popen(["psql", "-XAtqw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True,
                                   env=self.environment(user, PGAPPNAME=application))  # fmt: skip
        session = Session(process)
        try:
            for statement in statements:
                session.ask(statement)
            yield session
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


class Session:
    """One psql that goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, statement: str) -> str:
        """Run a statement; returns what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement};\n\\echo session-end\n")
        self._process.stdin.flush()
        lines: list[str] = []
        while (line := self._process.stdout.readline()) and line.strip() != "session-end":
            lines.append(line.rstrip("\n"))
        return "\n".join(lines)


class Script:
    """A script of the migration's pods, running.

    :param folder: what its containers share.
    """

    def __init__(self, script: str, folder: Path, environment: dict[str, str], arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self._log = folder / "script.log"
        env = {**environment, "GROUNDWORK_FOLDER": str(folder), "GROUNDWORK_LAST_WORDS": str(folder / "last-words")}
        prefix = unprivileged()
        if prefix:
            shutil.chown(folder, "nobody")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*prefix, "sh", "-c", script, "groundwork", *arguments], env=env, cwd="/",
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip

    @property
    def log(self) -> str:
        """All that it printed."""
        return self._log.read_text()

    def wait(self, timeout: float = 120) -> int:
        """Until it has ended; returns its exit status."""
        return self.process.wait(timeout)

    def until(self, word: str, timeout: float = 60) -> str:
        """Wait for a line that begins with a word, and return the rest of it."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.log.splitlines():
                if line.startswith(word):
                    return line.removeprefix(word)
            assert time.monotonic() < deadline, f"no line {word!r} in:\n{self.log}"
            time.sleep(0.05)

    def stop(self) -> None:
        """As the kubelet does."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running() -> Iterator[Server]:
    """A server in a temporary folder, gone afterwards."""
    programs = find_programs()
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="groundwork-pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = Server(programs, folder)
        try:
            yield server
        finally:
            server.stop()
