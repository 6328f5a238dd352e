# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a destructive migration can be taken back to. A kind of restore point is a class in :data:`KINDS`."""

from __future__ import annotations

import abc
import copy
import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource, describe
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, GateFailed
from ansible_collections.groundwork.platform.plugins.module_utils.migration import amounts, masking, scripts
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import PODS, Database
from ansible_collections.groundwork.platform.plugins.module_utils.migration.pod import psql_container
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

LABEL = "groundwork.platform/restore-point"
CLAIM = "groundwork-restore-points"
"""Claim that dumps go to unless one is named."""
SERVER_USER = 26
"""User of CloudNativePG's images; the scratch server needs one that the image knows."""
JOBS = Resource("batch", "v1", "Job", "jobs", True)
CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)

Manifest = dict[str, Any]


class RestorePoint(abc.ABC):
    """One kind of restore point.

    :param options: as the user gave them, ``type`` included.
    :param job: the migration's Job as it was asked for: a restore point's pod lives under the same rules.
    """

    options: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()

    def __init__(self, options: Mapping[str, Any], job: Object, database: Database, image: str) -> None:
        self.given = dict(options)
        self.job = job
        self.database = database
        self.image = image
        self.namespace = str(job["metadata"]["namespace"])

    @abc.abstractmethod
    def prepare(self, cluster: Cluster) -> None:
        """Make what the Job needs to be there."""

    @abc.abstractmethod
    def container(self, pod: Manifest, stamp: str) -> tuple[Manifest, list[Manifest]]:
        """The container that makes and verifies it, and its volumes."""

    def take(self, cluster: Cluster, timeout: float, progress: Progress) -> dict[str, Any]:
        """Make one and verify it.

        :param timeout: seconds for both.
        :returns: what identifies it, with ``type`` and ``taken``.
        :raises Failure: ``restore_point_failed``.
        """
        started = datetime.datetime.now(datetime.UTC)
        self._clear(cluster, timeout)
        self.prepare(cluster)
        job = cluster.create(JOBS, self.manifest(started.strftime("%Y%m%dt%H%M%S"), timeout))
        progress.update(f"migration: making a restore point, {describe(job)}")
        try:
            Gate(cluster, [job], timeout, progress=progress).run()
        except GateFailed as failure:
            said = self._said(cluster, job)
            evidence = masking.message(said[-1].removeprefix("groundwork: ")) if said else failure.evidence
            ended = failure.code in ("job_failed", "crash_loop")
            hint = "nothing was migrated; mend this first" if ended else failure.hint
            self._end(cluster, job)
            cause = "made no verified restore point"
            raise Failure("restore_point_failed", describe(job), cause, evidence, hint) from None
        return self._result(self._said(cluster, job), job, started)

    def manifest(self, stamp: str, timeout: float) -> Object:
        """Its Job."""
        template = copy.deepcopy(self.job["spec"]["template"])
        pod = template["spec"]
        kept = (
            "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets",
            "securityContext", "nodeSelector", "tolerations", "affinity", "priorityClassName",
        )  # fmt: skip
        spec: Manifest = {key: pod[key] for key in kept if key in pod}
        container, volumes = self.container(spec, stamp)
        spec |= {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
        base = str(self.job["metadata"]["name"])
        # What the Job's controller has added to the migration's own pods would bind these to it.
        given = (template.get("metadata") or {}).get("labels") or {}
        labels = {key: value for key, value in given.items() if not key.endswith(("controller-uid", "job-name"))}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": f"{base[:40].rstrip('-.')}-{stamp}",
                "namespace": self.namespace,
                "labels": {**labels, LABEL: str(self.given["type"])},
            },
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": max(int(timeout), 1),
                "ttlSecondsAfterFinished": 7 * 24 * 3600,
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }

    def _clear(self, cluster: Cluster, timeout: float) -> None:
        """Remove what a run that died has left at work: two would write over each other's files."""
        deadline = cluster.clock.now() + timeout
        while True:
            jobs = [job for job in cluster.list(JOBS, self.namespace, LABEL).items if not _ended(job)]
            if not jobs:
                return
            if cluster.clock.now() > deadline:
                raise Failure("restore_point_failed", describe(jobs[0]), "of an earlier run does not go away",
                              hint="see what holds its pod")  # fmt: skip
            for job in jobs:
                if not job["metadata"].get("deletionTimestamp"):
                    cluster.delete(JOBS, job["metadata"]["name"], self.namespace, "Foreground", job["metadata"]["uid"])
            cluster.clock.sleep(0.5)

    def _said(self, cluster: Cluster, job: Object) -> list[str]:
        labels = f"batch.kubernetes.io/job-name={job['metadata']['name']}"
        for pod in cluster.list(PODS, self.namespace, labels).items:
            lines = cluster.logs(self.namespace, pod["metadata"]["name"], "restore-point", tail=20)
            return [line for line in lines if line.strip()]
        return []

    def _result(self, said: list[str], job: Object, started: datetime.datetime) -> dict[str, Any]:
        try:
            result = json.loads(said[-1]) if said else None
        except ValueError:
            result = None
        if not isinstance(result, dict):
            raise Failure("restore_point_failed", describe(job), "does not say what it made",
                          hint="its last line must be a JSON object that identifies the restore point")  # fmt: skip
        seconds = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
        return {
            **result,
            "type": self.given["type"],
            "job": job["metadata"]["name"],
            "taken": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": round(seconds, 1),
        }

    def _end(self, cluster: Cluster, job: Object) -> None:
        """One that has not failed by itself must not go on when nobody waits for it."""
        live = cluster.get(JOBS, str(job["metadata"]["name"]), self.namespace)
        if live is not None and not _ended(live):
            cluster.merge(JOBS, str(job["metadata"]["name"]), self.namespace, {"spec": {"suspend": True}})


