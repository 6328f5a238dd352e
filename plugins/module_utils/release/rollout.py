# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a release's objects in: one batch, the gate, and the walk of each component that has a strategy.

Where a walk stands is read from the cluster each time, so that a run that was killed is continued by the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource, identity
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, Verdict
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress
from ansible_collections.groundwork.platform.plugins.module_utils.release import strategy as plans
from ansible_collections.groundwork.platform.plugins.module_utils.release.strategy import Parts, Strategy

DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", True)
SCALER = "groundwork.platform/initial"
"""Field manager of replicas that a strategy sets; the same one that sets those that a Deployment starts with."""
RETURN_TIMEOUT = 60.0
"""Seconds for the old version to have its pods back, before those of a failed canary are taken away."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to apply and to judge.

    :param gate: what the gate is told; each step of a strategy has its whole timeout.
    :param patience: seconds for which what passes is waited for.
    """

    gate: Options = dataclasses.field(default_factory=Options)
    force_conflicts: bool = False
    patience: float = 120.0


@dataclasses.dataclass
class Brought:
    """What came of it.

    :param items: what happened to each object, those that strategies made included.
    :param verdict: the gate's last word; None in check mode.
    :param lines: what strategies did, one sentence each.
    """

    items: list[Item]
    verdict: Verdict | None = None
    lines: list[str] = dataclasses.field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, written."""
        return bool(self.lines) or any(item.action != "unchanged" for item in self.items)

    def objects(self) -> list[Item]:
        """Each object once, with the first thing that happened to it."""
        found: dict[tuple[str, str, str, str], Item] = {}
        for item in self.items:
            known = found.get(identity(item.obj))
            if known is None or known.action == "unchanged":
                found[identity(item.obj)] = item
        return list(found.values())


class Rollout:
    """One release on its way.

    :param objects: as compiled: one Deployment for each component.
    :param strategies: by the name of the Deployment; those that are absent are rolling.
    :param allowed: asked before each write; raises where that must not be done any more.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        objects: Sequence[Object],
        strategies: Mapping[str, Strategy],
        settings: Settings,
        progress: Progress,
        check_mode: bool = False,
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.objects = list(objects)
        self.settings = settings
        self.progress = progress
        self.check_mode = check_mode
        self._allowed = allowed
        self.brought = Brought([])
        self.walks: list[Walk] = [
            _WALKS[one.type](self, name, one) for name, one in sorted(strategies.items()) if one.type in _WALKS
        ]

    def look(self) -> list[str]:
        """What the strategies would do, one sentence for each that has a way to go."""
        return [walk.plan() for walk in self.walks if walk.look()]

    def run(self, again: bool = False) -> Brought:
        """Bring everything in.

        :param again: it has been found to stay healthy before: where nothing changes it need not be watched for long.
        :raises Failure: of the batch, when nothing has been changed; GateFailed; in either case traffic that a
            strategy had moved is where it was.
        """
        planned = self.look()
        if self.check_mode:
            self.apply(self._first())
            self.brought.lines += planned
            return self.brought
        if planned:
            # A batch that is refused should not have moved anything: the strategies' own writes come before it.
            self._applier(check_mode=True, force=True).run(self._first())
        for walk in self.walks:
            walk.prepare()
        items = self.apply(self._first())
        try:
            same = again and not self.brought.changed
            self.brought.verdict = self.gate(items, 0.0 if same else None)
            for walk in self.walks:
                walk.go()
        except Failure as failure:
            told = [text for text in (self._abandoned(walk) for walk in self.walks) if text]
            failure.evidence = "; ".join([text for text in (failure.evidence, *told) if text])
            raise
        return self.brought

    @staticmethod
    def _abandoned(walk: Walk) -> str:
        try:
            return walk.abandon()
        except Failure as failure:
            return f"traffic of {walk.name} could not be brought back: {failure.sentence}"

    def _first(self) -> list[Object]:
        objects = self.objects
        for walk in self.walks:
            objects = walk.first(objects)
        return objects

    # What walks use

    def apply(self, objects: Sequence[Object]) -> list[Item]:
        """Apply a batch and remember what happened."""
        self._allowed()
        # What strategies have scaled is no conflict; in check mode nothing is taken away from anybody.
        force = self.settings.force_conflicts or (self.check_mode and bool(self.walks))
        items = self._applier(self.check_mode, force).run(objects)
        self.brought.items += items
        return items

    def _applier(self, check_mode: bool, force: bool) -> Applier:
        return Applier(
            self.cluster, self.namespace, force_conflicts=force, check_mode=check_mode,
            patience=self.settings.patience, progress=self.progress,
        )  # fmt: skip

    def remove(self, objects: Sequence[Object]) -> None:
        """Remove what a strategy needs no longer."""
        self._allowed()
        applier = self._applier(self.check_mode, False)
        self.brought.items += [item for item in applier.remove(objects) if item.live]

    def gate(self, items: Sequence[Item], stable_for: float | None = None, more: Sequence[Object] = ()) -> Verdict:
        """Judge what was applied.

        :param stable_for: seconds; the rollout's own by default. They come on top of its timeout.
        :param more: further objects to judge.
        """
        watched = self.settings.gate.stable_for if stable_for is None else stable_for
        targets = [item.obj for item in items] + list(more)
        options = dataclasses.replace(
            self.settings.gate, timeout=self.settings.gate.timeout + watched, stable_for=watched
        )
        return Gate(self.cluster, targets, progress=self.progress, existing=True, options=options).run()

    def deployment(self, name: str) -> Object | None:
        """A Deployment as it is."""
        return self.cluster.get(DEPLOYMENTS, name, self.namespace)

    def scale(self, name: str, replicas: int) -> None:
        """Set the replicas of a Deployment, whoever set them before."""
        self._set(name, {"replicas": replicas})

    def give_up_replicas(self, name: str) -> None:
        """Leave replicas to whoever else has set the same number."""
        self._set(name, {})

    def _set(self, name: str, spec: Mapping[str, Any]) -> None:
        self._allowed()
        metadata = {"name": name, "namespace": self.namespace}
        patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": dict(spec)}
        self.cluster.apply(DEPLOYMENTS, patch, SCALER, force=True)

    def say(self, text: str) -> None:
        """Tell what a strategy has done."""
        self.brought.lines.append(text)
        self.progress.update(text)


