# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that are generated once and then kept, and whose values nobody is told."""

from __future__ import annotations

import base64
import dataclasses
import secrets as random_source
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ALPHABETS = {
    "alphanumeric": string.ascii_letters + string.digits,
    "letters": string.ascii_letters,
    "lowercase": string.ascii_lowercase + string.digits,
    "digits": string.digits,
    "hex": string.hexdigits[:16],
    # No character that a shell, a URL or a connection string would have to escape.
    "safe": string.ascii_letters + string.digits + "-_.~",
}
LENGTH = 32
TRIES = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What happened to one Secret.

    :param action: ``created``, ``changed`` or ``unchanged``.
    :param generated: keys whose values were generated now.
    :param keys: all keys that were asked for.
    """

    name: str
    action: str
    generated: list[str]
    keys: list[str]


def generate(length: int = LENGTH, alphabet: str = "alphanumeric") -> str:
    """A random value.

    :param length: in characters.
    :param alphabet: a name in :data:`ALPHABETS`, or the characters themselves.
    """
    characters = ALPHABETS.get(alphabet, alphabet)
    return "".join(random_source.choice(characters) for _number in range(length))


def keep(
    cluster: Cluster, namespace: str, wanted: Sequence[Mapping[str, Any]], check_mode: bool = False
) -> list[Outcome]:
    """See to it that each Secret is there with all its keys; values that are there are never replaced.

    :param wanted: ``name``, and optionally ``keys`` (name -> ``length`` and ``alphabet``), ``data`` (plain
        values, which are kept as given), ``labels``, ``annotations`` and ``type`` of each.
    :raises Failure: ``bad_secret``, or what the API server says.
    """
    for item in wanted:
        _check(item)
    return [_keep_one(cluster, namespace, item, check_mode) for item in wanted]


def _check(item: Mapping[str, Any]) -> None:
    subject = f"Secret {item.get('name') or '?'}"
    if not item.get("name"):
        raise Failure("bad_secret", subject, "has no name", hint="add name to it")
    both = set(item.get("keys") or {}) & set(item.get("data") or {})
    if both:
        raise Failure("bad_secret", subject, f"both generates and sets {', '.join(sorted(both))}", hint="choose one")
    for key, options in (item.get("keys") or {}).items():
        options = options or {}
        alphabet = str(options.get("alphabet") or "alphanumeric")
        if int(options.get("length") or LENGTH) < 8 or len(set(ALPHABETS.get(alphabet, alphabet))) < 2:
            raise Failure("bad_secret", subject, f"would generate a {key} that can be guessed",
                          hint="use at least 8 characters of an alphabet of at least 2")  # fmt: skip


def _keep_one(cluster: Cluster, namespace: str, item: Mapping[str, Any], check_mode: bool) -> Outcome:
    resource = cluster.resource("v1", "Secret")
    for attempt in range(TRIES):
        live = cluster.get(resource, item["name"], namespace)
        data, generated = _missing(item, live)
        metadata = _metadata(item, live)
        keys = sorted({*(item.get("keys") or {}), *(item.get("data") or {})})
        if live is not None and not data and not metadata:
            return Outcome(item["name"], "unchanged", [], keys)
        outcome = Outcome(item["name"], "changed" if live else "created", generated, keys)
        if check_mode:
            return outcome
        try:
            if live is None:
                cluster.create(resource, _new(item, namespace, data))
            else:
                version = live["metadata"]["resourceVersion"]
                patch = {"metadata": {**metadata, "resourceVersion": version}, "data": data}
                cluster.merge(resource, item["name"], namespace, patch)
        except ApiError as error:
            # Somebody else wrote it meanwhile: their values count.
            if error.status != 409 or attempt == TRIES - 1:
                raise
            continue
        return outcome
    raise AssertionError("unreachable")


def _missing(item: Mapping[str, Any], live: Object | None) -> tuple[dict[str, str], list[str]]:
    """Encoded values to write, and which of them were generated."""
    present = (live or {}).get("data") or {}
    data, generated = {}, []
    for key, value in (item.get("data") or {}).items():
        encoded = base64.b64encode(str(value).encode()).decode()
        if present.get(key) != encoded:
            data[key] = encoded
    for key, options in (item.get("keys") or {}).items():
        if not present.get(key):
            options = options or {}
            value = generate(int(options.get("length") or LENGTH), str(options.get("alphabet") or "alphanumeric"))
            data[key] = base64.b64encode(value.encode()).decode()
            generated.append(key)
    return data, sorted(generated)


def _metadata(item: Mapping[str, Any], live: Object | None) -> dict[str, Any]:
    """Labels and annotations that are not as they should be; others are left alone."""
    metadata = (live or {}).get("metadata") or {}
    changes = {}
    for section in ("labels", "annotations"):
        present = metadata.get(section) or {}
        wanted = {key: str(value) for key, value in (item.get(section) or {}).items()}
        different = {key: value for key, value in wanted.items() if present.get(key) != value}
        if different:
            changes[section] = different
    return changes


def _new(item: Mapping[str, Any], namespace: str, data: Mapping[str, str]) -> Object:
    metadata: dict[str, Any] = {"name": item["name"], "namespace": namespace}
    metadata.update(_metadata(item, None))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": item.get("type") or "Opaque",
        "data": dict(data),
    }
