# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the host's programs. Everything goes through one small interface, so that tests answer from recordings."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure


@dataclasses.dataclass(frozen=True)
class Completed:
    """What a command left behind; ``code`` is 127 when there is no such program, 124 when it ran out of time."""

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return self.code == 0


class Runner(Protocol):
    """How a command is run."""

    def __call__(
        self,
        command: Sequence[str],
        *,
        timeout: float = 60.0,
        stdin: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command to its end. No exception for a failing command: see :class:`Completed`.

        :param timeout: seconds after which it is killed.
        :param stdin: a file to read from; nothing by default.
        :param environment: variables added to the current ones.
        """


def run(
    command: Sequence[str],
    *,
    timeout: float = 60.0,
    stdin: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """The :class:`Runner` that really runs commands."""
    # Debian keeps `ip` and friends in sbin, which a plain user's PATH lacks even after su.
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    variables = {**os.environ, "LC_ALL": "C", **(environment or {}), "PATH": path}
    try:
        with Path(stdin or os.devnull).open("rb") as source:
            done = subprocess.run(
                list(command), stdin=source, capture_output=True, timeout=timeout, env=variables, check=False
            )
    except FileNotFoundError:
        return Completed(127, "", f"{command[0]}: not found")
    except subprocess.TimeoutExpired:
        return Completed(124, "", f"no answer within {timeout:g} s")
    return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def check(runner: Runner, command: Sequence[str], *, timeout: float = 60.0, stdin: Path | None = None) -> str:
    """Run a command that has to succeed and return its standard output.

    :raises Failure: ``command_failed``, with the last line that the command printed.
    """
    done = runner(command, timeout=timeout, stdin=stdin)
    if not done.ok:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.code}").splitlines()
        raise Failure("command_failed", f"Command '{shlex.join(command)}'", "failed", lines[-1])
    return done.stdout
