# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what a plan says is to be written, in the order in which objects need each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansible_collections.groundwork.platform.plugins.module_utils.apply import fields, order, replicas
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.plan import Planner
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import joined, short
from ansible_collections.groundwork.platform.plugins.module_utils.apply.replace import Replacer
from ansible_collections.groundwork.platform.plugins.module_utils.apply.session import Session
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Object, Unreachable, describe
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure


class Refused(Exception):
    """The server refuses part of a batch after its Namespaces and definitions have been written."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Writer:
    """Writes a planned batch.

    :param planner: asked again about what had to wait.
    """

    def __init__(self, session: Session, planner: Planner, replacer: Replacer) -> None:
        self._session = session
        self._planner = planner
        self._replacer = replacer

    def write_all(self, items: Sequence[Item], before: Callable[[int], None]) -> None:
        """Write phase by phase; what had to wait is dry-run once Namespaces and definitions are there.

        :param before: called with each phase before anything of it is written.
        :raises Refused: that dry run was refused, so that nothing but Namespaces and definitions has been written.
        """
        grouped = order.phases((order.phase_of(item.obj), item) for item in items)
        for number, phase in enumerate(grouped):
            current = order.phase_of(phase[0].obj)
            before(current)
            held_back = [item for item in items if item.waits_for]
            if held_back and current > order.DEFINITIONS:
                try:
                    self._admit(held_back)
                except Failure as failure:
                    raise Refused(failure) from failure
            self._write_phase([item for item in phase if item.action != "unchanged"], number + 1, len(grouped))

    def undo(self, items: Sequence[Item], failure: Failure) -> Failure:
        """Remove the Namespaces and definitions that this run created for objects that were then refused."""
        created = [item for item in items if item.written and item.live is None]
        for item in reversed(created):
            item.live = item.result
            self._session.delete(item)
        if created:
            names = ", ".join(item.name for item in created)
            evidence = f"{failure.evidence}; what this run had created is removed again: {names}".lstrip("; ")
            failure = Failure(failure.code, failure.object, failure.cause, evidence, failure.hint)
        return failure

    def _admit(self, items: Sequence[Item]) -> None:
        """Dry-run what had to wait for Namespaces and definitions, before anything else is written."""
        cluster = self._session.cluster
        ready = [item for item in items if item.waits_for.startswith(("Namespace", "CustomResourceDefinition"))]
        for item in ready:
            if item.resource is None:
                item.resource = cluster.find_resource(item.obj["apiVersion"], item.obj["kind"], fresh=True)
            if item.resource is None:
                cluster.resource(item.obj["apiVersion"], item.obj["kind"])  # raises
        self._planner.plan_some(ready)

    def _write_phase(self, items: Sequence[Item], number: int, count: int) -> None:
        if not items:
            return
        names = ", ".join(describe(item.obj) for item in items[:3]) + (" ..." if len(items) > 3 else "")
        self._session.outages.restart()
        self._session.progress.update(f"applying {len(items)} objects, step {number} of {count}: {names}")
        try:
            failures = [failure for failure in self._session.parallel(self._try_write, items) if failure is not None]
        except Unreachable as failure:
            raise _unfinished(failure, items) from failure
        if failures:
            raise _unfinished(joined(failures), items)
        self._wait_established([item for item in items if item.obj["kind"] == "CustomResourceDefinition"])

    def _try_write(self, item: Item) -> Failure | None:
        session = self._session
        deadline = session.deadline()
        while True:
            try:
                if item.waits_for:
                    self._planner.plan(item)
                self._write(item)
            except Unreachable:
                raise
            except ApiError as error:
                if error.webhook_unavailable:
                    given_up = session.outages.seconds(item.served) > session.patience
                else:
                    # "the object has been modified": a controller wrote at the same moment.
                    given_up = error.status != 409 or bool(error.causes) or session.passed(deadline)
                if given_up:
                    return session.refusals.explained(error, item)
                if error.webhook_unavailable:
                    message = session.refusals.mask(error.message)
                    session.progress.update(f"{item.name}: waiting for its admission webhook: {short(message)}")
                session.cluster.clock.sleep(0.5)
                continue
            except Failure as failure:
                return failure
            return None

    def _write(self, item: Item) -> None:
        if item.action == "unchanged":
            return
        if item.action == "replaced":
            self._replace(item)
            return
        count = replicas.to_hand_over(item.obj, item.live, self._session.field_manager)
        if count is not None:
            self._set_initial(item, count)
        self._take_over(item)
        self._put(item)
        wanted = replicas.wanted(item.obj)
        if wanted is not None and item.live is None and (item.result or {})["spec"].get("replicas") != wanted:
            item.result = self._set_initial(item, wanted)

    def _put(self, item: Item) -> None:
        """Apply it; once more if somebody deleted it in the meantime, since that would be lost with the old one."""
        session = self._session
        item.result = session.apply(item)
        if item.result["metadata"].get("deletionTimestamp"):
            session.settled(item.name, lambda: session.live(item))
            item.result = session.apply(item)
        item.written = True

    def _replace(self, item: Item) -> None:
        present = ((item.live or {}).get("spec") or {}).get("replicas")
        self._replacer.make_room(item)
        try:
            self._put(item)
        except ApiError as error:
            if error.webhook_unavailable:
                raise
            failure = self._session.refusals.explained(error, item)
            cause = f"was deleted to be replaced, and the new one {failure.cause}"
            raise Failure(failure.code, item.name, cause, failure.evidence, "correct it and run again") from error
        if present is not None and replicas.wanted(item.obj) is not None:
            item.result = self._set_initial(item, int(present))

    def _take_over(self, item: Item) -> None:
        """Make the fields of those who are taken over from ours, so that applying removes what is not wanted.

        What has changed since it was read is read again: a run that ends in between goes on from there.
        """
        session = self._session
        metadata = item.obj["metadata"]
        if item.live is None or not session.take_over:
            return
        while True:
            live = session.live(item)
            if live is None or not fields.taken_over(live, session.take_over, session.field_manager):
                return
            managed = fields.handed_over(live, session.take_over, session.field_manager)
            version = live["metadata"]["resourceVersion"]
            try:
                session.cluster.json_patch(
                    item.served,
                    metadata["name"],
                    metadata.get("namespace"),
                    [
                        {"op": "replace", "path": "/metadata/managedFields", "value": managed},
                        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
                    ],
                    session.field_manager,
                )
            except ApiError as error:
                if error.status != 409:
                    raise
            else:
                return

    def _set_initial(self, item: Item, count: int) -> Object:
        patch = replicas.patch(item.obj, count)
        return self._session.cluster.apply(item.served, patch, replicas.MANAGER, force=True)

    def _wait_established(self, definitions: Sequence[Item]) -> None:
        """Wait until the server serves what was defined."""
        session = self._session
        deadline = session.deadline()
        waiting = list(definitions)
        while waiting:
            waiting = [item for item in waiting if not self._established(item)]
            if not waiting:
                return
            if session.passed(deadline):
                raise Failure("timeout", waiting[0].name, f"was not established within {session.patience:.0f} s")
            session.progress.update(f"waiting for {waiting[0].name} to be established")
            session.cluster.clock.sleep(0.1)

    def _established(self, item: Item) -> bool:
        live = self._session.live(item)
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
            self._session.cluster.find_resource(f"{spec['group']}/{version}", spec["names"]["kind"], fresh=True)
            for version in served
        )


def _unfinished(failure: Failure, items: Sequence[Item]) -> Failure:
    """A failure, and how far the step has come."""
    done = sum(item.written for item in items)
    far = f"{done} of the {len(items)} objects of this step are written, and a further run goes on from there"
    evidence = f"{failure.evidence}; {far}" if failure.evidence else far
    return Failure(failure.code, failure.object, failure.cause, evidence, failure.hint)