def _ended(job: Mapping[str, Any]) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(one.get("type") in ("Complete", "Failed") and one.get("status") == "True" for one in conditions)


class Dump(RestorePoint):
    """pg_dump to a claim; verified by restoring it and comparing relations, numbers of rows and their contents."""

    options = frozenset(("claim", "size", "storage_class", "keep", "user"))

    def prepare(self, cluster: Cluster) -> None:
        """Make the claim, unless it is there."""
        name = str(self.given.get("claim") or CLAIM)
        if cluster.get(CLAIMS, name, self.namespace) is not None:
            return
        if not self.given.get("size"):
            hint = "create it, or give restore_point.size, room for the dump and for the database"
            subject = f"PersistentVolumeClaim {self.namespace}/{name}"
            raise Failure("restore_point_unavailable", subject, "does not exist", hint=hint)
        spec: Manifest = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(self.given["size"])}},
        }
        if self.given.get("storage_class"):
            spec["storageClassName"] = self.given["storage_class"]
        labels = {"app.kubernetes.io/managed-by": "groundwork.platform"}
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        cluster.create(CLAIMS, claim)

    def container(self, pod: Manifest, stamp: str) -> tuple[Manifest, list[Manifest]]:
        """The store's image, with the server that the dump is tried in."""
        user = int(self.given.get("user") or SERVER_USER)
        pod["securityContext"] = {
            **(pod.get("securityContext") or {}),
            "runAsUser": user, "runAsGroup": user, "fsGroup": user, "runAsNonRoot": True,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        made = psql_container(pod, "restore-point", self.image, scripts.DUMP, [])
        made["env"] += [
            *self.database.environment(),
            {"name": "PGAPPNAME", "value": "groundwork-restore-point"},
            {"name": "GROUNDWORK_FILE", "value": f"{stamp}.dump"},
            {"name": "GROUNDWORK_KEEP", "value": str(self.given.get("keep") or 3)},
        ]
        made["resources"] = copy.deepcopy(amounts.DUMP)
        made["volumeMounts"] += [*self.database.mounts(), {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
        claim = {"claimName": str(self.given.get("claim") or CLAIM)}
        volumes = [
            {"name": "groundwork", "persistentVolumeClaim": claim},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            *self.database.volumes(),
        ]
        return made, volumes

    def _result(self, said: list[str], job: Object, started: datetime.datetime) -> dict[str, Any]:
        result = super()._result(said, job, started)
        if result.get("verified") is not True:
            raise Failure("restore_point_failed", describe(job), "made a dump that is not verified")
        return {**result, "claim": str(self.given.get("claim") or CLAIM)}


class Command(RestorePoint):
    """A user's own command; it has verified what it made when it ends with success and says what that is."""

    options = frozenset(("image", "command", "env"))
    required = frozenset(("image", "command"))

    def prepare(self, cluster: Cluster) -> None:
        """Nothing."""

    def container(self, pod: Manifest, stamp: str) -> tuple[Manifest, list[Manifest]]:
        """The user's image, with the database's variables."""
        made = psql_container(pod, "restore-point", str(self.given["image"]), "", [])
        made["command"] = [str(word) for word in self.given["command"]]
        own = [{"name": name, "value": str(value)} for name, value in (self.given.get("env") or {}).items()]
        made["env"] = [*self.database.environment(), *own]
        made["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}, *self.database.mounts()]  # noqa: S108
        return made, [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}, *self.database.volumes()]


KINDS: dict[str, type[RestorePoint]] = {"dump": Dump, "command": Command}
_COMING = {"pg_backup": "archived backups of PostgreSQL", "snapshot": "snapshots of volumes"}


def check(options: Mapping[str, Any]) -> type[RestorePoint]:
    """The kind of restore point that is asked for.

    :raises Failure: ``restore_point_unavailable``: there is no such kind; ``bad_restore_point``: it lacks something.
    """
    name = str(options.get("type") or "")
    if name not in KINDS:
        cause = f"cannot be made: {_COMING[name]} are not here yet" if name in _COMING else "is of an unknown type"
        subject, known = f"Restore point {name or '(without a type)'}", f"there are {', '.join(sorted(KINDS))}"
        raise Failure("restore_point_unavailable", subject, cause, known, "name one of those in restore_point.type")
    kind = KINDS[name]
    given = {key for key, value in options.items() if value not in (None, "", [], {})} - {"type"}
    missing, strange = sorted(kind.required - given), sorted(given - kind.options)
    if missing or strange:
        cause = f"lacks {missing[0]}" if missing else f"has {strange[0]}, which belongs to another type"
        raise Failure("bad_restore_point", f"Restore point {name}", cause)
    size = str(options.get("size") or "1Gi")
    if not re.fullmatch(r"\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?", size):
        raise Failure("bad_restore_point", f"Restore point {name}", f"has the size {size}", hint="such as 10Gi")
    return kind
