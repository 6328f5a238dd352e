# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed access to one cluster: discovery, objects, watches and logs over one pool of connections.

Objects are plain mappings, as their YAML is. What goes wrong is a
:class:`~ansible_collections.groundwork.platform.plugins.module_utils.errors.Failure` that names the object.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import (
    PATIENCE,
    ApiError,
    Clock,
    Stream,
    Transport,
    Unreachable,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

__all__ = [
    "ApiError",
    "Clock",
    "Cluster",
    "ClusterAuth",
    "Listing",
    "Object",
    "Resource",
    "Unreachable",
    "WatchEvent",
    "Watcher",
    "describe",
    "identity",
]

Object = dict[str, Any]
"""A Kubernetes object as its JSON is."""

Lines = list[str]
FIELD_MANAGER = "groundwork.platform"
PAGE = 500
MANY = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Resource:
    """One kind as the API server serves it.

    :param group: API group; empty for the core group.
    :param plural: as in URLs.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str] = frozenset()

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """URL path of the collection, or of the object when it is named."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        # A name that cannot be one is for the server to refuse, not a way to another object.
        return f"{path}/{quote(name, safe=':')}" if name else path


@dataclasses.dataclass(frozen=True)
class Listing:
    """Objects of one kind, and the version from which a watch goes on."""

    items: list[Object]
    resource_version: str


@dataclasses.dataclass(frozen=True)
class Page:
    """Part of the objects of one kind.

    :param remaining: how many are to come, as far as the server says so.
    :param first: whether the list begins here; also in the middle, when it had to begin again.
    """

    items: list[Object]
    resource_version: str
    remaining: int
    first: bool


@dataclasses.dataclass(frozen=True)
class WatchEvent:
    """What a :class:`Watcher` reports.

    :param type: ``SYNC``: ``objects`` is all there is, forget the rest; ``ADDED``, ``MODIFIED``, ``DELETED``:
        ``objects`` holds the one; ``LOST``: the connection broke, it is being tried again; ``BACK``: it is
        there again; ``DENIED``: this kind may not be watched.
    :param watcher: who reports it.
    :param error: of LOST and DENIED.
    """

    type: str
    watcher: Watcher
    objects: list[Object] = dataclasses.field(default_factory=list)
    error: Failure | None = None


def describe(obj: Mapping[str, Any], namespace: str | None = None) -> str:
    """An object as messages name it: ``Kind namespace/name``."""
    metadata = obj.get("metadata") or {}
    name = str(metadata.get("name") or "?")
    namespace = metadata.get("namespace") or namespace
    return f"{obj.get('kind') or 'object'} {namespace}/{name}" if namespace else f"{obj.get('kind') or 'object'} {name}"


def identity(obj: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What makes an object the same one in all versions of its API: group, kind, namespace, name."""
    version = str(obj.get("apiVersion") or "")
    metadata = obj.get("metadata") or {}
    group = version.rpartition("/")[0]
    return group, str(obj.get("kind")), str(metadata.get("namespace") or ""), str(metadata.get("name"))


class Cluster:
    """One cluster. Safe to use from several threads.

    :param auth: how to reach it.
    :param patience: seconds for which transient errors of one request are retried.
    """

    def __init__(self, auth: ClusterAuth, patience: float = PATIENCE, clock: Clock | None = None) -> None:
        self.connection = auth.connection()
        self.clock = clock or Clock()
        self.transport = Transport(self.connection, patience, self.clock)
        self._lock = threading.Lock()
        self._discovered: dict[str, dict[str, Resource] | None] = {}

    def close(self) -> None:
        """Close the pool's idle connections."""
        self.transport.close()

    # Discovery

    def find_resource(self, api_version: str, kind: str, fresh: bool = False) -> Resource | None:
        """The resource of a kind, or None when the server does not serve it.

        :param fresh: ask again although the answer is known, after a CRD has been applied.
        """
        with self._lock:
            known = api_version in self._discovered
        if not known or fresh:
            found = self._discover(api_version)
            with self._lock:
                self._discovered[api_version] = found
        with self._lock:
            return (self._discovered[api_version] or {}).get(kind)

    def resource(self, api_version: str, kind: str) -> Resource:
        """As :meth:`find_resource`, but fail with ``unknown_kind``."""
        resource = self.find_resource(api_version, kind)
        if resource is None:
            raise Failure(
                "unknown_kind",
                f"{kind} in {api_version}",
                "is not served by this cluster",
                hint="install the CustomResourceDefinition first, or correct apiVersion and kind",
            )
        return resource

    def versions(self, group: str) -> Lines:
        """The versions that the server serves of an API group, the preferred one first; none of an unknown group."""
        if not group:
            return ["v1"]
        try:
            answer = self.transport.request("GET", f"/apis/{group}")
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        preferred = (answer.get("preferredVersion") or {}).get("version")
        found = [str(version["version"]) for version in answer.get("versions") or []]
        return sorted(found, key=lambda version: version != preferred)

    def _discover(self, api_version: str) -> dict[str, Resource] | None:
        path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            answer = self.transport.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        group, _slash, version = api_version.rpartition("/")
        return {
            item["kind"]: Resource(
                group, version, item["kind"], item["name"], bool(item["namespaced"]), frozenset(item.get("verbs") or ())
            )
            for item in answer.get("resources") or []
            if "/" not in item["name"]
        }

    # Objects

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None when there is none."""
        try:
            return self._object(self._request("GET", resource, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        patience: float | None = None,
    ) -> Listing:
        """All objects of a kind, read consistently and in pages.

        :param labels: label selector.
        :param fields: field selector.
        """
        items: list[Object] = []
        version = ""
        for page in self.pages(resource, namespace, labels, fields, patience):
            items = page.items if page.first else items + page.items
            version = page.resource_version
        return Listing(items, version)

    def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        patience: float | None = None,
    ) -> Iterator[Page]:
        """As :meth:`list`, page by page, for who need not hold all of it."""
        query: dict[str, Any] = {"limit": PAGE}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        first = True
        while True:
            try:
                answer = self._request("GET", resource, namespace, None, query, patience=patience)
            except ApiError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                # The pages' common version has been compacted away: begin again, in one piece.
                query = {key: value for key, value in query.items() if key != "continue"} | {"limit": MANY}
                first = True
                continue
            metadata, items = answer["metadata"], answer.get("items") or []
            for item in items:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            version = str(metadata.get("resourceVersion") or "")
            yield Page(items, version, int(metadata.get("remainingItemCount") or 0), first)
            if not metadata.get("continue"):
                return
            query["continue"], first = metadata["continue"], False

    def apply(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        field_manager: str = FIELD_MANAGER,
        force: bool = False,
        dry_run: bool = False,
        subresource: str = "",
        patience: float | None = None,
        strict: bool = True,
    ) -> Object:
        """Server-side apply.

        :param force: take over fields that other managers own.
        :param dry_run: let the server say what would come of it.
        :param strict: let the server look for duplicate fields, which takes it a second reading of the object.
        :raises ApiError: code ``conflict`` names managers and fields in ``causes``; ``invalid`` the fields.
        """
        metadata = obj["metadata"]
        validation = "Strict" if strict else "Ignore"
        query = {"fieldManager": field_manager, "fieldValidation": validation, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        return self._object(
            self._request(
                "PATCH",
                resource,
                metadata.get("namespace"),
                metadata["name"],
                query,
                obj,
                "application/apply-patch+yaml",
                subresource=subresource,
                patience=patience,
            )
        )

    def create(self, resource: Resource, obj: Mapping[str, Any], dry_run: bool = False) -> Object:
        """Create an object.

        :raises ApiError: with reason AlreadyExists, also when an answer was lost and the first try had arrived.
        """
        query = {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        return self._object(
            self._request("POST", resource, obj["metadata"].get("namespace"), None, query, obj, name_of=obj)
        )

    def replace(
        self, resource: Resource, obj: Mapping[str, Any], field_manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Object:
        """Put an object in place of the one with the same resourceVersion."""
        metadata = obj["metadata"]
        query = {"fieldManager": field_manager, **({"dryRun": "All"} if dry_run else {})}
        return self._object(self._request("PUT", resource, metadata.get("namespace"), metadata["name"], query, obj))

    def merge(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        patch: Mapping[str, Any],
        field_manager: str = FIELD_MANAGER,
        dry_run: bool = False,
        subresource: str = "",
    ) -> Object:
        """JSON merge patch; guard it with ``metadata.resourceVersion`` where it must not meet a newer object."""
        query = {"fieldManager": field_manager, **({"dryRun": "All"} if dry_run else {})}
        kind = "application/merge-patch+json"
        return self._object(
            self._request("PATCH", resource, namespace, name, query, patch, kind, subresource=subresource)
        )

    def json_patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        operations: Sequence[Mapping[str, Any]],
        field_manager: str = FIELD_MANAGER,
    ) -> Object:
        """JSON patch; guard it by replacing ``/metadata/resourceVersion`` with the one that was read."""
        query = {"fieldManager": field_manager}
        return self._object(
            self._request("PATCH", resource, namespace, name, query, operations, "application/json-patch+json")
        )

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        propagation: str = "Background",
        uid: str | None = None,
        dry_run: bool = False,
        version: str | None = None,
    ) -> bool:
        """Delete an object; False when there was none, or another one under that name than ``uid``.

        :param propagation: Background, Foreground or Orphan.
        :param version: only while it has this resourceVersion; False when it has another.
        """
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        if version:
            body["preconditions"] = {**body.get("preconditions", {}), "resourceVersion": version}
        if dry_run:
            body["dryRun"] = ["All"]
        try:
            self._request("DELETE", resource, namespace, name, None, body)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and (uid or version)):
                return False
            raise
        return True

    def logs(
        self, namespace: str, pod: str, container: str, tail: int = 20, previous: bool = False, timeout: float = 5.0
    ) -> Lines:
        """Last lines of a container's log; none when there is no log (any more).

        :param timeout: seconds for which its node may take to answer.
        """
        query: dict[str, Any] = {"container": container, "tailLines": tail, "limitBytes": 65536}
        if previous:
            query["previous"] = "true"
        try:
            text = self.transport.text(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query, 0, timeout)
        except (ApiError, Unreachable):
            return []
        return text.splitlines()[-tail:]

    def version(self) -> dict[str, str]:
        """What ``/version`` answers: ``gitVersion``, ``major``, ``minor`` and so on."""
        answer = self.transport.request("GET", "/version")
        return {key: str(value) for key, value in (answer or {}).items()}

    # Watches

    def watch(
        self, resource: Resource, namespace: str | None, version: str, labels: str = "", fields: str = ""
    ) -> Stream:
        """Open a watch that goes on from a version of the list; its lines are JSON events. :class:`Watcher` uses it."""
        query: dict[str, Any] = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            # Not all at the same time: a hundred watches that end together would all come back together.
            "timeoutSeconds": random.randint(240, 300),  # noqa: S311
        }
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        return self.transport.stream(resource.path(namespace), query)

    def _request(
        self,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        subresource: str = "",
        patience: float | None = None,
        name_of: Mapping[str, Any] | None = None,
    ) -> Any:
        path = resource.path(namespace, name) + (f"/{subresource}" if subresource else "")
        try:
            return self.transport.request(method, path, query, body, content_type, patience)
        except ApiError as error:
            shown = name or (describe(name_of).rpartition("/")[2].rpartition(" ")[2] if name_of else "")
            place = f"{namespace}/" if resource.namespaced and namespace and shown else ""
            error.object = f"{resource.kind} {place}{shown}".strip() if shown else f"List of {resource.plural}"
            raise

    @staticmethod
    def _object(answer: Any) -> Object:
        if not isinstance(answer, dict):
            raise Failure("api_error", "The API server", "answered with something that is no object")
        return answer


class Watcher:
    """Keeps a list of objects up to date and says so to a sink, until it is stopped. Runs in a thread of its own.

    It lists, watches from there, goes on from the last version seen after an interruption, and lists again when
    that version has expired (410) or the server can't say what happened since. It never gives up: whoever
    listens has the deadline.

    :param sink: called in the watcher's thread, one event after the other.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        sink: Callable[[WatchEvent], None],
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self._cluster = cluster
        self._sink = sink
        self._labels, self._fields = labels, fields
        self._stopped = threading.Event()
        self._stream: Stream | None = None
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=f"watch {resource.plural}", daemon=True)

    def start(self) -> Watcher:
        """Begin; the first event is SYNC, unless the kind can't be listed."""
        self._thread.start()
        return self

    def stop(self, join: float = 0.0) -> None:
        """End it, without waiting for more than ``join`` seconds."""
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        if join:
            self._thread.join(join)

    def _run(self) -> None:
        version, delay = "", 0.1
        while not self._stopped.is_set():
            try:
                if not version:
                    listing = self._cluster.list(self.resource, self.namespace, self._labels, self._fields, patience=0)
                    version = listing.resource_version
                    self._back()
                    self._emit(WatchEvent("SYNC", self, listing.items))
                version = self._follow(version)
                delay = 0.1
            except ApiError as error:
                if error.status == 410:
                    version = ""
                    continue
                denied = error.status in (401, 403, 404, 405) and not error.transient
                self._report("DENIED" if denied else "LOST", error)
                delay = self._pause(max(delay, 1.0) if denied else delay, error.retry_after or 0.0)
            except Failure as error:
                self._report("LOST", error)
                delay = self._pause(delay)

    def _follow(self, version: str) -> str:
        """Watch until the server ends it; return the version to go on from, empty for a new list."""
        stream = self._stream = self._cluster.watch(self.resource, self.namespace, version, self._labels, self._fields)
        self._back()
        try:
            for line in stream.lines():
                if self._stopped.is_set():
                    break
                if not line.strip():
                    continue
                try:
                    event = json.loads(line)
                except ValueError:
                    # Half a line: the server died while it wrote it.
                    break
                obj = event.get("object") or {}
                if event.get("type") == "ERROR":
                    if obj.get("code") == 410 or obj.get("reason") in ("Expired", "Gone"):
                        return ""
                    raise Unreachable("unreachable", "The API server", "ended a watch", str(obj.get("message", "")))
                version = str(obj.get("metadata", {}).get("resourceVersion") or version)
                if event.get("type") != "BOOKMARK":
                    self._emit(WatchEvent(str(event.get("type")), self, [obj]))
        finally:
            self._stream = None
            with contextlib.suppress(Exception):
                stream.close()
        return version

    def _report(self, kind: str, error: Failure) -> None:
        self._lost = True
        self._emit(WatchEvent(kind, self, error=error))

    def _back(self) -> None:
        if self._lost:
            self._lost = False
            self._emit(WatchEvent("BACK", self))

    def _emit(self, event: WatchEvent) -> None:
        if not self._stopped.is_set():
            self._sink(event)

    def _pause(self, delay: float, least: float = 0.0) -> float:
        """Wait, at least as long as the server asks for; return how long to wait the next time."""
        self._stopped.wait(max(delay * random.uniform(0.8, 1.2), least))  # noqa: S311 - jitter
        return min(delay * 2, 5.0)


def namespaces_of(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """The namespaces that objects lie in."""
    return {str(obj["metadata"]["namespace"]) for obj in objects if obj.get("metadata", {}).get("namespace")}
