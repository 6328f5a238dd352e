# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps secrets out of what the gate says: by what credentials look like, and by the values that are known."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "*****"
SHORTEST = 4
"""Characters that a known value has to have at least: shorter ones would mask half of every line."""

_NAME = (
    r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)s?"
)
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), MASK),
    (re.compile(r"(\w[\w+.-]*://[^\s:/@]*:)[^\s/]+@"), rf"\1{MASK}@"),
    (re.compile(rf"(?i)\b({_NAME}[\"']?\s*(?:=>|[=:])\s*)(?:\"[^\"]+\"|'[^']+'|[^\s\"',;&}}]+)"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b((?:authorization|cookie|set-cookie)[\"']?\s*[=:]\s*).+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}"), rf"\1{MASK}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{20,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}"), MASK),
)
_SECRET_NAME = re.compile(rf"(?i)^{_NAME}$|(?i:pass|secret|token|key|cred|dsn)")
_OPEN_KEYS = ("host", "hostname", "port", "user", "username", "dbname", "database", "namespace", "ca.crt", "tls.crt")
_URL_PASSWORD = re.compile(r"\w[\w+.-]*://[^\s:/@]*:([^\s/]+)@")


def redact(text: str, known: Iterable[str] = ()) -> str:
    """A text without what looks like a credential.

    :param known: values that are secrets, whatever they look like.
    """
    for value in sorted(known, key=len, reverse=True):
        if len(value) >= SHORTEST and value.lower() not in ("true", "false", "null", "none"):
            text = text.replace(value, MASK)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def scrub(document: Any, known: Iterable[str] = ()) -> Any:
    """A structure of mappings, lists and texts without what looks like a credential."""
    known = list(known)
    if isinstance(document, str):
        return redact(document, known)
    if isinstance(document, Mapping):
        return {key: scrub(value, known) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [scrub(value, known) for value in document]
    return document


def secrets_of(pod: Mapping[str, Any]) -> set[str]:
    """Names of the Secrets that a pod takes values from."""
    spec, names = pod.get("spec") or {}, set()
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for source in container.get("envFrom") or []:
            names.add((source.get("secretRef") or {}).get("name"))
        for variable in container.get("env") or []:
            names.add(((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name"))
    for volume in spec.get("volumes") or []:
        names.add((volume.get("secret") or {}).get("secretName"))
        for source in (volume.get("projected") or {}).get("sources") or []:
            names.add((source.get("secret") or {}).get("name"))
    return {str(name) for name in names if name}


def values_of(secret: Mapping[str, Any]) -> Iterator[str]:
    """The values of a Secret as they may appear in a text: whole, by lines, and still encoded.

    Where to connect to and as whom is left out: it is half of what a log tells, and no secret.
    """
    for key, encoded in (secret.get("data") or {}).items():
        if str(key).lower() in _OPEN_KEYS:
            continue
        yield str(encoded)
        try:
            text = base64.b64decode(str(encoded)).decode()
        except (binascii.Error, ValueError):
            continue
        yield text
        yield text.strip()
        yield from (line.strip() for line in text.splitlines())
        yield from _URL_PASSWORD.findall(text)


def plain_values_of(pod: Mapping[str, Any]) -> Iterator[str]:
    """Values of plain environment variables whose names say that they are secret, and passwords within URLs."""
    spec = pod.get("spec") or {}
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for variable in container.get("env") or []:
            value = str(variable.get("value") or "")
            if _SECRET_NAME.search(str(variable.get("name"))):
                yield value
            yield from _URL_PASSWORD.findall(value)
