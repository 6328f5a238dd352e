# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module and shows what it says while it works, on a terminal and in AWX, without any callback.

A module has no way to print before it ends: it appends lines to a file (module_utils.progress). A thread of the worker
that runs the task reads them and hands them to Ansible's own display, which prints them in the main process and, under
ansible-runner, makes an event of each. Where the callback groundwork.platform.progress prints live already, and where
nobody watches, the module runs as if this plugin were not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.groundwork.platform.plugins.module_utils.progress import ENVIRONMENT_VARIABLE
from ansible_collections.groundwork.platform.plugins.plugin_utils.journal import Journal, clock

# Asked for where Ansible loads this, in its main process: a worker has no terminal of its own.
TERMINAL = sys.stdout.isatty()
WIDTH = shutil.get_terminal_size().columns if TERMINAL else 0
POLL = 0.25
HEARTBEAT = 4.0


class LiveAction(ActionBase):  # type: ignore[misc] # ansible-core carries no types
    """Runs the module of the same name; its lines appear as they come, with a heartbeat between them."""

    _supports_async = True
    """Refused here, with what to do instead."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module."""
        if self._task.async_val:
            raise AnsibleActionFail(
                f"{self._task.action} cannot run with async: it waits with an early verdict and a deadline of its own. "
                "Remove async and poll, and set its timeout instead"
            )
        result = super().run(tmp, task_vars)
        with self._shown():
            result.update(self._execute_module(task_vars=task_vars))
        return result

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Show the module's lines for as long as it works."""
        if not self._watched(os.environ):
            yield
            return
        before = os.environ.get(ENVIRONMENT_VARIABLE)
        folder = Path(tempfile.mkdtemp(prefix="groundwork-progress-"))
        # Of this worker only, which runs this task only. A module on this machine inherits it.
        os.environ[ENVIRONMENT_VARIABLE] = str(folder)
        screen = Screen(Journal(folder), self._display.display, WIDTH, heartbeat(os.environ))
        try:
            with screen:
                yield
        finally:
            if before is None:
                os.environ.pop(ENVIRONMENT_VARIABLE, None)
            else:
                os.environ[ENVIRONMENT_VARIABLE] = before
            shutil.rmtree(folder, ignore_errors=True)

    def _watched(self, environment: Mapping[str, str]) -> bool:
        """Whether anybody sees the lines, and nobody else shows them."""
        if self._task.no_log or getattr(self._connection, "transport", "") != "local":
            return False
        runner = "AWX_ISOLATED_DATA_DIR" in environment
        callback = ENVIRONMENT_VARIABLE in environment and not runner
        return (TERMINAL or runner) and not callback


def heartbeat(environment: Mapping[str, str]) -> float:
    """Seconds after which a line appears although nothing has changed."""
    with contextlib.suppress(ValueError):
        return max(float(environment.get("GROUNDWORK_HEARTBEAT") or HEARTBEAT), POLL)
    return HEARTBEAT


class Screen:
    """Prints the lines of a journal from a thread, and a heartbeat where there are none.

    :param display: prints one line; safe to call from a thread.
    :param width: columns to cut lines to; 0 for none.
    :param beat: seconds without a line after which to say that it still goes on.
    """

    def __init__(self, journal: Journal, display: Any, width: int, beat: float) -> None:
        self._journal, self._display, self._width, self._beat = journal, display, width, beat
        self._started = self._last = time.monotonic()
        self._latest = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="groundwork-progress", daemon=True)

    def __enter__(self) -> Screen:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._done.set()
        self._thread.join(timeout=2)
        self._report()

    def _watch(self) -> None:
        while not self._done.wait(POLL):
            self._report()
            now = time.monotonic()
            if now - self._last >= self._beat:
                self._line(f"still at it: {self._latest}" if self._latest else "at work")

    def _report(self) -> None:
        for entry in self._journal.read():
            self._latest = f"{entry.get('subject', '')}: {entry.get('text', '')}"
            self._line(self._latest)

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        line = f"  {clock(self._last - self._started)}  {text}"
        if self._width and len(line) > self._width:
            line = line[: self._width - 3] + "..."
        self._display(line)
