# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live progress of long tasks: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: notification
short_description: Say what long tasks are waiting for, while they wait
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Prints one line for each change that a module of this collection reports while it works, with the time since the
    playbook started, and a heartbeat when nothing changes, so that a terminal is never silent.
  - At the end it prints the lines of the custom statistic C(groundwork_summary), which the playbooks of this collection
    set to what runs where and how to reach it.
  - Modules report through the folder named by the environment variable E(GROUNDWORK_PROGRESS), which this callback
    sets.
  - Where standard output is no terminal there are changes but no heartbeats more often than every 60 seconds. Under
    ansible-runner, and so in AWX, lines are printed when a task ends, as a runner owns the terminal meanwhile; those
    of C(apply), C(health_gate) and C(migration) appear live there too, by action plugins of their own.
options:
  heartbeat:
    description: After how many seconds without a line to say what is still going on, on a terminal.
    type: float
    default: 4.0
    env:
      - name: GROUNDWORK_HEARTBEAT
    ini:
      - section: groundwork
        key: heartbeat
requirements:
  - enable it with C(callbacks_enabled = groundwork.platform.progress) in the C([defaults]) section of ansible.cfg
"""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.groundwork.platform.plugins.module_utils.progress import ENVIRONMENT_VARIABLE
from ansible_collections.groundwork.platform.plugins.plugin_utils.journal import Journal, clock

# How often the folder is looked at, in seconds; and the heartbeat where no person is watching.
POLL = 0.25
LOG_HEARTBEAT = 60.0


class CallbackModule(CallbackBase):
    """Prints progress beside whatever stdout callback is in use."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "groundwork.platform.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._started = self._last_line = time.monotonic()
        self._running: dict[tuple[str, str], tuple[str, float]] = {}
        self._latest = ""
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None
        self._journal: Journal | None = None
        self._heartbeat = 4.0
        self._live = False
        self._width = 0

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="groundwork-progress-"))
        self._journal = Journal(self._folder)
        os.environ[ENVIRONMENT_VARIABLE] = str(self._folder)
        terminal = sys.stdout.isatty()
        # One line a change on a terminal: the whole of it stands in logs, and in the failure if there is one.
        self._width = shutil.get_terminal_size().columns if terminal else 0
        self._heartbeat = float(self.get_option("heartbeat")) if terminal else LOG_HEARTBEAT
        # A runner interleaves its own records with the output, and a line between them would tear one apart.
        self._live = "AWX_ISOLATED_DATA_DIR" not in os.environ
        if self._live:
            self._thread = threading.Thread(target=self._watch, name="groundwork-progress", daemon=True)
            self._thread.start()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._running[(host.get_name(), task._uuid)] = (task.get_name(), time.monotonic())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._ended(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        self._report()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        os.environ.pop(ENVIRONMENT_VARIABLE, None)
        custom = getattr(stats, "custom", {}).get("_run", {})
        for line in custom.get("groundwork_summary", []):
            self._display.display(str(line))

    def _ended(self, result: Any) -> None:
        self._running.pop((result.host.get_name(), result.task._uuid), None)
        if not self._live:
            self._report()

    def _watch(self) -> None:
        """The thread: no display locks and no imports in here, as Ansible forks its workers at any moment."""
        while not self._done.wait(POLL):
            self._report()
            if time.monotonic() - self._last_line >= self._heartbeat:
                self._beat()

    def _report(self) -> None:
        if self._journal is None:
            return
        for entry in self._journal.read():
            self._latest = f"{entry.get('subject', '')}: {entry.get('text', '')}"
            self._line(self._latest)

    def _beat(self) -> None:
        running = list(self._running.items())
        if not running:
            self._line("Ansible is preparing the next task")
            return
        now = time.monotonic()
        (host, _uuid), (name, since) = min(running, key=lambda item: item[1][1])
        others = f" and {len(running) - 1} more" if len(running) > 1 else ""
        latest = f"; last: {self._latest}" if self._latest else ""
        self._line(f"{host}: still in {name} for {int(now - since)} s{others}{latest}")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        line = f"  {clock(self._last_line - self._started)}  {text}"
        if self._width and len(line) > self._width:
            line = line[: self._width - 3] + "..."
        line += "\n"
        if self._live:
            # Straight to the descriptor: a lock of sys.stdout held by this thread while Ansible forks hangs a worker.
            with contextlib.suppress(OSError):
                os.write(1, line.encode("utf-8", "replace"))
        else:
            self._display.display(line.rstrip("\n"))
