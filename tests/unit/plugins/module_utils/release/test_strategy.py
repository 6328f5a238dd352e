"""How strategies transform a release's objects, to the byte."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release.strategy import (
    Share,
    Strategy,
    canary_of,
    coloured,
    held_at,
    leading_to,
    other,
    parse,
    parts,
    replaced,
    shares,
    stable_of,
    template_digest,
    weighted,
)
from tests.support.medical_inventory import compiled

TEXT = """
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: api, namespace: n, labels: {app: api}, annotations: {groundwork.platform/initial-replicas: "2"}}
  spec:
    selector: {matchLabels: {app: api}}
    template:
      metadata: {labels: {app: api, version: "2"}}
      spec: {containers: [{name: api, image: "api:2"}]}
- apiVersion: v1
  kind: Service
  metadata: {name: api, namespace: n}
  spec: {type: NodePort, selector: {app: api}, ports: [{name: http, port: 80, nodePort: 30080}]}
- apiVersion: v1
  kind: Service
  metadata: {name: api-pods, namespace: n}
  spec: {clusterIP: None, selector: {app: api}, ports: [{name: http, port: 80}]}
- apiVersion: v1
  kind: Service
  metadata: {name: other, namespace: n}
  spec: {selector: {app: other}, ports: [{name: http, port: 80}]}
- apiVersion: autoscaling/v2
  kind: HorizontalPodAutoscaler
  metadata: {name: api, namespace: n}
  spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}, minReplicas: 2, maxReplicas: 9}
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: api, namespace: n}
  spec: {rules: [{backendRefs: [{name: api, port: 80}, {name: other, port: 80}]}]}