class Walk:
    """How one component's new version takes over."""

    def __init__(self, rollout: Rollout, name: str, strategy: Strategy) -> None:
        self.rollout = rollout
        self.name = name
        self.strategy = strategy
        self.parts: Parts = plans.parts(rollout.objects, name)
        self.digest = plans.template_digest(self.parts.deployment)

    def look(self) -> bool:
        """Read where the walk stands; return whether there is a way to go."""
        raise NotImplementedError

    def plan(self) -> str:
        """The way to go, as a sentence."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What has to happen before the batch."""

    def first(self, objects: list[Object]) -> list[Object]:
        """The batch with which the walk begins."""
        raise NotImplementedError

    def go(self) -> None:
        """Walk, after the batch has been found healthy."""

    def abandon(self) -> str:
        """Bring traffic back that has been moved, and say so."""
        raise NotImplementedError

    def _target_named(self, name: str) -> Object:
        """A Deployment of the component for the gate, which needs no more than its name."""
        return {**self.parts.deployment, "metadata": {"name": name, "namespace": self.rollout.namespace}}


class BlueGreen(Walk):
    """Two Deployments; the Services lead to one of them, and to the other once it has been found healthy."""

    def look(self) -> bool:
        self.live = self._live_colour()
        serving = self.rollout.deployment(f"{self.name}-{self.live}") if self.live else None
        # Coming from another strategy, the one without a colour serves.
        self.old = serving or (self.rollout.deployment(self.name) if not self.live else None)
        self.waiting = self.rollout.deployment(f"{self.name}-{plans.other(self.live)}")
        same = serving is not None and _annotation(serving, plans.TEMPLATE) == self.digest
        self.colour = self.live if same else plans.other(self.live)
        self.switches = self.old is not None and not same
        self.moved = False
        return self.switches

    def plan(self) -> str:
        return f"{self.name}: its Services go on to {self._target} once that is healthy"

    @property
    def _target(self) -> str:
        return f"{self.name}-{self.colour}"

    def _live_colour(self) -> str:
        """The colour that the Services lead to now; empty where they know none."""
        for service in self.parts.services:
            resource = Resource("", "v1", "Service", "services", True)
            live = self.rollout.cluster.get(resource, service["metadata"]["name"], self.rollout.namespace)
            colour = str(((live or {}).get("spec", {}).get("selector") or {}).get(plans.COLOUR) or "")
            if colour in plans.COLOURS:
                return colour
        return ""

    @property
    def _count(self) -> int | None:
        """How many pods the old colour has, which the new one needs too."""
        return _replicas(self.old) if self.old is not None else None

    def prepare(self) -> None:
        if self.waiting is None or not self.switches:
            return
        if _annotation(self.waiting, plans.TEMPLATE) == self.digest:
            wanted = self.parts.deployment["spec"].get("replicas", self._count or 1)
            if int(self.waiting["spec"].get("replicas", 1)) != wanted:
                self.rollout.say(f"{self.name}: {self._target} gets its {wanted} pods back")
                self.rollout.scale(self._target, wanted)
        else:
            # What it ran is two releases old.
            self.rollout.remove([self.waiting])

    def first(self, objects: list[Object]) -> list[Object]:
        made = plans.coloured(self.parts.deployment, self.colour, self._count)
        if self._kept_start:
            made["metadata"]["annotations"][plans.INITIAL_REPLICAS] = self._kept_start
        held = self.parts.held
        led = plans.leading_to(self.parts, self.live if self.switches else self.colour)
        if self.switches and not self.live:
            led = held
        return plans.replaced(objects, [made, *led], drop=[self.parts.deployment])

    @property
    def _kept_start(self) -> str:
        """What the Deployment that stays was started with: another number now would be a change of nothing."""
        if self.switches or self.old is None or self.parts.autoscaler is None:
            return ""
        return _annotation(self.old, plans.INITIAL_REPLICAS)

    def go(self) -> None:
        if not self.switches:
            self._silence()
            return
        self.rollout.say(f"{self.name}: {self._target} is healthy, the Services lead to it now")
        self.moved = True
        items = self.rollout.apply(plans.leading_to(self.parts, self.colour))
        watched = max(self.strategy.keep_old or 0.0, self.rollout.settings.gate.stable_for)
        self.rollout.brought.verdict = self.rollout.gate(items, watched, [self._target_named(self._target)])
        self.moved = False
        self._retire()

    def abandon(self) -> str:
        if not self.moved:
            return ""
        self.moved = False
        self.rollout.apply(plans.leading_to(self.parts, self.live) if self.live else self.parts.held)
        return f"the Services of {self.name} lead to {self._old_name} again"

    @property
    def _old_name(self) -> str:
        return str((self.old or {"metadata": {"name": self.name}})["metadata"]["name"])

    def _retire(self) -> None:
        """The old one after the switch: no pods, or as it is until the next release."""
        if not self.live and self.old is not None:
            self.rollout.remove([self.old])
        elif self.strategy.keep_old is not None:
            self.rollout.scale(self._old_name, 0)
            self.rollout.say(f"{self.name}: {self._old_name} has no pods any more")
        if self.parts.autoscaler is None:
            self.rollout.give_up_replicas(self._target)

    def _silence(self) -> None:
        """The other colour has no pods, unless it is kept: it never got healthy, or its run was killed."""
        if self.waiting is None or not (replicas := int(self.waiting["spec"].get("replicas", 1))):
            return
        ready = int((self.waiting.get("status") or {}).get("readyReplicas") or 0)
        if self.strategy.keep_old is not None or ready < replicas:
            name = self.waiting["metadata"]["name"]
            self.rollout.scale(name, 0)
            self.rollout.say(f"{self.name}: {name} has no pods any more")


