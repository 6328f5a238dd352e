# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users' own rules of readiness, and other questions to JSON, as JMESPath expressions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import (
    READY,
    Readiness,
    Rule,
    failed,
    progressing,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import Kind, View

try:
    import jmespath
except ImportError:  # pragma: no cover - said as a Failure when an expression is given
    jmespath = None


class Expression:
    """One compiled JMESPath expression.

    :param text: the expression.
    :param where: what it is part of, as messages name it.
    :raises Failure: ``bad_expression``, or ``missing_library``.
    """

    def __init__(self, text: str, where: str) -> None:
        if jmespath is None:
            hint = "install it where the module runs: pip install jmespath"
            raise Failure("missing_library", "The Python package jmespath", "is not installed", hint=hint)
        self.text, self.where = text, where
        try:
            self._compiled = jmespath.compile(text)
        except jmespath.exceptions.JMESPathError as error:
            reason = " ".join(str(error).splitlines()[0].split())
            hint = "correct it; JMESPath quotes literal strings with '...'"
            raise Failure("bad_expression", where, f'is no JMESPath expression: "{text}"', reason, hint) from None

    def value(self, document: Any) -> Any:
        """What the expression finds.

        :raises Failure: ``bad_expression``: it cannot be evaluated on this document, such as the length of nothing.
        """
        try:
            return self._compiled.search(document)
        except jmespath.exceptions.JMESPathError as error:
            reason = " ".join(str(error).split())
            raise Failure("bad_expression", self.where, "cannot be evaluated", reason) from None

    def holds(self, document: Any) -> bool:
        """Whether what it finds counts as true: not null, false, or empty."""
        found = self.value(document)
        return found not in (None, False, "") and found != [] and found != {}


def user_rules(given: list[Mapping[str, Any]]) -> dict[Kind, Rule]:
    """Rules of readiness from the option ``readiness_rules``.

    :param given: mappings with ``group`` (empty for the core group), ``kind``, ``ready``, and optionally ``failed``
        and ``reason``, all three expressions on the whole object.
    :raises Failure: one of them is not valid, or a kind has two.
    """
    rules: dict[Kind, Rule] = {}
    for entry in given:
        kind = (str(entry.get("group") or ""), str(entry["kind"]))
        where = f"The readiness rule for {'.'.join(part for part in (kind[1], kind[0]) if part)}"
        if kind in rules:
            raise Failure("bad_expression", where, "is given twice", hint="keep one of them")
        rules[kind] = _rule(where, *(entry.get(name) for name in ("ready", "failed", "reason")))
    return rules


def _rule(where: str, ready: str | None, failure: str | None, message: str | None) -> Rule:
    if not ready:
        raise Failure("bad_expression", where, "says not when it is ready", hint="give its expression ready")
    is_ready = Expression(ready, f"{where} (ready)")
    has_failed = Expression(failure, f"{where} (failed)") if failure else None
    says = Expression(message, f"{where} (reason)") if message else None

    def rule(obj: Object, view: View) -> Readiness:
        try:
            if has_failed is not None and has_failed.holds(obj):
                return failed("resource_failed", "has failed by the rule for its kind" + _said(says, obj))
            if is_ready.holds(obj):
                return READY
            return progressing("is not ready by the rule for its kind" + _said(says, obj))
        except Failure as error:
            # Much of an object is absent while it is young.
            return progressing(f"cannot be judged yet by the rule for its kind: {error.evidence}")

    return rule


def _said(message: Expression | None, obj: Object) -> str:
    found = message.value(obj) if message is not None else None
    return f": {found}" if found not in (None, "") else ""
