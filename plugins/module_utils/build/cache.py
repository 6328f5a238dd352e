# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache folder: finished things only, each under the digest of its inputs.

Everything is made in a folder under ``tmp/`` and renamed when it is complete and on disk, so whatever kills a build
leaves nothing but a folder that the next build removes. One build at a time holds the lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

#: What the cache may hold before the least recently used entries go, in bytes; Go's own caches (6 GB) come on top.
LIMIT = 4 << 30
_DIGEST_SHOWN = 16


def default_folder() -> Path:
    """The cache of whoever runs this, by the XDG rules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundwork.platform"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One thing that is or will be in the cache: a file, and what is known of it in a file beside it."""

    file: Path

    @property
    def note(self) -> Path:
        """The file with what is known of it; written last, so without it the entry does not exist."""
        return self.file.with_name(self.file.name + ".json")

    def read(self) -> dict[str, Any] | None:
        """What is known of the entry, or None where it is absent, damaged or cut short."""
        try:
            known = json.loads(self.note.read_text(encoding="utf-8"))
            whole = isinstance(known, dict) and self.file.stat().st_size == known.get("size")
        except (OSError, ValueError):
            return None
        return known if whole else None

    def touch(self) -> None:
        """Remember that the entry was used now."""
        with contextlib.suppress(OSError):
            os.utime(self.note)

    def remove(self) -> None:
        """Take the entry out of the cache."""
        for path in (self.note, self.file):
            path.unlink(missing_ok=True)


class Cache:
    """Finished builds.

    :param folder: the cache; made when something is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary = folder / "tmp"

    def entry(self, kind: str, name: str, digest: str, ending: str = "") -> Entry:
        """The place of ``name`` made from inputs of this digest; a binary keeps its name, in a folder of its own."""
        short = digest[:_DIGEST_SHOWN]
        if kind == "bin":
            return Entry(self.folder / "bin" / short / name)
        return Entry(self.folder / kind / f"{name}-{short}{ending}")

    def store(self, made: Path, entry: Entry, **known: Any) -> dict[str, Any]:
        """Move a finished file into the cache, with what is known of it."""
        known["size"] = made.stat().st_size
        entry.file.parent.mkdir(parents=True, exist_ok=True)
        entry.note.unlink(missing_ok=True)
        _sync(made)
        made.rename(entry.file)
        note = made.with_name("note.json")
        note.write_text(json.dumps(known, sort_keys=True), encoding="utf-8")
        _sync(note)
        note.rename(entry.note)
        _sync(entry.file.parent)
        return known

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder to make something in; gone afterwards."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._temporary))
        folder.chmod(0o755)  # apt downloads as a user of its own
        try:
            yield folder
        finally:
            _remove_tree(folder)

    @contextlib.contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the cache for one build, once no other holds it; what a killed build left is cleaned first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+", encoding="utf-8") as lock:
            while not _take(lock.fileno()):
                lock.seek(0)
                progress.update(f"waiting for the build of process {lock.read().strip() or 'unknown'} to end")
                time.sleep(0.2)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self.clean()
            yield

    def clean(self) -> None:
        """Remove what killed builds left; only whoever holds the lock may."""
        if self._temporary.exists():
            _unmount_below(self._temporary)
            _remove_tree(self._temporary)
        for file in [
            *self.folder.glob("images/*.tar"),
            *self.folder.glob("layers/*.tar"),
            *self.folder.glob("bin/*/*"),
        ]:
            if file.suffix != ".json" and not Entry(file).note.exists():
                file.unlink(missing_ok=True)

    def prune(self, keep: set[Path], limit: int = LIMIT) -> list[Path]:
        """Remove the least recently used entries until the rest fits into ``limit`` bytes; never those in ``keep``."""
        entries = []
        for note in [
            *self.folder.glob("bin/*/*.json"),
            *self.folder.glob("images/*.json"),
            *self.folder.glob("layers/*.json"),
        ]:
            entry = Entry(note.with_name(note.name.removesuffix(".json")))
            with contextlib.suppress(OSError):
                entries.append((note.stat().st_mtime, entry.file.stat().st_size, entry))
        total, removed = sum(size for _used, size, _entry in entries), []
        for _used, size, entry in sorted(entries, key=lambda item: item[0]):
            if total <= limit:
                break
            if entry.file not in keep:
                entry.remove()
                removed.append(entry.file)
                total -= size
                with contextlib.suppress(OSError):  # a binary's own folder, when it was the last in it
                    if entry.file.parent.parent.name == "bin":
                        entry.file.parent.rmdir()
        return removed


def free_bytes(folder: Path) -> int:
    """Free space where a folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unmount_below(folder: Path) -> None:
    """Unmount what was left mounted in a folder, innermost first: removing the folder would reach into it."""
    prefix = f"{folder.resolve()}/"
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    for point in sorted((point for point in points if point.startswith(prefix)), key=len, reverse=True):
        result = subprocess.run(["umount", "--lazy", point], capture_output=True, text=True, check=False)
        if result.returncode:
            raise Failure(
                "mount_left", point, "is still mounted and could not be unmounted", result.stderr, "Unmount it"
            )


def _remove_tree(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # a program that was just killed may still have made a file
            raise
        shutil.rmtree(folder)
