# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a migration as one Job for each image and arguments, once.

The Job's name is derived from what it runs, so that a second run finds the first one's Job: it attaches to it
while it runs, and does nothing when it has succeeded. One that failed is run again, since what made it fail may
be mended.
"""

from __future__ import annotations

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
from ansible_collections.groundwork.platform.plugins.module_utils.migration.lease import LeaseLock
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

RECORD = "groundwork-migrations"
"""ConfigMap in the namespace that records the outcome of each migration."""
LEASE = "groundwork-migration"
LABEL = "groundwork.platform/migration"
HISTORY = 50
JOBS = Resource("batch", "v1", "Job", "jobs", True)
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a migration came to.

    :param job: name of its Job.
    :param action: ``run``, ``attached`` to one that was running, or ``unchanged`` when it had succeeded before.
    :param command: what it runs.
    :param seconds: how long it was waited for.
    """

    job: str
    action: str
    image: str
    command: list[str]
    seconds: float = 0.0


def job_name(definition: Mapping[str, Any]) -> str:
    """Name of the Job of a definition: its own name and a digest of the images and what they are told to run."""
    spec = definition["spec"]["template"]["spec"]
    parts = [
        [item.get("image"), item.get("command"), item.get("args")]
        for item in [*(spec.get("initContainers") or []), *spec["containers"]]
    ]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    return f"{definition['metadata']['name'][:50].rstrip('-.')}-{digest}"


