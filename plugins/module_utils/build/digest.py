# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of inputs: equal inputs give equal names in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Part of every digest. Raise it when a change of this code makes other output from the same inputs.
FORMAT = 2
_IGNORED = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".DS_Store"}
_IGNORED_ENDINGS = (".pyc", ".swp", "~", ".orig", ".rej")
_CHUNK = 1 << 20


def of_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_inputs(inputs: object) -> str:
    """A name for what is built from ``inputs`` (plain data and dataclasses): 32 hexadecimal digits."""
    text = json.dumps([FORMAT, inputs], sort_keys=True, separators=(",", ":"), default=_plain)
    return of_bytes(text.encode())[:32]


def of_tree(path: Path) -> list[tuple[str, bool, str]]:
    """What makes a file or folder what it is: names, whether executable, and digests; never times or owners."""
    return [(name, executable(file), _content(file)) for name, file in files(path)]


def files(path: Path) -> Iterator[tuple[str, Path]]:
    """The files under a folder by name within it, sorted, or the one file itself under the empty name.

    Caches and editors' leavings are passed over.
    """
    if not path.is_dir():
        yield "", path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in _IGNORED)
        for name in sorted(names):
            if name not in _IGNORED and not name.endswith(_IGNORED_ENDINGS):
                file = Path(folder, name)
                yield str(file.relative_to(path)), file


def executable(path: Path) -> bool:
    """Whether anyone may execute a file."""
    return not path.is_symlink() and bool(path.stat().st_mode & 0o111)


def _content(path: Path) -> str:
    return f"link:{path.readlink()}" if path.is_symlink() else of_file(path)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no digest")
