# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pods are said to lack: read from the words of kubelet, scheduler and controllers, and asked of the API.

Whoever says that something is missing looks again only after a while (kubelet after 10 to 15 s, for volumes after up to
two minutes, controllers ever more seldom). So it is not their word that condemns a release: the API is asked.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Resource,
    Unreachable,
)

ANSWER = 3.0
"""Seconds for an answer of an API server that has just answered others."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """Something that a pod needs.

    :param kind: one of :data:`RESOURCES`.
    :param namespace: empty for kinds of the whole cluster.
    :param key: that a Secret or ConfigMap has to have; empty if it only has to exist.
    """

    kind: str
    namespace: str
    name: str
    key: str = ""

    @property
    def shown(self) -> str:
        """As messages name it."""
        return f"key {self.key} of {self.kind} {self.name}" if self.key else f"{self.kind} {self.name}"

    @property
    def whole(self) -> Reference:
        """The object itself."""
        return dataclasses.replace(self, key="")


class Answer(enum.Enum):
    """What the API says of a reference."""

    THERE = "there"
    NOT_THERE = "not there"
    NOT_TOLD = "not told"
    """Whoever asks may not know."""


RESOURCES = {
    "Secret": Resource("", "v1", "Secret", "secrets", True),
    "ConfigMap": Resource("", "v1", "ConfigMap", "configmaps", True),
    "ServiceAccount": Resource("", "v1", "ServiceAccount", "serviceaccounts", True),
    "PersistentVolumeClaim": Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True),
    "PriorityClass": Resource("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False),
    "RuntimeClass": Resource("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False),
}

_WORDS = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("Secret", r"couldn't find key (?P<key>\S+) in Secret (?P<name>[\w./-]+)"),
        ("ConfigMap", r"couldn't find key (?P<key>\S+) in ConfigMap (?P<name>[\w./-]+)"),
        ("Secret", r'\bsecret "?(?P<name>[\w./-]+?)"? not found'),
        ("ConfigMap", r'\bconfigmap "?(?P<name>[\w./-]+?)"? not found'),
        ("ServiceAccount", r'\bserviceaccount "(?P<name>[^"]+)" not found'),
        ("PersistentVolumeClaim", r'\bpersistentvolumeclaim "(?P<name>[^"]+)" not found'),
        ("PriorityClass", r"no PriorityClass with name (?P<name>\S+) was found"),
        ("RuntimeClass", r'RuntimeClass "(?P<name>[^"]+)" not found'),
    )
)
_VOLUME = re.compile(r'for volume "([^"]+)"')
_ITEM = re.compile(r"references non-existent (secret|config) key: ([\w.-]+)")


def reference(message: str, namespace: str) -> Reference | None:
    """What a message says is missing; None if it says no such thing."""
    for kind, words in _WORDS:
        found = words.search(message)
        if found:
            name = found["name"].rpartition("/")[2]
            place = namespace if RESOURCES[kind].namespaced else ""
            return Reference(kind, place, name, found.groupdict().get("key") or "")
    return None


def of_mount(message: str, pod: Mapping[str, Any]) -> Reference | None:
    """The same where a volume can't be mounted: of a missing key kubelet names the volume only."""
    namespace = str(pod["metadata"].get("namespace") or "")
    item, volume = _ITEM.search(message), _VOLUME.search(message)
    if item is None or volume is None:
        return reference(message, namespace)
    kind = "Secret" if item[1] == "secret" else "ConfigMap"
    for source in _sources(pod, volume[1], kind):
        if any(entry.get("key") == item[2] for entry in source.get("items") or []):
            return Reference(kind, namespace, str(source.get("secretName") or source.get("name")), item[2])
    return None


def _sources(pod: Mapping[str, Any], name: str, kind: str) -> list[Mapping[str, Any]]:
    """The Secrets or ConfigMaps that make up one volume of a pod."""
    field = "secret" if kind == "Secret" else "configMap"
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        if volume.get("name") == name:
            parts = (volume.get("projected") or {}).get("sources") or [volume]
            return [part[field] for part in parts if part.get(field)]
    return []


def ask(cluster: Cluster, references: Iterable[Reference]) -> dict[Reference, Answer]:
    """Whether each is there now: one request for each object, however many of its keys are asked for.

    Of a Secret its keys are looked at; its values are dropped with the answer.

    :return: nothing for an object about which there is no answer at this moment.
    """
    wanted: dict[Reference, set[Reference]] = {}
    for item in references:
        wanted.setdefault(item.whole, set()).add(item)
    found: dict[Reference, Answer] = {}
    for whole, items in wanted.items():
        keys = _keys(cluster, whole)
        if isinstance(keys, Answer):
            found.update(dict.fromkeys(items, keys))
        elif keys is not None:
            there = {True: Answer.THERE, False: Answer.NOT_THERE}
            found.update({item: there[not item.key or item.key in keys] for item in items})
    return found


def _keys(cluster: Cluster, whole: Reference) -> frozenset[str] | Answer | None:
    """The keys that an object has; an answer where it has none to tell, None without any."""
    path = RESOURCES[whole.kind].path(whole.namespace, whole.name)
    try:
        # Not for long: the API server has just answered others.
        document = cluster.transport.request("GET", path, patience=1.0, timeout=ANSWER) or {}
    except ApiError as error:
        return {404: Answer.NOT_THERE, 403: Answer.NOT_TOLD}.get(error.status)
    except Unreachable:
        return None
    if (document.get("metadata") or {}).get("deletionTimestamp"):
        return Answer.NOT_THERE
    return frozenset(document.get("data") or {}) | frozenset(document.get("binaryData") or {})
