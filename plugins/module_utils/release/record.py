# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a system's releases, kept in its namespace.

One release is one Secret, the head, with what a list needs, and further Secrets with the compressed objects, each
below the size that the API server takes. A release exists when its head does, and the head is written last: whoever is
killed on the way leaves parts that nobody refers to, and the next writer removes them.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object, Resource
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

SECRETS = Resource("", "v1", "Secret", "secrets", True)
TYPE = "groundwork.platform/release"
SYSTEM_LABEL = "groundwork.platform/system"
NUMBER_LABEL = "groundwork.platform/release"
OUTCOME_LABEL = "groundwork.platform/outcome"
PART_LABEL = "groundwork.platform/part"
CONTENT_LABEL = "groundwork.platform/content"
FORMAT = 1
"""Of the head's JSON; a reader refuses what is newer."""
CHUNK = 700 * 1024
"""Bytes in one part: in base64 less than the 1 MiB that a Secret may hold and the 1.5 MiB of an etcd request."""
HISTORY = 10

PENDING, DEPLOYED, FAILED = "pending", "deployed", "failed"
ROLLED_BACK, SUPERSEDED = "rolled_back", "superseded"
OUTCOMES = (PENDING, DEPLOYED, FAILED, ROLLED_BACK, SUPERSEDED)
GOOD = (DEPLOYED, SUPERSEDED)

Stages = dict[str, list[Object]]
"""Name of the stage -> objects as applied, without their secrets."""


@dataclasses.dataclass
class Record:
    """One release.

    :param number: from 1, in the order in which they were begun.
    :param outcome: ``pending`` while it is made, then ``deployed``; ``superseded`` by a later one; ``failed``; or
        ``rolled_back`` when its place was given back to an earlier one.
    :param content: digest of stages and strategies: the same content is the same release.
    :param stages: the objects; None until :meth:`Store.load` has read them.
    :param strategies: how each component was brought in, by the name of its Deployment.
    :param images: reference -> digest of what ran, as far as it is known.
    :param schema: the database's ``revision`` after the release and ``revision_before``, the ``destructive`` statements
        that led there (None if that is unknown), ``expand_only``, ``action`` and ``job`` of the migration, its
        ``restore_point``, and in ``database`` where the revision can be asked for.
    :param gate: ``verdict``, ``seconds``, ``objects`` and ``notes`` of the gate.
    :param failure: of a release that failed: code, object, cause, evidence, hint.
    :param by: user, host, and the job of AWX if one did it.
    :param started: UTC as text; so is finished.
    :param collection: version of the collection.
    :param source: digest of the system's file with everything merged over it.
    :param restores: number of the release that this one went back to; 0 if it is none of those.
    :param paused: workloads whose rollout was paused when it failed, as ``Kind/name``.
    """

    number: int = 0
    outcome: str = PENDING
    content: str = ""
    stages: Stages | None = None
    strategies: dict[str, Any] = dataclasses.field(default_factory=dict)
    images: dict[str, str] = dataclasses.field(default_factory=dict)
    schema: dict[str, Any] = dataclasses.field(default_factory=dict)
    gate: dict[str, Any] = dataclasses.field(default_factory=dict)
    failure: dict[str, Any] = dataclasses.field(default_factory=dict)
    by: dict[str, str] = dataclasses.field(default_factory=dict)
    started: str = ""
    finished: str = ""
    collection: str = ""
    source: str = ""
    restores: int = 0
    paused: list[str] = dataclasses.field(default_factory=list)
    parts: list[str] = dataclasses.field(default_factory=list)
    checksum: str = ""
    version: str = dataclasses.field(default="", compare=False)

    @property
    def effective(self) -> int:
        """The number whose objects this release has: its own, or that of the one it returned to."""
        return self.restores or self.number

    def objects(self) -> list[Object]:
        """The objects of all stages, in their order.

        :raises ValueError: they have not been loaded.
        """
        if self.stages is None:
            raise ValueError("the objects of this release have not been loaded")
        return [obj for stage in self.stages.values() for obj in stage]

    def summary(self) -> dict[str, Any]:
        """What a list shows."""
        shown = dataclasses.asdict(dataclasses.replace(self, stages=None))
        for name in ("stages", "parts", "checksum", "version"):
            shown.pop(name)
        return shown

    def line(self) -> str:
        """The release in one line."""
        by = self.by.get("user", "")
        by += f"@{self.by['host']}" if self.by.get("host") else ""
        by += f", job {self.by['job']}" if self.by.get("job") else ""
        text = f"{self.number:>4}  {self.outcome:<11}  {self.finished or self.started}  {by}"
        if self.restores:
            text += f", a return to {self.restores}"
        if self.schema.get("revision"):
            text += f", schema {self.schema['revision']}"
        if self.failure.get("object"):
            text += f": {self.failure['object']} {self.failure.get('cause', '')}"
        return text.rstrip()


