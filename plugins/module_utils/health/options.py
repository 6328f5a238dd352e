# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gate can be told: one set of options for every module that gates, with the doc fragment ``gate``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.checks import (
    Check,
    Condition,
    HttpCheck,
    MetricCheck,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.endpoint import Endpoint
from ansible_collections.groundwork.platform.plugins.module_utils.health.expressions import Expression, user_rules
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import Rules


@dataclasses.dataclass(frozen=True)
class Options:
    """How a gate judges. The defaults are those of the modules.

    :param timeout: seconds for all of it.
    :param stable_for: seconds for which everything has to stay ready, without a restart.
    :param no_progress_timeout: seconds for which nothing may come nearer to ready than it has been; 0 for no limit.
    :param policy: how patient to be with each kind of trouble, the error budget included.
    :param rules: when an object is ready.
    :param checks: metrics and HTTP answers that have to be good too.
    """

    timeout: float = 300.0
    stable_for: float = 0.0
    no_progress_timeout: float = 0.0
    policy: Policy = dataclasses.field(default_factory=Policy)
    rules: Rules = dataclasses.field(default_factory=Rules)
    checks: tuple[Check, ...] = ()

    @classmethod
    def from_params(cls, params: Mapping[str, Any], timeout: float, namespace: str | None = None) -> Options:
        """From the parameters of a module that has :func:`gate_argument_spec`; what is absent has its default.

        :param timeout: seconds for all of it: each module has an option of its own for that.
        :param namespace: of Services that are named without one.
        :raises Failure: one of them is not valid; nothing has been asked of the cluster then.
        """
        budget = params.get("error_budget") or {}
        # A module's parameters hold None for what is absent of a mapping.
        policy = Policy(
            max_restarts=_number(budget.get("restarts"), 3),
            failed_pods=_number(budget.get("failed_pods"), 0),
            unprobed=_seconds("The gate", params, "unprobed_for", Policy.unprobed),
        )
        stable_for, no_progress = params.get("stable_for") or 0.0, params.get("no_progress_timeout") or 0.0
        for name, value in (
            ("timeout", timeout), ("stable_for", stable_for), ("no_progress_timeout", no_progress),
            ("error_budget.restarts", policy.max_restarts), ("error_budget.failed_pods", policy.failed_pods),
        ):  # fmt: skip
            if value < 0:
                raise Failure("bad_option", f"Option {name}", f"is {value:g}", hint="give 0 or more")
        if stable_for and stable_for >= timeout:
            evidence = f"{stable_for:g} s of {timeout:g} s"
            hint = "raise the timeout"
            raise Failure("bad_option", "Option stable_for", "leaves no time to get ready", evidence, hint)
        metrics = [_metric(entry, namespace) for entry in params.get("metric_gates") or []]
        answers = [_http(entry, namespace) for entry in params.get("http_gates") or []]
        checks: tuple[Check, ...] = (*metrics, *answers)
        titles = [check.title for check in checks]
        for title in titles:
            if titles.count(title) > 1:
                raise Failure("bad_option", title, "is there twice", hint="give each a name of its own")
        rules = Rules(user_rules(params.get("readiness_rules") or []))
        return cls(float(timeout), float(stable_for), float(no_progress), policy, rules, checks)


def _number(value: Any, default: int) -> int:
    return default if value is None else int(value)


def _metric(entry: Mapping[str, Any], namespace: str | None) -> MetricCheck:
    where = f"Metric gate {entry['name']}"
    condition, baseline = Condition.parse(str(entry["condition"]), where), entry.get("baseline")
    if condition.uses_baseline and not baseline:
        hint = "say how many seconds before the gate the baseline is, such as baseline: 300"
        raise Failure("bad_condition", where, "compares with a baseline and has none", hint=hint)
    return MetricCheck(
        **_common(where, entry, namespace, 5.0),
        hold=_seconds(where, entry, "for", 0.0),
        no_data=str(entry.get("no_data") or "wait"),
        query=" ".join(str(entry["query"]).split()),
        condition=condition,
        baseline=float(baseline) if baseline else None,
    )


def _http(entry: Mapping[str, Any], namespace: str | None) -> HttpCheck:
    where = f"HTTP gate {entry['name']}"
    path, body = str(entry.get("path") or "/"), entry.get("body")
    if not path.startswith("/"):
        raise Failure("bad_option", where, f'has the path "{path}"', hint="begin it with a slash")
    return HttpCheck(
        **_common(where, entry, namespace, 2.0),
        successes=max(_number(entry.get("successes"), 1), 1),
        path=path,
        status=tuple(int(code) for code in entry.get("status") or (200,)),
        body=Expression(str(body), f"{where} (body)") if body else None,
    )


def _common(where: str, entry: Mapping[str, Any], namespace: str | None, interval: float) -> dict[str, Any]:
    return {
        "name": str(entry["name"]),
        "endpoint": Endpoint.from_params(where, entry, namespace),
        "interval": max(_seconds(where, entry, "interval", interval), 0.2),
        "grace": _seconds(where, entry, "grace", 60.0),
    }


def _seconds(where: str, entry: Mapping[str, Any], name: str, default: float) -> float:
    value = entry.get(name)
    value = default if value is None else float(value)
    if value < 0:
        raise Failure("bad_option", where, f"has {name} {value:g}", hint="give 0 or more seconds")
    return value


def gate_argument_spec() -> dict[str, Any]:
    """The options of a gate, as the doc fragment ``groundwork.platform.gate`` documents them."""
    where = {
        "url": {"type": "str"},
        "service": {
            "type": "dict",
            "options": {
                "namespace": {"type": "str"},
                "name": {"type": "str", "required": True},
                "port": {"type": "str", "required": True},
                "scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
            },
        },
        "headers": {"type": "dict", "no_log": True},
        "validate_certs": {"type": "bool", "default": True},
        "request_timeout": {"type": "float", "default": 5},
        "grace": {"type": "float", "default": 60},
    }
    one_place = {"mutually_exclusive": [["url", "service"]], "required_one_of": [["url", "service"]]}
    return {
        "stable_for": {"type": "float", "default": 0},
        "unprobed_for": {"type": "float", "default": 10},
        "no_progress_timeout": {"type": "float", "default": 0},
        "error_budget": {
            "type": "dict",
            "options": {
                "restarts": {"type": "int", "default": 3},
                "failed_pods": {"type": "int", "default": 0},
            },
        },
        "readiness_rules": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "group": {"type": "str", "default": ""},
                "kind": {"type": "str", "required": True},
                "ready": {"type": "str", "required": True},
                "failed": {"type": "str"},
                "reason": {"type": "str"},
            },
        },
        "metric_gates": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "query": {"type": "str", "required": True},
                "condition": {"type": "str", "required": True},
                "for": {"type": "float", "default": 0},
                "interval": {"type": "float", "default": 5},
                "no_data": {"type": "str", "choices": ["wait", "fail", "pass"], "default": "wait"},
                "baseline": {"type": "float"},
                **where,
            },
            **one_place,
        },
        "http_gates": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "path": {"type": "str", "default": "/"},
                "status": {"type": "list", "elements": "int", "default": [200]},
                "body": {"type": "str"},
                "successes": {"type": "int", "default": 1},
                "interval": {"type": "float", "default": 2},
                **where,
            },
            **one_place,
        },
    }
