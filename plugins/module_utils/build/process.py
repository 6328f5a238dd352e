# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that a build runs: watched line by line, stopped together, and gone when we are."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

#: Prepended to every program: the kernel kills it when the thread that waits for it is gone, however that went.
BOUND_TO_US = ("setpriv", "--pdeathsig", "KILL", "--")
#: Prepended to programs that mount: in a mount and a process namespace of their own, nothing they mounted or started
#: outlives them, whatever killed them.
ISOLATED = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--")

_KEPT_LINES = 60
_NO_SPACE = re.compile(
    r"no space left on device|enough free space|ENOSPC|disk quota exceeded|write error.*No space", re.IGNORECASE
)
_NO_NETWORK = re.compile(
    r"could not resolve|temporary failure (in name )?resol|no such host|name or service not known|dial tcp"
    r"|network is unreachable|no route to host|connection refused|connection timed out|i/o timeout"
    r"|TLS handshake timeout|could not connect|unable to connect|failed to establish a new connection|proxyconnect",
    re.IGNORECASE,
)

Watcher = Callable[[str], None]


class Occasionally:
    """Passes a text on at most every so often: a terminal gains nothing from a line for each of a thousand packages.

    :param every: seconds between two texts; the first is passed on at once.
    """

    def __init__(self, say: Watcher, every: float = 2.0) -> None:
        self._say, self._every, self._next = say, every, 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            self._say(text)


class Runner:
    """Runs programs for one build; :meth:`stop` ends all that are running, so that no thread waits for a lost cause."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """End the running programs and let no further one start."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def pause(self, seconds: float) -> None:
        """Wait a little for another part of the build.

        :raises Failure: ``interrupted`` once the build is stopped.
        """
        time.sleep(seconds)
        if self._stopped:
            raise Failure("interrupted", "build", "was stopped because another part of it failed")

    def run(
        self,
        what: str,
        command: Sequence[str],
        *,
        isolated: bool = False,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        watch: Watcher | None = None,
        cause: Callable[[Sequence[str]], str] | None = None,
    ) -> list[str]:
        """Run a program to its end and return the last lines it printed.

        :param what: the object of a failure's sentence.
        :param env: added to our own environment.
        :param watch: sees each line of output as it comes.
        :param cause: picks the telling line out of the last ones when the program fails.
        :raises Failure: ``no_space``, ``no_network``, ``missing_program``, ``interrupted`` or ``build_failed``.
        """
        full = [*BOUND_TO_US, *(ISOLATED if isolated else ()), *command]
        lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        with self._start(what, full, cwd, {**os.environ, **(env or {})}) as process:
            for line in _talk(process, stdin):
                lines.append(line)
                if watch:
                    watch(line)
            status = process.wait()
        if status:
            raise self._failure(what, list(lines), status, cause)
        return list(lines)

    @contextlib.contextmanager
    def _start(
        self, what: str, command: Sequence[str], cwd: Path | None, env: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            if self._stopped:
                raise Failure("interrupted", what, "was not started because another part of the build failed")
            try:
                process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                hint = "Install it (the package is util-linux)"
                raise Failure(
                    "missing_program", what, f"needs {error.filename}, which is not here", hint=hint
                ) from error
            self._running.add(process)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            with self._lock:
                self._running.discard(process)

    def _failure(
        self, what: str, lines: list[str], status: int, cause: Callable[[Sequence[str]], str] | None
    ) -> Failure:
        if self._stopped:
            return Failure("interrupted", what, "was stopped because another part of the build failed")
        for line in lines:
            if _NO_SPACE.search(line):
                return no_space(what, line)
        network = next((line for line in lines if _NO_NETWORK.search(line)), "")
        if network:
            hint = (
                "Check the network, the proxy settings and the package sources, and run it again; what is done is kept"
            )
            return Failure("no_network", what, "could not download what it needs", _short(network), hint)
        evidence = cause(lines) if cause else ""
        evidence = evidence or next((line for line in reversed(lines) if line.strip()), f"exit status {status}")
        return Failure("build_failed", what, "could not be built", _short(evidence))


def no_space(what: str, evidence: str) -> Failure:
    """The failure of a full disk."""
    return Failure(
        "no_space", what, "ran out of disk space", _short(evidence), "Free some and run it again; what is done is kept"
    )


def _talk(process: subprocess.Popen[str], stdin: str) -> Iterator[str]:
    """Give the program its input and yield the lines of its output."""
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(stdin)
            process.stdin.close()
    for line in process.stdout or ():
        yield line.rstrip("\r\n")


def _short(line: str) -> str:
    text = " ".join(line.split())
    return text if len(text) <= 300 else text[:297] + "..."