"""


def batch() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(TEXT)
    return found


def names(objects: list[dict[str, Any]]) -> list[str]:
    return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in objects]


def test_what_belongs_to_a_deployment_is_found() -> None:
    found = parts(batch(), "api")
    assert names([found.deployment]) == ["Deployment/api"]
    assert names(found.services) == ["Service/api", "Service/api-pods"]
    assert names(found.held) == ["Service/api", "Service/api-pods", "HorizontalPodAutoscaler/api"]
    assert names(found.routes) == ["HTTPRoute/api"]
    with pytest.raises(Failure) as caught:
        parts(batch(), "app")
    assert caught.value.code == "bad_strategy"
    assert "it has api" in caught.value.sentence


def test_blue_and_green_to_the_byte() -> None:
    before = batch()
    found = parts(before, "api")
    digest = template_digest(found.deployment)
    made = coloured(found.deployment, "green", replicas=5)
    assert yaml.safe_dump(made) == yaml.safe_dump(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "api-green",
                "namespace": "n",
                "labels": {
                    "app": "api",
                    "groundwork.platform/colour": "green",
                    "groundwork.platform/component": "api",
                },
                "annotations": {
                    "groundwork.platform/initial-replicas": "5",
                    "groundwork.platform/template": digest,
                },
            },
            "spec": {
                "selector": {"matchLabels": {"app": "api", "groundwork.platform/colour": "green"}},
                "template": {
                    "metadata": {"labels": {"app": "api", "version": "2", "groundwork.platform/colour": "green"}},
                    "spec": {"containers": [{"name": "api", "image": "api:2"}]},
                },
            },
        }
    )
    led = leading_to(found, "green")
    assert [one["spec"]["selector"] for one in led[:2]] == [{"app": "api", "groundwork.platform/colour": "green"}] * 2
    assert led[2]["spec"]["scaleTargetRef"]["name"] == "api-green"
    assert before == batch(), "the compiled objects are left as they are"
    assert [other(colour) for colour in ("", "blue", "green")] == ["blue", "green", "blue"]


def test_a_fixed_number_of_replicas_stays() -> None:
    deployment = batch()[0]
    deployment["spec"]["replicas"] = 3
    assert coloured(deployment, "blue", replicas=9)["spec"]["replicas"] == 3
    more = copy.deepcopy(deployment)
    more["spec"]["replicas"] = 4
    assert template_digest(more) == template_digest(deployment), "more pods are no new version"


@pytest.mark.parametrize(
    ("total", "steps", "expected"),
    [
        (10, (10, 50, 100), [Share(10, 1, 9), Share(50, 5, 5)]),
        (4, (10, 50, 100), [Share(10, 1, 3), Share(50, 2, 2)]),
        (2, (10, 50, 100), [Share(10, 1, 1), Share(50, 1, 1)]),
        # There is always an old one to go back to, at the price of one pod more.
        (1, (10, 100), [Share(10, 1, 1)]),
        (3, (99, 100), [Share(99, 2, 1)]),
        (3, (100,), []),
    ],
)
def test_the_shares_of_a_canary(total: int, steps: tuple[int, ...], expected: list[Share]) -> None:
    assert shares(total, steps) == expected


def test_a_canary_is_selected_with_the_others_and_told_from_them() -> None:
    found = parts(batch(), "api")
    made = canary_of(found.deployment, Share(10, 1, 3), 0, 4)
    assert made["metadata"]["name"] == "api-canary"
    assert made["spec"]["replicas"] == 1
    assert "groundwork.platform/initial-replicas" not in made["metadata"]["annotations"]
    assert made["metadata"]["annotations"]["groundwork.platform/canary-step"] == "0"
    assert made["metadata"]["annotations"]["groundwork.platform/canary-total"] == "4"
    assert made["spec"]["selector"]["matchLabels"] == {"app": "api", "groundwork.platform/track": "canary"}
    labels = made["spec"]["template"]["metadata"]["labels"]
    for service in found.services:
        assert service["spec"]["selector"].items() <= labels.items()
    stable = stable_of(found.deployment)
    # A selector can't be changed, so the label is on the pods alone.
    assert stable["spec"]["selector"] == found.deployment["spec"]["selector"]
    assert stable["spec"]["template"]["metadata"]["labels"]["groundwork.platform/track"] == "stable"
    assert stable["metadata"]["annotations"]["groundwork.platform/template"] == template_digest(found.deployment)


def test_the_autoscaler_holds_what_the_canary_needs() -> None:
    scaler = parts(batch(), "api").autoscaler
    assert scaler is not None
    held = held_at(scaler, 3)
    assert (held["spec"]["minReplicas"], held["spec"]["maxReplicas"]) == (3, 3)
    assert scaler["spec"]["maxReplicas"] == 9


def test_routes_get_weights_and_services_for_both_versions() -> None:
    made = weighted(parts(batch(), "api"), 10)
    assert names(made) == ["Service/api-stable", "Service/api-canary", "HTTPRoute/api"]
    assert made[1]["spec"] == {
        "type": "ClusterIP",
        "selector": {"app": "api", "groundwork.platform/track": "canary"},
        "ports": [{"name": "http", "port": 80}],
    }
    assert made[2]["spec"]["rules"][0]["backendRefs"] == [
        {"name": "api-stable", "port": 80, "weight": 90},
        {"name": "api-canary", "port": 80, "weight": 10},
        {"name": "other", "port": 80},
    ]
    without = [obj for obj in batch() if obj["kind"] != "HTTPRoute"]
    assert weighted(parts(without, "api"), 10) == []


def test_objects_are_exchanged_in_their_place() -> None:
    found = replaced(batch(), [coloured(batch()[0], "blue")], drop=[batch()[0]])
    assert names(found)[0] == "Service/api"
    assert names(found)[-1] == "Deployment/api-blue"
    assert len(found) == len(batch())
    assert names(replaced(batch(), [stable_of(batch()[0])], drop=[batch()[0]])) == names(batch())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"type": "red_black"}, "none of rolling, blue_green, canary"),
        ({"type": "canary", "step": [100]}, "has step, which no strategy has"),
        ({"type": "canary", "steps": [50, 10, 100]}, "do not rise to 100"),
        ({"type": "canary", "steps": [10, 50]}, "do not rise to 100"),
        ({"type": "canary", "steps": ["10"]}, "no whole numbers"),
        ({"type": "canary", "pause": -1}, "no number of seconds"),
        ({"type": "blue_green", "keep_old": "1m"}, "no number of seconds"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Failure) as caught:
        parse("api", data)
    assert complaint in caught.value.sentence


def test_strategies_as_the_compiler_gives_them() -> None:
    overrides = {
        "components": {
            "api": {"strategy": {"type": "canary", "steps": [25, 100], "pause": "2m"}},
            "websocket": {"strategy": {"type": "blue_green", "keep_old": "next_release"}},
        }
    }
    result = compiled("prod", overrides)
    found = {name: parse(name, data) for name, data in result["strategies"].items()}
    assert found == {
        "api": Strategy("canary", keep_old=30.0, steps=(25, 100), pause=120.0),
        "websocket": Strategy("blue_green", keep_old=None),
    }
    assert compiled("prod")["strategies"] == {}


def test_budgets_and_policies_cover_both_versions() -> None:
    """What selects a component's pods selects those of its other Deployment as well."""
    result = compiled("prod", {"components": {"api": {"strategy": {"type": "canary"}}}})
    stages = result["stages"]
    deployment = parts(stages["components"], "api").deployment
    both = [canary_of(deployment, Share(10, 1, 9), 0, 10), coloured(deployment, "green")]
    selectors = [
        obj["spec"].get("podSelector", obj["spec"].get("selector"))["matchLabels"]
        for obj in [*stages["foundation"], *stages["components"]]
        if obj["kind"] in ("NetworkPolicy", "PodDisruptionBudget") and obj["metadata"]["name"] == "api"
    ]
    assert len(selectors) == 2
    for made in both:
        labels = made["spec"]["template"]["metadata"]["labels"]
        assert all(selector.items() <= labels.items() for selector in selectors)
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert all(one["matchLabelKeys"] == ["pod-template-hash"] for one in spread)


@pytest.mark.parametrize(
    ("how", "pods"), [({}, 25), ({"type": "blue_green"}, 40), ({"type": "canary", "steps": [10, 50, 100]}, 35)]
)
def test_the_quota_has_room_for_both_versions(how: dict[str, Any], pods: int) -> None:
    exact: dict[str, Any] = {"quota": {"headroom": 0}}
    plain = compiled("prod", exact)
    chosen = compiled("prod", {**exact, "components": {"api": {"strategy": how or {"type": "rolling"}}}})
    largest = compiled("prod")["stages"]["components"]
    scaler = parts(largest, "api").autoscaler
    assert scaler is not None
    most = scaler["spec"]["maxReplicas"]
    assert most == 20

    def hard(result: dict[str, Any]) -> int:
        quota = next(obj for obj in result["stages"]["foundation"] if obj["kind"] == "ResourceQuota")
        return int(quota["spec"]["hard"]["pods"])

    assert hard(chosen) - hard(plain) == pods - 25