def prepared(definition: Mapping[str, Any], namespace: str | None, timeout: float) -> Object:
    """The Job of a definition: named, tried once, ended by its own deadline, and never removed by itself.

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
    name = job_name(job)
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
    return job


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


class Migration:
    """One migration on one cluster.

    :param definition: a Job; its name is the prefix of the real one.
    :param timeout: seconds for all of it, waiting for another controller included.
    """

    def __init__(
        self,
        cluster: Cluster,
        definition: Mapping[str, Any],
        namespace: str | None = None,
        timeout: float = 600.0,
        progress: Progress | None = None,
    ) -> None:
        self.cluster = cluster
        self.timeout = timeout
        self.job = prepared(definition, namespace, timeout)
        self.name = str(self.job["metadata"]["name"])
        self.namespace = str(self.job["metadata"]["namespace"])
        self.progress = progress or Progress(self.namespace)
        self._started = cluster.clock.now()

    def look(self) -> Outcome:
        """What :meth:`run` would do, for check mode. A namespace that does not exist yet has no migration done."""
        if self.cluster.get(NAMESPACES, self.namespace) is None:
            return self._outcome("run")
        if self._succeeded_before(self._live()):
            return self._outcome("unchanged")
        self.cluster.create(JOBS, self.job, dry_run=True) if self._live() is None else None
        return self._outcome("run")

    def run(self) -> Outcome:
        """Migrate, unless that has been done.

        :raises Failure: ``migration_failed`` with the last log lines, ``locked``, ``timeout``, or the cause of
            a Job that can't start.
        """
        # Without the lock first: in most runs there is nothing to do.
        if self._succeeded_before(self._live()):
            return self._outcome("unchanged")
        lock = LeaseLock(self.cluster, self.namespace, LEASE, self._tell_waiting)
        with lock.held(self._left()):
            live = self._live()
            if self._succeeded_before(live):
                return self._outcome("unchanged")
            self._wait_for_others()
            live, attached = self._submit(live)
            self._wait(live)
            return self._outcome("attached" if attached else "run")

    # Steps

    def _live(self) -> Object | None:
        return self.cluster.get(JOBS, self.name, self.namespace)

    def _succeeded_before(self, live: Object | None) -> bool:
        if live is not None and _has(live, "Complete"):
            self._record("succeeded", live)
            return True
        return live is None and self._recorded().get("outcome") == "succeeded"

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
            return self.cluster.create(JOBS, self.job), False
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            # The answer to an earlier try was lost: that one had arrived.
            return self._live() or self.job, False

    def _remove(self, live: Object) -> None:
        """Remove a failed or suspended Job, with its pods, so that it can run again."""
        metadata = live["metadata"]
        self.progress.update(f"migration: {describe(live)} did not succeed before, trying again")
        self.cluster.delete(JOBS, metadata["name"], self.namespace, "Foreground", uid=metadata["uid"])
        while True:
            there = self._live()
            if there is None or there["metadata"]["uid"] != metadata["uid"]:
                return
            if self._left() <= 0:
                raise Failure("timeout", describe(live), "is still being deleted", hint="see what holds its pods")
            self.cluster.clock.sleep(0.3)

    def _wait(self, live: Object) -> None:
        gate = Gate(self.cluster, [live], max(self._left(), 1.0), progress=self.progress)
        try:
            gate.run()
        except GateFailed as failure:
            raise self._failed(live, failure) from None
        now = self._live() or live
        if not _has(now, "Complete"):
            raise Failure("suspended", describe(now), "was suspended by somebody while it ran", hint="run again")
        self._record("succeeded", now)

    def _failed(self, live: Object, failure: GateFailed) -> Failure:
        now = self._live() or live
        if failure.code == "timeout":
            # It goes on; its own deadline ends it, and the next run attaches to it.
            failure.hint = failure.hint or "run again to go on waiting for it"
            return failure
        if _runs(now):
            # It can't start now, but might when nobody waits for it any more, next to a later migration.
            self.cluster.merge(JOBS, self.name, self.namespace, {"spec": {"suspend": True}})
        self._record("failed", now, failure.sentence)
        if failure.code in ("job_failed", "crash_loop"):
            failure.code = "migration_failed"
            failure.hint = failure.hint or "mend what its log names and run again; the release before goes on serving"
        return failure

    # The record

    def _recorded(self) -> dict[str, Any]:
        record = self.cluster.get(CONFIG_MAPS, RECORD, self.namespace)
        text = ((record or {}).get("data") or {}).get(self.name)
        try:
            entry = json.loads(text) if text else {}
        except ValueError:
            entry = {}
        return entry if isinstance(entry, dict) else {}

    def _record(self, outcome: str, live: Object, why: str = "") -> None:
        """Write the outcome down once; the oldest entries make room."""
        if self._recorded().get("outcome") == outcome == "succeeded":
            return
        entry = {
            "outcome": outcome,
            "image": self._image(),
            "command": self._command(),
            "uid": live["metadata"].get("uid"),
            "started": (live.get("status") or {}).get("startTime"),
            "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if why:
            entry["why"] = why[:1000]
        record = self.cluster.get(CONFIG_MAPS, RECORD, self.namespace)
        entries = {**((record or {}).get("data") or {}), self.name: json.dumps(entry)}
        surplus = sorted(entries, key=lambda key: _finished(entries[key]))[: max(len(entries) - HISTORY, 0)]
        patch: dict[str, Any] = {"data": {self.name: entries[self.name], **dict.fromkeys(surplus)}}
        if record is None:
            metadata = {
                "name": RECORD,
                "namespace": self.namespace,
                "labels": {"app.kubernetes.io/managed-by": "groundwork.platform"},
            }
            self.cluster.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **patch})
        else:
            self.cluster.merge(CONFIG_MAPS, RECORD, self.namespace, patch)

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

    def _outcome(self, action: str) -> Outcome:
        seconds = round(self.cluster.clock.now() - self._started, 2)
        return Outcome(self.name, action, self._image(), self._command(), seconds)


def _finished(text: str) -> str:
    try:
        return str(json.loads(text).get("finished") or "")
    except (ValueError, AttributeError):
        return ""


def _has(job: Mapping[str, Any], condition: str) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(item.get("type") == condition and item.get("status") == "True" for item in conditions)


def _runs(job: Mapping[str, Any]) -> bool:
    """Whether a Job has neither ended nor been suspended."""
    return not (_has(job, "Complete") or _has(job, "Failed") or (job.get("spec") or {}).get("suspend"))
