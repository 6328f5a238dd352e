# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a migration as one Job for each image and arguments, once.

The Job's name is derived from what it runs, so that a second run finds the first one's Job: it attaches to it
while it runs, and does nothing when it has succeeded. One that failed is run again, since what made it fail may
be mended.

Where the database is known the Job alone is not trusted: it runs behind a lock, is looked through before it changes
anything, and counts as done when the schema has the revision that it was to have.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    describe,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, GateFailed
from ansible_collections.groundwork.platform.plugins.module_utils.health.redact import redact
from ansible_collections.groundwork.platform.plugins.module_utils.migration import masking, pod
from ansible_collections.groundwork.platform.plugins.module_utils.migration.advisor import (
    JOBS,
    MOST,
    Advisor,
    Decision,
    Settings,
    last_words,
)
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import (
    PODS,
    image_of,
    primary_console,
)
from ansible_collections.groundwork.platform.plugins.module_utils.migration.lease import LeaseLock
from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import (
    CONFIG_MAPS,
    RECORD,
    Records,
    compatibility,
)
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

__all__ = ["JOBS", "RECORD", "Migration", "Outcome", "Settings", "job_name", "prepared"]

LEASE = "groundwork-migration"
LABEL = "groundwork.platform/migration"
LINES = 15
"""Last lines of the migration's log that a failure shows."""
QUESTIONS = 15
"""How often the schema's revision is asked for, 2 s apart: a primary may just be changing."""
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a migration came to.

    :param job: name of its Job.
    :param action: ``run``, ``attached`` to one that was running, or ``unchanged`` when it had succeeded before.
    :param command: what it runs.
    :param seconds: how long it was waited for.
    :param revision: of the schema afterwards; None: it was not read.
    :param revision_before: of the schema before; None: nobody looked.
    :param destructive: statements that destroyed something or break the older application; None: nobody looked.
    :param expand_only: whether it was declared to only add to the schema.
    :param locks: statements that held others up.
    :param preflight: what spoke against migrating and did not forbid it.
    :param restore_point: what was made before it.
    :param database: where the revision is, so that it can be asked for later; None where there is no database.
    :param notes: what is to be told.
    """

    job: str
    action: str
    image: str
    command: list[str]
    seconds: float = 0.0
    revision: str | None = None
    revision_before: str | None = None
    destructive: list[dict[str, Any]] | None = None
    expand_only: bool = False
    locks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    preflight: list[dict[str, str]] = dataclasses.field(default_factory=list)
    restore_point: dict[str, Any] | None = None
    database: dict[str, str] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def job_name(definition: Mapping[str, Any], more: str = "") -> str:
    """Name of the Job of a definition: its own name and a digest of the images and what they are told to run.

    :param more: what else it runs, such as the files of a ConfigMap.
    """
    spec = definition["spec"]["template"]["spec"]
    parts: list[Any] = [
        [item.get("image"), item.get("command"), item.get("args")]
        for item in [*(spec.get("initContainers") or []), *spec["containers"]]
    ]
    if more:
        parts.append(more)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    return f"{definition['metadata']['name'][:50].rstrip('-.')}-{digest}"


def prepared(definition: Mapping[str, Any], namespace: str | None, timeout: float, more: str = "") -> Object:
    """The Job of a definition: named, tried once, ended by its own deadline, and never removed by itself.

    :param more: what its name depends on besides; see :func:`job_name`.
    :raises Failure: ``bad_migration``.
    """
    if definition.get("kind") != "Job":
        raise Failure(
            "bad_migration", "The migration", f"is a {definition.get('kind') or 'thing without a kind'}, not a Job"
        )
    job = copy.deepcopy(dict(definition))
    try:
        pod = job["spec"]["template"]["spec"]
        base = str(job["metadata"]["name"])
        pod["containers"][0]["image"]
    except (KeyError, TypeError, IndexError) as error:
        raise Failure("bad_migration", describe(job), "has no name, or no container with an image") from error
    name = job_name(job, more)
    job["apiVersion"] = "batch/v1"
    job["metadata"] = {
        **job["metadata"],
        "name": name,
        "namespace": job["metadata"].get("namespace") or namespace or "default",
        "labels": {**(job["metadata"].get("labels") or {}), LABEL: _label(base)},
    }
    spec = job["spec"]
    spec.setdefault("backoffLimit", 0)
    spec.setdefault("activeDeadlineSeconds", int(timeout))
    # Removed by a time to live, it would run again.
    spec.pop("ttlSecondsAfterFinished", None)
    spec.pop("suspend", None)
    pod["restartPolicy"] = "Never"
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        if not _by_digest(container):
            # What a node has under a tag may be what it pointed at before.
            container.setdefault("imagePullPolicy", "Always")
    return job


def _by_digest(container: Mapping[str, Any]) -> bool:
    return "@sha256:" in str(container.get("image"))


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


class Migration:
    """One migration on one cluster.

    :param definition: a Job; its name is the prefix of the real one.
    :param timeout: seconds for all of it, waiting for another controller included.
    :param settings: the database, and what to observe; None: just the Job.
    :param expand_only: whether the user declares that it only adds to the schema.
    :param timeouts: lock_timeout and statement_timeout in seconds; None: as the Job says.
    """

    def __init__(
        self,
        cluster: Cluster,
        definition: Mapping[str, Any],
        namespace: str | None = None,
        timeout: float = 600.0,
        progress: Progress | None = None,
        settings: Settings | None = None,
        expand_only: bool = False,
        timeouts: tuple[float | None, float | None] = (None, None),
    ) -> None:
        self.cluster = cluster
        self.timeout = timeout
        self.settings = settings
        self.expand_only = expand_only
        if settings is not None:
            settings.check()
        plain = prepared(definition, namespace, timeout)
        self.namespace = str(plain["metadata"]["namespace"])
        if settings is not None and settings.files:
            plain = prepared(definition, namespace, timeout, self._files(settings.files))
        self.job = pod.with_timeouts(plain, *timeouts)
        self.name = str(self.job["metadata"]["name"])
        self.progress = progress or Progress(self.namespace)
        self.records = Records(cluster, self.namespace)
        self._started = cluster.clock.now()
        spec = plain["spec"]["template"]["spec"]
        self._by_tag = not all(map(_by_digest, [*(spec.get("initContainers") or []), *spec["containers"]]))
        self._seen: str | None = None
        self._notes: list[str] = []
        self._found: str | None = None

    def look(self) -> Outcome:
        """What :meth:`run` would do, for check mode. A namespace that does not exist yet has no migration done."""
        if self.cluster.get(NAMESPACES, self.namespace) is None:
            return self._outcome("run")
        live = self._live()
        if self._succeeded_before(live, looking=True):
            return self._outcome("unchanged")
        if live is None:
            with contextlib.suppress(_NotYet):
                self.cluster.create(JOBS, self._complete(), dry_run=True)
        return self._outcome("run")

    def run(self) -> Outcome:
        """Migrate, unless that has been done.

        :raises Failure: ``migration_failed`` with the last log lines, ``locked``, ``lock_lost``, ``preflight``,
            ``destructive``, ``restore_point_failed``, ``revision_unexpected``, ``timeout``, or the cause of a Job that
            can't start.
        """
        # Without the lease first: in most runs there is nothing to do.
        live = self._live()
        self._seen = _uid(live)
        if self._succeeded_before(live):
            return self._outcome("unchanged")
        again = self.records.all().get(self.name, {}).get("outcome") == "succeeded"
        if self.settings is not None:
            pod.check_sidecars(self.cluster)
        lock = LeaseLock(self.cluster, self.namespace, LEASE, self._tell_waiting)
        with lock.held(self._left()):
            live = self._live()
            if self._succeeded_before(live):
                return self._outcome("unchanged")
            self._wait_for_others()
            live, attached = self._submit(live)
            decision = self._wait(live)
            if again and decision is not None and decision.idle:
                return self._outcome("unchanged")
            return self._outcome("attached" if attached else "run")

    # Steps

    def _live(self) -> Object | None:
        return self.cluster.get(JOBS, self.name, self.namespace)

    def _complete(self) -> Object:
        """The Job as it is created: with its lock, plan and gate where the database is known."""
        settings = self.settings
        if settings is None:
            return self.job
        try:
            image = image_of(self.cluster, self.namespace, settings.database)
        except Failure as failure:
            raise _NotYet(
                **{field.name: getattr(failure, field.name) for field in dataclasses.fields(Failure)}
            ) from None
        return pod.guarded(self.job, settings.database, image, settings.tool, settings.lock, settings.files)

    def _files(self, name: str) -> str:
        """What the files of a ConfigMap are; another set is another migration."""
        found = self.cluster.get(CONFIG_MAPS, name, self.namespace)
        if found is None:
            raise Failure("bad_migration", f"ConfigMap {self.namespace}/{name}", "does not exist",
                          hint="create it with the SQL files, one key a file")  # fmt: skip
        return json.dumps(found.get("data") or {}, sort_keys=True)

    def _succeeded_before(self, live: Object | None, looking: bool = False) -> bool:
        """Whether this migration is done, as the record, the Job and the schema itself say.

        :param looking: in check mode, where nothing is written.
        """
        entry = self.records.all().get(self.name, {})
        recorded = entry.get("outcome") == "succeeded"
        if self._by_tag and recorded:
            if looking:
                self._notes.append("its image is named by a tag: whether that points elsewhere shows when it runs")
            elif _uid(live) == self._seen:
                # What a tag points at is known where it is pulled; a Job that came since we began has just done that.
                return False
        if live is None:
            return recorded and self._still_there(entry)
        if not _has(live, "Complete"):
            return False
        if recorded and entry.get("uid") == live["metadata"].get("uid"):
            return self._still_there(entry)
        # The run that started it has not lived to see it end.
        try:
            revision = self._verified(live, Decision.of(live))
        except Failure as failure:
            self._notes.append(failure.sentence)
            return False
        if not looking:
            self._record("succeeded", live, revision)
        return True

    def _still_there(self, entry: Mapping[str, Any]) -> bool:
        """Whether the schema is what a successful migration has made of it: it may have been restored since."""
        after = (entry.get("revision") or {}).get("after")
        settings = self.settings
        if settings is None or not settings.database.cluster or not settings.tool.tells_revision:
            return True
        live = self._found = self._revision(None)
        if after is None or live == after:
            return True
        path = compatibility(after, live, self.records.all()).between
        if path:
            self._notes.append(f"the schema is newer than this migration: it is at {live}, not at {after}")
            return True
        self._notes.append(
            f"the schema is at {live or 'no revision'}, not at {after} as recorded: it is migrated again"
        )
        return False

    def _wait_for_others(self) -> None:
        """Another revision's Job may still run, from a controller that died: two at once would destroy each other."""
        while True:
            label = f"{LABEL}={self.job['metadata']['labels'][LABEL]}"
            others = [
                job for job in self.cluster.list(JOBS, self.namespace, label).items
                if job["metadata"]["name"] != self.name and _runs(job)
            ]  # fmt: skip
            if not others:
                return
            if self._left() <= 0:
                raise Failure("locked", describe(self.job), f"waited for {describe(others[0])}, which still runs",
                              hint="wait until it is over, or delete it if it hangs")  # fmt: skip
            self.progress.update(f"migration: waiting for {describe(others[0])} to end")
            self.cluster.clock.sleep(1.0)

    def _submit(self, live: Object | None) -> tuple[Object, bool]:
        """The Job to wait for, and whether it was there before."""
        if live is not None and _runs(live) and not live["metadata"].get("deletionTimestamp"):
            self.progress.update(f"migration: attaching to {describe(live)}, which runs already")
            return live, True
        if live is not None:
            self._remove(live)
        self.progress.update(f"migration: starting {describe(self.job)}")
        try:
            return self.cluster.create(JOBS, self._complete()), False
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            # The answer to an earlier try was lost: that one had arrived.
            return self._live() or self.job, False

    def _remove(self, live: Object) -> None:
        """Remove a failed or suspended Job, with its pods, so that it can run again."""
        metadata = live["metadata"]
        self.progress.update(f"migration: {describe(live)} is there from before, and runs again")
        self.cluster.delete(JOBS, metadata["name"], self.namespace, "Foreground", uid=metadata["uid"])
        while True:
            there = self._live()
            if there is None or there["metadata"]["uid"] != metadata["uid"]:
                return
            if self._left() <= 0:
                raise Failure("timeout", describe(live), "is still being deleted", hint="see what holds its pods")
            self.cluster.clock.sleep(0.3)

    def _wait(self, live: Object) -> Decision | None:
        decision = self._watch(live)
        now = self._live() or live
        if not _has(now, "Complete"):
            raise Failure("suspended", describe(now), "was suspended by somebody while it ran", hint="run again")
        try:
            revision = self._verified(now, decision)
        except Failure as failure:
            self._record("failed", now, None, failure.sentence, decision)
            raise
        self._record("succeeded", now, revision, "", decision)
        return decision

    def _watch(self, live: Object) -> Decision | None:
        """Wait for the Job's end, and look after it meanwhile; returns what was decided about it."""
        gate = Gate(self.cluster, [live], max(self._left(), 1.0), progress=self.progress)
        if self.settings is None:
            try:
                gate.run()
            except GateFailed as failure:
                raise self._failed(live, failure) from None
            return None
        containers = live["spec"]["template"]["spec"].get("initContainers") or []
        image = next((str(one["image"]) for one in containers if one["name"] == pod.LOCK), "")
        with Advisor(self.cluster, live, self.settings, image, self._left, self.progress) as advisor:
            failed = None
            try:
                gate.run()
            except GateFailed as failure:
                failed = failure
            refused = advisor.finish()
        # The advisor knows more than the gate sees, such as who holds the lock that a pod has failed for.
        if refused is not None and not (failed is not None and refused.code in ("exec", "query")):
            self._record("failed", self._live() or live, None, refused.sentence)
            raise refused
        if failed is not None:
            raise self._failed(live, failed)
        return advisor.decision or Decision.of(self._live() or live)

    def _failed(self, live: Object, failure: GateFailed) -> Failure:
        now = self._live() or live
        if failure.code == "timeout":
            # It goes on; its own deadline ends it, and the next run attaches to it.
            failure.hint = failure.hint or "run again to go on waiting for it"
            return failure
        if _runs(now):
            # It can't start now, but might when nobody waits for it any more, next to a later migration.
            self.cluster.merge(JOBS, self.name, self.namespace, {"spec": {"suspend": True}})
        self._add_log(now, failure)
        if self.settings is not None:
            # What a migration says when it fails may quote rows.
            failure.evidence = masking.message(failure.evidence, 1000)
            for diagnosis in failure.diagnoses:
                diagnosis["logs"] = [masking.message(line) for line in diagnosis.get("logs") or []]
                diagnosis["evidence"] = masking.message(str(diagnosis.get("evidence") or ""), 1000)
        if failure.code in ("job_failed", "crash_loop"):
            failure.code = "migration_failed"
            failure.hint = failure.hint or "mend what its log names and run again; the release before goes on serving"
        self._record("failed", now, None, failure.sentence, Decision.of(now))
        return failure

    def _add_log(self, live: Object, failure: GateFailed) -> None:
        """The migration's own last words, where the gate knows of the Job's end before it knows of the pod's."""
        if not failure.diagnoses or any(one.get("logs") for one in failure.diagnoses):
            return
        labels = f"batch.kubernetes.io/controller-uid={live['metadata'].get('uid')}"
        for found in self.cluster.list(PODS, self.namespace, labels).items:
            name = str(self._container().get("name"))
            lines = [redact(line) for line in self.cluster.logs(self.namespace, found["metadata"]["name"], name, LINES)]
            said = [line for line in lines if line.strip()]
            if said:
                failure.diagnoses[0]["logs"] = lines
                failure.evidence = said[-1]

    # The schema

    def _revision(self, live: Object | None) -> str | None:
        """The schema's revision, read where the database is, not where it is said to be.

        :param live: the Job that has ended, whose pod's last words are read where there is no primary to ask.
        """
        settings = self.settings
        if settings is None or not settings.tool.tells_revision:
            return None
        if not settings.database.cluster:
            labels = f"batch.kubernetes.io/controller-uid={(live or self.job)['metadata'].get('uid')}"
            found = [last_words(one) for one in self.cluster.list(PODS, self.namespace, labels).items]
            return next((one for one in found if one is not None), None)
        for attempt in range(QUESTIONS):
            try:
                console = primary_console(self.cluster, self.namespace, settings.database)
                return settings.tool.revision(console.value)
            except Failure as failure:
                if attempt == QUESTIONS - 1 or "status 403" in failure.cause or self._left() <= 0:
                    raise
                self.cluster.clock.sleep(2.0)
        return None

    def _verified(self, live: Object, decision: Decision | None) -> str | None:
        """The schema's revision after a Job that is Complete.

        :raises Failure: ``revision_unexpected``: it is not what the Job was to make; ``revision_unread``.
        """
        if self.settings is None or not self.settings.tool.tells_revision:
            return None
        after = self._revision(live)
        if after is None:
            raise Failure("revision_unread", describe(live), "is Complete, but nobody could read the schema's revision",
                          hint="run again")  # fmt: skip
        expected = decision.expected if decision is not None else None
        if decision is not None and expected is not None and after != expected:
            moved = "it has not moved" if after == decision.before else f"it was at {decision.before or 'none'} before"
            raise Failure(
                "revision_unexpected", describe(live),
                f"is Complete, but the schema is at {after or 'no revision'} and not at {expected}", moved,
                "see its log, and whether it migrates the database that this module was told of",
            )  # fmt: skip
        return after

    # The record

    def _record(
        self, outcome: str, live: Object, revision: str | None, why: str = "", decision: Decision | None = None
    ) -> None:
        """Write the outcome down."""
        entry: dict[str, Any] = {
            "outcome": outcome,
            "image": self._image(),
            "command": self._command(),
            "uid": live["metadata"].get("uid"),
            "started": (live.get("status") or {}).get("startTime"),
            "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "expand_only": self.expand_only,
        }
        decision = decision or Decision.of(live)
        if self.settings is not None:
            entry["tool"] = self.settings.tool.kind
        if decision is not None:
            entry["revision"] = {"before": decision.before, "after": revision}
            entry["destructive"] = decision.destructive[:MOST]
            entry["locks"] = decision.locks[:MOST]
            entry["preflight"] = decision.objections
            entry["restore_point"] = decision.restore_point
        elif revision is not None:
            entry["revision"] = {"before": None, "after": revision}
        if why:
            entry["why"] = why[:1000]
        self.records.write(self.name, entry)

    # Small things

    def _left(self) -> float:
        return self.timeout - (self.cluster.clock.now() - self._started)

    def _tell_waiting(self, holder: str) -> None:
        self.progress.update(f"migration: another run migrates now ({holder}), waiting for it")

    def _container(self) -> dict[str, Any]:
        return dict(self.job["spec"]["template"]["spec"]["containers"][0])

    def _image(self) -> str:
        return str(self._container().get("image"))

    def _command(self) -> list[str]:
        container = self._container()
        return [str(part) for part in [*(container.get("command") or []), *(container.get("args") or [])]]

    def _database(self) -> dict[str, str] | None:
        settings = self.settings
        if settings is None:
            return None
        database, tool = settings.database, settings.tool
        host = "" if database.cluster else database.host
        where = {"cluster": database.cluster, "host": host, "name": database.name, "tool": tool.kind}
        found = {**where, "version_table": tool.table, "revision_query": tool.query}
        return {key: value for key, value in found.items() if value}

    def _outcome(self, action: str) -> Outcome:
        entry = self.records.all().get(self.name, {}) if self.settings is not None else {}
        revision = entry.get("revision") or {}
        done = entry.get("outcome") == "succeeded"
        after = revision.get("after") if done else None
        return Outcome(
            self.name,
            action,
            self._image(),
            self._command(),
            round(self.cluster.clock.now() - self._started, 2),
            self._found if action == "unchanged" and self._found is not None else after,
            revision.get("before") if done else None,
            entry.get("destructive") if done else None,
            self.expand_only,
            (entry.get("locks") or []) if done else [],
            (entry.get("preflight") or []) if done else [],
            entry.get("restore_point") if done else None,
            self._database(),
            list(dict.fromkeys(self._notes)),
        )


class _NotYet(Failure):
    """The store whose image is needed is not there yet, as in check mode on an empty cluster."""


def _has(job: Mapping[str, Any], condition: str) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(item.get("type") == condition and item.get("status") == "True" for item in conditions)


def _uid(job: Mapping[str, Any] | None) -> str | None:
    return str(job["metadata"].get("uid")) if job is not None else None


def _runs(job: Mapping[str, Any]) -> bool:
    """Whether a Job has neither ended nor been suspended."""
    return not (_has(job, "Complete") or _has(job, "Failed") or (job.get("spec") or {}).get("suspend"))
