# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How work that takes long says what it is waiting for.

A module has no way to print before it ends. The callback ``groundwork.platform.progress`` therefore names a folder in
the environment variable ``GROUNDWORK_PROGRESS``; each process appends JSON lines to a file of its own there, and the
callback prints them as they come, with the elapsed time. Without the callback nothing is written.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

ENVIRONMENT_VARIABLE = "GROUNDWORK_PROGRESS"


class Progress:
    """Reports the state of one piece of long work, one line a change.

    :param subject: whose work it is: a system, a cluster, an image.
    """

    def __init__(self, subject: str) -> None:
        folder = os.environ.get(ENVIRONMENT_VARIABLE, "")
        self._file = Path(folder) / f"{os.getpid()}.jsonl" if folder and Path(folder).is_dir() else None
        self._subject = subject
        self._last = ""

    def update(self, text: str) -> None:
        """Say what is going on now, as one line; a text equal to the last one is left out."""
        if self._file is None or text == self._last:
            return
        self._last = text
        line = json.dumps({"time": time.time(), "pid": os.getpid(), "subject": self._subject, "text": text})
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            # A full disk or a removed folder must not fail the work that only wanted to talk about itself.
            self._file = None
