# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes releases, returns to earlier ones, and deals with those that fail."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.apply.items import Item
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    Cluster,
    Object,
    Resource,
    describe,
    identity,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.redact import redact
from ansible_collections.groundwork.platform.plugins.module_utils.migration.lease import LeaseLock
from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import Records
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import number_of_bytes
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress
from ansible_collections.groundwork.platform.plugins.module_utils.release import (
    compatibility,
    images,
    leftovers,
    pausing,
    quotas,
    schema,
    sealing,
    strategy,
)
from ansible_collections.groundwork.platform.plugins.module_utils.release.record import (
    DEPLOYED,
    FAILED,
    PENDING,
    ROLLED_BACK,
    Record,
    Stages,
    Store,
    content_digest,
    live,
    previous_good,
)
from ansible_collections.groundwork.platform.plugins.module_utils.release.rollout import Brought, Rollout, Settings
from ansible_collections.groundwork.platform.plugins.module_utils.release.who import utc, who
from ansible_collections.groundwork.platform.plugins.module_utils.version import VERSION

DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", True)
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False)
ON_ROLLBACK = "groundwork.platform/on-rollback"
"""Annotation of what has brought data to a form that no return takes back; its value is ``stays``."""
LOCK_TIMEOUT = 900.0
"""Seconds to wait for another run that makes a release of the same system."""
LOST = "lock_lost"


