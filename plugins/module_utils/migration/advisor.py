# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follows a migration's pod beside the gate: reads the plan, decides whether it may go on, and minds its lock."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object, Resource, describe
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration import (
    ddl,
    masking,
    pod,
    preflight,
    restore_point,
    scripts,
    tools,
)
from ansible_collections.groundwork.platform.plugins.module_utils.migration.database import (
    PODS,
    Console,
    Database,
    primary_console,
)
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

POLICIES = ("refuse", "restore_point", "allow")
ANNOTATION = "groundwork.platform/plan"
"""On the Job: what was decided about it, for a run that takes over."""
MOST = 20
"""Findings that are kept with a Job and in the record: both have room for a limited number."""
POLL = 0.5
ATTEMPTS = 10
"""How often a question that fails is asked again, 2 s apart."""
JOBS = Resource("batch", "v1", "Job", "jobs", True)
_FILES = ("revision", "heads", "heads.code", "heads.error", "plan.sql", "plan.code", "plan.error")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a migration of a known database is to observe.

    :param files: ConfigMap with the files of the tool ``sql``.
    :param policy: what becomes of a destructive migration, one of POLICIES.
    :param restore_point: options of the restore point, for the policy ``restore_point``.
    :param patience: seconds to wait until nothing speaks against migrating any more.
    """

    database: Database
    tool: tools.Tool
    lock: pod.Lock = dataclasses.field(default_factory=pod.Lock)
    limits: preflight.Limits = dataclasses.field(default_factory=preflight.Limits)
    files: str = ""
    policy: str = "refuse"
    restore_point: Mapping[str, Any] | None = None
    patience: float = 0.0

    def check(self) -> None:
        """Refuse what can be refused before anything is changed.

        :raises Failure: a restore point that is asked for and absent, by its name.
        """
        if self.policy == "restore_point":
            restore_point.check(self.restore_point or {})
        if self.tool.kind == "sql" and bool(self.files) == bool(self.tool.path):
            raise Failure("bad_migration", "The tool sql", "needs either files in the image or a ConfigMap with them",
                          hint="give sql.path or sql.config_map")  # fmt: skip


@dataclasses.dataclass
class Decision:
    """What was found before a migration was let go on.

    :param before: the schema's revision.
    :param expected: the revision that it must have afterwards; None: unknown.
    :param destructive: what it destroys or breaks, named beforehand.
    :param idle: whether there was certainly nothing to do.
    :param locks: what it holds up.
    :param objections: what spoke against it and was only told.
    """

    before: str = ""
    expected: str | None = None
    idle: bool = False
    destructive: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    locks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    objections: list[dict[str, str]] = dataclasses.field(default_factory=list)
    restore_point: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Decision | None:
        """The decision that a Job carries."""
        text = (job["metadata"].get("annotations") or {}).get(ANNOTATION)
        try:
            given = json.loads(text) if text else None
            return cls(**given) if isinstance(given, dict) else None
        except (ValueError, TypeError):
            return None


class Advisor:
    """Works in a thread of its own while the gate watches the Job; it suspends the Job when it must not go on.

    :param job: as the cluster has it.
    :param image: with psql.
    :param left: seconds that are left for all of it.
    """

    def __init__(
        self,
        cluster: Cluster,
        job: Object,
        settings: Settings,
        image: str,
        left: Callable[[], float],
        progress: Progress,
    ) -> None:
        self._cluster = cluster
        self._job = job
        self._settings = settings
        self._image = image
        self._left = left
        self._progress = progress
        self._namespace = str(job["metadata"]["namespace"])
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="migration advisor", daemon=True)
        self._released = False
        self._failure: Failure | None = None
        self.decision: Decision | None = None
        self._defect: Exception | None = None
        self._facts: dict[str, Any] = {}
        self._attempts = 0

    def __enter__(self) -> Advisor:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stopped.set()
        self._thread.join(30)

    def finish(self) -> Failure | None:
        """Why it was not allowed to go on, if it was not."""
        self._stopped.set()
        self._thread.join()
        if self._defect is not None:
            raise self._defect
        if self._failure is None:
            # The Job may have ended since the last look.
            try:
                found = self._pod()
                if found is not None:
                    self._hear(found)
            except Failure as failure:
                self._failure = failure
        return self._failure

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
            except Failure as failure:
                if not self._passing(failure):
                    self._refuse(failure)
                    return
                self._stopped.wait(2)
            except Exception as error:
                self._defect = error
                self._suspend()
                return
            self._stopped.wait(POLL)

    # What is seen

    def _look(self) -> None:
        found = self._pod()
        if found is None:
            return
        self._hear(found)
        gate = _container(found, pod.GATE)
        if not self._released and (gate.get("state") or {}).get("running"):
            self._decide(found)
            self._released = True

    def _pod(self) -> Object | None:
        labels = f"batch.kubernetes.io/controller-uid={self._job['metadata']['uid']}"
        pods = self._cluster.list(PODS, self._namespace, labels).items
        return max(pods, key=lambda one: str(one["metadata"].get("creationTimestamp")), default=None)

    def _hear(self, found: Object) -> None:
        """What the lock's container says."""
        held, waiting = False, ""
        subject = self._settings.database.subject
        for line in self._cluster.logs(self._namespace, str(found["metadata"]["name"]), pod.LOCK, tail=40):
            word, _equals, text = line.partition("=")
            if word == "held":
                held, waiting = True, ""
            elif word == "waiting":
                waiting = text
            elif word == "locked":
                raise _locked(subject, text, self._settings.lock)
            elif word in ("unreachable", "unreadable"):
                raise _unreachable(subject, text)
        if held and waiting:
            cause = "was locked by another migration while this one ran, which was stopped for it"
            hint = "see what ended the session that held the lock, then run again"
            raise Failure("lock_lost", subject, cause, pod.holder(waiting), hint)
        if waiting:
            self._progress.update(f"migration: waiting for the database's lock, held by {pod.holder(waiting)}")

    # What is decided

    def _decide(self, found: Object) -> None:
        settings = self._settings
        inside = Console(self._cluster, (self._namespace, str(found["metadata"]["name"]), pod.LOCK))
        database = inside
        if settings.database.cluster:
            database = primary_console(self._cluster, self._namespace, settings.database)
        self._progress.update("migration: reading what it is about to do")
        plan = self._plan(inside, database)
        told = self._preflight(database, plan)
        empty = self._facts["tables"] == 0
        decision = Decision(
            before=plan.before,
            expected=plan.expected,
            idle=plan.idle,
            # An empty database has nothing to lose, and no older application.
            destructive=[] if empty else [one.as_dict() for one in plan.analysis.destructive],
            locks=[] if empty else [one.as_dict() for one in plan.analysis.warnings],
            objections=[one.as_dict() for one in told],
        )
        if decision.destructive:
            self._permit(decision)
        self.decision = decision
        metadata = {
            "annotations": {ANNOTATION: json.dumps({**dataclasses.asdict(decision), "locks": decision.locks[:20]})}
        }
        self._cluster.merge(JOBS, str(self._job["metadata"]["name"]), self._namespace, {"metadata": metadata})
        done = inside.run("touch", f"{scripts.FOLDER}/go")
        if done.code != 0:
            raise Failure("exec", describe(self._job), "could not be let go on", masking.message(done.stderr))
        self._progress.update(f"migration: {describe(self._job)} runs")

    def _plan(self, inside: Console, database: Console) -> tools.Plan:
        tool = self._settings.tool
        files = inside.files(scripts.FOLDER, _FILES)
        before = (files["revision"] or "").strip()
        if tool.kind == "sql":
            done = inside.run("sh", "-c", 'exec sh -c "$GROUNDWORK_SCRIPT" groundwork plan')
            if done.code != 0:
                text = masking.message(done.stderr.replace("groundwork: ", ""))
                raise Failure("bad_history", "The SQL files", "cannot be applied", text)
            files = {"plan.sql": done.stdout, "plan.code": "0"}
        plan = tools.read_plan(tool, before, files)
        if plan.analysis.retyped:
            rows = database.data(preflight.types_query(plan.analysis.retyped)) or []
            plan = tools.read_plan(tool, before, files, {(row[0], row[1]): row[2] for row in rows})
        return plan

    def _preflight(self, database: Console, plan: tools.Plan) -> list[preflight.Objection]:
        """What speaks against it and is only told.

        :raises Failure: ``preflight``: what forbids it.
        """
        clock, limits = self._cluster.clock, self._settings.limits
        deadline = clock.now() + min(self._settings.patience, self._left())
        while True:
            self._facts = database.data(preflight.facts_query(self._settings.tool.bookkeeping))
            if plan.idle:
                return []
            found = preflight.judge(self._facts, limits, (scripts.APPLICATION,))
            found += self._room(database, plan)
            refused = preflight.refusals(found, limits)
            if not refused:
                return found
            if clock.now() >= deadline or self._stopped.is_set():
                raise preflight.failure(self._settings.database.subject, refused)
            self._progress.update(f"migration: waiting, since the database {refused[0].cause}")
            self._stopped.wait(2)

    def _room(self, database: Console, plan: tools.Plan) -> list[preflight.Objection]:
        """Whether the disk has room; only CloudNativePG's primary can be asked."""
        if not plan.analysis.rewrites or not self._settings.database.cluster:
            return []
        sizes = database.data(preflight.sizes_query(plan.analysis.rewrites)) or {}
        done = database.run("df", "-B1", "--output=avail", "/var/lib/postgresql/data")
        lines = done.stdout.split()
        free = int(lines[-1]) if done.code == 0 and lines and lines[-1].isdigit() else None
        return preflight.judge_disk(free, sizes, self._settings.limits)

    def _permit(self, decision: Decision) -> None:
        """Ask the policy about a destructive migration."""
        policy, found = self._settings.policy, decision.destructive
        if policy == "refuse":
            raise Failure(
                "destructive", describe(self._job), f"is destructive, which is not allowed: {named(found)}",
                hint="make it only add to the schema, or set destructive to restore_point or allow",
            )  # fmt: skip
        if policy == "restore_point":
            options = dict(self._settings.restore_point or {})
            kind = restore_point.check(options)
            job = {**self._job, "metadata": {**self._job["metadata"], "name": _base(self._job)}}
            point = kind(options, job, self._settings.database, self._image)
            self._progress.update(f"migration: it is destructive ({named(found, 1)}), so a restore point is made first")
            decision.restore_point = point.take(self._cluster, max(self._left(), 1.0), self._progress)

    # What is done about it

    def _passing(self, failure: Failure) -> bool:
        """Whether to look again: a container may just go, a server may be changing over. But not for ever."""
        self._attempts += 1
        fleeting = failure.code in ("exec", "unreachable", "query", "no_primary") and "status 403" not in failure.cause
        return fleeting and self._attempts < ATTEMPTS and self._left() > 0

    def _refuse(self, failure: Failure) -> None:
        self._failure = failure
        self._suspend()

    def _suspend(self) -> None:
        """End the pod, and with it the lock. The gate sees the Job suspended."""
        try:
            self._cluster.merge(JOBS, str(self._job["metadata"]["name"]), self._namespace, {"spec": {"suspend": True}})
        except Failure as failure:
            self._progress.update(f"migration: {failure.sentence}")


