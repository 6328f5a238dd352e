"""Options that are wrong are refused before anything is asked of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.expressions import user_rules
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import Rules, State
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View
from tests.support.objects import custom

METRIC = {"name": "errors", "query": "errors", "condition": "<= 0", "url": "http://prometheus:9090"}
PAGE = {"name": "page", "service": {"name": "api", "port": "http"}}


def test_the_defaults_are_those_of_a_gate_without_options() -> None:
    options = Options.from_params({}, 300)
    assert (options.timeout, options.stable_for, options.no_progress_timeout) == (300, 0, 0)
    assert (options.policy.max_restarts, options.policy.failed_pods, options.checks) == (3, 0, ())


def test_all_of_it() -> None:
    options = Options.from_params(
        {
            "stable_for": 10, "no_progress_timeout": 60, "error_budget": {"restarts": 0, "failed_pods": 2},
            "metric_gates": [{**METRIC, "for": 30, "no_data": "pass", "interval": 1, "grace": 5}],
            "http_gates": [{**PAGE, "successes": 3, "status": [200, 204], "body": "ok"}],
        },
        120, "shop",
    )  # fmt: skip
    assert (options.policy.max_restarts, options.policy.failed_pods) == (0, 2)
    metric, page = options.checks
    assert (metric.hold, metric.no_data, metric.interval, metric.grace) == (30, "pass", 1, 5)
    assert (page.successes, page.title) == (3, "HTTP gate page")
    assert page.endpoint.shown == "Service shop/api:http"


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"stable_for": -1}, "bad_option", "stable_for"),
        ({"stable_for": 300}, "bad_option", "no time to get ready"),
        ({"no_progress_timeout": -1}, "bad_option", "no_progress_timeout"),
        ({"error_budget": {"restarts": -1}}, "bad_option", "restarts"),
        ({"metric_gates": [{**METRIC, "condition": "low"}]}, "bad_condition", "errors"),
        ({"metric_gates": [{**METRIC, "condition": "<= baseline"}]}, "bad_condition", "baseline: 300"),
        ({"metric_gates": [{**METRIC, "url": "prometheus:9090"}]}, "bad_endpoint", "url that is none"),
        ({"metric_gates": [{**METRIC, "url": None}]}, "bad_endpoint", "either a url or a service"),
        ({"metric_gates": [{**METRIC, **PAGE}]}, "bad_endpoint", "either a url or a service"),
        ({"metric_gates": [METRIC, METRIC]}, "bad_option", "twice"),
        ({"metric_gates": [{**METRIC, "grace": -1}]}, "bad_option", "grace"),
        ({"http_gates": [{**PAGE, "path": "health"}]}, "bad_option", "slash"),
        ({"http_gates": [{**PAGE, "body": "a ==="}]}, "bad_expression", "HTTP gate page"),
        ({"readiness_rules": [{"kind": "Widget", "ready": "a["}]}, "bad_expression", "Widget"),
        ({"readiness_rules": [{"kind": "Widget", "ready": ""}]}, "bad_expression", "ready"),
        ({"readiness_rules": [{"kind": "W", "ready": "a"}, {"kind": "W", "ready": "b"}]}, "bad_expression", "twice"),
    ],
)
def test_what_is_wrong_is_refused_by_name(params: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(Failure) as caught:
        Options.from_params(params, 300)
    assert caught.value.code == code
    assert words in caught.value.sentence


def test_a_password_in_a_url_is_never_repeated() -> None:
    with pytest.raises(Failure) as caught:
        Options.from_params({"metric_gates": [{**METRIC, "url": "ftp://user:hunter2@host"}]}, 300)
    assert "hunter2" not in caught.value.sentence


WIDGET = {
    "group": "example.com", "kind": "Widget", "ready": "status.phase == 'Done'",
    "failed": "contains(status.phase, 'Fail')", "reason": "join(' ', [status.phase, status.reason])",
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        ({"phase": "Done"}, State.READY, ""),
        ({"phase": "Waiting", "reason": "turn"}, State.PROGRESSING, "Waiting turn"),
        ({"phase": "Failed", "reason": "why"}, State.FAILED, "Failed why"),
        ({}, State.PROGRESSING, "cannot be judged yet"),
        ({"phase": "Done", "observedGeneration": 0}, State.PROGRESSING, "not been seen"),
    ],
)
def test_a_rule_of_the_users_own(status: dict[str, Any], state: State, words: str) -> None:
    rules = Rules(user_rules([WIDGET]))
    found = rules.readiness(custom("example.com/v1", "Widget", "x", status=status), View())
    assert found.state is state
    assert words in found.message


def test_a_users_rule_goes_before_ours_and_makes_a_static_kind_a_watched_one() -> None:
    rules = Rules(user_rules([{"kind": "ConfigMap", "ready": "data.done"}]))
    assert rules.has_state(("", "ConfigMap"))
    assert not Rules().has_state(("", "ConfigMap"))
    assert not rules.readiness({**custom("v1", "ConfigMap", "x"), "data": {}}, View()).ready
    assert rules.readiness({**custom("v1", "ConfigMap", "x"), "data": {"done": "yes"}}, View()).ready