class Canary(Walk):
    """A second Deployment with the new version, which gets ever more of the replicas."""

    def look(self) -> bool:
        self.stable = self.rollout.deployment(self.name)
        self.canary = self.rollout.deployment(f"{self.name}-canary")
        self.total = _replicas(self.stable)
        self.step = 0
        if self.canary is not None:
            self.total = int(_annotation(self.canary, plans.TOTAL) or self.total)
            if _annotation(self.canary, plans.TEMPLATE) == self.digest:
                self.step = int(_annotation(self.canary, plans.STEP) or 0)
        self.shares = plans.shares(self.total, self.strategy.steps)
        self.step = min(self.step, max(len(self.shares) - 1, 0))
        changed = _annotation(self.stable, plans.TEMPLATE) != self.digest
        self.walks = self.stable is not None and changed and self.total > 0 and bool(self.shares)
        return self.walks

    def plan(self) -> str:
        steps = ", ".join(f"{share.canary} of {share.canary + share.stable}" for share in self.shares[self.step :])
        return f"{self.name}: the new version takes over by {steps}, then all pods"

    def prepare(self) -> None:
        if self.walks:
            return
        if self.canary is not None:
            # Its release is not the one that is asked for now.
            self._return_traffic()
        # Replicas that a walk has set, and nobody has taken over since, are no conflict.
        wanted = self.parts.deployment["spec"].get("replicas")
        if self.stable is not None and wanted is not None and _scaled(self.stable):
            self.rollout.scale(self.name, wanted)

    def first(self, objects: list[Object]) -> list[Object]:
        if not self.walks:
            return plans.replaced(objects, [plans.stable_of(self.parts.deployment)])
        at = self._at(self.step, max(_replicas(self.stable), 1))
        return plans.replaced(objects, at, drop=[self.parts.deployment])

    def _at(self, step: int, stable: int) -> list[Object]:
        """What a step makes of the objects; old pods are taken away only when the new ones are ready."""
        share = self.shares[step]
        made = [plans.canary_of(self.parts.deployment, share, step, self.total), *self._routes(share.percent)]
        if self.parts.autoscaler is not None:
            made.append(plans.held_at(self.parts.autoscaler, stable))
        return made

    def _routes(self, percent: int) -> list[Object]:
        """Weights need old pods that carry their label, which those from before the first canary do not."""
        template = (self.stable or {"spec": {"template": {"metadata": {}}}})["spec"]["template"]
        return plans.weighted(self.parts, percent) if plans.TRACK in (template["metadata"].get("labels") or {}) else []

    def go(self) -> None:
        if not self.walks:
            if self.stable is not None and self.parts.autoscaler is None and _scaled(self.stable):
                self.rollout.give_up_replicas(self.name)
            return
        for step in range(self.step, len(self.shares)):
            self._take(step)
        self._promote()
        self.walks = False

    def abandon(self) -> str:
        if not self.walks:
            return ""
        self._return_traffic()
        self.walks = False
        return f"all traffic of {self.name} goes to the old version again"

    def _take(self, step: int) -> None:
        """One step: the new pods first, then fewer old ones, then see whether both stay healthy."""
        share = self.shares[step]
        items = self.rollout.apply(self._at(step, max(_replicas(self.rollout.deployment(self.name)), 1)))
        self.rollout.gate(items, 0.0)
        items = self.rollout.apply(self._at(step, share.stable))
        self.rollout.scale(self.name, share.stable)
        self.rollout.say(f"{self.name}: {share.canary} of {share.canary + share.stable} pods run the new version")
        watched = max(self.strategy.pause, self.rollout.settings.gate.stable_for)
        more = [self._target_named(self.name), *self.parts.services]
        self.rollout.brought.verdict = self.rollout.gate(items, watched, more)

    def _promote(self) -> None:
        """The new version takes the place of the old one, which until now has only been scaled."""
        fixed = self.parts.deployment["spec"].get("replicas")
        self.rollout.scale(self.name, self.total if fixed is None else fixed)
        items = self.rollout.apply([plans.stable_of(self.parts.deployment), *self._restored()])
        self.rollout.brought.verdict = self.rollout.gate(items, more=self.parts.services)
        if fixed is not None:
            self.rollout.give_up_replicas(self.name)
        self.rollout.remove(self._extras())
        self.rollout.say(f"{self.name}: all pods run the new version")

    def _restored(self) -> list[Object]:
        """Routes and autoscaler as they are without a walk."""
        return [*self.parts.routes, *([self.parts.autoscaler] if self.parts.autoscaler else [])]

    def _extras(self) -> list[Object]:
        """What is there for the walk only."""
        services = [obj for obj in plans.weighted(self.parts, 0) if obj["kind"] == "Service"]
        return [plans.canary_of(self.parts.deployment, plans.Share(0, 0, 0), 0, 0), *services]

    def _return_traffic(self) -> None:
        """The old version with all its pods, and none of the new one."""
        self.rollout.scale(self.name, self.total)
        self.rollout.apply(self._restored())
        old = [self._target_named(self.name)]
        try:
            Gate(self.rollout.cluster, old, RETURN_TIMEOUT, progress=self.rollout.progress, existing=True).run()
        except Failure as failure:
            self.rollout.progress.update(f"{self.name}: the old version is not whole yet: {failure.sentence}")
        self.rollout.remove(self._extras())
        self.rollout.say(f"{self.name}: all traffic goes to the old version again")


_WALKS: dict[str, type[Walk]] = {plans.BLUE_GREEN: BlueGreen, plans.CANARY: Canary}


def _annotation(deployment: Mapping[str, Any] | None, name: str) -> str:
    return str(((deployment or {"metadata": {}})["metadata"].get("annotations") or {}).get(name) or "")


def _replicas(deployment: Mapping[str, Any] | None) -> int:
    return int(deployment["spec"].get("replicas", 1)) if deployment is not None else 0


def _scaled(deployment: Mapping[str, Any]) -> bool:
    """Whether a strategy was the last to set its replicas."""
    return any(
        entry.get("manager") == SCALER and "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        for entry in deployment["metadata"].get("managedFields") or []
    )
