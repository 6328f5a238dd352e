# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that are there whole or not at all, and the texts in them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Write a file atomically and durably unless it already has this content and mode.

    :return: whether anything was written.
    """
    data = content.encode() if isinstance(content, str) else content
    if same(path, data, mode):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def same(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Whether a file is there with this content and mode."""
    data = content.encode() if isinstance(content, str) else content
    try:
        return path.stat().st_mode & 0o7777 == mode and path.read_bytes() == data
    except OSError:
        return False


def write_json(path: Path, value: object, mode: int = 0o644) -> bool:
    """Write a value as JSON, as :func:`write` does."""
    return write(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file, or none that can be understood."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def digest(value: object) -> str:
    """A short digest of plain data, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def to_yaml(value: object, *, sort_keys: bool = False) -> str:
    """A value as YAML."""
    import yaml  # not at the top: modules must be importable without it

    return str(yaml.safe_dump(value, sort_keys=sort_keys, width=200))


def from_yaml(text: str) -> Any:
    """The value of a YAML text.

    :raises ValueError: it is none. The error does not quote the text, which may hold a secret.
    """
    import yaml  # not at the top: modules must be importable without it

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("not YAML") from None
