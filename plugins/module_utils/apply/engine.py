# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch server-side apply.

The whole batch is dry-run on the server before anything is written, so that a bad object changes nothing; an
object whose dry-run result equals what is there is not written. What can't be dry-run yet, because its
Namespace or its CustomResourceDefinition is in the same batch, is dry-run as soon as those are there, before
the rest is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ansible_collections.groundwork.platform.plugins.module_utils.apply import order
from ansible_collections.groundwork.platform.plugins.module_utils.apply.compare import ansible_diff, changed_fields
from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import refuse_duplicates, rewrite_images
from ansible_collections.groundwork.platform.plugins.module_utils.apply.schema import Schemas
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

INITIAL_REPLICAS = "groundwork.platform/initial-replicas"
INITIAL_MANAGER = "groundwork.platform/initial"
THREADS = 8
PATIENCE = 120.0
"""Seconds for which a webhook that can't be reached, or a kind that is being set up, is waited for."""
CHECK_PATIENCE = 30.0
"""The same at most, in check mode."""

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass
class Item:
    """One object of a batch on its way.

    :param resource: None while its CustomResourceDefinition is not there yet.
    :param waits_for: what has to be applied before the server can judge it; empty if it can.
    :param live: what was there, None if nothing.
    :param result: what is there now, or what the dry run said.
    :param action: ``created``, ``changed``, ``unchanged`` or ``deleted``.
    :param checked: how it was checked before it was written: ``server``, ``schema`` or ``none``.
    """

    obj: Object
    resource: Resource | None = None
    waits_for: str = ""
    live: Object | None = None
    result: Object | None = None
    action: str = ""
    checked: str = "server"
    written: bool = False

    @property
    def name(self) -> str:
        """As messages name it."""
        return describe(self.obj)

    def report(self) -> dict[str, Any]:
        """As a module returns it."""
        metadata = self.obj["metadata"]
        report = {
            "api_version": self.obj["apiVersion"],
            "kind": self.obj["kind"],
            "namespace": metadata.get("namespace"),
            "name": metadata["name"],
            "action": self.action,
            "checked": self.checked,
        }
        if self.action == "changed" and self.live and self.result:
            report["changed_fields"] = changed_fields(self.live, self.result)
        return report

    def diff(self) -> dict[str, str]:
        """As a module returns it in diff mode."""
        if self.action == "deleted":
            return ansible_diff(self.live, None)
        return ansible_diff(self.live, self.result or self.obj)