def content_digest(stages: Mapping[str, Sequence[Mapping[str, Any]]], strategies: Mapping[str, Any]) -> str:
    """What makes two releases the same one.

    :param stages: sealed.
    """
    text = json.dumps([stages, strategies], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def packed(stages: Mapping[str, Any]) -> bytes:
    """Stages as the parts hold them, the same to the byte for the same stages."""
    # Sorted keys would lose the order of the stages, which is that of their application.
    text = json.dumps(list(stages.items()), separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def unpacked(data: bytes) -> Stages:
    """The reverse of :func:`packed`."""
    return dict(json.loads(gzip.decompress(data)))


def split(data: bytes, size: int = CHUNK) -> list[bytes]:
    """Data in pieces of at most ``size`` bytes; one piece at least."""
    return [data[start : start + size] for start in range(0, max(len(data), 1), size)]


def live(records: Iterable[Record]) -> Record | None:
    """The release that serves: the newest that was deployed."""
    return next((record for record in records if record.outcome == DEPLOYED), None)


def previous_good(records: Sequence[Record]) -> Record | None:
    """The release to return to: what serves if something newer failed, else the one before it.

    A return that was killed, or that failed, is tried again.

    :param records: newest first.
    """
    serving = live(records)
    newest = records[0] if records else Record()
    if newest.restores and newest.outcome in (PENDING, FAILED):
        aim = next((item for item in records if item.number == newest.restores and item.outcome in GOOD), None)
        if aim is not None:
            return aim
    if serving is None or records[0] is not serving:
        return serving
    return before(records, serving)


def before(records: Iterable[Record], serving: Record) -> Record | None:
    """The newest release older than what a release has, which was good and is another.

    :param records: newest first.
    """
    for item in records:
        # One that is still called deployed was superseded by a run that was killed before it could say so.
        if item.outcome in GOOD and item.effective < serving.effective and item.content != serving.content:
            return item
    return None


def kept(records: Sequence[Record], history: int) -> list[Record]:
    """Which releases stay: the newest ones, and always what serves and what can be returned to.

    :param records: newest first.
    """
    serving = live(records)
    good = [serving, before(records, serving)] if serving is not None else []
    return [item for index, item in enumerate(records) if index < max(history, 1) or item in good]


def home_of(cluster: Cluster, system: str) -> str:
    """The namespace in which a system's releases are recorded, wherever that is.

    :raises Failure: ``no_release``; or several namespaces have it, or they may not all be read.
    """
    try:
        heads = cluster.list(SECRETS, None, f"{SYSTEM_LABEL}={system},{PART_LABEL}=head").items
    except ApiError as error:
        if error.status != 403:
            raise
        raise Failure("namespace_needed", f"System {system}", "cannot be looked for in all namespaces", error.evidence,
                      "name its namespace") from error  # fmt: skip
    found = sorted({str(head["metadata"]["namespace"]) for head in heads})
    if len(found) == 1:
        return found[0]
    if found:
        raise Failure("namespace_needed", f"System {system}", "is recorded in several namespaces", ", ".join(found),
                      "name the one that is meant")  # fmt: skip
    raise Failure("no_release", f"System {system}", "has no recorded release on this cluster", hint="release it first")


class Store:
    """The releases of one system.

    :param system: its name.
    :param history: how many releases to keep.
    """

    def __init__(self, cluster: Cluster, namespace: str, system: str, history: int = HISTORY) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.system = system
        self.history = history
        self.slug = re.sub(r"[^a-z0-9.-]", "-", system.lower()).strip("-.") or "system"

    # Reading

    def list(self) -> list[Record]:
        """All releases without their objects, newest first, in one request."""
        heads = self.cluster.list(SECRETS, self.namespace, f"{SYSTEM_LABEL}={self.system},{PART_LABEL}=head")
        return sorted((self._record(head) for head in heads.items), key=lambda item: item.number, reverse=True)

    def current(self) -> Record | None:
        """The release that serves."""
        return live(self.list())

    def load(self, record: Record) -> Record:
        """The release with its objects.

        :raises Failure: ``record_damaged``: a part is gone or changed.
        """
        if record.stages is not None:
            return record
        data = b""
        for name in record.parts:
            part = self.cluster.get(SECRETS, name, self.namespace)
            if part is None:
                raise self._damaged(record, f"Secret {name} is gone")
            data += base64.b64decode((part.get("data") or {}).get("objects") or "")
        if hashlib.sha256(data).hexdigest() != record.checksum:
            raise self._damaged(record, "its parts do not have the recorded checksum")
        record.stages = unpacked(data)
        return record

    # Writing

    def begin(self, record: Record) -> Record:
        """Write a pending release: its parts first, and then the head that makes them one.

        :raises Failure: ``concurrent_release``: somebody else has just begun a release of that number.
        """
        data = packed(record.stages or {})
        record.checksum = hashlib.sha256(data).hexdigest()
        pieces = split(data)
        stem = f"groundwork-release-{self.slug}-{record.number}"
        record.parts = [f"{stem}-{record.checksum[:10]}-{index}" for index in range(1, len(pieces) + 1)]
        for name, piece in zip(record.parts, pieces, strict=True):
            self._create_part(record, name, piece)
        return self._create_head(record, stem)

    def save(self, record: Record) -> Record:
        """Write the head anew, unless somebody else has since.

        :raises Failure: ``concurrent_release``.
        """
        head = {**self._head(record), "type": TYPE}
        head["metadata"]["resourceVersion"] = record.version
        try:
            answer = self.cluster.replace(SECRETS, head)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            live_one = self._read(record.number)
            if live_one is not None and dataclasses.replace(live_one, stages=record.stages) == record:
                # The answer to the first try was lost: that one had arrived.
                record.version = live_one.version
                return record
            raise self._taken(record, live_one) from error
        record.version = str(answer["metadata"]["resourceVersion"])
        return record

    def finish(self, record: Record) -> Record:
        """Write the outcome; with ``deployed``, those before it are superseded and the history is cut."""
        record = self.save(record)
        if record.outcome != DEPLOYED:
            return record
        records = self.list()
        for item in records:
            if item.outcome == DEPLOYED and item.number < record.number:
                item.outcome = SUPERSEDED
                self.save(item)
        self._cut(records)
        return record

    def _cut(self, records: Sequence[Record]) -> None:
        """Forget the oldest releases, and all parts without a head."""
        stay = kept(records, self.history)
        for record in records:
            if record not in stay:
                self.cluster.delete(SECRETS, self._name(record.number), self.namespace)
        numbers = ",".join(str(record.number) for record in stay)
        self._delete_parts(f"{NUMBER_LABEL} notin ({numbers})")
        newest = stay[0]
        self._delete_parts(f"{NUMBER_LABEL}={newest.number},{CONTENT_LABEL}!={newest.checksum[:10]}")

    def _delete_parts(self, selector: str) -> None:
        selector = f"{SYSTEM_LABEL}={self.system},{PART_LABEL}=objects,{selector}"
        self.cluster.transport.request("DELETE", SECRETS.path(self.namespace), {"labelSelector": selector})

    def _create_part(self, record: Record, name: str, piece: bytes) -> None:
        part = self._frame(name, record, "objects")
        part["metadata"]["labels"][CONTENT_LABEL] = record.checksum[:10]
        part |= {"type": TYPE, "immutable": True, "data": {"objects": base64.b64encode(piece).decode()}}
        try:
            self.cluster.create(SECRETS, part)
        except ApiError as error:
            # Named after its content: what is there is the same.
            if error.reason != "AlreadyExists":
                raise

    def _create_head(self, record: Record, name: str) -> Record:
        try:
            answer = self.cluster.create(SECRETS, {**self._head(record), "type": TYPE})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            there = self._read(record.number)
            if there is None or dataclasses.replace(there, stages=record.stages) != record:
                raise self._taken(record, there) from error
            record.version = there.version
            return record
        record.version = str(answer["metadata"]["resourceVersion"])
        return record

    # The form

    def _name(self, number: int) -> str:
        return f"groundwork-release-{self.slug}-{number}"

    def _frame(self, name: str, record: Record, part: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": "groundwork.platform",
                    SYSTEM_LABEL: self.system,
                    NUMBER_LABEL: str(record.number),
                    PART_LABEL: part,
                },
            },
        }

    def _head(self, record: Record) -> Object:
        head = self._frame(self._name(record.number), record, "head")
        head["metadata"]["labels"][OUTCOME_LABEL] = record.outcome.replace("_", "-")
        annotations = {
            "groundwork.platform/started": record.started,
            "groundwork.platform/finished": record.finished,
            "groundwork.platform/summary": " ".join(record.line().split())[:500],
        }
        head["metadata"]["annotations"] = {key: text for key, text in annotations.items() if text}
        fields = dataclasses.asdict(dataclasses.replace(record, stages=None))
        for name in ("stages", "version"):
            fields.pop(name)
        text = json.dumps({"format": FORMAT, **fields}, sort_keys=True, indent=1)
        head["data"] = {"release.json": base64.b64encode(text.encode()).decode()}
        return head

    def _read(self, number: int) -> Record | None:
        head = self.cluster.get(SECRETS, self._name(number), self.namespace)
        return self._record(head) if head is not None else None

    def _record(self, head: Mapping[str, Any]) -> Record:
        name = head["metadata"]["name"]
        try:
            fields = json.loads(base64.b64decode((head.get("data") or {})["release.json"]))
            form = int(fields.pop("format"))
        except (KeyError, ValueError, TypeError) as error:
            raise Failure("record_damaged", f"Secret {self.namespace}/{name}", "holds no release that can be read",
                          hint="delete it; the release itself is not touched by that") from error  # fmt: skip
        if form > FORMAT:
            raise Failure("record_newer", f"Secret {self.namespace}/{name}", "was written by a newer version of this "
                          "collection", hint="use that version")  # fmt: skip
        known = {field.name for field in dataclasses.fields(Record)}
        record = Record(**{key: value for key, value in fields.items() if key in known})
        record.version = str(head["metadata"].get("resourceVersion") or "")
        return record

    # Refusals

    def _damaged(self, record: Record, evidence: str) -> Failure:
        return Failure(
            "record_damaged", f"Release {record.number} of {self.system}", "can't be read any more", evidence,
            "choose another release, or release the older version of the system's files",
        )  # fmt: skip

    def _taken(self, record: Record, other: Record | None) -> Failure:
        who = f"by {other.by.get('user', '?')}@{other.by.get('host', '?')}" if other else "and is gone"
        return Failure("concurrent_release", f"Release {record.number} of {self.system}",
                       "was written by another run meanwhile", f"it is {other.outcome} {who}" if other else who,
                       "see what that run did, and run again")  # fmt: skip
