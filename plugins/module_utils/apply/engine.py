# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch server-side apply.

The whole batch is planned before anything is written, so that a bad object changes nothing: an object that certainly
is as it should be is left alone, all others are dry-run on the server, and what equals its dry run is not written
either. What can't be judged yet, because its Namespace or its CustomResourceDefinition is in the same batch, is dry-run
as soon as those are there, before the rest is written. At last, what an earlier run of the same set applied and this
one does not have is deleted, if asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ansible_collections.groundwork.platform.plugins.module_utils.apply import order
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import refuse_duplicates, rewrite_images
from ansible_collections.groundwork.platform.plugins.module_utils.apply.plan import Planner, defined
from ansible_collections.groundwork.platform.plugins.module_utils.apply.prune import ApplySet, SetName
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import Refusals
from ansible_collections.groundwork.platform.plugins.module_utils.apply.replace import Replacer
from ansible_collections.groundwork.platform.plugins.module_utils.apply.session import PATIENCE, Session
from ansible_collections.groundwork.platform.plugins.module_utils.apply.write import Refused, Writer
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    FIELD_MANAGER,
    ApiError,
    Cluster,
    Object,
    Resource,
    describe,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

_NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False)


class Applier:
    """Applies batches to one cluster.

    :param namespace: of namespaced objects that name none.
    :param force_conflicts: take over fields that other managers own, instead of failing.
    :param take_over: managers whose fields are taken over; they own nothing of these objects afterwards.
    :param replace: kinds (``Job``) or objects (``Service/api``) that are deleted and created again where a field
        that cannot be changed changes.
    :param apply_set: the set that the objects of a batch are.
    :param prune: delete what the set had and the batch does not have.
    :param prune_kinds: kinds that pruning deletes too although that loses data.
    :param check_mode: only say what would happen.
    :param images: published image reference -> the one to use instead.
    :param patience: seconds for which what passes is waited for.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str | None = None,
        field_manager: str = FIELD_MANAGER,
        force_conflicts: bool = False,
        check_mode: bool = False,
        images: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
        progress: Progress | None = None,
        take_over: Collection[str] = (),
        replace: Collection[str] = (),
        apply_set: SetName | None = None,
        prune: bool = False,
        prune_kinds: Collection[str] = (),
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.check_mode = check_mode
        self.images = dict(images or {})
        progress = progress or Progress(namespace or "apply")
        self.session = Session(cluster, field_manager, force_conflicts, take_over, check_mode, patience, progress)
        self._replacer = Replacer(self.session, replace)
        self.apply_set = ApplySet(self.session, apply_set, prune, prune_kinds) if apply_set else None

    @property
    def pruned(self) -> list[Item]:
        """What the last run deleted of the set, or would delete."""
        return self.apply_set.pruned if self.apply_set else []

    @property
    def kept(self) -> list[Item]:
        """What the last run did not delete of the set although the batch does not have it, to lose no data."""
        return self.apply_set.kept if self.apply_set else []

    def run(self, objects: Sequence[Object]) -> list[Item]:
        """Apply a batch; return what happened to each object, in the given order.

        :raises Failure: ``unknown_kind``, ``namespace_not_found``, ``duplicate_object``, ``conflict``, ``invalid``,
            ``immutable``, ``not_replaceable``, ``forbidden``, ``denied`` by admission, ``foreign_set``; those of the
            plan before anything is written. ``overtaken``, when another run of the set began.
        """
        self.session.refusals = Refusals(objects)
        items = self._resolve(objects)
        if self.apply_set:
            self.apply_set.open(items)
        self.session.progress.update(f"comparing {len(items)} objects with the cluster")
        planner = Planner(self.session, self._replacer, self.apply_set)
        planner.plan_all(items)
        if self.apply_set:
            self.apply_set.plan(items, planner.snapshot.listed, planner.strays)
        if self.check_mode:
            planner.guess([item for item in items if item.waits_for], defined(items))
            return items
        writer = Writer(self.session, planner, self._replacer)
        try:
            self._write(items, writer)
        except Refused as refused:
            raise writer.undo(items, refused.failure) from None
        return items

    def _write(self, items: list[Item], writer: Writer) -> None:
        """Write the batch, and around it the set's parent where there is a set and something to be written."""
        current = self.apply_set
        idle = all(item.action == "unchanged" for item in items)
        if current is None or (idle and not current.pruned and not current.outdated):
            return writer.write_all(items, before=lambda phase: None)
        parent_can_be_written = self._namespace_is_there(current.name.namespace)
        if parent_can_be_written:
            current.check()

        def before(phase: int) -> None:
            if parent_can_be_written or phase > order.NAMESPACES:
                current.begin()

        writer.write_all(items, before)
        current.begin()
        current.finish()
        return None

    def remove(self, objects: Sequence[Object], timeout: float = 120.0) -> list[Item]:
        """Delete the objects of a batch that are there, in reverse order, and wait until each is gone.

        :param timeout: seconds for all of it.
        :raises Failure: ``timeout`` names what is still there and its finalizers.
        """
        items = [Item(obj) for obj in objects]
        for item in items:
            item.resource = self.cluster.find_resource(item.obj["apiVersion"], item.obj["kind"])
            if item.resource is not None:
                self._default_namespace(item, item.resource.namespaced)
                item.live = self.session.live(item)
            item.action = "deleted" if item.live else "unchanged"
        if self.check_mode:
            return items
        deadline = self.session.deadline(timeout)
        grouped = order.phases((order.phase_of(item.obj), item) for item in items if item.live)
        for phase in reversed(grouped):
            self.session.parallel(self.session.delete, phase)
            self.session.wait_gone(phase, deadline)
        return items

    def _resolve(self, objects: Sequence[Object]) -> list[Item]:
        """Find each object's resource and namespace, and what it has to wait for."""
        rewritten = rewrite_images(objects, self.images)
        items = [Item(obj) for obj in (self.apply_set.labelled(rewritten) if self.apply_set else rewritten)]
        definitions = defined(items)
        for item in items:
            version, kind = item.obj["apiVersion"], item.obj["kind"]
            item.resource = self.cluster.find_resource(version, kind)
            definition = definitions.get((version, kind))
            if item.resource is None and definition is None:
                self.cluster.resource(version, kind)  # raises
            if item.resource is None and definition is not None:
                item.waits_for = describe(definition)
            scope = str(((definition or {}).get("spec") or {}).get("scope"))
            self._default_namespace(item, item.resource.namespaced if item.resource else scope == "Namespaced")
        refuse_duplicates(item.obj for item in items)
        self._find_namespaces(items)
        return items

    def _default_namespace(self, item: Item, namespaced: bool) -> None:
        metadata = item.obj["metadata"]
        if namespaced and not metadata.get("namespace"):
            item.obj = {**item.obj, "metadata": {**metadata, "namespace": self.namespace or "default"}}
        elif not namespaced and metadata.get("namespace"):
            plain = {key: value for key, value in metadata.items() if key != "namespace"}
            item.obj = {**item.obj, "metadata": plain}

    def _find_namespaces(self, items: list[Item]) -> None:
        """Mark the objects whose Namespace is not there yet; refuse those whose Namespace is nowhere."""
        wanted: dict[str, str] = {}
        if self.apply_set:
            wanted[self.apply_set.name.namespace] = str(self.apply_set.name)
        for item in items:
            if item.obj["metadata"].get("namespace"):
                wanted[str(item.obj["metadata"]["namespace"])] = item.name
        coming = {item.obj["metadata"]["name"] for item in items if item.obj["kind"] == "Namespace"}
        there = self.session.parallel(self._namespace_is_there, list(wanted))
        missing = {name for name, present in zip(wanted, there, strict=True) if not present}
        for name in sorted(missing - coming):
            if not self.check_mode:
                raise Failure(
                    "namespace_not_found",
                    wanted[name],
                    f'cannot be applied: there is no Namespace "{name}"',
                    hint="put the Namespace in the batch, or create it before",
                )
        for item in items:
            namespace = item.obj["metadata"].get("namespace")
            if namespace in missing:
                # In check mode an earlier task of the same play would have created it.
                item.waits_for = item.waits_for or f"Namespace {namespace}"

    def _namespace_is_there(self, name: str) -> bool:
        try:
            found = self.session.settled(f"Namespace {name}", lambda: self.cluster.get(_NAMESPACES, name))
        except ApiError as error:
            if error.status == 403:
                # Who may write in one namespace only need not be able to read Namespaces: the dry run will tell.
                return True
            raise
        return found is not None
