# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what a gate looks at up to date: one watch for each kind in each namespace, however many objects there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    Watcher,
    WatchEvent,
    describe,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.checks import CheckEvent
from ansible_collections.groundwork.platform.plugins.module_utils.health.rules import Rules
from ansible_collections.groundwork.platform.plugins.module_utils.health.slim import Slimmer
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import Kind, View, kind_of

SEARCH = 2.0
"""Seconds between two looks for objects that only have to exist."""
RENEWAL = 20.0
"""Seconds for which a server that has accepted the credentials may refuse them: they may be about to be renewed."""
CATCH_UP = 1.5
"""Seconds to let the watches catch up after an interruption, before what they show condemns anyone."""

_APPS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
# Cluster-wide kinds of which there may be many large objects: watch those that are meant, by name.
_BY_NAME = ("CustomResourceDefinition", "Namespace", "APIService", "PersistentVolume")


class Watching:
    """A view that watches keep up to date, and what is known of their own health.

    :param targets: what is watched, with what surrounds it.
    :param existing: the targets have just been applied: those that only have to exist need not be looked for.
    :param heard: called with what comes through the same queue and is no event of a watch.
    """

    def __init__(
        self,
        cluster: Cluster,
        targets: Sequence[Object],
        rules: Rules,
        existing: bool,
        heard: Callable[[CheckEvent], None],
    ) -> None:
        self.cluster = cluster
        self.view = View()
        self.queue: SimpleQueue[WatchEvent | CheckEvent] = SimpleQueue()
        self.denied: dict[Kind, str] = {}
        """Kinds that may not be watched, and why."""
        self.missing: set[str] = set()
        """Targets that only have to exist and do not, as messages name them."""
        self.judge_from = 0.0
        """Before this moment what the watches show may be behind."""
        self._targets, self._rules, self._heard = list(targets), rules, heard
        self._unseen = [] if existing else [item for item in self._targets if not rules.has_state(kind_of(item))]
        self._next_search = 0.0
        self._watchers: list[Watcher] = []
        self._waiting_for: set[Watcher] = set()
        self._lost: dict[Watcher, tuple[float, Failure]] = {}
        self._denials: dict[Watcher, int] = {}
        self._refused_since: float | None = None
        self._accepted = False
        self._named: dict[Watcher, str] = {}
        self._slimmer = Slimmer()

    # Its own state

    @property
    def absent(self) -> list[str]:
        """Plurals of the kinds that have not been read yet."""
        return sorted({watcher.resource.plural for watcher in self._waiting_for})

    @property
    def lost(self) -> tuple[float, Failure] | None:
        """Since when, on the cluster's clock, a watch has had no answer, and why; None if all have one."""
        return min(self._lost.values(), key=lambda pair: pair[0], default=None)

    @property
    def searching(self) -> bool:
        """Whether there are objects that are looked for every :data:`SEARCH` seconds."""
        return bool(self._unseen)

    # Watching

    def start(self) -> None:
        """Begin to watch."""
        for resource, namespace, name in self._wanted():
            self._watch(resource, namespace, name)

    def stop(self) -> None:
        """End all watches."""
        for watcher in self._watchers:
            watcher.stop()

    def watch_nodes(self) -> None:
        """Watch nodes too, where a pod finds none: one may be on its way. Whoever may not read them does without."""
        if any(watcher.resource.kind == "Node" for watcher in self._watchers):
            return
        nodes = self.cluster.find_resource("v1", "Node")
        if nodes is not None:
            self._waiting_for.discard(self._watch(nodes, None, ""))

    def _watch(self, resource: Resource, namespace: str | None, name: str) -> Watcher:
        fields = f"metadata.name={name}" if name else ""
        watcher = Watcher(self.cluster, resource, self.queue.put, namespace, fields=fields)
        self._watchers.append(watcher)
        self._named[watcher] = name
        self._waiting_for.add(watcher)
        return watcher.start()

    def _wanted(self) -> Iterable[tuple[Resource, str | None, str]]:
        """What to watch: each kind once in each namespace."""
        wanted: dict[tuple[Kind, str, str], Resource] = {}

        def want(api_version: str, kind: str, namespace: str = "", name: str = "") -> None:
            resource = self.cluster.find_resource(api_version, kind)
            if resource is None:
                return
            key = ((resource.group, kind), namespace if resource.namespaced else "", name)
            wanted.setdefault(key, resource)

        for target in self._targets:
            kind = kind_of(target)
            if not self._rules.has_state(kind):
                continue
            namespace = str(target["metadata"].get("namespace") or "")
            by_name = target["metadata"]["name"] if kind[1] in _BY_NAME else ""
            want(target["apiVersion"], target["kind"], namespace, by_name)
            for api_version, name in surroundings(target):
                want(api_version, name, namespace)
        return [(resource, namespace or None, name) for (_kind, namespace, name), resource in wanted.items()]

    def receive(self, timeout: float) -> None:
        """Take in one event, and all that have come with it."""
        try:
            event = self.queue.get(timeout=max(timeout, 0.0))
        except Empty:
            return
        while True:
            if isinstance(event, CheckEvent):
                self._heard(event)
            else:
                self._take(event)
            try:
                event = self.queue.get_nowait()
            except Empty:
                return

    def _take(self, event: WatchEvent) -> None:
        resource, watcher = event.watcher.resource, event.watcher
        kind = (resource.group, resource.kind)
        if event.type == "SYNC":
            self._waiting_for.discard(watcher)
            self._accepted, self._refused_since = True, None
            self.denied.pop(kind, None)
            kept = [small for small in (self._slimmer.slim(kind, item) for item in event.objects) if small]
            self.view.sync(kind, kept, watcher.namespace, self._named[watcher])
        elif event.type in ("ADDED", "MODIFIED"):
            small = self._slimmer.slim(kind, event.objects[0])
            if small is not None:
                self.view.put(kind, small)
        elif event.type == "DELETED":
            self.view.remove(kind, event.objects[0])
        elif event.type == "LOST" and event.error is not None:
            since, _error = self._lost.get(watcher, (self.cluster.clock.now(), event.error))
            self._lost[watcher] = (since, event.error)
        elif event.type == "BACK":
            self._lost.pop(watcher, None)
            self._refused_since = None
            self.judge_from = self.cluster.clock.now() + CATCH_UP
        elif event.type == "DENIED" and event.error is not None:
            self._deny(watcher, kind, event.error)

    def _deny(self, watcher: Watcher, kind: Kind, error: Failure) -> None:
        """Do without a kind that may not be watched; once more first, since a restarting server denies everything."""
        if error.code == "unauthorised":
            now = self.cluster.clock.now()
            self._refused_since = now if self._refused_since is None else self._refused_since
            if not self._accepted or now - self._refused_since > RENEWAL:
                raise error
            self._lost.setdefault(watcher, (now, error))
            return
        self._denials[watcher] = self._denials.get(watcher, 0) + 1
        if self._denials[watcher] > 1:
            self._waiting_for.discard(watcher)
            self._lost.pop(watcher, None)
            self.denied[kind] = error.evidence or error.cause

    # What only has to exist

    def search(self) -> None:
        """Look for the targets that only have to exist; those that are there are not looked for again."""
        now = self.cluster.clock.now()
        if not self._unseen or now < self._next_search:
            return
        self._unseen = [target for target in self._unseen if not self._exists(target)]
        self.missing.clear()
        self.missing.update(describe(target) for target in self._unseen)
        self._next_search = now + SEARCH

    def _exists(self, target: Object) -> bool:
        resource = self.cluster.find_resource(target["apiVersion"], target["kind"])
        if resource is None:
            return False
        metadata = target["metadata"]
        try:
            return self.cluster.get(resource, metadata["name"], metadata.get("namespace")) is not None
        except ApiError as error:
            if error.status != 403:
                raise
            self.denied[kind_of(target)] = error.evidence
            return True


