# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server says no to, in the words of the object, and without a secret."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

# How the API server's validation and its controllers' words for it begin; each kind has its own.
_IMMUTABLE = re.compile(
    r"immutable|may not be changed|may not change|cannot change|may not be unset|must be unset when"
    r"|updates to \S+ spec for fields other than|updates to parameters are forbidden"
    r"|updates to provisioner are forbidden|pod updates may not|field can not be (less|decreased)",
    re.IGNORECASE,
)
_QUOTED_VALUE = re.compile(r'(Invalid value|Unsupported value|Duplicate value|Value): ?("(\\.|[^"\\])*"|[^\s:;,})\]]+)')
_MANAGER = re.compile(r'conflicts? with "((?:\\.|[^"\\])*)"')
_SHORTEST = 4
"""Characters; a shorter value would mask parts of ordinary words, and is masked where a message quotes a value only."""


class Refusals:
    """Turns answers of the API server into Failures that quote no value of the batch's Secrets.

    :param objects: the batch.
    """

    def __init__(self, objects: Iterable[Object] = ()) -> None:
        self._secrets: set[str] = set()
        for obj in objects:
            if obj.get("kind") == "Secret":
                self._note(obj)

    def _note(self, secret: Object) -> None:
        for text in _texts([secret.get("data"), secret.get("stringData")]):
            forms = {text, *text.splitlines()}
            with contextlib.suppress(ValueError):
                decoded = base64.b64decode(text, validate=True).decode()
                forms |= {decoded, *decoded.splitlines()}
            forms |= {json.dumps(form)[1:-1] for form in forms}
            self._secrets |= {form.strip() for form in forms if len(form.strip()) >= _SHORTEST}

    def mask(self, text: str, secret: bool = False) -> str:
        """The text without values of Secrets.

        :param secret: whether it speaks of a Secret: then whatever it quotes as a value is masked, known or not.
        """
        if secret:
            text = _QUOTED_VALUE.sub(r"\1: *****", text)
        # Longest first: one value may be part of another. Only those that occur are sorted.
        for value in sorted((value for value in self._secrets if value in text), key=len, reverse=True):
            text = text.replace(value, "*****")
        return text

    def explained(self, error: ApiError, item: Item) -> Failure:
        """An API error in the words of this object."""
        if error.status == 409 and error.causes:
            return _conflict(error, item)
        text = short(self.mask(error.message, item.obj.get("kind") == "Secret"))
        if immutable(error):
            return self._immutable(error, item, text)
        code, cause, hint = _cause(error)
        if code == "schema":
            code, text = "invalid", text.partition("): ")[2] or text
        return Failure(code, item.name, cause, text, hint)

    def _immutable(self, error: ApiError, item: Item, text: str) -> Failure:
        fields = sorted({str(cause["field"]) for cause in error.causes if cause.get("field")})
        named = f": {', '.join(fields)}" if fields else ""
        return Failure(
            "immutable",
            item.name,
            f"changes what cannot be changed{named}",
            text,
            f"give it another name, delete it first, or let it be replaced with replace: [{item.obj['kind']}] "
            "where losing it for a moment is acceptable",
        )


def _texts(value: Any) -> Iterator[str]:
    """All values in something that should be a flat mapping, and may be wrong."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)


def _cause(error: ApiError) -> tuple[str, str, str]:
    """Code, cause and hint."""
    if error.status == 403 and any("NamespaceTerminating" in str(cause.get("reason")) for cause in error.causes):
        return (
            "terminating",
            "cannot be applied: its Namespace is being deleted",
            "wait until it is gone and run again",
        )
    if error.webhook_unavailable:
        return (
            "webhook_unavailable",
            "cannot be checked: its admission webhook does not answer",
            "see whether the workload behind the webhook runs",
        )
    if "failed to create typed patch object" in error.message:
        return "schema", "does not fit its schema", "correct the object"
    denied = "denied the request" in error.message or "violates PodSecurity" in error.message
    if denied or (error.status == 403 and "is forbidden: User" not in error.message):
        return "denied", "is refused by admission", "correct the object"
    return error.code, error.cause, error.hint


def immutable(error: ApiError) -> bool:
    """Whether the server refuses to change a field that cannot be changed."""
    return error.status in (400, 422) and bool(_IMMUTABLE.search(error.message))


def conflicting(error: ApiError) -> dict[str, list[str]]:
    """Of a conflict: manager -> the fields that it owns with another value."""
    owned: dict[str, list[str]] = {}
    for cause in error.causes:
        message = str(cause.get("message", ""))
        found = _MANAGER.search(message)
        owned.setdefault(found.group(1) if found else message, []).append(str(cause.get("field", "?")))
    return owned


def _conflict(error: ApiError, item: Item) -> Failure:
    owned = conflicting(error)
    text = "; ".join(f"{manager} owns {', '.join(sorted(names))}" for manager, names in sorted(owned.items()))
    managers = ", ".join(sorted(owned))
    return Failure(
        "conflict",
        item.name,
        "has fields that another manager owns with another value",
        short(text),
        f"leave these fields out, or take them over with take_over: [{managers}] or force_conflicts",
    )


def joined(failures: list[Failure]) -> Failure:
    """One failure for several: the first, and what the others say."""
    first, *others = failures
    if not others:
        return first
    more = "; ".join(f"{failure.object} {failure.cause}" for failure in others[:5])
    more += f"; and {len(others) - 5} more" if len(others) > 5 else ""
    evidence = f"{first.evidence}; also: {more}" if first.evidence else f"also: {more}"
    return Failure(first.code, first.object, first.cause, evidence, first.hint)


def still_there(name: str, live: Mapping[str, Any]) -> Failure:
    """What is being deleted for too long."""
    finalizers = ", ".join(live["metadata"].get("finalizers") or []) or "none"
    return Failure(
        "timeout",
        name,
        "is still being deleted",
        f"its finalizers are {finalizers}",
        "see whether the controllers that own them run",
    )


def short(text: str, limit: int = 600) -> str:
    """A text cut where it gets too long to read."""
    return text if len(text) <= limit else text[:limit] + " ..."
