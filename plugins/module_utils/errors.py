# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of the collection raises when it has to say no."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(eq=False)
class Failure(Exception):
    """One failure: a sentence for a person, and the same as data for a program.

    No field may hold a secret: all of it is printed, and logged by whoever runs the play.

    :param code: what kind of failure, in snake_case and stable between releases, such as ``image_not_found``.
    :param object: what failed, as ``Kind namespace/name``, a file with its line, or a command.
    :param cause: why, as the predicate of a sentence whose subject is the object, without a full stop.
    :param evidence: what was seen: an event, a last log line, an answer of the API server.
    :param hint: what to do next, as a sentence in the imperative without a full stop.
    """

    code: str
    object: str
    cause: str
    evidence: str = ""
    hint: str = ""

    @property
    def sentence(self) -> str:
        """The failure as a person reads it: object, cause, evidence, and what to do."""
        text = f"{self.object} {self.cause}".strip()
        if self.evidence:
            text += f" ({self.evidence.strip()})"
        if self.hint:
            text += f": {self.hint.strip()}"
        return text.rstrip(".") + "."

    def as_dict(self) -> dict[str, str]:
        """The failure as a module returns it under ``failure``."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return self.sentence
