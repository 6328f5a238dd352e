# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Amounts as Kubernetes writes them, and as numbers: CPU in millicores, memory in bytes, time in seconds."""

from __future__ import annotations

import math
import re
from decimal import Decimal

CPU = r"^([0-9]+m|[0-9]+(\.[0-9]{1,3})?)$"
BYTES = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"
DURATION = r"^[0-9]+(s|m|h|d)$"
LATENCY = r"^[0-9]+(ms|s)$"

_BINARY = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, **_BINARY}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def millicores(text: str | float) -> int:
    """``500m``, ``2`` or ``0.5`` as millicores, rounded up."""
    written = str(text)
    if written.endswith("m"):
        return int(written[:-1])
    return math.ceil(Decimal(written) * 1000)


def number_of_bytes(text: str | float) -> int:
    """``10Gi`` or ``512Mi`` as bytes, rounded up."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if match is None:
        raise ValueError(f"{text} is no amount of bytes")
    return math.ceil(Decimal(match.group(1)) * _SUFFIXES[match.group(2)])


def seconds(text: str) -> int:
    """``30s``, ``5m``, ``1h`` or ``7d`` as seconds."""
    return int(text[:-1]) * _SECONDS[text[-1]]


def milliseconds(text: str) -> int:
    """``200ms`` or ``2s`` as milliseconds."""
    return int(text[:-2]) if text.endswith("ms") else seconds(text) * 1000


def duration_text(amount: int) -> str:
    """Seconds in the largest unit up to hours that needs no fraction."""
    for unit in ("h", "m"):
        if amount and amount % _SECONDS[unit] == 0:
            return f"{amount // _SECONDS[unit]}{unit}"
    return f"{amount}s"


def cpu_text(amount: int) -> str:
    """Millicores in the form to which the API server brings them."""
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"


def bytes_text(amount: int) -> str:
    """Bytes in the form to which the API server brings binary amounts."""
    for suffix, size in reversed(_BINARY.items()):
        if amount and amount % size == 0:
            return f"{amount // size}{suffix}"
    return str(amount)