def named(found: list[dict[str, Any]], most: int = 3) -> str:
    """Findings in a sentence."""
    texts = [
        f"line {one['line']} {one['why']} ({one['statement']})" if one["statement"] else f"it {one['why']}"
        for one in found[:most]
    ]
    return "; ".join(texts) + (f"; and {len(found) - most} more" if len(found) > most else "")


def unseen() -> list[dict[str, Any]]:
    """The findings of a migration that nobody has looked at."""
    return [one.as_dict() for one in ddl.unknown("was not looked at").findings]


def last_words(found: Object) -> str | None:
    """The revision that the lock's container read when the migration had ended; None: it did not get to it."""
    ended = (_container(found, pod.LOCK).get("state") or {}).get("terminated") or {}
    for line in str(ended.get("message") or "").splitlines():
        if line.startswith("revision="):
            return line.removeprefix("revision=").strip()
    return None


def _container(found: Object, name: str) -> Mapping[str, Any]:
    statuses = (found.get("status") or {}).get("initContainerStatuses") or []
    return next((one for one in statuses if one.get("name") == name), {})


def _base(job: Mapping[str, Any]) -> str:
    return str(job["metadata"]["name"]).rpartition("-")[0] or str(job["metadata"]["name"])


def _locked(subject: str, text: str, lock: pod.Lock) -> Failure:
    holder = pod.holder(text)
    number = holder.removeprefix("pid ").partition(",")[0]
    hint = "wait until that migration has ended"
    if number.isdigit():
        hint += f", or end it: SELECT pg_terminate_backend({number})"
    return Failure("locked", subject, f"was locked by another migration for {lock.timeout} s", holder, hint)


def _unreachable(subject: str, text: str) -> Failure:
    told = masking.message(text.partition("=")[2] or text)
    hint = "see whether the server runs, and whether network policies let the migration's pod reach it"
    for sign, other in (
        ("authentication failed", "correct the user or password in the Secret"),
        ("does not exist", "correct the name, or create it"),
        ("no pg_hba.conf entry", "allow this user from the pods' network, or use TLS"),
        ("certificate", "correct the certificate authority, or the host's name"),
    ):
        if sign in told:
            hint = other
    return Failure("database_unreachable", subject, "cannot be reached by the migration's pod", told, hint)
