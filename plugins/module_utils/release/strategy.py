# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a new version of a component takes over, as plain transformations of its objects.

A release is compiled to one Deployment for each component. ``blue_green`` makes of it one of two, of which the
Services select one; ``canary`` puts a second one with the new version beside it, which gets its share of the replicas.
Nothing here asks the cluster: the walk does.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ROLLING, BLUE_GREEN, CANARY = "rolling", "blue_green", "canary"
STABLE = "stable"
TYPES = (ROLLING, BLUE_GREEN, CANARY)
COLOURS = ("blue", "green")
COLOUR = "groundwork.platform/colour"
"""Label of pods, and in the selectors of Services: which of the two."""
TRACK = "groundwork.platform/track"
"""Label of pods: ``canary`` or ``stable``."""
COMPONENT = "groundwork.platform/component"
"""Label of Deployments that a strategy made: of which Deployment they are the other one."""
TEMPLATE = "groundwork.platform/template"
"""Annotation of such Deployments: digest of the pods that they run."""
STEP = "groundwork.platform/canary-step"
TOTAL = "groundwork.platform/canary-total"
"""Annotations of a canary: the step that it has reached, and the replicas there were before it."""
INITIAL_REPLICAS = "groundwork.platform/initial-replicas"
KEEP_OLD, PAUSE = 30.0, 60.0


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How one Deployment is brought in.

    :param keep_old: seconds for which the old colour goes on running, and the new one is watched, after the switch;
        None until the next release.
    :param steps: percent of the replicas that are new at each step, rising, 100 at the end.
    :param pause: seconds for which each step is watched before the next.
    """

    type: str = ROLLING
    keep_old: float | None = KEEP_OLD
    steps: tuple[int, ...] = (10, 50, 100)
    pause: float = PAUSE


def parse(name: str, data: Mapping[str, Any]) -> Strategy:
    """A strategy as the module is given it.

    :raises Failure: ``bad_strategy``.
    """
    kind, steps = data.get("type", ROLLING), tuple(data.get("steps") or Strategy.steps)
    keep, pause = data.get("keep_old", KEEP_OLD), data.get("pause", PAUSE)
    wrong = ""
    if kind not in TYPES:
        wrong = f"has the type {kind!r}, which is none of {', '.join(TYPES)}"
    elif set(data) - {"type", "keep_old", "steps", "pause"}:
        unknown = ", ".join(sorted(set(data) - {"type", "keep_old", "steps", "pause"}))
        wrong = f"has {unknown}, which no strategy has"
    elif any(isinstance(one, bool) or not isinstance(one, int) for one in steps):
        wrong = "has steps that are no whole numbers"
    elif list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] != 100:
        wrong = f"has the steps {', '.join(map(str, steps))}, which do not rise to 100"
    elif not _seconds(pause) or not (keep is None or _seconds(keep)):
        wrong = "has a time that is no number of seconds"
    if wrong:
        raise Failure("bad_strategy", f"The strategy of {name}", wrong, hint="correct it")
    return Strategy(kind, None if keep is None else float(keep), steps, float(pause))


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


# Finding what belongs to a Deployment


@dataclasses.dataclass(frozen=True)
class Parts:
    """The objects of a batch that a strategy concerns.

    :param services: those that select the Deployment's pods.
    :param routes: HTTPRoutes that lead to one of them.
    """

    deployment: Object
    services: list[Object]
    autoscaler: Object | None
    routes: list[Object]

    @property
    def held(self) -> list[Object]:
        """What decides where traffic goes and how many pods there are."""
        return [*self.services, *([self.autoscaler] if self.autoscaler else [])]


def parts(objects: Sequence[Object], name: str) -> Parts:
    """Find them by the name of the Deployment.

    :raises Failure: ``bad_strategy``: there is no such Deployment.
    """
    deployment = next((obj for obj in objects if _is(obj, "apps", "Deployment", name)), None)
    if deployment is None:
        names = [obj["metadata"]["name"] for obj in objects if obj["kind"] == "Deployment"]
        raise Failure("bad_strategy", f"The strategy of {name}", "is for a Deployment that is not in the release",
                      f"it has {', '.join(names) or 'none'}", "correct the name")  # fmt: skip
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    services = [obj for obj in objects if obj["kind"] == "Service" and _selects(obj, labels)]
    scalers = [obj for obj in objects if _scales(obj, name)]
    reached = {obj["metadata"]["name"] for obj in services}
    routes = [obj for obj in objects if obj["kind"] == "HTTPRoute" and reached & set(_backends(obj))]
    return Parts(deployment, services, scalers[0] if scalers else None, routes)


def _is(obj: Mapping[str, Any], group: str, kind: str, name: str) -> bool:
    own = str(obj["apiVersion"]).rpartition("/")[0]
    return bool(own == group and obj["kind"] == kind and obj["metadata"]["name"] == name)


def _selects(service: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and selector.items() <= labels.items()


def _scales(obj: Mapping[str, Any], name: str) -> bool:
    target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    return obj["kind"] == "HorizontalPodAutoscaler" and target.get("kind") == "Deployment" and target["name"] == name


def _backends(route: Mapping[str, Any]) -> Iterable[str]:
    for rule in (route.get("spec") or {}).get("rules") or ():
        for backend in rule.get("backendRefs") or ():
            if backend.get("kind", "Service") == "Service":
                yield str(backend.get("name"))


def template_digest(deployment: Mapping[str, Any]) -> str:
    """What tells one version of a component's pods from another: everything but how many there are."""
    spec = {key: value for key, value in deployment["spec"].items() if key != "replicas"}
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def replicas_of(deployment: Mapping[str, Any]) -> int:
    """How many pods a Deployment starts with, an autoscaler's later number aside."""
    spec, annotations = deployment["spec"], deployment["metadata"].get("annotations") or {}
    return int(spec.get("replicas", annotations.get(INITIAL_REPLICAS, 1)))


