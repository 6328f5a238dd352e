# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compiled and packed, read from ``local_cluster/images.yml`` and refused where it is wrong.

The file is data: a new image needs no code. Every error names the file, the path inside it and what was expected.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
#: Capabilities that a file in an image may carry, with their number in the kernel.
CAPABILITIES = {"net_bind_service": 10}

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Binary:
    """A Go program.

    :param package: what ``go build`` is given: ``./cmd/x`` or a package of another module.
    :param version_of: the module in go.mod whose version the program reports, or none.
    :param stamp: Go variables that the linker sets; ``{version}`` (without v), ``{major}`` and ``{minor}``
        are filled in.
    """

    name: str
    package: str
    version_of: str = ""
    stamp: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A file that is copied out of a Go module; ``{version}`` in its path is the module's version without v."""

    name: str
    module: str
    path: str


@dataclasses.dataclass(frozen=True)
class Base:
    """The Debian layer that images share: the essential packages of a suite, and some more.

    :param leave_out: globs of paths that the layer does not get; ``**`` crosses folders.
    """

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class User:
    """An account that exists before packages are installed, so that they take it with this number."""

    name: str
    uid: int
    gid: int
    home: str = "/nonexistent"


@dataclasses.dataclass(frozen=True)
class Python:
    """Packages from PyPI for the interpreter of the image's Debian suite.

    :param version: that interpreter's version, such as 3.13; the build fails when the suite has another.
    :param requirements: a lock file with hashes.
    :param imports: modules that must load in the image: a wheel may need a library that no package brought.
    :param compile: folders in the image whose byte code is compiled as well.
    """

    version: str
    requirements: Path
    leave_out: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Copy:
    """A file or folder that is copied into an image, owned by root, with mode 0755 if it is executable, else 0644."""

    source: Path
    to: str


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program in an image."""

    binary: str
    to: str
    capabilities: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Folder:
    """An empty folder in an image."""

    path: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o755


@dataclasses.dataclass(frozen=True)
class Image:
    """One container image; the fields from ``user`` on are its configuration, in the words of the OCI specification."""

    name: str
    base: str = ""
    packages: tuple[str, ...] = ()
    users: tuple[User, ...] = ()
    preset: Mapping[str, str] = dataclasses.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    python: Python | None = None
    programs: tuple[Program, ...] = ()
    copy: tuple[Copy, ...] = ()
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folders: tuple[Folder, ...] = ()
    stands_for: tuple[str, ...] = ()
    tag: str = ""
    user: str = ""
    working_dir: str = "/"
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclasses.dataclass(frozen=True)
class Definitions:
    """All of images.yml.

    :param module: the folder with go.mod.
    """

    file: Path
    module: Path
    binaries: Mapping[str, Binary]
    manifests: Mapping[str, Manifest]
    bases: Mapping[str, Base]
    images: Mapping[str, Image]

    @property
    def names(self) -> list[str]:
        """Everything that can be asked for by name."""
        return [*self.binaries, *self.images, *self.manifests]


class _Node:
    """A value in the file that knows where it is."""

    def __init__(self, file: Path, path: str, value: Any) -> None:
        self.file, self.path, self.value = file, path, value

    def fail(self, expected: str) -> Failure:
        found = "nothing" if self.value is None else f"{self.value!r}"
        return Failure(
            code="bad_definition",
            object=str(self.file),
            cause=f"is not valid at {self.path or 'the top'}: expected {expected}, found {found[:80]}",
            hint="Correct it",
        )

    def child(self, key: str | int) -> _Node:
        inner = self.value.get(key) if isinstance(self.value, dict) else self.value[key]
        return _Node(self.file, f"{self.path}.{key}".lstrip("."), inner)

    def mapping(self, *known: str) -> dict[str, _Node]:
        """The entries of a mapping; with ``known``, other keys are refused."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise self.fail("a mapping")
        for key in self.value:
            if known and key not in known:
                raise self.child(key).fail(f"no key of this name (known are {', '.join(known)})")
        return {key: self.child(key) for key in self.value}

    def items(self) -> list[_Node]:
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.fail("a list")
        return [self.child(number) for number in range(len(self.value))]

    def text(self, pattern: str = r".*", expected: str = "a string") -> str:
        if not isinstance(self.value, str) or not re.fullmatch(pattern, self.value, re.DOTALL):
            raise self.fail(expected)
        return self.value

    def word(self, expected: str = "a non-empty string") -> str:
        return self.text(r"\S(.*\S)?", expected)

    def path_in_image(self) -> str:
        return self.text(r"/[^\s:]*", "an absolute path in the image")

    def number(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < 0:
            raise self.fail("a number of 0 or more")
        return self.value

    def texts(self, expected: str = "a non-empty string") -> tuple[str, ...]:
        return tuple(item.word(expected) for item in self.items())

    def dictionary(self) -> dict[str, str]:
        return {key: node.text() for key, node in self.mapping().items()}

    def existing(self) -> Path:
        path = (self.file.parent / self.word("a path relative to this file")).resolve()
        if not path.exists():
            raise self.fail(f"a file or folder that exists ({path} does not)")
        return path

    def named(self, build: Callable[[str, _Node], T]) -> dict[str, T]:
        """One thing for each entry of a mapping whose keys are names."""
        result = {}
        for name, node in self.mapping().items():
            if not NAME.fullmatch(name):
                raise node.fail("a name of small letters, digits, dots, dashes and underscores")
            result[name] = build(name, node)
        return result


class _Fields:
    """The fields of a mapping, absent ones included."""

    def __init__(self, node: _Node, *known: str, required: tuple[str, ...] = ()) -> None:
        self._node, self._fields = node, node.mapping(*known)
        if node.value is None and required:
            raise node.fail("a mapping")
        for key in required:
            if self._fields.get(key) is None or self._fields[key].value is None:
                raise _Node(node.file, f"{node.path}.{key}", None).fail("a value")

    def __getitem__(self, key: str) -> _Node:
        return self._fields.get(key) or _Node(self._node.file, f"{self._node.path}.{key}", None)

    def has(self, key: str) -> bool:
        return key in self._fields and self._fields[key].value is not None

    def get(self, key: str, read: Callable[[_Node], T], default: T) -> T:
        return read(self[key]) if self.has(key) else default


def load(file: Path, arch: str) -> Definitions:
    """Read and check the definitions.

    :param file: images.yml; paths in it are relative to its folder.
    :param arch: Debian's and Go's name of the machine, which ``{arch}`` in paths becomes.
    :raises Failure: ``bad_definition`` where the file cannot be read or is not as it should be.
    """
    import yaml  # not at the top: modules must be importable without it

    try:
        text = file.read_text(encoding="utf-8").replace("{arch}", arch)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise Failure("bad_definition", str(file), "cannot be read as YAML", reason, "Correct it") from error
    top = _Fields(_Node(file, "", content), "go_module", "binaries", "manifests", "bases", "images")
    definitions = Definitions(
        file=file,
        module=top.get("go_module", _Node.existing, file.parent),
        binaries=top["binaries"].named(_binary),
        manifests=top["manifests"].named(_manifest),
        bases=top["bases"].named(_base),
        images=top["images"].named(_image),
    )
    _check_references(definitions, top)
    return definitions


def _binary(name: str, node: _Node) -> Binary:
    fields = _Fields(node, "package", "version_of", "stamp", required=("package",))
    return Binary(
        name=name,
        package=fields["package"].word("a Go package"),
        version_of=fields.get("version_of", _Node.word, ""),
        stamp=fields["stamp"].dictionary(),
    )


def _manifest(name: str, node: _Node) -> Manifest:
    fields = _Fields(node, "module", "path", required=("module", "path"))
    return Manifest(name, fields["module"].word("a Go module"), fields["path"].word("a path in the module"))


def _base(name: str, node: _Node) -> Base:
    fields = _Fields(node, "suite", "packages", "leave_out", required=("suite",))
    return Base(
        name=name,
        suite=fields["suite"].text(r"[a-z]+", "the code name of a Debian suite"),
        packages=fields["packages"].texts("a package name"),
        leave_out=tuple(item.path_in_image() for item in fields["leave_out"].items()),
    )


def _image(name: str, node: _Node) -> Image:
    known = tuple(field.name for field in dataclasses.fields(Image) if field.name != "name")
    fields = _Fields(node, *known)
    return Image(
        name=name,
        base=fields.get("base", _Node.word, ""),
        packages=fields["packages"].texts("a package name"),
        users=tuple(fields["users"].named(_user).values()),
        preset={key: item.text() for key, item in fields["preset"].mapping().items()},
        leave_out=tuple(item.path_in_image() for item in fields["leave_out"].items()),
        python=_python(fields["python"]) if fields.has("python") else None,
        programs=tuple(fields["programs"].named(_program).values()),
        copy=tuple(_copy(item) for item in fields["copy"].items()),
        links=fields["links"].dictionary(),
        folders=tuple(_folder(key, item) for key, item in fields["folders"].mapping().items()),
        stands_for=fields["stands_for"].texts("an image reference"),
        tag=fields.get("tag", lambda item: item.text(r"\w[\w.-]{0,127}", "an image tag"), ""),
        user=fields.get("user", lambda item: item.text(r"\d+(:\d+)?", "numbers of a user and group, as 1000:1000"), ""),
        working_dir=fields.get("working_dir", _Node.path_in_image, "/"),
        env=fields["env"].dictionary(),
        entrypoint=fields["entrypoint"].texts(),
        command=fields["command"].texts(),
        stop_signal=fields.get("stop_signal", lambda item: item.text(r"SIG[A-Z0-9]+", "a signal such as SIGTERM"), ""),
    )


def _user(name: str, node: _Node) -> User:
    fields = _Fields(node, "uid", "gid", "home", required=("uid", "gid"))
    home = fields.get("home", _Node.path_in_image, "/nonexistent")
    return User(name, fields["uid"].number(), fields["gid"].number(), home)


def _python(node: _Node) -> Python:
    fields = _Fields(
        node, "version", "requirements", "leave_out", "imports", "compile", required=("version", "requirements")
    )
    return Python(
        version=fields["version"].text(r"3\.\d+", 'a Python version such as "3.13", in quotes'),
        requirements=fields["requirements"].existing(),
        leave_out=tuple(item.path_in_image() for item in fields["leave_out"].items()),
        imports=tuple(item.text(r"\w+(\.\w+)*", "a Python module") for item in fields["imports"].items()),
        compile=tuple(item.path_in_image() for item in fields["compile"].items()),
    )


def _program(name: str, node: _Node) -> Program:
    fields = _Fields(node, "to", "capabilities", required=("to",))
    for item in fields["capabilities"].items():
        if item.value not in CAPABILITIES:
            raise item.fail(f"one of {', '.join(CAPABILITIES)}")
    return Program(name, fields["to"].path_in_image(), fields["capabilities"].texts())


def _copy(node: _Node) -> Copy:
    fields = _Fields(node, "from", "to", required=("from", "to"))
    return Copy(fields["from"].existing(), fields["to"].path_in_image())


def _folder(path: str, node: _Node) -> Folder:
    fields = _Fields(node, "uid", "gid", "mode")
    if not path.startswith("/"):
        raise node.fail("an absolute path in the image as its key")
    mode = fields.get("mode", lambda item: item.text(r"[01]?[0-7]{3}", 'a mode such as "0755", in quotes'), "0755")
    return Folder(path, fields.get("uid", _Node.number, 0), fields.get("gid", _Node.number, 0), int(mode, 8))


def _check_references(definitions: Definitions, top: _Fields) -> None:
    """Refuse an image that names a base or binary that is not defined, or needs a base and has none."""
    for name, image in definitions.images.items():
        fields = _Fields(top["images"].child(name))
        if image.base and image.base not in definitions.bases:
            raise fields["base"].fail(f"one of the bases ({', '.join(definitions.bases)})")
        if not image.base and (image.packages or image.users or image.preset or image.python):
            raise fields["base"].fail("a base, because packages, users, preset and python need one")
        for program in image.programs:
            if program.binary not in definitions.binaries:
                raise fields["programs"].fail(f"names of binaries ({', '.join(definitions.binaries)})")