def surroundings(target: Object) -> list[tuple[str, str]]:
    """Kinds that tell how a target fares: (apiVersion, kind)."""
    group, name = kind = kind_of(target)
    pods = [("v1", "Pod"), ("v1", "Event")]
    claims = [("v1", "PersistentVolumeClaim"), ("storage.k8s.io/v1", "StorageClass")]
    if kind == ("", "Service"):
        return [("discovery.k8s.io/v1", "EndpointSlice"), ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet")]
    if kind == ("", "PersistentVolumeClaim"):
        return [("storage.k8s.io/v1", "StorageClass"), ("v1", "Event")]
    if kind == ("batch", "CronJob"):
        return [("batch/v1", "Job")]
    if kind == ("cert-manager.io", "Certificate"):
        return [("cert-manager.io/v1", "CertificateRequest"), ("v1", "Event")]
    if kind in (("", "Pod"), ("batch", "Job")) or (group == "apps" and name in _APPS):
        more = [("apps/v1", "ReplicaSet")] if name == "Deployment" else [("v1", "Node")] if name == "DaemonSet" else []
        return pods + more + (claims if _has_claims(target) else [])
    if group and "." in group and not group.endswith(".k8s.io"):
        # A custom resource: its operator may make any of these for it.
        workloads = [
            ("apps/v1", "ReplicaSet"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("batch/v1", "Job"),
        ]
        return pods + workloads + (claims if kind == ("postgresql.cnpg.io", "Cluster") else [])
    return []


def _has_claims(target: Object) -> bool:
    """Whether a workload's pods have claims; yes where only its name is known."""
    spec = target.get("spec")
    if not spec:
        return True
    pod = (spec.get("template") or {}).get("spec") or spec
    return bool(spec.get("volumeClaimTemplates")) or any(
        "persistentVolumeClaim" in volume or "ephemeral" in volume for volume in pod.get("volumes") or []
    )