def replaced(objects: Sequence[Object], changes: Iterable[Object], drop: Iterable[Object] = ()) -> list[Object]:
    """Objects with those of the same kind and name exchanged, new ones at the end, and some left out."""
    new = {_key(obj): obj for obj in changes}
    gone = {_key(obj) for obj in drop} - set(new)
    kept = [new.pop(_key(obj), obj) for obj in objects if _key(obj) not in gone]
    return [*kept, *new.values()]


def _key(obj: Mapping[str, Any]) -> tuple[str, str]:
    return str(obj["kind"]), str(obj["metadata"]["name"])


# Blue and green


def other(colour: str) -> str:
    """The other colour; blue where there is none yet."""
    return "green" if colour == "blue" else "blue"


def coloured(deployment: Mapping[str, Any], colour: str, replicas: int | None = None) -> Object:
    """The Deployment as the one of a colour.

    :param replicas: to start with, where an autoscaler owns the number: as many as the other colour has.
    """
    made = copy.deepcopy(dict(deployment))
    name = made["metadata"]["name"]
    made["metadata"]["name"] = f"{name}-{colour}"
    _mark(made, deployment, {COLOUR: colour}, {COLOUR: colour, COMPONENT: name})
    if replicas is not None and "replicas" not in made["spec"]:
        made["metadata"]["annotations"][INITIAL_REPLICAS] = str(max(replicas, replicas_of(deployment)))
    return made


def leading_to(parts: Parts, colour: str) -> list[Object]:
    """Services and autoscaler with the colour that they lead to."""
    led = []
    for obj in parts.held:
        made = copy.deepcopy(obj)
        if made["kind"] == "Service":
            made["spec"]["selector"][COLOUR] = colour
        else:
            made["spec"]["scaleTargetRef"]["name"] += f"-{colour}"
        led.append(made)
    return led


