# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control groups of a cluster: all its processes are in them, so that exactly those can be found and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

# Where the supervisor puts itself and the daemons, beside kubelet's pods.
DAEMONS = "supervisor"


def hierarchies(mounts: Path = Path("/proc/self/mounts")) -> list[Path]:
    """The mount points of all control group hierarchies, of version 1 and 2."""
    found: dict[str, Path] = {}
    for line in mounts.read_text(encoding="utf-8").splitlines():
        mount, kind, options = line.split(" ")[1:4]
        if kind in ("cgroup", "cgroup2"):
            # One hierarchy may be mounted at several places.
            found.setdefault(f"{kind} {options}" if kind == "cgroup" else kind, Path(mount))
    return list(found.values())


def folders(name: str, roots: Iterable[Path] | None = None) -> list[Path]:
    """The folders of a cluster that exist, one in each hierarchy."""
    candidates = [root / name for root in (hierarchies() if roots is None else roots)]
    return [folder for folder in candidates if folder.is_dir()]


def processes(folders_: Iterable[Path]) -> set[int]:
    """The processes in these folders and everything beneath them."""
    found: set[int] = set()
    for folder in folders_:
        for path in _beneath(folder):
            with contextlib.suppress(OSError):
                text = (path / "cgroup.procs").read_text(encoding="utf-8")
                found.update(int(number) for number in text.split())
    # 0 stands for a process of another process namespace, which has no number here.
    return found - {0}


def daemons(name: str) -> set[int]:
    """The supervisor, its daemons and the containers' shims: what lives in the node's own mount namespace."""
    return processes(folder / DAEMONS for folder in folders(name))


def kill(name: str, *, patience: float = 20.0) -> int:
    """End everything in a cluster's control groups, at once and for good.

    :param patience: seconds for the kernel to let go of them.
    :return: how many processes were seen.
    :raises Failure: ``processes_remain``.
    """
    deadline = time.monotonic() + patience
    seen: set[int] = set()
    while alive := processes(folders(name)):
        seen |= alive
        # The supervisor is among them, so nothing is started again; a fork in between is caught by the next round.
        for number in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > deadline:
            listed = ", ".join(_describe(number) for number in sorted(alive)[:3])
            raise Failure(
                "processes_remain",
                f"Local cluster {name}",
                f"still has {len(alive)} processes after they were killed",
                listed,
                "the kernel holds them, as for a disk that does not answer; try again, or restart the machine",
            )
        time.sleep(0.02)
    return len(seen)


def remove(name: str, *, patience: float = 10.0) -> bool:
    """Remove a cluster's folders from every hierarchy; all processes must have ended.

    :return: whether there were any.
    :raises Failure: ``cgroup_remains``.
    """
    deadline = time.monotonic() + patience
    found = folders(name)
    for folder in found:
        while folder.exists():
            problem = ""
            for path in _beneath(folder):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    problem = str(error)
            if problem and time.monotonic() > deadline:
                raise Failure("cgroup_remains", f"Control group {folder}", "cannot be removed", problem)
            if problem:
                # A process that has just ended is still accounted for, for some milliseconds.
                time.sleep(0.02)
    return bool(found)


def _beneath(folder: Path) -> Iterator[Path]:
    """The folder and all beneath it, deepest first."""
    for path, _folders, _files in os.walk(folder, topdown=False):
        yield Path(path)


def _describe(number: int) -> str:
    with contextlib.suppress(OSError):
        return f"{number} {Path(f'/proc/{number}/comm').read_text(encoding='utf-8').strip()}"
    return str(number)
