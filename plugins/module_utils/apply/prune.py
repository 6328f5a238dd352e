# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ApplySets: which objects were applied together, so that those that are no longer wanted can be found and deleted.

The members carry a label with the set's id. A parent object, a Secret or a ConfigMap, holds the kinds and namespaces
in which they lie. It is written twice: before the members, with all that was and will be, and after pruning, with what
is; whatever ends a run in between, the next one finds every member. The form is that of KEP-3659, which kubectl reads.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply import fields, order
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import joined
from ansible_collections.groundwork.platform.plugins.module_utils.apply.replace import NEVER
from ansible_collections.groundwork.platform.plugins.module_utils.apply.session import Session
from ansible_collections.groundwork.platform.plugins.module_utils.apply.snapshot import Place
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    describe,
    identity,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

PART_OF = "applyset.kubernetes.io/part-of"
ID = "applyset.kubernetes.io/id"
TOOLING = "applyset.kubernetes.io/tooling"
KINDS = "applyset.kubernetes.io/contains-group-kinds"
NAMESPACES = "applyset.kubernetes.io/additional-namespaces"
RUN = "groundwork.platform/run"
"""Annotation of the parent while a run writes: which one began last."""
TOOLS = {"groundwork.platform": "groundwork.platform/v0.1.0", "kubectl": "kubectl/v1.36.0"}
MANAGER = "groundwork.platform-applyset"

GroupKind = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class SetName:
    """Which set: the one of this parent object.

    :param kind: ``Secret``, as kubectl has it by default, or ``ConfigMap``.
    :param tooling: who may change the set; kubectl only touches sets of its own.
    """

    name: str
    namespace: str
    kind: str = "Secret"
    tooling: str = "groundwork.platform"

    @property
    def id(self) -> str:
        """The value of the members' label."""
        digest = hashlib.sha256(f"{self.name}.{self.namespace}.{self.kind}.".encode()).digest()
        return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"

    def __str__(self) -> str:
        return f"ApplySet {self.kind} {self.namespace}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Extent:
    """Where members of a set may lie."""

    kinds: frozenset[GroupKind] = frozenset()
    namespaces: frozenset[str] = frozenset()

    def __or__(self, other: Extent) -> Extent:
        return Extent(self.kinds | other.kinds, self.namespaces | other.namespaces)

    def __sub__(self, other: Extent) -> Extent:
        return Extent(self.kinds - other.kinds, self.namespaces - other.namespaces)

    @classmethod
    def of(cls, objects: Iterable[Mapping[str, Any]]) -> Extent:
        """Where these objects lie."""
        identities = [identity(obj) for obj in objects]
        return cls(
            frozenset((group, kind) for group, kind, _namespace, _name in identities),
            frozenset(namespace for _group, _kind, namespace, _name in identities if namespace),
        )

    @classmethod
    def read(cls, parent: Mapping[str, Any]) -> Extent:
        """What a parent says."""
        annotations = parent["metadata"].get("annotations") or {}
        kinds = [text.partition(".") for text in _split(annotations.get(KINDS))]
        own = parent["metadata"].get("namespace")
        return cls(
            frozenset((group, kind) for kind, _dot, group in kinds),
            frozenset([*_split(annotations.get(NAMESPACES)), *([own] if own else [])]),
        )

    def annotations(self, own: str) -> dict[str, str]:
        """As a parent in the namespace ``own`` says it."""
        kinds = sorted(f"{kind}.{group}" if group else kind for group, kind in self.kinds)
        return {KINDS: ",".join(kinds), NAMESPACES: ",".join(sorted(self.namespaces - {own}))}


def _split(text: Any) -> list[str]:
    return [part for part in str(text or "").split(",") if part]


