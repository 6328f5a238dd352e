# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other end of :mod:`module_utils.progress`: reads what modules say while they work."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any


def clock(seconds: float) -> str:
    """Render a duration as minutes and seconds: ``03:07``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


class Journal:
    """Reads what modules append to the progress folder, each line once, in the order of time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def read(self) -> list[dict[str, Any]]:
        """Return the entries that are new since the last call; a line still being written waits for the next."""
        entries: list[dict[str, Any]] = []
        try:
            files = sorted(self._folder.glob("*.jsonl"))
        except OSError:
            return entries
        for file in files:
            try:
                with file.open("rb") as stream:
                    stream.seek(self._offsets.get(file, 0))
                    data = stream.read()
            except OSError:
                continue
            end = data.rfind(b"\n") + 1
            self._offsets[file] = self._offsets.get(file, 0) + end
            for line in data[:end].splitlines():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        entries.append(entry)
        return sorted(entries, key=lambda entry: float(entry.get("time", 0)))