def _mark(made: Object, original: Mapping[str, Any], pods: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Give a Deployment labels of its own, its pods and its selector others, so that nobody else's are taken."""
    metadata, spec = made["metadata"], made["spec"]
    metadata["labels"] = {**(metadata.get("labels") or {}), **own}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TEMPLATE: template_digest(original)}
    spec["selector"]["matchLabels"] = {**(spec["selector"].get("matchLabels") or {}), **pods}
    spec["template"]["metadata"]["labels"] = {**(spec["template"]["metadata"].get("labels") or {}), **pods}


# Canary


@dataclasses.dataclass(frozen=True)
class Share:
    """One step.

    :param percent: of the replicas that are to be new.
    :param canary: pods of the new version.
    :param stable: pods of the old one.
    """

    percent: int
    canary: int
    stable: int


def shares(total: int, steps: Sequence[int]) -> list[Share]:
    """The steps before the last, at which everything is new.

    There is one new pod at least, and one old one; beside that the sum stays what it was.

    :param total: replicas that there are.
    """
    found = []
    for percent in steps:
        if percent < 100:
            canary = min(max(math.ceil(total * percent / 100), 1), max(total - 1, 1))
            found.append(Share(percent, canary, max(total - canary, 1)))
    return found


def canary_of(deployment: Mapping[str, Any], share: Share, step: int, total: int) -> Object:
    """The Deployment that runs the new version beside the old one.

    :param step: which of the steps this is, from 0; a killed run goes on there.
    """
    made = copy.deepcopy(dict(deployment))
    name = made["metadata"]["name"]
    made["metadata"]["name"] = f"{name}-canary"
    _mark(made, deployment, {TRACK: CANARY}, {TRACK: CANARY, COMPONENT: name})
    annotations = made["metadata"]["annotations"]
    annotations.pop(INITIAL_REPLICAS, None)
    annotations |= {STEP: str(step), TOTAL: str(total)}
    made["spec"]["replicas"] = share.canary
    return made


def held_at(autoscaler: Mapping[str, Any], replicas: int) -> Object:
    """An autoscaler that keeps a number of replicas, so that it does not undo the shares."""
    made = copy.deepcopy(dict(autoscaler))
    made["spec"] |= {"minReplicas": replicas, "maxReplicas": replicas}
    return made


def stable_of(deployment: Mapping[str, Any]) -> Object:
    """The Deployment that a canary stands beside; its pods can be told from the canary's by a label of their own."""
    made = copy.deepcopy(dict(deployment))
    metadata, template = made["metadata"], made["spec"]["template"]["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TEMPLATE: template_digest(deployment)}
    template["labels"] = {**(template.get("labels") or {}), TRACK: STABLE}
    return made


def weighted(parts: Parts, percent: int) -> list[Object]:
    """HTTPRoutes that send a percentage of the requests to the new version, and the Services that they need.

    Without a route the share of requests is that of the replicas, since the Service selects both versions.
    """
    services = {obj["metadata"]["name"]: obj for obj in parts.services if obj["spec"].get("clusterIP") != "None"}
    made = [track_service(obj, track) for obj in services.values() for track in (STABLE, CANARY) if parts.routes]
    for route in parts.routes:
        new = copy.deepcopy(route)
        for rule in new["spec"].get("rules") or ():
            rule["backendRefs"] = [
                one for backend in rule.get("backendRefs") or () for one in _weights(backend, services, percent)
            ]
        made.append(new)
    return made


def track_service(service: Mapping[str, Any], track: str) -> Object:
    """A Service inside of the cluster for one of the two versions."""
    made = copy.deepcopy(dict(service))
    made["metadata"]["name"] += f"-{track}"
    spec = made["spec"]
    spec["type"] = "ClusterIP"
    spec["selector"] = {**spec["selector"], TRACK: track}
    for port in spec.get("ports") or ():
        port.pop("nodePort", None)
    return made


def _weights(backend: Object, services: Mapping[str, Object], percent: int) -> list[Object]:
    if backend.get("name") not in services:
        return [backend]
    return [
        {**backend, "name": f"{backend['name']}-{track}", "weight": weight}
        for track, weight in ((STABLE, 100 - percent), (CANARY, percent))
    ]
