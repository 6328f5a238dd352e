"""Runs a command as a person does, in a terminal, and notes when each piece of output came."""

from __future__ import annotations

import dataclasses
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass
class Session:
    """What a command did in a terminal.

    :param code: its exit code, negative for a signal.
    :param text: everything that it printed.
    :param longest_silence: the longest time without output, in seconds, from its first output to its end: how long a
        program takes to start says more about the machine's load than about the program.
    :param before_silence: the last 300 characters printed before that silence.
    """

    code: int
    text: str
    longest_silence: float
    before_silence: str


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 1800, echo: bool = False
) -> Session:
    """Run a command in a pseudo-terminal of 120 columns until it ends.

    :param timeout: seconds after which its process group is killed and TimeoutError raised.
    :param echo: whether to print its output too, as it comes.
    """
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", **(env or {})},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    started = last = time.monotonic()
    chunks: list[bytes] = []
    longest, before = 0.0, ""
    try:
        while True:
            ready, _, _ = select.select([controller], [], [], 0.2)
            now = time.monotonic()
            if now - started > timeout:
                os.killpg(process.pid, signal.SIGKILL)
                raise TimeoutError(f"{command} did not end within {timeout:.0f} s: {b''.join(chunks)[-2000:]!r}")
            if chunks and now - last > longest:
                longest, before = now - last, b"".join(chunks)[-300:].decode("utf-8", "replace")
            if ready:
                try:
                    data = os.read(controller, 65536)
                except OSError:  # the other end was closed: the command has ended
                    data = b""
                if not data:
                    break
                last = now
                chunks.append(data)
                if echo:
                    print(data.decode("utf-8", "replace"), end="", flush=True)
            elif process.poll() is not None:
                break
        code = process.wait(timeout=30)
    finally:
        os.close(controller)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Session(code, b"".join(chunks).decode("utf-8", "replace"), longest, before)
