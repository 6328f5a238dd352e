# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects without their secrets, and back.

What is written down of a release holds a keyed digest in place of each value of a Secret, and of each text elsewhere
that looks like a credential. The digest tells whether a value is still the same one; the value itself can only come
from the object that lies in the cluster.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import re
import secrets as random_source
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    describe,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

KEY_SECRET = "groundwork-release-key"  # noqa: S105 - a name
"""Secret with the key of the digests; made once in each namespace."""
PREFIX = "sealed:hmac-sha256:"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
SECRETS = Resource("", "v1", "Secret", "secrets", True)

# Names of variables and keys whose values are credentials, unless the value plainly is none.
_NAMES = re.compile(
    r"(?i)(pass(word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|pgpass)$"
    r"|(?i:(^|[_.-])(pwd|dsn|auth)$)"
)
_HARMLESS = re.compile(r"(?i)^(|true|false|yes|no|none|null|[0-9.]{1,6}[smh]?|/[^\s]*)$")
_VALUES = re.compile(
    "|".join(
        (
            r"[a-zA-Z][\w+.-]*://[^\s:/@]*:[^\s@/]+@",
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
            r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+",
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
            r"\b(?:ghp|gho|ghs|glpat|xox[abp]|sk_live)[_-][\w-]{16,}",
            r"--?[\w-]*(?i:password|secret|token|api-key)[= ][^\s$]{4,}",
        )
    )
)


@dataclasses.dataclass(frozen=True)
class Seal:
    """Makes digests of values.

    :param key: secret; without it nobody can try out values against a digest.
    """

    key: bytes

    def digest(self, value: str | bytes) -> str:
        """What stands for a value."""
        data = value.encode() if isinstance(value, str) else value
        return PREFIX + hmac.new(self.key, data, hashlib.sha256).hexdigest()

    def objects(self, objects: Sequence[Mapping[str, Any]]) -> list[Object]:
        """Copies of objects in which nothing secret is left."""
        return [self._object(obj) for obj in objects]

    def _object(self, obj: Mapping[str, Any]) -> Object:
        plain = {key: value for key, value in obj.items() if key != "status"}
        metadata = dict(plain.get("metadata") or {})
        annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
        if "annotations" in metadata:
            metadata["annotations"] = annotations
        plain["metadata"] = metadata
        if plain.get("kind") == "Secret":
            for section in ("data", "stringData"):
                if isinstance(plain.get(section), Mapping):
                    plain[section] = {key: self.digest(_decoded(section, text)) for key, text in plain[section].items()}
        sealed: Object = self._walk(plain)
        return sealed

    def _walk(self, value: Any, name: str = "") -> Any:
        if isinstance(value, Mapping):
            # A variable of a container: what it is called stands beside its value.
            called = str(value["name"]) if isinstance(value.get("name"), str) and "value" in value else ""
            return {key: self._walk(item, called if key == "value" else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        if isinstance(value, str) and looks_secret(name, value):
            return self.digest(value)
        return value


def looks_secret(name: str, value: str) -> bool:
    """Whether a text is, or holds, a credential: by what it is called, or by its own form."""
    if value.startswith(PREFIX):
        return False
    if _NAMES.search(name) and not _HARMLESS.match(value) and name not in _REFERENCES:
        return True
    return bool(_VALUES.search(value))


# Fields of Kubernetes' own whose names end like a credential's: they hold names.
_REFERENCES = frozenset({"secret", "serviceAccountToken", "superuserSecret", "nodePublishSecretRef"})


def _decoded(section: str, text: Any) -> bytes:
    """A Secret's value as it was given, so that both of its sections have one digest."""
    if section == "data":
        with contextlib.suppress(ValueError):
            return base64.b64decode(str(text), validate=True)
    return str(text).encode()


def is_sealed(value: Any) -> bool:
    """Whether a value is a digest."""
    return isinstance(value, str) and value.startswith(PREFIX)


def sealed_paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in an object digests stand."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from sealed_paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from sealed_paths(item, (*path, index))
    elif is_sealed(value):
        yield path


def opened(obj: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]], seal: Seal) -> Object:
    """A recorded object with its values put back, each from where the same value still is.

    :param candidates: objects that may hold it at the same place, such as the one that lies in the cluster.
    :raises Failure: ``sealed_value`` names the field whose value is nowhere any more.
    """
    result: Object = _copy(obj)
    for path in sealed_paths(obj):
        wanted = _at(obj, path)
        found = next(
            (text for other in candidates for text in _texts(other, path) if seal.digest(text) == wanted),
            None,
        )
        if found is None:
            shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
            raise Failure(
                "sealed_value", describe(obj), f"had another value at {shown}, which looks like a credential and is "
                "therefore not in the record",
                hint="move it into a Secret and refer to it; to return now, release the older version of the system's "
                "files",
            )  # fmt: skip
        holder: Any = result
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = found
    return result


def _texts(obj: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[str]:
    """What stands at a path, and if that ends in a list, anywhere in it: lists move."""
    value = _at(obj, path)
    if isinstance(value, str):
        yield value
    if "env" in path:
        at = path.index("env")
        for entry in _at(obj, path[: at + 1]) or ():
            if isinstance(entry, Mapping) and isinstance(entry.get("value"), str):
                yield entry["value"]


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def namespace_seal(cluster: Cluster, namespace: str, create: bool) -> Seal:
    """The seal of a namespace; its key is generated once.

    :param create: whether to keep a new key; otherwise one that nobody will know again stands in for a missing one.
    """
    for _attempt in range(3):
        live = cluster.get(SECRETS, KEY_SECRET, namespace)
        if live is not None:
            try:
                return Seal(base64.b64decode(live["data"]["key"], validate=True))
            except (KeyError, TypeError, ValueError) as error:
                raise Failure(
                    "bad_release_key", f"Secret {namespace}/{KEY_SECRET}", "holds no key",
                    hint="delete it: a new one is made, and values that look like credentials of earlier releases "
                    "can't be recognised any more",
                ) from error  # fmt: skip
        key = random_source.token_bytes(32)
        if not create:
            return Seal(key)
        metadata = {
            "name": KEY_SECRET,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "groundwork.platform"},
        }
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "immutable": True}
        try:
            cluster.create(SECRETS, {**secret, "data": {"key": base64.b64encode(key).decode()}})
        except ApiError as error:
            # Another run made one at the same moment, or our own first try had arrived: that one counts.
            if error.reason != "AlreadyExists":
                raise
    raise Failure("bad_release_key", f"Secret {namespace}/{KEY_SECRET}", "comes and goes")


def sealed_lazily(objects: Sequence[Mapping[str, Any]], seal: Callable[[], Seal]) -> list[Object]:
    """As :meth:`Seal.objects`, without asking for the key where nothing is secret."""
    marker = Seal(b"")
    trial = marker.objects(objects)
    return trial if next(sealed_paths(trial), None) is None else seal().objects(objects)
