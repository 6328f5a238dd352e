# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the cluster while a gate watches: objects by kind, by owner, and events by what they are about."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object

Kind = tuple[str, str]
"""API group and kind."""


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The group and kind of an object."""
    return str(obj.get("apiVersion") or "").rpartition("/")[0], str(obj.get("kind"))


class View:
    """A store that watches keep up to date. Not safe to change from several threads."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, dict[tuple[str, str], Object]] = {}
        self._owned: dict[str, dict[str, Object]] = {}
        self._events: dict[str, dict[str, Object]] = {}
        self._uids: dict[str, Object] = {}
        self._synced: set[Kind] = set()
        self._stamps: dict[str, int] = {}
        self._changes = 0
        self._owned_ever: dict[str, set[str]] = {}
        self.seen: set[tuple[Kind, str, str]] = set()
        """All that has ever been there, to tell what is deleted from what does not exist yet."""

    def sync(self, kind: Kind, items: Iterable[Object], namespace: str | None = None, name: str = "") -> None:
        """All objects of a kind in a namespace (in all of them when it is None): what else was known is gone.

        :param name: only what has this name was asked for; others may well be there.
        """
        known = self._kinds.get(kind, {})
        stale = {key for key in known if namespace in (None, key[0]) and name in ("", key[1])}
        for item in items:
            self.put(kind, item)
            stale.discard(_key(item))
        for key in stale:
            self.remove(kind, self._kinds[kind][key])
        self._synced.add(kind)

    def put(self, kind: Kind, obj: Object) -> None:
        """An object as it is now."""
        store = self._kinds.setdefault(kind, {})
        old = store.get(_key(obj))
        if old is not None:
            self._unlink(kind, old)
        store[_key(obj)] = obj
        namespace, name = _key(obj)
        self.seen.add((kind, namespace, name))
        uid = str(obj["metadata"].get("uid"))
        self._uids[uid] = obj
        for owner in _owners(obj):
            self._owned.setdefault(owner, {})[uid] = obj
            self._owned_ever.setdefault(owner, set()).add(uid)
        self._stamp(uid)
        if kind == ("", "Event"):
            self._events.setdefault(_about(obj), {})[uid] = obj
            self._stamp(_about(obj))

    def remove(self, kind: Kind, obj: Object) -> None:
        """An object that is gone."""
        old = self._kinds.get(kind, {}).pop(_key(obj), None)
        if old is not None:
            self._unlink(kind, old)

    def _unlink(self, kind: Kind, obj: Object) -> None:
        uid = str(obj["metadata"].get("uid"))
        self._uids.pop(uid, None)
        for owner in _owners(obj):
            self._owned.get(owner, {}).pop(uid, None)
        self._stamps.pop(uid, None)
        if kind == ("", "Event"):
            self._events.get(_about(obj), {}).pop(uid, None)
            self._stamp(_about(obj))

    def _stamp(self, uid: str) -> None:
        self._changes += 1
        self._stamps[uid] = self._changes

    def stamp(self, uid: str) -> int:
        """A number that is another one after each change of an object or of the events about it."""
        return self._stamps.get(uid, 0)

    def knows(self, kind: Kind) -> bool:
        """Whether the kind is watched and has been listed."""
        return kind in self._synced

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        return self._kinds.get(kind, {}).get((namespace, name))

    def list(self, kind: Kind, namespace: str | None = None) -> Iterator[Object]:
        """Objects of a kind, in one namespace or in all."""
        for (place, _name), obj in self._kinds.get(kind, {}).items():
            if namespace is None or place == namespace:
                yield obj

    def owned(self, uid: str, kind: Kind | None = None) -> Iterator[Object]:
        """What an object owns directly, of one kind or of all."""
        for obj in self._owned.get(uid, {}).values():
            if kind is None or kind_of(obj) == kind:
                yield obj

    def appeared(self, uid: str) -> int:
        """How many objects that an object owns directly have been seen so far, those that are gone included."""
        return len(self._owned_ever.get(uid, ()))

    def pods(self, uid: str, depth: int = 4) -> Iterator[Object]:
        """Pods that an object owns, directly or through others."""
        for obj in self.owned(uid):
            if kind_of(obj) == ("", "Pod"):
                yield obj
            elif depth:
                yield from self.pods(str(obj["metadata"]["uid"]), depth - 1)

    def owner(self, obj: Mapping[str, Any]) -> Object | None:
        """The controller of an object, if it is known."""
        for reference in obj["metadata"].get("ownerReferences") or []:
            if reference.get("controller"):
                return self._uids.get(str(reference.get("uid")))
        return None

    def events(self, uid: str) -> Iterable[Object]:
        """Events about one object, oldest first."""
        return sorted(self._events.get(uid, {}).values(), key=event_time)


def event_time(event: Mapping[str, Any]) -> str:
    """When an event was last seen, as text that sorts: on the API server's clock where that is known."""
    if event.get("recordedTime"):
        return str(event["recordedTime"])
    series = event.get("series") or {}
    time = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(time or event["metadata"].get("creationTimestamp") or "")


def event_count(event: Mapping[str, Any]) -> int:
    """How often an event was seen."""
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def event_text(event: Mapping[str, Any] | None) -> str:
    """What an event says, on one line; empty for none."""
    return " ".join(str((event or {}).get("message") or (event or {}).get("note") or "").split())


def newest_event(events: Iterable[Object], *reasons: str) -> Object | None:
    """The newest of the events with one of the reasons."""
    return max((event for event in events if event.get("reason") in reasons), key=event_time, default=None)


def timestamp(text: Any) -> float | None:
    """A Kubernetes time in seconds since the epoch, on the clock of whoever wrote it."""
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def changed_at(obj: Mapping[str, Any]) -> float:
    """When someone last changed what an object asks for, on the API server's clock; 0 if unknown.

    Controllers write annotations and status too: entries for a subresource and of the controller manager do not count.
    """
    times = [timestamp(obj["metadata"].get("creationTimestamp")) or 0.0]
    for entry in obj["metadata"].get("managedFields") or []:
        if not entry.get("subresource") and entry.get("manager") != "kube-controller-manager":
            times.append(timestamp(entry.get("time")) or 0.0)
    return max(times)


def _key(obj: Mapping[str, Any]) -> tuple[str, str]:
    metadata = obj["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _owners(obj: Mapping[str, Any]) -> list[str]:
    return [str(reference.get("uid")) for reference in obj["metadata"].get("ownerReferences") or []]


def _about(event: Mapping[str, Any]) -> str:
    return str((event.get("involvedObject") or event.get("regarding") or {}).get("uid"))
