"""Blue and green, and canaries, on a real API server with its controllers; the kubelet is simulated."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release import rollout, strategy
from ansible_collections.groundwork.platform.plugins.module_utils.release.engine import Wanted
from ansible_collections.groundwork.platform.plugins.module_utils.release.failing import handle
from tests.integration.test_release import Shop, behave, manifests, shop

__all__ = ["shop"]
BLUE_GREEN = {"api": {"type": "blue_green", "keep_old": 0}}
KEPT = {"api": {"type": "blue_green", "keep_old": None}}
CANARY = {"api": {"type": "canary", "steps": [25, 50, 100], "pause": 0}}


def scaled(version: str) -> list[Object]:
    """The shop with an autoscaler, which has no metrics here and therefore only keeps its bounds."""
    objects = manifests(version, replicas=None)
    objects[1]["metadata"]["annotations"] = {strategy.INITIAL_REPLICAS: "4"}
    objects += load("""
kind: HorizontalPodAutoscaler
apiVersion: autoscaling/v2
metadata: {name: api}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}
  minReplicas: 4
  maxReplicas: 9
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}]
""")
    return objects


def deployments(shop: Shop) -> dict[str, tuple[str, int]]:
    """Name -> version and replicas."""
    found = shop.cluster.list(rollout.DEPLOYMENTS, shop.namespace).items
    return {
        item["metadata"]["name"]: (
            item["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2],
            item["spec"]["replicas"],
        )
        for item in found
    }


def release(shop: Shop, objects: list[Object], strategies: dict[str, Any]) -> Any:
    return shop.releases().release(Wanted({"components": objects}, strategies=strategies))


@pytest.mark.parametrize("make", [manifests, scaled])
def test_blue_and_green_take_turns(shop: Shop, make: Any) -> None:
    count = 2 if make is manifests else 4
    release(shop, make("1"), BLUE_GREEN)
    assert deployments(shop) == {"api-blue": ("1", count)}
    assert shop.selector() == {"app": "api", strategy.COLOUR: "blue"}
    assert release(shop, make("1"), BLUE_GREEN).changed is False

    outcome = release(shop, make("2"), BLUE_GREEN)
    assert any("lead to it now" in line for line in outcome.brought.lines)
    assert deployments(shop) == {"api-blue": ("1", 0), "api-green": ("2", count)}
    assert shop.selector()[strategy.COLOUR] == "green"
    assert release(shop, make("2"), BLUE_GREEN).changed is False

    release(shop, make("3"), BLUE_GREEN)
    assert deployments(shop) == {"api-blue": ("3", count), "api-green": ("2", 0)}
    back = shop.releases().rollback()
    assert back.restores == 2
    assert deployments(shop) == {"api-blue": ("3", 0), "api-green": ("2", count)}
    assert shop.selector()[strategy.COLOUR] == "green"
    if make is scaled:
        scaler = shop.get("autoscaling/v2", "HorizontalPodAutoscaler", "api")
        assert scaler and scaler["spec"]["scaleTargetRef"]["name"] == "api-green"


def test_a_kept_colour_is_switched_back_to_at_once(shop: Shop) -> None:
    release(shop, manifests("1"), KEPT)
    release(shop, manifests("2"), KEPT)
    assert deployments(shop) == {"api-blue": ("1", 2), "api-green": ("2", 2)}
    pods = {item["metadata"]["uid"] for item in shop.nodes.pods()}  # type: ignore[attr-defined]
    outcome = shop.releases().rollback()
    assert shop.selector()[strategy.COLOUR] == "blue"
    assert {item["metadata"]["uid"] for item in shop.nodes.pods()} == pods  # type: ignore[attr-defined]
    assert outcome.brought.verdict is not None


def test_a_bad_colour_never_gets_traffic(shop: Shop) -> None:
    release(shop, manifests("1"), BLUE_GREEN)
    behave(shop, ":2")
    with pytest.raises(Failure) as caught:
        release(shop, manifests("2"), BLUE_GREEN)
    assert shop.selector()[strategy.COLOUR] == "blue"
    assert deployments(shop)["api-blue"] == ("1", 2)
    wanted = Wanted({"components": manifests("2")}, strategies=BLUE_GREEN)
    handled = handle(shop.releases(), wanted, caught.value, "rollback")
    assert handled.action == "rolled_back", handled.sentence
    assert deployments(shop) == {"api-blue": ("1", 2), "api-green": ("2", 0)}
    behave(shop, "")
    release(shop, manifests("3"), BLUE_GREEN)
    assert deployments(shop) == {"api-blue": ("1", 0), "api-green": ("3", 2)}


def test_a_colour_that_fails_after_the_switch_gives_traffic_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    release(shop, manifests("1"), BLUE_GREEN)
    gate = rollout.Rollout.gate

    def second_is_bad(self: rollout.Rollout, items: Any, *arguments: Any, **options: Any) -> Any:
        if len(arguments) > 1 and shop.selector()[strategy.COLOUR] == "green":
            raise Failure("crash_loop", "Deployment api-green", "crashes")
        return gate(self, items, *arguments, **options)

    monkeypatch.setattr(rollout.Rollout, "gate", second_is_bad)
    with pytest.raises(Failure) as caught:
        release(shop, manifests("2"), BLUE_GREEN)
    assert "lead to api-blue again" in caught.value.sentence
    assert shop.selector()[strategy.COLOUR] == "blue"


def test_from_rolling_to_blue_and_green_and_back(shop: Shop) -> None:
    release(shop, manifests("1"), {})
    release(shop, manifests("2"), BLUE_GREEN)
    assert deployments(shop) == {"api-blue": ("2", 2)}
    assert shop.selector()[strategy.COLOUR] == "blue"
    release(shop, manifests("3"), {})
    assert deployments(shop) == {"api": ("3", 2)}
    assert shop.selector() == {"app": "api"}


@pytest.mark.parametrize("make", [manifests, scaled])
def test_a_canary_takes_over_by_steps(shop: Shop, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 4
    first = make("1")
    if make is manifests:
        first[1]["spec"]["replicas"] = count
    release(shop, first, CANARY)
    assert deployments(shop) == {"api": ("1", count)}
    assert release(shop, first, CANARY).changed is False
    seen: list[dict[str, tuple[str, int]]] = []
    gate = rollout.Rollout.gate

    def watched(self: rollout.Rollout, items: Any, *arguments: Any, **options: Any) -> Any:
        verdict = gate(self, items, *arguments, **options)
        seen.append(deployments(shop))
        return verdict

    monkeypatch.setattr(rollout.Rollout, "gate", watched)
    second = make("2")
    if make is manifests:
        second[1]["spec"]["replicas"] = count
    outcome = release(shop, second, CANARY)
    assert {"api": ("1", 3), "api-canary": ("2", 1)} in seen
    assert {"api": ("1", 2), "api-canary": ("2", 2)} in seen
    assert min(sum(item[1] for item in state.values()) for state in seen) >= count
    assert deployments(shop) == {"api": ("2", count)}
    assert "api: all pods run the new version" in outcome.brought.lines
    assert release(shop, second, CANARY).changed is False
    if make is scaled:
        scaler = shop.get("autoscaling/v2", "HorizontalPodAutoscaler", "api")
        assert scaler and (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (4, 9)
    else:
        second[1]["spec"]["replicas"] = 5
        release(shop, second, CANARY)
        assert deployments(shop) == {"api": ("2", 5)}


def test_a_bad_canary_gives_its_traffic_back(shop: Shop) -> None:
    release(shop, scaled("1"), CANARY)
    behave(shop, ":2")
    with pytest.raises(Failure) as caught:
        release(shop, scaled("2"), CANARY)
    assert "all traffic of api goes to the old version again" in caught.value.sentence
    assert deployments(shop) == {"api": ("1", 4)}
    handled = handle(shop.releases(), Wanted({"components": scaled("2")}, strategies=CANARY), caught.value, "rollback")
    assert handled.action == "rolled_back", handled.sentence
    assert deployments(shop) == {"api": ("1", 4)}


def test_a_killed_canary_goes_on_at_its_step(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = scaled("1")
    release(shop, objects, CANARY)
    take, steps = rollout.Canary._take, []

    def killed(self: rollout.Canary, step: int) -> None:
        steps.append(step)
        take(self, step)
        if steps == [0, 1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(rollout.Canary, "_take", killed)
    with pytest.raises(KeyboardInterrupt):
        release(shop, scaled("2"), CANARY)
    assert deployments(shop) == {"api": ("1", 2), "api-canary": ("2", 2)}
    outcome = release(shop, scaled("2"), CANARY)
    assert outcome.number == 2
    assert steps == [0, 1, 1]
    assert deployments(shop) == {"api": ("2", 4)}


def test_a_killed_canary_is_given_up_by_a_rollback(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    release(shop, manifests("1"), CANARY)

    def killed(self: rollout.Canary) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout.Canary, "_promote", killed)
    with pytest.raises(KeyboardInterrupt):
        release(shop, manifests("2"), CANARY)
    assert deployments(shop) == {"api": ("1", 1), "api-canary": ("2", 1)}
    monkeypatch.undo()
    outcome = shop.releases().rollback()
    assert outcome.restores == 1
    assert deployments(shop) == {"api": ("1", 2)}


def test_requests_always_find_a_ready_pod(shop: Shop) -> None:
    """What a Service offers is never empty, whatever the strategy does meanwhile."""
    release(shop, manifests("1"), BLUE_GREEN)
    slices = shop.cluster.resource("discovery.k8s.io/v1", "EndpointSlice")
    empty, done = [], threading.Event()

    def watch(cluster: Cluster) -> None:
        while not done.wait(0.05):
            found = cluster.list(slices, shop.namespace, "kubernetes.io/service-name=api").items
            ready = [one for item in found for one in item.get("endpoints") or () if one["conditions"].get("ready")]
            if not ready:
                empty.append(found)

    thread = threading.Thread(target=watch, args=(shop.cluster,))
    thread.start()
    try:
        release(shop, manifests("2"), BLUE_GREEN)
        release(shop, manifests("3"), BLUE_GREEN)
        shop.releases().rollback()
    finally:
        done.set()
        thread.join()
    assert empty == []


def test_check_mode_says_what_a_strategy_would_do(shop: Shop) -> None:
    release(shop, scaled("1"), CANARY)
    planned = shop.releases(check_mode=True).release(Wanted({"components": scaled("2")}, strategies=CANARY))
    assert planned.changed
    assert planned.brought.lines == ["api: the new version takes over by 1 of 4, 2 of 4, then all pods"]
    assert deployments(shop) == {"api": ("1", 4)}
