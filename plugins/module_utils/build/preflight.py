# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build needs of the machine, found out before anything is changed."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import free_bytes
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

#: The Debian package of each program that a build runs.
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "tar": "tar",
    "chroot": "coreutils",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_GO_BYTES = 6 << 30
_PROGRAM_BYTES = 200 << 20
_IMAGE_BYTES = 700 << 20


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a build needs and what there is.

    :param packages: Debian packages to install first.
    :param disk_needed: bytes that the build may take in the cache's file system, Go's caches and scratch included.
    :param disk_free: bytes that are free there.
    """

    packages: tuple[str, ...]
    disk_needed: int
    disk_free: int
    is_root: bool


def facts(missing: Sequence[str], cache: Path) -> Facts:
    """What the machine lacks for building ``missing``, as :attr:`Plan.missing` names it."""
    images = [name for name in missing if name.startswith("image ")]
    programs = [name for name in missing if name.startswith("Go program ")]
    packages = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    # Go's caches only grow when the largest program is compiled; the others reuse its libraries.
    needed = len(images) * _IMAGE_BYTES // 2 + len(programs) * _PROGRAM_BYTES
    needed += _GO_BYTES if programs and not _go_cache_is_warm() else 0
    return Facts(tuple(sorted(packages)), needed, free_bytes(cache), os.geteuid() == 0)


def demand(missing: Sequence[str], cache: Path) -> None:
    """Refuse a build that cannot succeed.

    :raises Failure: ``not_ready``, naming what is missing.
    """
    found = facts(missing, cache)
    if not found.is_root:
        raise Failure("not_ready", "local build", "needs root", "images are file systems with owners", "Run it as root")
    if found.packages:
        names = " ".join(found.packages)
        raise Failure(
            "not_ready", "local build", "lacks system packages", names, f"Run make prepare, or apt-get install {names}"
        )
    if found.disk_free < found.disk_needed:
        evidence = (
            f"{found.disk_needed >> 20} MiB are needed to build {len(missing)}, {found.disk_free >> 20} MiB are free"
        )
        raise Failure(
            "not_ready",
            str(cache),
            "has too little free disk space",
            evidence,
            "Free some, or set XDG_CACHE_HOME to another disk",
        )


def _go_cache_is_warm() -> bool:
    folder = Path(os.environ.get("GOCACHE") or Path.home() / ".cache" / "go-build")
    return (folder / "00").is_dir() and sum(1 for _file in (folder / "00").iterdir()) > 20