class ApplySet:
    """One set during one run.

    :param prune: delete members that the batch does not have.
    :param prune_kinds: kinds that are deleted too although that loses data, such as ``PersistentVolumeClaim``.
    """

    def __init__(self, session: Session, name: SetName, prune: bool = False, prune_kinds: Collection[str] = ()) -> None:
        self.name = name
        self.pruned: list[Item] = []
        """Members that the batch does not have, to be deleted after the rest is applied."""
        self.kept: list[Item] = []
        """The same, but of kinds that are not deleted unless asked."""
        self._session = session
        self._prune = prune
        self._prune_kinds = frozenset(prune_kinds)
        self._resource = session.cluster.resource("v1", name.kind)
        self._run = ""
        self._parent: Object | None = None
        self._before = Extent()
        self._wanted = Extent()
        self._begun = False

    # Members

    def labelled(self, objects: Iterable[Object]) -> list[Object]:
        """The objects as members.

        :raises Failure: ``bad_manifest`` for one that carries such a label already.
        """
        members = []
        for obj in objects:
            metadata = obj["metadata"]
            labels = metadata.get("labels") or {}
            if labels.get(PART_OF, self.name.id) != self.name.id:
                raise Failure("bad_manifest", describe(obj), f"has a label {PART_OF}", hint="leave it to apply_set")
            members.append({**obj, "metadata": {**metadata, "labels": {**labels, PART_OF: self.name.id}}})
        return members

    def has(self, live: Mapping[str, Any]) -> bool:
        """Whether an object is a member."""
        return bool((live["metadata"].get("labels") or {}).get(PART_OF) == self.name.id)

    def refuse_foreign(self, item: Item) -> None:
        """Refuse to take an object out of another set.

        :raises Failure: ``foreign_set`` names that set.
        """
        owner = ((item.live or {}).get("metadata", {}).get("labels") or {}).get(PART_OF)
        if owner in (None, self.name.id):
            return
        raise Failure(
            "foreign_set",
            item.name,
            f"belongs to another set: {self._set_of(item, str(owner))}",
            hint=f"take it out of one of the two sets; its label {PART_OF} says which it is in",
        )

    def _set_of(self, item: Item, owner: str) -> str:
        """The name of the set with this id, where it can be found."""
        cluster = self._session.cluster
        for namespace in dict.fromkeys((item.obj["metadata"].get("namespace") or self.name.namespace, None)):
            for kind in ("Secret", "ConfigMap"):
                try:
                    found = cluster.list(cluster.resource("v1", kind), namespace, labels=f"{ID}={owner}").items
                except ApiError:
                    continue
                for parent in found:
                    return describe(parent)
        return owner

    # What will be done

    def open(self, items: Sequence[Item]) -> None:
        """Read the parent.

        :raises Failure: ``foreign_set`` when it is another tool's.
        """
        self.pruned, self.kept, self._begun = [], [], False
        self._run = uuid.uuid4().hex
        self._wanted = Extent.of(item.obj for item in items)
        self._read()
        if self._parent is None:
            return
        metadata = self._parent["metadata"]
        tool = str((metadata.get("annotations") or {}).get(TOOLING, "")).rpartition("/")[0]
        label = (metadata.get("labels") or {}).get(ID)
        if not label and not tool:
            cause = f"cannot be kept there: that {self.name.kind} exists and is no ApplySet's parent"
            raise Failure("foreign_set", str(self.name), cause, hint="give the set another name")
        if tool != self.name.tooling:
            raise Failure(
                "foreign_set",
                str(self.name),
                f"is managed by {tool or 'an unknown tool'}, not by {self.name.tooling}",
                hint=f"say so with tooling if it is to be shared; the annotation {TOOLING} names its tool",
            )
        if label != self.name.id:
            raise Failure("foreign_set", str(self.name), f"has a label {ID} that is not its own: {label}")

    def _read(self) -> None:
        parent = self._session.cluster.get(self._resource, self.name.name, self.name.namespace)
        if parent is not None and parent["metadata"].get("deletionTimestamp"):
            parent = None
        self._parent = parent
        self._before = Extent.read(parent) if parent is not None else Extent()

    def plan(self, items: Sequence[Item], listed: Collection[Place], strays: Sequence[tuple[Resource, Object]]) -> None:
        """Find the members that the batch does not have.

        :param listed: kinds and namespaces of which all that is not of the batch is in ``strays``, if it is a member.
        :raises Failure: a kind may not be listed.
        """
        if not self._prune:
            self._wanted |= self._before
            return
        if not items:
            cause = "would lose all of its objects, since there is none in this run"
            raise Failure("empty_set", str(self.name), cause, hint="delete its objects with state absent")
        served = {identity(item.obj)[:2]: item.resource for item in items if item.resource}
        places: list[Place] = []
        for group, kind in sorted(self._before.kinds):
            resource = served.get((group, kind)) or _resource_of(self._session.cluster, group, kind)
            if resource is None:
                continue  # Not served any more: with the kind, its objects are gone.
            spaces: Iterable[str | None] = sorted(self._before.namespaces) if resource.namespaced else [None]
            places += [(resource, space) for space in spaces]
        found = list(strays)
        for members in self._session.parallel(self._list, [place for place in places if place not in listed]):
            found += members
        present = {identity(item.obj) for item in items}
        # A list that had to begin again has met some twice.
        members_by_name = {identity(live): (resource, live) for resource, live in found}
        for name, (resource, live) in sorted(members_by_name.items(), key=lambda member: member[0][1:]):
            if name in present or live["metadata"].get("deletionTimestamp") or _copied(live):
                continue
            item = Item(live, resource, live=live, action="pruned")
            (self.kept if self._protected(item) else self.pruned).append(item)
        self._wanted |= Extent.of(item.obj for item in self.kept)

    def _list(self, place: Place) -> list[tuple[Resource, Object]]:
        resource, namespace = place
        listing = self._session.cluster.list(resource, namespace, labels=f"{PART_OF}={self.name.id}")
        return [(resource, live) for live in listing.items]

    def _protected(self, item: Item) -> bool:
        group, kind = identity(item.obj)[:2]
        if (group, kind) == ("apps", "StatefulSet"):
            policy = (item.obj.get("spec") or {}).get("persistentVolumeClaimRetentionPolicy") or {}
            return policy.get("whenDeleted") == "Delete" and "PersistentVolumeClaim" not in self._prune_kinds
        return (group, kind) in NEVER and kind not in self._prune_kinds

    @property
    def outdated(self) -> bool:
        """Whether the parent does not say yet what it will have to say."""
        return self._parent is None or self._before != self._exact or RUN in self._annotations(self._parent)

    @property
    def _exact(self) -> Extent:
        return self._wanted | Extent(namespaces=frozenset({self.name.namespace}))

    @staticmethod
    def _annotations(parent: Mapping[str, Any]) -> Mapping[str, Any]:
        return parent["metadata"].get("annotations") or {}

    def check(self) -> None:
        """Let the server say whether the parent can be written.

        :raises Failure: it can't.
        """
        self._write(self._before | self._exact, self._run, dry_run=True)

    # Doing it

    def begin(self) -> None:
        """Make the parent say all that was and will be, before anything is written; the second time, do nothing."""
        if not self._begun:
            self._begun = True
            self._write(self._before | self._exact, self._run)

    def finish(self) -> None:
        """Delete what is to be pruned, then make the parent say what is there.

        :raises Failure: ``overtaken`` when another run of the set has begun in the meantime: nothing is deleted then.
        """
        began = self._before | self._exact
        if self._overtaken(began):
            raise Failure(
                "overtaken",
                str(self.name),
                "is being applied by another run that began later",
                "all objects of this run are applied, none is pruned",
                "run again when the other one has ended",
            )
        ordered = order.phases((order.phase_of(item.obj), item) for item in self.pruned)
        for phase in reversed(ordered):
            failures = [failure for failure in self._session.parallel(self._delete, phase) if failure is not None]
            if failures:
                raise joined(failures)
        # What another run has added since stays: it may have members there.
        while not self._write(self._exact | (self._before - began), "", guarded=True):
            self._read()

    def _overtaken(self, began: Extent) -> bool:
        """Whether another run has taken the parent; it is told what this one has applied."""
        while True:
            self._read()
            owner = self._annotations(self._parent).get(RUN, "") if self._parent else ""
            if owner == self._run:
                return False
            if self._write(self._before | began, owner, guarded=True):
                return True

    def _delete(self, item: Item) -> Failure | None:
        """Delete a member, unless it has left the set or is another object by now."""
        session = self._session
        while True:
            try:
                live = session.live(item)
            except Failure as failure:
                return failure
            if live is None or not self.has(live) or live["metadata"]["uid"] != item.obj["metadata"]["uid"]:
                return None
            metadata = live["metadata"]
            name, namespace, version = metadata["name"], metadata.get("namespace"), metadata["resourceVersion"]
            try:
                if session.cluster.delete(item.served, name, namespace, uid=metadata["uid"], version=version):
                    return None
            except ApiError as error:
                return session.refusals.explained(error, item)

    def _write(self, extent: Extent, run: str, dry_run: bool = False, guarded: bool = False) -> bool:
        """Write the parent; False if it has changed since it was read, when ``guarded``."""
        name = self.name
        annotations = {
            TOOLING: TOOLS[name.tooling],
            **extent.annotations(name.namespace),
            **({RUN: run} if run else {}),
        }
        metadata: dict[str, Any] = {
            "name": name.name,
            "namespace": name.namespace,
            "labels": {ID: name.id},
            "annotations": annotations,
        }
        if guarded and self._parent is not None:
            metadata["resourceVersion"] = self._parent["metadata"]["resourceVersion"]
        parent = {"apiVersion": "v1", "kind": name.kind, "metadata": metadata}
        try:
            self._session.cluster.apply(self._resource, parent, MANAGER, force=True, dry_run=dry_run)
        except ApiError as error:
            if guarded and error.status == 409:
                return False
            raise self._session.refusals.explained(error, Item(parent)) from error
        return True


def _copied(live: Mapping[str, Any]) -> bool:
    """Whether an object got the label from another one, as a controller copies a Service's labels to its slices."""
    if any(owner.get("controller") for owner in live["metadata"].get("ownerReferences") or []):
        return True
    path = ("f:metadata", "f:labels", f"f:{PART_OF}")
    writers = {e.get("manager") for e in fields.entries(live) if fields.at(e.get("fieldsV1") or {}, path) is not None}
    return writers == {"kube-controller-manager"}


def _resource_of(cluster: Cluster, group: str, kind: str) -> Resource | None:
    """A kind in the version that the server prefers; None if it is not served any more."""
    for version in cluster.versions(group):
        found = cluster.find_resource(f"{group}/{version}" if group else version, kind)
        if found is not None:
            return found
    return None
