# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what applying each object of a batch would change, before anything is written.

An object that certainly is as it should be is not asked about; all others the server judges by a dry run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply import fields, replicas
from ansible_collections.groundwork.platform.plugins.module_utils.apply.admission import Mutators
from ansible_collections.groundwork.platform.plugins.module_utils.apply.compare import changed_fields
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.apply.prune import ApplySet
from ansible_collections.groundwork.platform.plugins.module_utils.apply.refuse import joined
from ansible_collections.groundwork.platform.plugins.module_utils.apply.replace import Replacer
from ansible_collections.groundwork.platform.plugins.module_utils.apply.schema import Schemas
from ansible_collections.groundwork.platform.plugins.module_utils.apply.session import CHECK_PATIENCE, Session
from ansible_collections.groundwork.platform.plugins.module_utils.apply.snapshot import Snapshot
from ansible_collections.groundwork.platform.plugins.module_utils.apply.unchanged import certainly_unchanged
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Object,
    Resource,
    Unreachable,
    describe,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

WORTHWHILE = 10
"""For fewer objects, asking what mutates them costs as much as their dry runs."""


ATTEMPTS = 4
"""So often at most an object is compared that somebody else keeps writing."""


class Planner:
    """Fills in what is there of each item, what would come of it, and with which action.

    :param apply_set: the set that the objects are applied as, if they are.
    """

    def __init__(self, session: Session, replacer: Replacer, apply_set: ApplySet | None = None) -> None:
        self._session = session
        self._replacer = replacer
        self._apply_set = apply_set
        self._mutators: Mutators | None = None
        self.strays: list[tuple[Resource, Object]] = []
        """Members of the set that were met and are not of the batch."""
        self.snapshot = Snapshot(session, self._seen, self._stray)

    def plan_all(self, items: Sequence[Item]) -> None:
        """Plan what can be; the definitions first, since what they define depends on what comes of them.

        :raises Failure: of all objects that are refused.
        """
        if len(items) >= WORTHWHILE:
            self._mutators = Mutators(self._session.cluster)
        definitions = [item for item in items if item.obj["kind"] == "CustomResourceDefinition"]
        self._plan_read(definitions)
        coming = defined(item for item in definitions if item.action != "unchanged")
        others = [item for item in items if item.obj["kind"] != "CustomResourceDefinition"]
        for item in others:
            definition = coming.get((item.obj["apiVersion"], item.obj["kind"]))
            if definition is not None and not item.waits_for:
                item.waits_for = describe(definition)
        self._plan_read([item for item in others if not item.waits_for])

    def _plan_read(self, items: Sequence[Item]) -> None:
        self.snapshot.read(items)
        self.plan_some([item for item in items if item.action != "unchanged"])

    def plan_some(self, items: Sequence[Item]) -> None:
        """Plan these, whatever is known of them.

        :raises Failure: of all that are refused.
        """
        failures = [failure for failure in self._session.parallel(self._try_plan, items) if failure is not None]
        if failures:
            raise joined(failures)

    def plan(self, item: Item) -> None:
        """Compare what is there with what the server says would come of applying the object.

        :raises ApiError: the server refuses it.
        :raises Failure: it belongs to another set, or may not be replaced.
        """
        for left in reversed(range(ATTEMPTS)):
            try:
                if self._compare(item):
                    return
            except ApiError as error:
                overtaken = error.status == 409 and not error.causes
                if not overtaken or not left:
                    raise

    def _compare(self, item: Item) -> bool:
        """One try; whether nobody wrote in the middle of it, whose change would look like ours."""
        self._read(item)
        try:
            item.result = result = self._session.apply(item, dry_run=True)
        except ApiError as error:
            if self._replacer.plan(item, error):
                return True
            raise
        item.waits_for, item.checked = "", "server"
        if item.live is None:
            item.action = "created"
        else:
            item.action = "changed" if self._changes(item, item.live, result) else "unchanged"
        return _version(item.live) == _version(result)

    def _read(self, item: Item) -> None:
        """Read what is there, unless that has just been done."""
        session = self._session
        if not item.known or (item.live and item.live["metadata"].get("deletionTimestamp")):
            item.live = session.settled(item.name, lambda: session.live(item))
        item.known = False  # The next time it may be another.
        if self._apply_set is not None:
            self._apply_set.refuse_foreign(item)

    def _changes(self, item: Item, live: Object, result: Object) -> bool:
        session = self._session
        count = replicas.to_hand_over(item.obj, live, session.field_manager)
        if count is not None:
            item.result = {**result, "spec": {**result["spec"], "replicas": count}}
            return True
        if fields.taken_over(live, session.take_over, session.field_manager):
            item.result = self._after_take_over(item, live, result)
            return True
        manager = session.field_manager
        return bool(changed_fields(live, result, limit=1)) or fields.owned(live, manager) != fields.owned(
            result, manager
        )

    def _after_take_over(self, item: Item, live: Object, result: Object) -> Object:
        """What will be there without the fields that only those who are taken over from have set."""
        session = self._session
        leaving: fields.Tree = {}
        for entry in fields.taken_over(live, session.take_over, session.field_manager):
            leaving = fields.union(leaving, entry.get("fieldsV1") or {})
        for entry in fields.entries(result):
            if entry not in fields.taken_over(result, session.take_over, session.field_manager):
                leaving = fields.without(leaving, entry.get("fieldsV1") or {})
        after = copy.deepcopy(result)
        fields.remove(after, leaving)
        # The server fills in again what has a default.
        return session.cluster.replace(item.served, after, session.field_manager, dry_run=True)

    def _seen(self, item: Item, live: Object) -> None:
        """Decide at once what needs no dry run, and forget what was read of it: a batch can be large."""
        session = self._session
        if (
            self._mutators is None
            or live["metadata"].get("deletionTimestamp")
            or self._mutators.may_change(item.served)
            or fields.taken_over(live, session.take_over, session.field_manager)
            or replicas.to_hand_over(item.obj, live, session.field_manager) is not None
            or not certainly_unchanged(item.obj, live, session.field_manager)
        ):
            return
        item.action, item.checked, item.live = "unchanged", "fields", None

    def _stray(self, resource: Resource, live: Object) -> None:
        if self._apply_set is not None and self._apply_set.has(live):
            self.strays.append((resource, live))

    def _try_plan(self, item: Item) -> Failure | None:
        session = self._session
        # The webhook's own workload may be what this batch repairs: ask again when it is this object's turn.
        awaited = "its admission webhook"
        if session.outages.known(item.served) and not session.check_mode:
            item.waits_for, item.known = awaited, False
            return None
        try:
            self._plan_patiently(item) if session.check_mode else self.plan(item)
        except Unreachable:
            raise
        except ApiError as error:
            if error.webhook_unavailable and not session.check_mode:
                session.outages.seconds(item.served)
                item.waits_for = awaited
                return None
            if error.status in (403, 404) and item.obj["kind"] in ("RoleBinding", "ClusterRoleBinding"):
                # Whether one may bind a role can only be judged when the role is there.
                item.waits_for = "its role"
                return None
            return session.refusals.explained(error, item)
        except Failure as failure:
            return failure
        return None

    def _plan_patiently(self, item: Item) -> None:
        """As :meth:`plan`, for check mode: a webhook that is not up yet is waited for, since there is no later try."""
        session = self._session
        patience = min(session.patience, CHECK_PATIENCE)
        while True:
            try:
                return self.plan(item)
            except ApiError as error:
                if not error.webhook_unavailable or session.outages.seconds(item.served) > patience:
                    raise
                session.progress.update(f"{item.name}: waiting for its admission webhook")
                session.cluster.clock.sleep(0.5)

    def guess(self, items: Sequence[Item], definitions: Mapping[tuple[str, str], Object]) -> None:
        """In check mode: what the server can't judge yet is checked against the published schema where there is one.

        :raises Failure: ``invalid``.
        """
        schemas = Schemas(self._session.cluster)
        failures = []
        for item in items:
            readable = item.resource and not item.waits_for.startswith("Namespace")
            item.live = self._session.live(item) if readable else None
            item.action = "changed" if item.live else "created"
            problems = schemas.problems(
                item.obj, item.resource, definitions.get((item.obj["apiVersion"], item.obj["kind"]))
            )
            item.checked = "none" if problems is None else "schema"
            if problems:
                evidence = self._session.refusals.mask("; ".join(problems[:5]))
                failures.append(Failure("invalid", item.name, "does not fit its schema", evidence, "correct it"))
        if failures:
            raise joined(failures)


def defined(items: Iterable[Item]) -> dict[tuple[str, str], Object]:
    """The kinds that objects of a batch define: (apiVersion, kind) -> CustomResourceDefinition."""
    found: dict[tuple[str, str], Object] = {}
    for item in items:
        if item.obj["kind"] == "CustomResourceDefinition":
            spec: Mapping[str, Any] = item.obj.get("spec") or {}
            for version in spec.get("versions") or []:
                key = f"{spec.get('group')}/{version.get('name')}", str((spec.get("names") or {}).get("kind"))
                found[key] = item.obj
    return found


def _version(obj: Mapping[str, Any] | None) -> str:
    return str(((obj or {}).get("metadata") or {}).get("resourceVersion") or "")
