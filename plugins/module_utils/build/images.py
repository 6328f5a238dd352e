# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an image's definition to its archive: which layers it has, what each is made of, and making them.

The layers of an image, the lowest first: its base, which others share; its Debian packages; its PyPI packages; and its
own files. Each but the last is cached by itself, so a change of an application's source makes its last layer only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.build import debian, digest, layers, oci, python
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache, Entry
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Base, Definitions, Image
from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Runner
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

_PASSWORD_CHANGED = debian.EPOCH // 86400


@dataclasses.dataclass(frozen=True)
class Tools:
    """What making images needs besides definitions."""

    cache: Cache
    runner: Runner
    mirror: debian.Mirror
    arch: str


def base_inputs(base: Base, arch: str) -> dict[str, Any]:
    """What decides a base layer, as far as it is ours: Debian's own updates come when the cache is emptied."""
    return {
        "base": dataclasses.replace(base, name=""),
        "arch": arch,
        "left_out": debian.NOT_KEPT,
        "dpkg": debian.NOT_UNPACKED,
    }


def packages_inputs(image: Image, base: Base, arch: str) -> dict[str, Any]:
    """What decides the layer with an image's Debian packages."""
    return {
        "below": base_inputs(base, arch),
        "packages": image.packages,
        "users": image.users,
        "preset": dict(image.preset),
        "leave_out": image.leave_out,
    }


def python_inputs(image: Image, base: Base, arch: str) -> dict[str, Any]:
    """What decides the layer with an image's PyPI packages."""
    stated = image.python
    if stated is None:
        return {}
    return {
        "below": packages_inputs(image, base, arch),
        "version": stated.version,
        "requirements": digest.of_file(stated.requirements),
        "imports": stated.imports,
        "leave_out": stated.leave_out,
    }


def inputs(image: Image, definitions: Definitions, binaries: Mapping[str, str], arch: str) -> dict[str, Any]:
    """What decides an image.

    :param binaries: the digests of the inputs of the binaries that images carry.
    """
    plain = {field.name: getattr(image, field.name) for field in dataclasses.fields(image)}
    base = definitions.bases.get(image.base)
    plain.update(
        base=base_inputs(base, arch) if base else None,
        python=python_inputs(image, base, arch) if base and image.python else None,
        compile=image.python.compile if image.python else (),
        copy=[(item.to, digest.of_tree(item.source)) for item in image.copy],
        programs=[(item, binaries[item.binary]) for item in image.programs],
        arch=arch,
        stands_for=(),  # what an image is used for does not change it
    )
    return plain


def make(
    image: Image, definitions: Definitions, binaries: Mapping[str, Path], entry: Entry, tools: Tools
) -> dict[str, Any]:
    """Make an image's archive and store it.

    :param binaries: the compiled programs that images carry.
    :returns: what the cache knows of it: the manifest's ``digest``, ``packages`` with versions, ``size`` in bytes.
    :raises Failure: as :meth:`Runner.run`.
    """
    say = Progress(f"image {image.name}").update
    below = _lower_layers(image, definitions, tools, say)
    with tools.cache.workplace() as workplace:
        say("packing its own files")
        own = _own_layer(image, below, binaries, tools, workplace, say)
        stack = [*below, *([own] if own else [])]
        say("writing the archive")
        archive = workplace / "image.tar"
        manifest_digest = oci.write(image, stack, tools.arch, archive)
        packages = _installed([layer.file for layer in below])
        return tools.cache.store(archive, entry, digest=manifest_digest, packages=packages)


def layer_files(image: Image, definitions: Definitions, cache: Cache, arch: str) -> list[Path]:
    """The cached layers of an image, there or not."""
    return [_layer_entry(cache, kind, name, stated).file for kind, name, stated in _chain(image, definitions, arch)]


