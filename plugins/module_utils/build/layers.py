# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers: tar files whose bytes depend on their content only."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import struct
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from ansible_collections.groundwork.platform.plugins.module_utils.build import digest
from ansible_collections.groundwork.platform.plugins.module_utils.build.debian import EPOCH
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import CAPABILITIES

_WHITEOUT = ".wh."
_CAPABILITY = "SCHILY.xattr.security.capability"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A finished layer; its digest is that of the file, which is not compressed: loading an image is then fastest."""

    file: Path
    digest: str
    size: int


@dataclasses.dataclass
class Item:
    """One path of a layer that is made from scratch.

    :param path: in the image, without a leading slash.
    :param content: a file's bytes, or the file that has them; None for a folder or link.
    :param link: what a symbolic link points to.
    """

    path: str
    content: bytes | Path | None = None
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    capabilities: tuple[str, ...] = ()


class _Writer:
    """Writes a tar file and its digest at once; every entry in one fixed form."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._out = file.open("wb")
        self._tar = tarfile.TarFile(fileobj=self, mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._out.write(data)

    def tell(self) -> int:
        return self._out.tell()

    def add(self, info: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        info.uname = info.gname = ""
        info.mtime = min(int(info.mtime), EPOCH)
        info.pax_headers = {key: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")}
        self._tar.addfile(info, content)

    def finish(self) -> Layer:
        self._tar.close()
        self._out.close()
        return Layer(self._file, f"sha256:{self._hash.hexdigest()}", self._file.stat().st_size)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._out.close()


def clean(path: str) -> str:
    """A path of a tar file in one form: without ./ or slashes at its ends; empty for the root."""
    return str(PurePosixPath("/", path)).strip("/")


def matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    """A test for paths that match one of the globs, or are inside a folder that does; ``**`` crosses folders."""
    parts = []
    for glob in globs:
        text = re.escape(glob.strip("/"))
        text = text.replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        parts.append(text)
    pattern = re.compile(f"(?:{'|'.join(parts)})(?:/.*)?") if parts else None
    return lambda path: bool(pattern and pattern.fullmatch(path))


def difference(whole: Path, below: Sequence[Path], leave_out: Sequence[str], target: Path) -> Layer:
    """Make the layer that turns the layers ``below`` into the root file system in the tar file ``whole``.

    :param leave_out: globs of what the layer does not get; such paths count as absent from ``whole``.
    """
    known = _merged([_index(file, lambda _path: False) for file in below])
    with tarfile.open(whole) as tar, _Writer(target) as writer:
        members = _members(tar, matcher(leave_out))
        found = {path: _identity(tar, member) for path, member in members.items()}
        changed = {path for path in members if known.get(path) != found[path]}
        needed = changed | {
            str(parent) for path in changed for parent in PurePosixPath(path).parents if str(parent) != "."
        }
        gone = {path for path in known if path not in members}
        written: set[str] = set()
        for path in sorted(needed & members.keys() | {_whiteout(path) for path in _topmost(gone)}):
            if path in members:
                _copy(tar, members[path], path, written, writer)
            else:
                writer.add(_info(Item(path, b"")), io.BytesIO())
            written.add(path)
        return writer.finish()


def make(items: Iterable[Item], below: Sequence[Path], target: Path) -> Layer:
    """Make a layer from scratch; folders on the way to an item are added where no layer below has them."""
    by_path = {clean(item.path): item for item in items}
    known = set().union(*(names(layer) for layer in below))
    for path in list(by_path):
        for parent in PurePosixPath(path).parents:
            if str(parent) != "." and str(parent) not in known:
                by_path.setdefault(str(parent), Item(str(parent), mode=0o755))
    with _Writer(target) as writer:
        for path in sorted(by_path):
            item = dataclasses.replace(by_path[path], path=path)
            if isinstance(item.content, Path):
                with item.content.open("rb") as file:
                    writer.add(_info(item), file)
            else:
                writer.add(_info(item), io.BytesIO(item.content or b""))
        return writer.finish()


def names(layer: Path) -> set[str]:
    """The paths in a layer."""
    with tarfile.open(layer) as tar:
        return {clean(member.name) for member in tar}


def from_folder(source: Path, to: str) -> list[Item]:
    """The items that copy a file or folder into an image."""
    items = [Item(clean(to), mode=0o755)] if source.is_dir() else []
    for name, file in digest.files(source):
        path = clean(f"{to}/{name}") if name else clean(to)
        if file.is_symlink():
            items.append(Item(path, link=str(file.readlink())))
        else:
            items.append(Item(path, file, mode=0o755 if digest.executable(file) else 0o644))
    return items


def read_text(layers: Sequence[Path], path: str) -> str:
    """A file's text as the uppermost layer that has it knows it; empty where none has."""
    for layer in reversed(layers):
        with tarfile.open(layer) as tar:
            for member in tar:
                if clean(member.name) == path and (file := tar.extractfile(member)):
                    return file.read().decode()
    return ""


def _info(item: Item) -> tarfile.TarInfo:
    info = tarfile.TarInfo(item.path)
    info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, EPOCH
    if item.link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, item.link, 0o777
    elif item.content is None:
        info.type = tarfile.DIRTYPE
    else:
        info.size = item.content.stat().st_size if isinstance(item.content, Path) else len(item.content)
    if item.capabilities:
        info.pax_headers = {_CAPABILITY: _capability_bytes(item.capabilities)}
    return info


def _capability_bytes(names: Sequence[str]) -> str:
    """The kernel's extended attribute for permitted and effective capabilities (struct vfs_cap_data, revision 2)."""
    mask = sum(1 << CAPABILITIES[name] for name in names)
    return struct.pack("<IIIII", 0x02000001, mask, 0, 0, 0).decode("ascii")


def _members(tar: tarfile.TarFile, left_out: Callable[[str], bool]) -> dict[str, tarfile.TarInfo]:
    """The paths of a tar file in its order; no devices, no sockets."""
    return {
        path: member
        for member in tar
        if (path := clean(member.name))
        and not left_out(path)
        and (member.isfile() or member.isdir() or member.issym() or member.islnk())
    }


def _index(file: Path, left_out: Callable[[str], bool]) -> dict[str, tuple[object, ...] | None]:
    """What each path of a layer is; None for one that the layer removes."""
    with tarfile.open(file) as tar:
        result: dict[str, tuple[object, ...] | None] = {}
        for path, member in _members(tar, left_out).items():
            folder, _slash, name = path.rpartition("/")
            if name.startswith(_WHITEOUT):
                result[f"{folder}/{name.removeprefix(_WHITEOUT)}".strip("/")] = None
            else:
                result[path] = _identity(tar, member)
        return result


def _merged(indexes: Iterable[dict[str, tuple[object, ...] | None]]) -> dict[str, tuple[object, ...]]:
    result: dict[str, tuple[object, ...]] = {}
    for index in indexes:
        for path, identity in index.items():
            if identity is None:
                result = {key: value for key, value in result.items() if key != path and not key.startswith(f"{path}/")}
            else:
                result[path] = identity
    return result


def _identity(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    """What makes two entries the same; not their time, which installing other packages changes."""
    common = (member.mode, member.uid, member.gid)
    if member.isdir():
        return ("folder", *common)
    if member.issym():
        return ("link", member.linkname)
    content = tar.extractfile(member)  # follows hard links
    return ("file", *common, _digest(content) if content else "")


def _digest(content: IO[bytes]) -> str:
    result = hashlib.sha256()
    while chunk := content.read(1 << 20):
        result.update(chunk)
    return result.hexdigest()


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, written: set[str], writer: _Writer) -> None:
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid, info.mtime = member.mode, member.uid, member.gid, member.mtime
    info.type, info.linkname, info.pax_headers = member.type, member.linkname, dict(member.pax_headers)
    if not member.isfile() and not member.islnk():
        writer.add(info)
        return
    if member.islnk() and clean(member.linkname) in written:
        info.linkname = clean(member.linkname)
        writer.add(info)
        return
    content = tar.extractfile(member)
    info.type, info.linkname = tarfile.REGTYPE, ""
    info.size = member.size if member.isfile() else tar.getmember(member.linkname).size
    writer.add(info, content)


def _topmost(paths: set[str]) -> set[str]:
    return {path for path in paths if not any(str(parent) in paths for parent in PurePosixPath(path).parents)}


def _whiteout(path: str) -> str:
    folder, _slash, name = path.rpartition("/")
    return f"{folder}/{_WHITEOUT}{name}".strip("/")
