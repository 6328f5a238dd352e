# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian side: which mirror, and root file systems by mmdebstrap, one on top of the other."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Occasionally, Runner

Say = Callable[[str], None]

#: Seconds since 1970 that no file in an image is newer than: 1 January 2025.
EPOCH = 1735689600
ARCHIVE = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
#: What dpkg does not unpack: nobody reads manuals in a container. Licences stay.
NOT_UNPACKED = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
#: What differs from machine to machine or run to run, or is of no use without apt; an image does not get it.
NOT_KEPT = (
    "/dev/**",
    "/etc/.pwd.lock",
    "/etc/apt",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/proc/**",
    "/run/**",
    "/sys/**",
    "/tmp/**",  # noqa: S108 - in an image
    "/var/cache/**",
    "/var/lib/apt",
    "/var/lib/dpkg/*-old",
    "/var/lib/dpkg/lock*",
    "/var/lib/dpkg/triggers/Lock",
    "/var/log/**",
    "/**/*.dpkg-old",
    "/etc/*-",
)


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Where this machine gets Debian from."""

    archive: str = ARCHIVE
    security: str = SECURITY

    def sources(self, suite: str) -> str:
        """The lines of a sources.list for a suite, with its updates and security updates."""
        return (
            f"deb {self.archive} {suite} main\n"
            f"deb {self.archive} {suite}-updates main\n"
            f"deb {self.security} {suite}-security main\n"
        )


def find_mirror(etc_apt: Path = Path("/etc/apt")) -> Mirror:
    """The mirror that the machine's own apt sources name; Debian's public one where they name none.

    A source counts as Debian's when it has a suite's ``main`` and its path ends in debian or debian-security.
    """
    archive = security = ""
    for uri, suites, components in _machine_sources(etc_apt):
        last = uri.rstrip("/").rsplit("/", 1)[-1]
        if "main" not in components or not uri.startswith(("http://", "https://")):
            continue
        if any(suite.endswith(("-security", "/updates")) for suite in suites) and last == "debian-security":
            security = security or uri.rstrip("/")
        elif last == "debian":
            archive = archive or uri.rstrip("/")
    return Mirror(archive or ARCHIVE, security or SECURITY)


def _machine_sources(etc_apt: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each source as URI, suites and components, from both of apt's formats."""
    folder = etc_apt / "sources.list.d"
    for file in [etc_apt / "sources.list", *sorted(folder.glob("*.list"))]:
        for line in _read(file).splitlines():
            match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
            if match:
                yield match[1], [match[2]], match[3].split()
    for file in sorted(folder.glob("*.sources")):
        for block in re.split(r"\n\s*\n", _read(file)):
            lines = "\n".join(line for line in block.splitlines() if not line.startswith("#"))
            fields = {
                key.lower(): value.split()
                for key, value in re.findall(r"^([\w-]+):((?:.|\n[ \t])*)", lines, re.MULTILINE)
            }
            if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
                for uri in fields.get("uris", []):
                    yield uri, fields.get("suites", []), fields.get("components", [])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def apt_proxies() -> list[str]:
    """The proxies that the machine's apt is told to use, as options for another apt."""
    try:
        result = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    except OSError:
        return []
    return re.findall(r'^Acquire::https?::(?:[\w.-]+::)?Proxy ".+";$', result.stdout, re.MULTILINE | re.IGNORECASE)


def command(
    suite: str, packages: Sequence[str], below: Sequence[Path], target: Path, proxies: Sequence[str]
) -> list[str]:
    """The command that makes a root file system as a tar file, its sources.list being given as input.

    :param packages: what is installed; with nothing ``below``, besides the essential packages.
    :param below: tar files that are unpacked first, in this order.
    """
    unpack = [
        f'tar --extract --preserve-permissions --numeric-owner --file {shlex.quote(str(file))} --directory "$1"'
        for file in below
    ]
    return [
        "mmdebstrap",
        "--mode=root",
        "--verbose",
        "--format=tar",
        f"--variant={'custom' if below else 'essential'}",
        *(f"--dpkgopt={option}" for option in NOT_UNPACKED),
        *(f"--aptopt={option}" for option in proxies),
        *(f"--setup-hook={line}" for line in unpack),
        *([f"--include={','.join(packages)}"] if packages else []),
        suite,
        str(target),
        "-",
    ]


def bootstrap(
    what: str,
    suite: str,
    packages: Sequence[str],
    below: Sequence[Path],
    target: Path,
    workplace: Path,
    mirror: Mirror,
    runner: Runner,
    say: Say,
) -> None:
    """Make a root file system as the tar file ``target``.

    :raises Failure: as :meth:`Runner.run`.
    """
    say(f"finding Debian {suite}'s packages")
    runner.run(
        what,
        command(suite, packages, below, target, apt_proxies()),
        isolated=True,
        env={
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "TMPDIR": str(workplace),
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        },
        stdin=mirror.sources(suite),
        watch=_Installation(say),
        cause=first_error,
    )


def first_error(lines: Sequence[str]) -> str:
    """The first complaint of apt, else of mmdebstrap."""
    return next((line for line in lines if line.startswith(("E: ", "dpkg: error"))), "")


class _Installation:
    """Tells which package is being downloaded or installed."""

    def __init__(self, say: Say) -> None:
        self._said = {"Get": "downloading", "Unpacking": "unpacking", "Setting": "configuring"}
        self._say, self._often, self._counts = say, Occasionally(say), dict.fromkeys(self._said, 0)

    def __call__(self, line: str) -> None:
        match = re.match(
            r"(?:Get:\d+ \S+ \S+ \S+ (?P<got>\S+) \S+ \S+ \[|(?:Unpacking|Setting up) (?P<package>[^\s:]+))", line
        )
        if match:
            kind = line.split(":")[0].split()[0]
            self._counts[kind] += 1
            self._often(f"{self._said[kind]} {match['got'] or match['package']} ({self._counts[kind]})")
        elif line.startswith("I: creating tarball"):
            self._say("packing the file system")