def _chain(image: Image, definitions: Definitions, arch: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The cached layers of an image as kind, name and inputs, the lowest first."""
    base = definitions.bases.get(image.base)
    if base is None:
        return []
    chain = [("base", base.name, base_inputs(base, arch))]
    if image.packages or image.users or image.preset:
        chain.append(("packages", image.name, packages_inputs(image, base, arch)))
    if image.python:
        chain.append(("python", image.name, python_inputs(image, base, arch)))
    return chain


def _layer_entry(cache: Cache, kind: str, name: str, stated: dict[str, Any]) -> Entry:
    # An image's packages are named after what they are, so that images of equal packages share them.
    return cache.entry("layers", name if kind == "base" else kind, digest.of_inputs(stated), ".tar")


def _lower_layers(
    image: Image, definitions: Definitions, tools: Tools, say: Callable[[str], None]
) -> list[layers.Layer]:
    found: list[layers.Layer] = []
    for kind, name, stated in _chain(image, definitions, tools.arch):
        entry = _layer_entry(tools.cache, kind, name, stated)
        known = entry.read()
        if known is None:
            with tools.cache.workplace() as workplace:
                layer = _make_layer(kind, image, definitions.bases[image.base], found, tools, workplace, say)
                known = tools.cache.store(layer.file, entry, digest=layer.digest)
        entry.touch()
        found.append(layers.Layer(entry.file, known["digest"], known["size"]))
    return found


def _make_layer(
    kind: str,
    image: Image,
    base: Base,
    below: Sequence[layers.Layer],
    tools: Tools,
    workplace: Path,
    say: Callable[[str], None],
) -> layers.Layer:
    what, target, files = f"image {image.name}", workplace / "layer.tar", [layer.file for layer in below]
    if kind == "python" and image.python:
        return python.install(what, image.python, files, tools.arch, target, workplace, tools.runner, say)
    whole, left_out = workplace / "whole.tar", [*debian.NOT_KEPT, *base.leave_out]
    packages = base.packages
    ground = files
    if kind == "packages":
        packages, left_out, ground = (
            image.packages,
            [*left_out, *image.leave_out],
            [*files, _seed(image, files, workplace)],
        )
    debian.bootstrap(what, base.suite, packages, ground, whole, workplace, tools.mirror, tools.runner, say)
    say("working out the layer")
    return layers.difference(whole, files, left_out, target)


def _seed(image: Image, below: Sequence[Path], workplace: Path) -> Path:
    """What has to be there before packages are installed: accounts with their numbers, and preset files."""
    accounts = {name: layers.read_text(below, f"etc/{name}") for name in ("passwd", "group", "shadow", "gshadow")}
    for user in image.users:
        # Debian reserves some low numbers for groups that a container has no use for, such as 26 for tapes.
        accounts["group"] = re.sub(rf"^[^:\n]*:[^:\n]*:{user.gid}:.*\n", "", accounts["group"], flags=re.MULTILINE)
        accounts["passwd"] += f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/usr/sbin/nologin\n"
        accounts["group"] += f"{user.name}:x:{user.gid}:\n"
        accounts["shadow"] += f"{user.name}:!:{_PASSWORD_CHANGED}::::::\n"
        accounts["gshadow"] += f"{user.name}:!::\n"
    secret = {"shadow", "gshadow"}
    items = [
        layers.Item(
            f"etc/{name}", text.encode(), mode=0o640 if name in secret else 0o644, gid=42 if name in secret else 0
        )
        for name, text in accounts.items()
        if image.users
    ]
    items += [layers.Item(path, text.encode()) for path, text in image.preset.items()]
    return layers.make(items, below, workplace / "seed.tar").file


def _own_layer(
    image: Image,
    below: Sequence[layers.Layer],
    binaries: Mapping[str, Path],
    tools: Tools,
    workplace: Path,
    say: Callable[[str], None],
) -> layers.Layer | None:
    """The layer with an image's own files, or None where it has none."""
    items = [layers.Item(item.path, mode=item.mode, uid=item.uid, gid=item.gid) for item in image.folders]
    for copy in image.copy:
        items += layers.from_folder(copy.source, copy.to)
    for program in image.programs:
        items.append(layers.Item(program.to, binaries[program.binary], mode=0o755, capabilities=program.capabilities))
    items += [layers.Item(path, link=target) for path, target in image.links.items()]
    files = [layer.file for layer in below]
    if image.python and image.python.compile:
        items += _compiled(image, items, files, tools, workplace, say)
    # Listed folders say how a folder is owned, so they win over those that copying makes.
    items += [layers.Item(item.path, mode=item.mode, uid=item.uid, gid=item.gid) for item in image.folders]
    return layers.make(items, files, workplace / "own.tar") if items else None


def _compiled(
    image: Image,
    items: Sequence[layers.Item],
    below: Sequence[Path],
    tools: Tools,
    workplace: Path,
    say: Callable[[str], None],
) -> list[layers.Item]:
    """The byte code of an image's own Python files."""
    compile_these = image.python.compile if image.python else ()
    staged = layers.make(items, [], workplace / "staged.tar")
    root = python.unpack([*below[:2], staged.file], workplace / "root", say)
    python.compile_folder(f"image {image.name}", root, compile_these, tools.runner, say)
    return python.byte_code(root, compile_these)


def _installed(below: Sequence[Path]) -> dict[str, str]:
    """The Debian packages in layers, with their versions."""
    result: dict[str, str] = {}
    for block in layers.read_text(below, "var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if "Package" in fields:
            result[fields["Package"]] = fields.get("Version", "")
    return result