class Refused(Exception):
    """The server refuses part of a batch after its Namespaces and definitions have been written."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Applier:
    """Applies batches to one cluster.

    :param namespace: of namespaced objects that name none.
    :param force_conflicts: take over fields that other managers own, instead of failing.
    :param check_mode: only say what would happen.
    :param images: published image reference -> the one to use instead.
    :param patience: seconds; see :data:`PATIENCE`.
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
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.field_manager = field_manager
        self.force = force_conflicts
        self.check_mode = check_mode
        self.images = dict(images or {})
        self.patience = patience
        self.progress = progress or Progress(namespace or "apply")
        self._namespaces = Resource("", "v1", "Namespace", "namespaces", False)

    def run(self, objects: Sequence[Object]) -> list[Item]:
        """Apply a batch; return what happened to each object, in the given order.

        :raises Failure: ``unknown_kind``, ``namespace_not_found``, ``duplicate_object``, ``conflict``,
            ``invalid``, ``immutable``, ``forbidden``, ``denied`` by admission; those of the dry run before
            anything is written.
        """
        items = self._resolve(objects)
        self.progress.update(f"comparing {len(items)} objects with the cluster")
        self._plan_all(items)
        if self.check_mode:
            self._guess([item for item in items if item.waits_for], self._defined(items))
            return items
        try:
            self._write_all(items)
        except Refused as refused:
            raise self._undone(items, refused.failure) from None
        return items

    def _write_all(self, items: list[Item]) -> None:
        """Write phase by phase; what had to wait is dry-run once Namespaces and definitions are there.

        :raises Refused: that dry run was refused, so that nothing but Namespaces and definitions has been written.
        """
        grouped = order.phases((order.phase_of(item.obj), item) for item in items)
        for number, phase in enumerate(grouped):
            held_back = [item for item in items if item.waits_for]
            if held_back and order.phase_of(phase[0].obj) > order.DEFINITIONS:
                try:
                    self._admit(held_back)
                except Failure as failure:
                    raise Refused(failure) from failure
            self._write_phase([item for item in phase if item.action != "unchanged"], number + 1, len(grouped))

    def _undone(self, items: list[Item], failure: Failure) -> Failure:
        """Remove the Namespaces and definitions that this run created for objects that were then refused."""
        created = [item for item in items if item.written and item.live is None]
        for item in reversed(created):
            item.live = item.result
            self._delete(item)
        if created:
            names = ", ".join(item.name for item in created)
            evidence = f"{failure.evidence}; what this run had created is removed again: {names}".lstrip("; ")
            failure = Failure(failure.code, failure.object, failure.cause, evidence, failure.hint)
        return failure

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
                item.live = self._live(item)
            item.action = "deleted" if item.live else "unchanged"
        if self.check_mode:
            return items
        deadline = self.cluster.clock.now() + timeout
        grouped = order.phases((order.phase_of(item.obj), item) for item in items if item.live)
        for phase in reversed(grouped):
            self._parallel(self._delete, phase)
            self._wait_gone(phase, deadline)
        return items

    # What is there, and what would come of it

    def _resolve(self, objects: Sequence[Object]) -> list[Item]:
        """Find each object's resource and namespace, and what it has to wait for."""
        items = [Item(obj) for obj in rewrite_images(objects, self.images)]
        defined = self._defined(items)
        for item in items:
            version, kind = item.obj["apiVersion"], item.obj["kind"]
            item.resource = self.cluster.find_resource(version, kind)
            definition = defined.get((version, kind))
            if item.resource is None and definition is None:
                self.cluster.resource(version, kind)  # raises
            if item.resource is None and definition is not None:
                item.waits_for = describe(definition)
            namespaced = item.resource.namespaced if item.resource else _scope(definition) == "Namespaced"
            self._default_namespace(item, namespaced)
        refuse_duplicates(item.obj for item in items)
        self._find_namespaces(items)
        return items

    @staticmethod
    def _defined(items: Iterable[Item]) -> dict[tuple[str, str], Object]:
        """The kinds that the batch itself defines: (apiVersion, kind) -> CustomResourceDefinition."""
        found = {}
        for item in items:
            if item.obj["kind"] == "CustomResourceDefinition":
                spec = item.obj.get("spec") or {}
                for version in spec.get("versions") or []:
                    key = f"{spec.get('group')}/{version.get('name')}", str((spec.get("names") or {}).get("kind"))
                    found[key] = item.obj
        return found

    def _default_namespace(self, item: Item, namespaced: bool) -> None:
        metadata = item.obj["metadata"]
        if namespaced and not metadata.get("namespace"):
            item.obj = {**item.obj, "metadata": {**metadata, "namespace": self.namespace or "default"}}
        elif not namespaced and metadata.get("namespace"):
            plain = {key: value for key, value in metadata.items() if key != "namespace"}
            item.obj = {**item.obj, "metadata": plain}

    def _find_namespaces(self, items: list[Item]) -> None:
        """Mark the objects whose Namespace is not there yet; refuse those whose Namespace is nowhere."""
        wanted = sorted(
            {str(item.obj["metadata"]["namespace"]) for item in items if item.obj["metadata"].get("namespace")}
        )
        coming = {item.obj["metadata"]["name"] for item in items if item.obj["kind"] == "Namespace"}
        present = dict(zip(wanted, self._parallel(self._namespace_is_there, wanted), strict=True))
        for item in items:
            namespace = str(item.obj["metadata"].get("namespace") or "")
            if not namespace or present[namespace]:
                continue
            if namespace not in coming and not self.check_mode:
                raise Failure(
                    "namespace_not_found",
                    item.name,
                    f'cannot be applied: there is no Namespace "{namespace}"',
                    hint="put the Namespace in the batch, or create it before",
                )
            # In check mode an earlier task of the same play would have created it.
            item.waits_for = item.waits_for or f"Namespace {namespace}"

    def _namespace_is_there(self, name: str) -> bool:
        try:
            found = self._settled(f"Namespace {name}", lambda: self.cluster.get(self._namespaces, name))
        except ApiError as error:
            if error.status == 403:
                # Who may write in one namespace only need not be able to read Namespaces: the dry run will tell.
                return True
            raise
        return found is not None

    def _plan_all(self, items: list[Item]) -> None:
        """Dry-run what can be; the definitions first, since what they define depends on what comes of them."""
        definitions = [item for item in items if item.obj["kind"] == "CustomResourceDefinition"]
        self._plan_some(definitions)
        defined = self._defined(item for item in definitions if item.action != "unchanged")
        others = [item for item in items if item.obj["kind"] != "CustomResourceDefinition"]
        for item in others:
            definition = defined.get((item.obj["apiVersion"], item.obj["kind"]))
            if definition is not None and not item.waits_for:
                item.waits_for = describe(definition)
        self._plan_some([item for item in others if not item.waits_for])

    def _plan_some(self, items: list[Item]) -> None:
        failures = [failure for failure in self._parallel(self._try_plan, items) if failure is not None]
        if failures:
            raise _joined(failures)

    def _try_plan(self, item: Item) -> Failure | None:
        try:
            self._plan_patiently(item) if self.check_mode else self._plan(item)
        except ApiError as error:
            if error.webhook_unavailable and not self.check_mode:
                # The webhook's own workload may be what this batch repairs: ask again when it is this object's turn.
                item.waits_for = "its admission webhook"
                return None
            if error.status in (403, 404) and item.obj["kind"] in ("RoleBinding", "ClusterRoleBinding"):
                # Whether one may bind a role can only be judged when the role is there.
                item.waits_for = "its role"
                return None
            return self._explained(error, item)
        except Failure as failure:
            return failure
        return None

    def _plan_patiently(self, item: Item) -> None:
        """As :meth:`_plan`, for check mode: a webhook that is not up yet is waited for, since there is no later try."""
        deadline = self.cluster.clock.now() + min(self.patience, CHECK_PATIENCE)
        while True:
            try:
                return self._plan(item)
            except ApiError as error:
                if not error.webhook_unavailable or self.cluster.clock.now() > deadline:
                    raise
                self.progress.update(f"{item.name}: waiting for its admission webhook")
                self.cluster.clock.sleep(0.5)

    def _plan(self, item: Item) -> None:
        """Compare what is there with what the server says would come of applying the object."""
        if item.resource is None:
            raise AssertionError(f"{item.name} has no resource yet")
        item.live = self._settled(item.name, lambda: self._live(item))
        item.result = self.cluster.apply(item.resource, item.obj, self.field_manager, self.force, dry_run=True)
        item.waits_for, item.checked = "", "server"
        if item.live is None:
            item.action = "created"
            return
        replicas = self._replicas_to_hand_over(item)
        if replicas is not None:
            item.result = {**item.result, "spec": {**item.result["spec"], "replicas": replicas}}
            item.action = "changed"
            return
        item.action = "changed" if changed_fields(item.live, item.result, limit=1) else "unchanged"

    def _settled(self, name: str, read: Callable[[], Object | None]) -> Object | None:
        """What is there once what is being deleted is gone: applying to that would be lost with it."""
        deadline = self.cluster.clock.now() + self.patience
        while True:
            live = read()
            if live is None or not live["metadata"].get("deletionTimestamp"):
                return live
            if self.check_mode:
                return None
            if self.cluster.clock.now() > deadline:
                raise _still_there(name, live)
            self.progress.update(f"waiting for {name} to be deleted")
            self.cluster.clock.sleep(0.3)

    def _live(self, item: Item) -> Object | None:
        if item.resource is None:
            raise AssertionError(f"{item.name} has no resource yet")
        metadata = item.obj["metadata"]
        try:
            return self.cluster.get(item.resource, metadata["name"], metadata.get("namespace"))
        except ApiError as error:
            raise self._explained(error, item) from error

    def _guess(self, items: list[Item], defined: Mapping[tuple[str, str], Object]) -> None:
        """In check mode: what the server can't judge yet is checked against the published schema where there is one."""
        schemas = Schemas(self.cluster)
        failures = []
        for item in items:
            item.live = self._live(item) if item.resource and not item.waits_for.startswith("Namespace") else None
            item.action = "changed" if item.live else "created"
            definition = defined.get((item.obj["apiVersion"], item.obj["kind"]))
            problems = schemas.problems(item.obj, item.resource, definition)
            item.checked = "none" if problems is None else "schema"
            if problems:
                failures.append(
                    Failure("invalid", item.name, "does not fit its schema", "; ".join(problems[:5]), "correct it")
                )
        if failures:
            raise _joined(failures)

    # Writing

    def _admit(self, items: list[Item]) -> None:
        """Dry-run what had to wait for Namespaces and definitions, before anything else is written."""
        ready = [item for item in items if item.waits_for.startswith(("Namespace", "CustomResourceDefinition"))]
        for item in ready:
            if item.resource is None:
                item.resource = self.cluster.find_resource(item.obj["apiVersion"], item.obj["kind"], fresh=True)
            if item.resource is None:
                self.cluster.resource(item.obj["apiVersion"], item.obj["kind"])  # raises
        self._plan_some(ready)

    def _write_phase(self, items: list[Item], number: int, count: int) -> None:
        if not items:
            return
        names = ", ".join(describe(item.obj) for item in items[:3]) + (" ..." if len(items) > 3 else "")
        self.progress.update(f"applying {len(items)} objects, step {number} of {count}: {names}")
        failures = [failure for failure in self._parallel(self._try_write, items) if failure is not None]
        if failures:
            raise _joined(failures)
        definitions = [item for item in items if item.obj["kind"] == "CustomResourceDefinition"]
        self._wait_established(definitions)

    def _try_write(self, item: Item) -> Failure | None:
        deadline = self.cluster.clock.now() + self.patience
        while True:
            try:
                if item.waits_for:
                    self._plan(item)
                self._write(item)
            except ApiError as error:
                # "the object has been modified": a controller wrote at the same moment.
                again = error.webhook_unavailable or (error.status == 409 and not error.causes)
                if not again or self.cluster.clock.now() > deadline:
                    return self._explained(error, item)
                if error.webhook_unavailable:
                    self.progress.update(f"{item.name}: waiting for its admission webhook: {_short(error.message)}")
                self.cluster.clock.sleep(0.5)
                continue
            except Failure as failure:
                return failure
            return None

    def _write(self, item: Item) -> None:
        if item.action == "unchanged":
            return
        if item.resource is None:
            raise AssertionError(f"{item.name} has no resource yet")
        replicas = self._replicas_to_hand_over(item)
        if replicas is not None:
            self._set_initial(item, replicas)
        item.result = self.cluster.apply(item.resource, item.obj, self.field_manager, self.force)
        item.written = True
        wanted = _initial_replicas(item.obj)
        if wanted is not None and item.live is None and item.result["spec"].get("replicas") != wanted:
            item.result = self._set_initial(item, wanted)

    def _replicas_to_hand_over(self, item: Item) -> int | None:
        """How many replicas to give to the initial manager, so that applying an object without replicas keeps them.

        Two cases: they were ours until this release, and giving them up would set them to 1; or they are
        nobody's, since an earlier run ended between creating the object and setting them.
        """
        wanted = _initial_replicas(item.obj)
        if wanted is None or item.live is None:
            return None
        managers = _managers_of_replicas(item.live)
        present = int(item.live["spec"].get("replicas", 1))
        if managers == {self.field_manager}:
            return present
        if not managers and present != wanted:
            return wanted
        return None

    def _set_initial(self, item: Item, replicas: int) -> Object:
        if item.resource is None:
            raise AssertionError(f"{item.name} has no resource yet")
        metadata = item.obj["metadata"]
        patch = {
            "apiVersion": item.obj["apiVersion"],
            "kind": item.obj["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata.get("namespace")},
            "spec": {"replicas": replicas},
        }
        return self.cluster.apply(item.resource, patch, INITIAL_MANAGER, force=True)

    def _wait_established(self, definitions: list[Item]) -> None:
        """Wait until the server serves what was defined."""
        deadline = self.cluster.clock.now() + self.patience
        waiting = list(definitions)
        while waiting:
            waiting = [item for item in waiting if not self._established(item)]
            if not waiting:
                return
            if self.cluster.clock.now() > deadline:
                raise Failure("timeout", waiting[0].name, f"was not established within {self.patience:.0f} s")
            self.progress.update(f"waiting for {waiting[0].name} to be established")
            self.cluster.clock.sleep(0.1)

    def _established(self, item: Item) -> bool:
        live = self._live(item)
        conditions = {c["type"]: c for c in ((live or {}).get("status") or {}).get("conditions") or []}
        accepted = conditions.get("NamesAccepted", {})
        if accepted.get("status") == "False":
            raise Failure(
                "invalid", item.name, "uses names that another definition has", str(accepted.get("message", ""))
            )
        if conditions.get("Established", {}).get("status") != "True":
            return False
        spec = item.obj["spec"]
        served = [version["name"] for version in spec["versions"] if version.get("served")]
        return all(
            self.cluster.find_resource(f"{spec['group']}/{version}", spec["names"]["kind"], fresh=True)
            for version in served
        )

    # Deleting

    def _delete(self, item: Item) -> None:
        if item.resource is None:
            raise AssertionError(f"{item.name} has no resource yet")
        if item.live is None:
            raise AssertionError(f"{item.name} has no live yet")
        metadata = item.live["metadata"]
        self.cluster.delete(item.resource, metadata["name"], metadata.get("namespace"), uid=metadata["uid"])

    def _wait_gone(self, items: list[Item], deadline: float) -> None:
        waiting = items
        while True:
            lives = self._parallel(self._live, waiting)
            waiting = [
                item
                for item, live in zip(waiting, lives, strict=True)
                if live and item.live and live["metadata"]["uid"] == item.live["metadata"]["uid"]
            ]
            if not waiting:
                return
            if self.cluster.clock.now() > deadline:
                raise _still_there(waiting[0].name, self._live(waiting[0]) or {"metadata": {}})
            self.progress.update(f"waiting for {waiting[0].name} to be deleted")
            self.cluster.clock.sleep(0.3)

    # Common

    @staticmethod
    def _parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
            return list(pool.map(work, items))

    def _explained(self, error: ApiError, item: Item) -> Failure:
        """An API error in the words of this object."""
        if error.status == 409 and error.causes:
            return _conflict(error, item)
        if error.status in (400, 422) and "immutable" in error.message:
            return Failure(
                "immutable",
                item.name,
                "changes a field that cannot be changed",
                _short(error.message),
                "give it another name, or delete it and apply it again",
            )
        if error.status == 403 and any("NamespaceTerminating" in str(cause.get("reason")) for cause in error.causes):
            return Failure(
                "terminating",
                item.name,
                "cannot be applied: its Namespace is being deleted",
                _short(error.message),
                "wait until it is gone and run again",
            )
        if error.webhook_unavailable:
            return Failure(
                "webhook_unavailable",
                item.name,
                "cannot be checked: its admission webhook does not answer",
                _short(error.message),
                "see whether the workload behind the webhook runs",
            )
        if "failed to create typed patch object" in error.message:
            evidence = _short(error.message.partition("): ")[2] or error.message)
            return Failure("invalid", item.name, "does not fit its schema", evidence, "correct the object")
        denied = "denied the request" in error.message or "violates PodSecurity" in error.message
        if denied or (error.status == 403 and "is forbidden: User" not in error.message):
            return Failure("denied", item.name, "is refused by admission", _short(error.message), "correct the object")
        return Failure(error.code, item.name, error.cause, _short(error.message), error.hint)


def _still_there(name: str, live: Mapping[str, Any]) -> Failure:
    finalizers = ", ".join(live["metadata"].get("finalizers") or []) or "none"
    return Failure(
        "timeout",
        name,
        "is still being deleted",
        f"its finalizers are {finalizers}",
        "see whether the controllers that own them run",
    )


def _initial_replicas(obj: Mapping[str, Any]) -> int | None:
    text = (obj["metadata"].get("annotations") or {}).get(INITIAL_REPLICAS)
    if text is None or "replicas" in (obj.get("spec") or {}):
        return None
    try:
        return int(text)
    except ValueError:
        raise Failure(
            "bad_manifest", describe(obj), f'has an annotation {INITIAL_REPLICAS} "{text}" that is no number'
        ) from None


def _managers_of_replicas(live: Mapping[str, Any]) -> set[str]:
    return {
        str(entry.get("manager"))
        for entry in live["metadata"].get("managedFields") or []
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }


def _scope(definition: Mapping[str, Any] | None) -> str:
    return str(((definition or {}).get("spec") or {}).get("scope"))


def _conflict(error: ApiError, item: Item) -> Failure:
    """Which fields whose manager owns: ``conflict with "kubectl" using apps/v1`` for each field of the causes."""
    fields: dict[str, list[str]] = {}
    for cause in error.causes:
        message = str(cause.get("message", ""))
        manager = message.split('"')[1] if message.count('"') >= 2 else message
        fields.setdefault(manager, []).append(str(cause.get("field", "?")))
    text = "; ".join(f"{manager} owns {', '.join(sorted(owned))}" for manager, owned in sorted(fields.items()))
    return Failure(
        "conflict",
        item.name,
        "has fields that another manager owns with another value",
        text,
        "leave these fields out, or take them over with force_conflicts",
    )


def _joined(failures: list[Failure]) -> Failure:
    """One failure for several: the first, and what the others say."""
    first, *others = failures
    if not others:
        return first
    more = "; ".join(f"{failure.object} {failure.cause}" for failure in others[:5])
    more += f"; and {len(others) - 5} more" if len(others) > 5 else ""
    evidence = f"{first.evidence}; also: {more}" if first.evidence else f"also: {more}"
    return Failure(first.code, first.object, first.cause, evidence, first.hint)


def _short(text: str, limit: int = 600) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."
