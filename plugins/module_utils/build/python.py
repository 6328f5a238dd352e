# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PyPI packages for an image: wheels for the interpreter inside it, whatever interpreter runs us."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.build import debian, layers
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Python
from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Occasionally, Runner
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

Say = Callable[[str], None]

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_GLIBC = range(41, 16, -1)  # trixie's is 2.41; a wheel for an older one runs as well


def locked(text: str, version: str, arch: str) -> str:
    """The requirements of a lock file that hold for an interpreter, without the conditions.

    pip looks at the conditions with the interpreter that runs it, which is not the one in the image.

    :raises Failure: ``bad_requirements`` for a line that is no pinned requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    world = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": _MACHINES[arch],
        "extra": "",
    }
    kept = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        stated, *hashes = line.split(" --hash=")
        try:
            requirement = Requirement(stated.strip())
        except InvalidRequirement as error:
            raise Failure(
                "bad_requirements", "lock file", "has a line that is no requirement", stated[:80], "Lock it again"
            ) from error
        if not hashes or not str(requirement.specifier).startswith("=="):
            raise Failure(
                "bad_requirements", str(requirement), "is not locked to a version and its hashes", hint="Lock it again"
            )
        if requirement.marker is None or requirement.marker.evaluate(world):
            requirement.marker = None
            kept.append(" ".join([str(requirement), *(f"--hash={item.split()[0]}" for item in hashes)]))
    return "\n".join(kept) + "\n"


def pip_command(python: Python, requirements: Path, target: Path, arch: str) -> list[str]:
    """The command that unpacks wheels for an image's interpreter into a folder."""
    machine, tag = _MACHINES[arch], python.version.replace(".", "")
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [
        f"manylinux2014_{machine}",
        f"linux_{machine}",
    ]
    return [
        *(sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"),
        *(
            "--no-deps",
            "--ignore-requires-python",
            "--require-hashes",
            "--only-binary=:all:",
            "--no-compile",
            "--no-warn-conflicts",
        ),
        *("--implementation=cp", f"--python-version={python.version}", f"--abi=cp{tag}", "--abi=abi3", "--abi=none"),
        *(f"--platform={platform}" for platform in platforms),
        *("--target", str(target), "--requirement", str(requirements)),
    ]


def install(
    what: str, python: Python, below: Sequence[Path], arch: str, target: Path, workplace: Path, runner: Runner, say: Say
) -> layers.Layer:
    """Make the layer with an image's PyPI packages and their byte code.

    :raises Failure: as :meth:`Runner.run`, or ``wrong_python``.
    """
    root = unpack(below, workplace / "root", say)
    _check_version(what, python, root, runner)
    requirements, packages = workplace / "requirements.txt", workplace / "packages"
    requirements.write_text(
        locked(python.requirements.read_text(encoding="utf-8"), python.version, arch), encoding="utf-8"
    )
    say("downloading Python packages")
    runner.run(what, pip_command(python, requirements, packages, arch), watch=_Installation(say), cause=_first_error)
    _drop_traces(packages)
    place = f"/usr/local/lib/python{python.version}/dist-packages"
    inside = root / place.lstrip("/")
    shutil.rmtree(inside, ignore_errors=True)
    inside.parent.mkdir(parents=True, exist_ok=True)
    packages.rename(inside)
    _remove_left_out(inside, place, python.leave_out)
    compile_folder(what, root, [place], runner, say)
    if python.imports:
        say("loading the Python packages")
        command = ["chroot", str(root), "python3", "-B", "-c", f"import {', '.join(python.imports)}"]
        runner.run(what, command, isolated=True, cause=_import_error)
    say("packing the Python packages")
    return layers.make(_items(inside, place), below, target)


def compile_folder(what: str, root: Path, folders: Sequence[str], runner: Runner, say: Say) -> None:
    """Compile the byte code of folders inside a root file system, never to be checked: an image does not change."""
    say("compiling byte code")
    script = ["python3", "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash", *folders]
    # A package may carry files for other Python versions that do not compile here; they are not for us to judge.
    command = ["sh", "-c", 'chroot "$@" || test "$?" = 1', "sh", str(root), *script]
    runner.run(what, command, isolated=True, env={"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(debian.EPOCH)})


def byte_code(root: Path, folders: Sequence[str]) -> list[layers.Item]:
    """The byte code below folders of a root file system."""
    return [
        item
        for folder in folders
        for file in sorted((root / folder.lstrip("/")).rglob("__pycache__"))
        for item in _items(file, f"/{file.relative_to(root)}")
    ]


def unpack(below: Sequence[Path], root: Path, say: Say) -> Path:
    """Unpack layers, the lowest first."""
    say("unpacking the layers below")
    root.mkdir()
    for layer in below:
        with tarfile.open(layer) as tar:
            # An attribute, since the parameter came with Python 3.11.4 and Debian 12 has 3.11.2.
            tar.extraction_filter = _trusted
            tar.extractall(root)  # noqa: S202 - made by us
    for mark in list(root.rglob(".wh.*")):
        gone = mark.with_name(mark.name.removeprefix(".wh."))
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone)
        else:
            gone.unlink(missing_ok=True)
        mark.unlink()
    return root


def _trusted(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
    return member


def _check_version(what: str, python: Python, root: Path, runner: Runner) -> None:
    lines = runner.run(what, ["chroot", str(root), "python3", "--version"], isolated=True)
    if not any(re.fullmatch(rf"Python {re.escape(python.version)}\.\d+\S*", line) for line in lines):
        found = lines[-1] if lines else "nothing"
        raise Failure("wrong_python", what, f"has another Python than {python.version}", found, "Correct images.yml")


def _drop_traces(packages: Path) -> None:
    """Remove what tells of the machine that installed: commands that name its interpreter, and records of them."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in packages.glob("*.dist-info/RECORD"):
        record.unlink()


def _remove_left_out(folder: Path, place: str, globs: Sequence[str]) -> None:
    if not globs:
        return
    left_out = layers.matcher(globs)
    for path in sorted(folder.rglob("*"), reverse=True):
        if left_out(layers.clean(f"{place}/{path.relative_to(folder)}")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _items(folder: Path, place: str) -> list[layers.Item]:
    items = [layers.Item(place, mode=0o755)]
    for path in folder.rglob("*"):
        name = f"{place}/{path.relative_to(folder)}"
        if path.is_symlink():
            items.append(layers.Item(name, link=str(path.readlink())))
        elif path.is_dir():
            items.append(layers.Item(name, mode=0o755))
        else:
            mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
            items.append(layers.Item(name, path, mode=mode))
    return items


def _first_error(lines: Sequence[str]) -> str:
    return next((line for line in lines if line.startswith("ERROR: ")), "")


def _import_error(lines: Sequence[str]) -> str:
    return next((line for line in lines if "Error: " in line), "")


class _Installation:
    """Tells which package is being downloaded."""

    def __init__(self, say: Say) -> None:
        self._say, self._often, self._count = say, Occasionally(say), 0

    def __call__(self, line: str) -> None:
        match = re.match(r"Collecting ([\w.-]+)", line)
        if match:
            self._count += 1
            self._often(f"downloading Python package {match[1]} ({self._count})")
        elif line.startswith("Installing collected"):
            self._say("unpacking Python packages")