@dataclasses.dataclass(eq=False)
class ReleaseFailed(Failure):
    """A release that failed and is recorded so.

    :param release: its number.
    :param data: what the failure is as data.
    """

    release: int = 0
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, failure: Failure, number: int) -> ReleaseFailed:
        """A failure with the number of the release."""
        texts = failure.code, failure.object, failure.cause, failure.evidence, failure.hint
        return cls(*texts, number, failure.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The failure's own data, and the number."""
        return {**self.data, "release": self.release}


@dataclasses.dataclass
class Wanted:
    """What a release is to consist of.

    :param stages: all its objects, by stage, with their secrets.
    :param brought: names of the stages that are brought in here; the others have been already.
    :param strategies: by the name of the Deployment, as a module is given them.
    :param schema: what the migration said.
    :param source: digest of the system's file.
    :param by: what the play knows of who releases.
    :param restores: number of the release that is returned to.
    :param left: what is part of it and stays as it is now, whatever that is.
    """

    stages: Stages
    brought: tuple[str, ...] = ("components",)
    strategies: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: dict[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    by: dict[str, Any] = dataclasses.field(default_factory=dict)
    restores: int = 0
    left: list[Object] = dataclasses.field(default_factory=list)

    def objects(self) -> list[Object]:
        """What is brought in here."""
        return [obj for name in self.brought for obj in self.stages.get(name, [])]

    def quotas(self) -> list[Object]:
        """What limits the namespace, whichever stage it is of: it can only be tightened at the end."""
        return [obj for stage in self.stages.values() for obj in stage if quotas.is_quota(obj)]


@dataclasses.dataclass
class Outcome:
    """What came of a release.

    :param number: of the release; the next one in check mode.
    :param action: ``deployed``, ``rolled_back`` for a return to an earlier one, or ``unchanged``.
    :param removed: what earlier releases had and this one does not.
    :param notes: what is to be told nevertheless.
    :param restores: number of the release that serves again, of a return.
    :param schema: of the database, where a return depended on it: ``revision``, ``source`` and ``unread``.
    """

    number: int
    action: str
    brought: Brought
    removed: list[Item] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    restores: int = 0
    schema: dict[str, Any] | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was written: to objects, or to the record."""
        return self.action != "unchanged" or self.brought.changed


class Releases:
    """The releases of one system on one cluster.

    :param system: its name.
    :param history: how many releases to keep.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        system: str,
        settings: Settings | None = None,
        history: int = 10,
        progress: Progress | None = None,
        check_mode: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.system = system
        self.settings = settings or Settings()
        self.store = Store(cluster, namespace, system, history)
        self.progress = progress or Progress(system)
        self.check_mode = check_mode
        self.lock_timeout = lock_timeout
        self._seal: sealing.Seal | None = None
        self._held: LeaseLock | None = None
        self.written: list[Item] = []
        """What the last rollout has written, also if it failed."""

    # Releasing

    def release(self, wanted: Wanted) -> Outcome:
        """Bring a release in, judge it, remove what is no longer part of it, and record it.

        The same content again is no new release: what others have changed of it is put right, and nothing recorded.

        :raises Failure: what the batch, the gate or a strategy says; the release is recorded as failed then.
        """
        self._make_namespace(wanted)
        wanted = self._placed(wanted)
        sealed = self._sealed(wanted.stages)
        content = content_digest(sealed, wanted.strategies)
        records = self.store.list()
        if _is_same(records, content):
            return self._again(wanted, records[0])
        if self.check_mode:
            return self._planned(wanted, records)
        with self._alone():
            records = self.store.list()
            # Another run may have made it while this one waited.
            if _is_same(records, content):
                return self._again(wanted, records[0])
            return self._make(wanted, sealed, content, records)

    def _again(self, wanted: Wanted, record: Record) -> Outcome:
        return Outcome(record.number, "unchanged", self._rollout(wanted).run(again=True), restores=record.restores)

    def _planned(self, wanted: Wanted, records: Sequence[Record]) -> Outcome:
        """For check mode."""
        brought = self._rollout(wanted).run()
        removed, notes = self._removed(wanted, records)
        action = "rolled_back" if wanted.restores else DEPLOYED
        return Outcome(_next(records), action, brought, removed, notes, wanted.restores)

    def _make(self, wanted: Wanted, sealed: Stages, content: str, records: Sequence[Record]) -> Outcome:
        record = self._begun(wanted, sealed, content, records)
        action = "rolled_back" if wanted.restores else DEPLOYED
        rollout = self._rollout(wanted, leaving=True)
        try:
            self._resume(records)
            brought = rollout.run()
            removed, notes = self._removed(wanted, records)
            rollout.apply(wanted.quotas())
            self._still_mine()
        except Failure as failure:
            if failure.code == LOST:
                # The run that has taken it over writes the record.
                raise
            self._record_failure(record, failure)
            raise ReleaseFailed.of(failure, record.number) from failure
        finally:
            self.written = [item for item in rollout.brought.items if item.written]
        record.outcome, record.finished, record.failure = DEPLOYED, utc(), {}
        record.images = self._images(wanted, record)
        if brought.verdict is not None:
            verdict = brought.verdict
            record.gate = {"verdict": "healthy", "seconds": verdict.seconds, "notes": verdict.notes,
                           "objects": verdict.objects[:1000]}  # fmt: skip
        self.store.finish(record)
        return Outcome(record.number, action, brought, removed, notes, wanted.restores)

    def _begun(self, wanted: Wanted, sealed: Stages, content: str, records: Sequence[Record]) -> Record:
        """The pending record: that of a run that was killed over the same content, or a new one."""
        by = who(wanted.by)
        newest = records[0] if records else None
        if newest is not None and newest.outcome == PENDING:
            if newest.content == content:
                self.progress.update(f"going on with release {newest.number}, whose run ended before it was done")
                newest.by, newest.stages = by, sealed
                return self.store.save(newest)
            cause = f"was given up for another content by release {newest.number + 1}"
            self._record_failure(newest, Failure("interrupted", f"Release {newest.number} of {self.system}", cause))
        record = Record(
            number=_next(records), content=content, stages=sealed, strategies=wanted.strategies,
            schema=wanted.schema, by=by, started=utc(), collection=VERSION, source=wanted.source,
            restores=wanted.restores,
        )  # fmt: skip
        return self.store.begin(record)

    def _record_failure(self, record: Record, failure: Failure) -> None:
        """Write down that a release failed; where that is impossible, the failure itself is what matters."""
        record.outcome, record.finished = FAILED, utc()
        plain = Failure(failure.code, failure.object, failure.cause, failure.evidence, failure.hint).as_dict()
        record.failure = {key: redact(str(text))[:2000] for key, text in plain.items()}
        try:
            self.store.finish(record)
        except Failure as error:
            self.progress.update(f"release {record.number} could not be recorded as failed: {error.sentence}")

    def record_failed(self, wanted: Wanted, failure: Failure) -> Record:
        """The record of a release that failed: its own, or a new one where it failed before its last stage.

        :raises Failure: ``locked``, ``concurrent_release``, or what the API server says.
        """
        own = failure.release if isinstance(failure, ReleaseFailed) else 0
        wanted = self._placed(wanted)
        sealed = self._sealed(wanted.stages)
        content = content_digest(sealed, wanted.strategies)
        with self._alone():
            records = self.store.list()
            newest = records[0] if records else Record()
            if (newest.outcome, newest.content, newest.failure.get("code")) == (FAILED, content, failure.code):
                return newest
            for record in records:
                if own and record.number == own:
                    return record
            record = self._begun(wanted, sealed, content, records)
            self._record_failure(record, failure)
            return record

    def _rollout(self, wanted: Wanted, leaving: bool = False, check_mode: bool | None = None) -> Rollout:
        """The way in.

        :param leaving: there may be something that leaves at the end, for which there has to be room until then.
        """
        strategies = {name: strategy.parse(name, data) for name, data in wanted.strategies.items()}
        limits = quotas.widened(self.cluster, wanted.quotas()) if leaving else wanted.quotas()
        objects = [*limits, *(obj for obj in wanted.objects() if not quotas.is_quota(obj))]
        check = self.check_mode if check_mode is None else check_mode
        return Rollout(
            self.cluster, self.namespace, objects, strategies, self.settings, self.progress, check, self._still_mine
        )  # fmt: skip

    def _still_mine(self) -> None:
        """Stop a run that was away for so long that another one has taken its place.

        :raises Failure: ``lock_lost``.
        """
        if self._held is not None and self._held.lost:
            raise Failure(
                LOST, f"The release of {self.system}", "was taken over by another run, since this one could not renew "
                "its Lease in time", hint="see what that run did, and run again",
            )  # fmt: skip

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other run releases the system for as long as the block runs.

        :raises Failure: ``locked``.
        """

        def waiting(holder: str) -> None:
            self.progress.update(f"another run releases {self.system} now ({holder}), waiting for it")

        lease = LeaseLock(self.cluster, self.namespace, f"groundwork-release-{self.store.slug}", waiting)
        with lease.held(self.lock_timeout) as self._held:
            try:
                yield
            finally:
                self._held = None

    def _placed(self, wanted: Wanted) -> Wanted:
        """Everything with the namespace that it lies in, so that it can be found again."""
        stages = {name: [self._in_place(obj) for obj in objects] for name, objects in wanted.stages.items()}
        return dataclasses.replace(wanted, stages=stages)

    def _in_place(self, obj: Object) -> Object:
        metadata = obj["metadata"]
        if metadata.get("namespace"):
            return obj
        resource = self.cluster.find_resource(obj["apiVersion"], obj["kind"])
        if resource is not None and not resource.namespaced:
            return obj
        return {**obj, "metadata": {**metadata, "namespace": self.namespace}}

    def _make_namespace(self, wanted: Wanted) -> None:
        """The namespace of the record, where the release itself brings it."""
        own = [obj for obj in wanted.objects() if identity(obj) == ("", "Namespace", "", self.namespace)]
        if own and not self.check_mode and self.cluster.get(NAMESPACES, self.namespace) is None:
            Applier(self.cluster, progress=self.progress).run(own)

    def _sealed(self, stages: Stages) -> Stages:
        return {name: sealing.sealed_lazily(objects, self.seal) for name, objects in stages.items()}

    def seal(self) -> sealing.Seal:
        """What makes the digests in this namespace."""
        if self._seal is None:
            self._seal = sealing.namespace_seal(self.cluster, self.namespace, create=not self.check_mode)
        return self._seal

    def _resume(self, records: Sequence[Record]) -> None:
        """Let go on what the release before was paused at."""
        if records and records[0].paused:
            pausing.resume(self.cluster, self.namespace, records[0].paused)

    def _images(self, wanted: Wanted, record: Record) -> dict[str, str]:
        objects = [obj for stage in wanted.stages.values() for obj in stage]
        # What cannot be read is missing from the record, and nothing else.
        with contextlib.suppress(Failure):
            return images.digests(self.cluster, self.namespace, sorted(images.references(objects)))
        return record.images

    # What earlier releases had

    def _removed(self, wanted: Wanted, records: Sequence[Record]) -> tuple[list[Item], list[str]]:
        """Remove what is no longer part of the system, whichever release since the last good one it came with."""
        serving = live(records)
        since = [item for item in records if serving is None or item.number >= serving.number]
        earlier: list[Object] = []
        notes: list[str] = []
        for record in since:
            try:
                earlier += self.store.load(record).objects()
            except Failure as failure:
                notes.append(f"what release {record.number} had cannot be removed: {failure.sentence}")
        now = [*(obj for stage in wanted.stages.values() for obj in stage), *wanted.left]
        surplus, more = leftovers.sorted_out(self.cluster, leftovers.surplus(earlier, now))
        surplus += self._stray(wanted, earlier)
        if not surplus:
            return [], notes + more
        self.progress.update(f"removing {', '.join(describe(obj) for obj in surplus[:3])}"
                             + (f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""))  # fmt: skip
        applier = Applier(self.cluster, self.namespace, check_mode=self.check_mode, progress=self.progress)
        return [item for item in applier.remove(surplus) if item.live], notes + more

    def _stray(self, wanted: Wanted, earlier: Sequence[Object]) -> list[Object]:
        """Deployments that a strategy made for a component that has none such any more."""
        objects = [*earlier, *wanted.objects()]
        components = {obj["metadata"]["name"] for obj in objects if obj["kind"] == "Deployment"}
        coloured = {name for name, data in wanted.strategies.items() if data.get("type") == strategy.BLUE_GREEN}
        found = self.cluster.list(DEPLOYMENTS, self.namespace, strategy.COMPONENT).items
        return [
            obj for obj in found
            if (name := obj["metadata"]["labels"][strategy.COMPONENT]) in components
            and not (name in coloured and strategy.COLOUR in obj["metadata"]["labels"])
        ]  # fmt: skip

    # Returning

    def rollback(self, to: int = 0, by: Mapping[str, Any] | None = None, expand_only: bool = False) -> Outcome:
        """Return to an earlier release, judged like any other.

        :param to: its number; 0 for the last good one before what is there now.
        :param expand_only: whatever was done to the schema since is declared to only add to it.
        :raises Failure: ``no_release``, ``release_failed_then``, ``schema_newer``, ``schema_older``,
            ``schema_unknown``, ``sealed_value``, ``concurrent_release``, and what :meth:`release` raises.
        """
        records = self.store.list()
        target = self._target(records, to)
        if self.check_mode:
            return self._go_back(target, records, by or {}, expand_only)
        with self._alone():
            records = self.store.list()
            self._refuse_overtaken(target, records, to)
            return self._go_back(self._target(records, target.number), records, by or {}, expand_only)

    def _go_back(self, target: Record, records: Sequence[Record], by: Mapping[str, Any], expand_only: bool) -> Outcome:
        self.store.load(target)
        seen, notes = self._judged(target, records, expand_only)
        wanted = self._as_it_was(target, records, by, seen)
        if self._serves(target, records) and not self._differs(wanted):
            # The failed release had changed nothing, or another run has just returned: nothing is left to do.
            serving = live(records) or target
            outcome = Outcome(serving.number, "unchanged", self._rollout(wanted).run(), restores=target.number)
        elif self.check_mode:
            outcome = self._planned(wanted, records)
        else:
            outcome = self._make(wanted, target.stages or {}, target.content, records)
            self._mark_rolled_back(outcome)
        outcome.schema = seen.as_dict(records) if seen is not None else None
        outcome.notes = [*notes, *outcome.notes]
        return outcome

    def _refuse_overtaken(self, target: Record, records: Sequence[Record], to: int) -> None:
        """Refuse to go back from what nobody has seen: another run may have released while this one waited."""
        if to or self._serves(target, records) or self._target(records, to).number == target.number:
            return
        newest = records[0]
        raise Failure(
            "concurrent_release", f"System {self.system}", "was released by another run meanwhile",
            newest.line().strip(), "see whether that has helped, and run again",
        )  # fmt: skip

    @staticmethod
    def _serves(target: Record, records: Sequence[Record]) -> bool:
        """Whether a release serves, and no return to it is under way."""
        serving = live(records)
        return serving is not None and serving.effective == target.effective and records[0].outcome != PENDING

    def _judged(
        self, target: Record, records: Sequence[Record], expand_only: bool
    ) -> tuple[compatibility.Seen | None, list[str]]:
        """The schema that a return will find, where it matters, and what is to be told of it.

        :raises Failure: it forbids the return.
        """
        if self._runs_already(target):
            return None, []
        seen = schema.look(self.cluster, self.namespace, records)
        migrations = Records(self.cluster, self.namespace).all()
        judgement = compatibility.judge(target, records, seen, migrations, expand_only)
        if judgement.refused is not None:
            raise judgement.refused
        return seen, judgement.notes

    def _runs_already(self, target: Record) -> bool:
        """Whether all images of a release run now: then they run on the schema as it is."""
        running = self._running_images()
        return all(
            images.references([obj]) <= running.get(_workload_name(obj), set())
            for obj in target.objects() if not _of_data(obj)
        )  # fmt: skip

    def _target(self, records: Sequence[Record], to: int) -> Record:
        numbers = ", ".join(str(record.number) for record in records)
        evidence = f"recorded are {numbers}" if numbers else "none is recorded"
        target = next((item for item in records if item.number == to), None) if to else previous_good(records)
        if target is None:
            which = f"Release {to} of {self.system}" if to else f"System {self.system}"
            cause = "is not recorded" if to else "has no earlier good release to return to"
            hint = "choose one of those" if numbers else "release it first"
            raise Failure("no_release", which, cause, evidence, hint if to else "mend the release and go forward")
        if target.failure or target.outcome in (FAILED, PENDING):
            why = f"{target.failure.get('object', '')} {target.failure.get('cause', '')}".strip()
            raise Failure(
                "release_failed_then", f"Release {target.number} of {self.system}",
                f"is {target.outcome} and cannot be returned to", why, "choose one that was healthy",
            )  # fmt: skip
        return target

    def _as_it_was(
        self, target: Record, records: Sequence[Record], by: Mapping[str, Any], seen: compatibility.Seen | None
    ) -> Wanted:
        """The release as it can be brought in again: secrets and data stay as they are now."""
        present = self._present_images()
        stages = {
            name: images.pinned(
                [self._restored(one) for one in objects if not self._stays(one)], target.images, present
            )
            for name, objects in (target.stages or {}).items()
        }
        found = {
            "revision": next((item.schema["revision"] for item in records if item.schema.get("revision")), None),
            "database": next((item.schema["database"] for item in records if item.schema.get("database")), None),
        }
        if seen is not None and seen.revision is not None:
            found["revision"] = seen.revision
        known = {name: value for name, value in found.items() if value is not None}
        return Wanted(
            stages, tuple(stages), target.strategies, {**known, "action": "unchanged"} if known else {},
            target.source, dict(by), target.effective, [obj for obj in target.objects() if self._stays(obj)],
        )  # fmt: skip

    def _stays(self, obj: Object) -> bool:
        """Whether an object is left as it is now."""
        name = obj["metadata"]["name"]
        if obj["kind"] == "Secret" and self.cluster.get(sealing.SECRETS, name, self._home(obj)) is None:
            raise Failure("secret_gone", describe(obj), "is gone, and its values are not in the record",
                          hint="make it again, then roll back")  # fmt: skip
        return obj["kind"] in ("Secret", "Namespace", "PersistentVolumeClaim") or _of_data(obj)

    def _restored(self, obj: Object) -> Object:
        """An object with its values that look like credentials, and no smaller than its data has become."""
        group = str(obj["apiVersion"]).rpartition("/")[0]
        database = (group, obj["kind"]) == ("postgresql.cnpg.io", "Cluster")
        if not database and next(sealing.sealed_paths(obj), None) is None:
            return obj
        resource = self.cluster.find_resource(obj["apiVersion"], obj["kind"])
        there = resource and self.cluster.get(resource, obj["metadata"]["name"], self._home(obj))
        opened = sealing.opened(obj, [there] if there else [], self.seal())
        if database and there:
            _keep_size(opened, there)
        return opened

    def _home(self, obj: Object) -> str:
        return str(obj["metadata"].get("namespace") or self.namespace)

    def _workloads(self) -> Iterator[tuple[str, Object]]:
        """Each workload with the name that it has in a release, whichever strategy made it."""
        for kind in ("Deployment", "StatefulSet", "DaemonSet"):
            for obj in self.cluster.list(self.cluster.resource("apps/v1", kind), self.namespace).items:
                component = (obj["metadata"].get("labels") or {}).get(strategy.COMPONENT)
                yield f"{kind}/{component}" if component else _workload_name(obj), obj

    def _present_images(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, obj in self._workloads():
            found.setdefault(name, set()).update(images.references([obj]))
        return found

    def _running_images(self) -> dict[str, set[str]]:
        """Images that have pods; none of a component of which two versions have some."""
        found: dict[str, set[str]] = {}
        for name, obj in self._workloads():
            if obj["spec"].get("replicas") != 0:
                found[name] = set() if name in found else images.references([obj])
        return found

    def _differs(self, wanted: Wanted) -> bool:
        return self._rollout(wanted, check_mode=True).run().changed

    def _mark_rolled_back(self, outcome: Outcome) -> None:
        """What was returned from says so: the newest before the return that is no earlier try of it."""
        for record in self.store.list():
            if record.number >= outcome.number or record.restores == outcome.restores:
                continue
            if record.number != outcome.restores:
                record.outcome = ROLLED_BACK
                self.store.save(record)
            return


def _of_data(obj: Mapping[str, Any]) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(ON_ROLLBACK) == "stays"


def _workload_name(obj: Mapping[str, Any]) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"


def _is_same(records: Sequence[Record], content: str) -> bool:
    return bool(records) and records[0].outcome == DEPLOYED and records[0].content == content


def _next(records: Sequence[Record]) -> int:
    return records[0].number + 1 if records else 1


def _keep_size(database: Object, present: Mapping[str, Any]) -> None:
    """A volume that has grown since cannot shrink."""
    for section in ("storage", "walStorage"):
        mine, theirs = database["spec"].get(section) or {}, (present.get("spec") or {}).get(section) or {}
        if mine.get("size") and theirs.get("size") and number_of_bytes(mine["size"]) < number_of_bytes(theirs["size"]):
            database["spec"][section] = {**mine, "size": theirs["size"]}
