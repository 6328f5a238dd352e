# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a system file, as data and as a line that a person can act on."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something was written.

    :param line: counted from 1; None for what was not read from a file.
    """

    file: str
    line: int | None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, with all that is needed to put it right.

    :param path: keys from the root, such as ``components.api.replicas.min``; empty for the file itself.
    :param found: what stands there.
    :param expected: what should, as a noun phrase.
    :param nearest: the known name that was probably meant, or nothing.
    """

    place: Place
    path: str
    found: str
    expected: str
    nearest: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: {self.path}" if self.path else str(self.place)
        guess = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{where}: found {self.found}, expected {self.expected}{guess}"

    def as_dict(self) -> dict[str, str | int | None]:
        """The problem as a module returns it under ``failure.errors``."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "path": self.path,
            "found": self.found,
            "expected": self.expected,
            "nearest": self.nearest,
        }


class SystemInvalid(Failure):
    """All that is wrong with a system, found before anything was changed.

    :param subject: the system and environment, as the failure's object.
    """

    def __init__(self, subject: str, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda item: (item.place.file, item.place.line or 0, item.path))
        count = len(self.problems)
        super().__init__(
            code="system_invalid",
            object=subject,
            cause="has one mistake" if count == 1 else f"has {count} mistakes",
            evidence="; ".join(str(problem) for problem in self.problems),
            hint="correct the system file; nothing was changed",
        )

    @property
    def sentence(self) -> str:
        """The failure over several lines, one for each problem: in one line, a dozen would be unreadable."""
        lines = [f"{self.object} {self.cause}; nothing was changed."]
        return "\n".join([*lines, *(f"  {problem}" for problem in self.problems)])

    def as_dict(self) -> dict[str, object]:  # type: ignore[override]
        """The failure with ``errors``, one entry for each problem."""
        return {
            "code": self.code,
            "object": self.object,
            "cause": self.cause,
            "evidence": self.evidence,
            "hint": self.hint,
            "errors": [problem.as_dict() for problem in self.problems],
        }


def join(path: str, key: str) -> str:
    """The path of a key below path."""
    return f"{path}.{key}" if path else key


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one most likely means, or an empty string."""
    candidates = [candidate for candidate in known if candidate != name]
    lowered = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    normal = name.lower().replace("-", "_")
    if normal in lowered:
        return lowered[normal]
    swapped = [candidate for candidate in lowered if sorted(candidate) == sorted(normal)]
    found = swapped or difflib.get_close_matches(normal, lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else ""


def listing(names: Iterable[str]) -> str:
    """Names as a person lists them: ``a, b or c``."""
    items = [str(name) for name in names]
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " or " + items[-1]
