# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what images.yml defines, as far as the cache does not have it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.build import (
    debian,
    digest,
    golang,
    images,
    oci,
    preflight,
)
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import LIMIT, Cache, Entry
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Definitions, Image, load
from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Runner, no_space
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

DEFINITIONS = "local_cluster/images.yml"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NO_SPACE_ERRNO = (28, 122)  # ENOSPC, EDQUOT


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything asked for, with its place in the cache; the place follows from the digest of its inputs."""

    definitions: Definitions
    module: golang.Module
    go: golang.Go | None
    arch: str
    binaries: Mapping[str, Entry]
    images: Mapping[str, Entry]
    manifests: Mapping[str, Entry]

    @property
    def missing(self) -> list[str]:
        """What is not in the cache, as "Go program x", "image x", "manifest x"."""
        named = {"Go program": self.binaries, "image": self.images, "manifest": self.manifests}
        return [
            f"{kind} {name}"
            for kind, entries in named.items()
            for name, entry in entries.items()
            if entry.read() is None
        ]


def plan(root: Path, cache: Cache, targets: Sequence[str] = ()) -> Plan:
    """Find out what the targets are made of; reads sources, builds nothing, takes a fraction of a second.

    :param root: the collection's folder.
    :param targets: names of binaries, images and manifests; with none, everything.
    :raises Failure: ``bad_definition``, ``unknown_target``, ``unsupported_machine``, ``no_go``.
    """
    arch = machine()
    definitions = load(root / DEFINITIONS, arch)
    unknown = [name for name in targets if name not in definitions.names]
    if unknown:
        raise Failure(
            "unknown_target",
            unknown[0],
            "is not defined",
            f"known are {', '.join(dict.fromkeys(definitions.names))}",
            "Name one of them",
        )
    wanted = set(targets or definitions.names)
    chosen = [image for name, image in definitions.images.items() if name in wanted]
    programs = {program.binary for image in chosen for program in image.programs} | (
        wanted & definitions.binaries.keys()
    )
    manifests = wanted & definitions.manifests.keys()
    needs_go = bool(programs or manifests)
    module = golang.read_module(definitions.module) if needs_go else golang.Module(definitions.module, "", "", {})
    go = golang.find_go(module.go) if programs else None
    digests = {
        name: digest.of_inputs(golang.inputs(binary, module, go, arch))
        for name, binary in definitions.binaries.items()
        if name in programs and go
    }
    return Plan(
        definitions=definitions,
        module=module,
        go=go,
        arch=arch,
        binaries={name: cache.entry("bin", name, of) for name, of in digests.items()},
        images={image.name: _image_entry(cache, image, definitions, digests, arch) for image in chosen},
        manifests={
            name: _manifest_entry(cache, item.path, module.version(item.module))
            for name, item in definitions.manifests.items()
            if name in manifests
        },
    )


def build(
    root: Path, cache: Cache, targets: Sequence[str] = (), check: bool = False, limit: int = LIMIT
) -> dict[str, Any]:
    """Build what is missing and say where everything is.

    :param check: build nothing; what is missing is then named and has no digest.
    :param limit: what the cache may hold afterwards, in bytes.
    :returns: ``changed``, ``built`` (seconds by name), ``missing``, ``binaries``, ``images``, ``manifests``.
    :raises Failure: as :func:`plan`, ``not_ready`` of the preflight, and as :meth:`Runner.run`.
    """
    intended = plan(root, cache, targets)
    missing, built = intended.missing, dict[str, float]()
    if missing and not check:
        progress = Progress("local build")
        with _disk_errors("cache"), cache.locked(progress):
            left = intended.missing  # another build may have made them while we waited
            if left:
                preflight.demand(left, cache.folder)
                built = _Build(intended, cache).run()
        cache.prune(_used(intended, cache), limit)
    for entry in [*intended.binaries.values(), *intended.images.values(), *intended.manifests.values()]:
        if not check:
            entry.touch()
    return {"changed": bool(missing), "built": built, "missing": missing if check else [], **_result(intended)}


def machine() -> str:
    """Debian's and Go's name of this machine's processor.

    :raises Failure: ``unsupported_machine``.
    """
    name = platform.machine()
    if name not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise Failure(
            "unsupported_machine",
            f"processor {name}",
            "cannot run the embedded cluster",
            f"{known} can",
            "Use another machine",
        )
    return _ARCHITECTURES[name]


class _Build:
    """One build, in two lines side by side: compiling needs the processors, installing packages mostly the network."""

    def __init__(self, intended: Plan, cache: Cache) -> None:
        self._plan, self._cache = intended, cache
        self._runner = Runner()
        self._tools = images.Tools(cache, self._runner, debian.find_mirror(), intended.arch)
        self._built: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(self._stop_on_failure, line) for line in (self._compile, self._install)]
            try:
                concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
            finally:
                if not all(future.done() and not future.exception() for future in futures):
                    self._runner.stop()
        failures = [future.exception() for future in futures if future.exception()]
        # What was stopped because of another failure is not what went wrong.
        failures.sort(key=lambda failure: getattr(failure, "code", "") == "interrupted")
        if failures and failures[0]:
            raise failures[0]
        return self._built

    def _stop_on_failure(self, line: Callable[[], None]) -> None:
        try:
            line()
        except BaseException:
            self._runner.stop()
            raise

    def _compile(self) -> None:
        """The line of Go: manifests, programs, and the images that have nothing but programs."""
        for name, entry in self._plan.manifests.items():
            self._make(f"manifest {name}", entry, self._copy_manifest, name, entry)
        waiting = [image for image in self._images() if not image.base]
        for name, entry in self._plan.binaries.items():
            self._make(f"Go program {name}", entry, self._compile_one, name, entry)
            waiting = self._pack_ready(waiting)
        self._pack_ready(waiting)

    def _install(self) -> None:
        """The line of Debian; images that have programs besides wait for them and are made last."""
        based = [image for image in self._images() if image.base]
        for image in sorted(based, key=lambda image: bool(image.programs)):
            while not self._ready(image):
                self._runner.pause(0.2)
            self._pack(image)

    def _images(self) -> list[Image]:
        return [self._plan.definitions.images[name] for name in self._plan.images]

    def _ready(self, image: Image) -> bool:
        return all(self._plan.binaries[program.binary].read() for program in image.programs)

    def _pack_ready(self, waiting: list[Image]) -> list[Image]:
        for image in waiting:
            if self._ready(image):
                self._pack(image)
        return [image for image in waiting if not self._ready(image)]

    def _pack(self, image: Image) -> None:
        entry = self._plan.images[image.name]
        binaries = {name: item.file for name, item in self._plan.binaries.items()}
        self._make(
            f"image {image.name}", entry, images.make, image, self._plan.definitions, binaries, entry, self._tools
        )

    def _make(self, what: str, entry: Entry, work: Callable[..., object], *arguments: object) -> None:
        if entry.read() is not None:
            return
        started = time.monotonic()
        with _disk_errors(what):
            work(*arguments)
        self._built[what] = round(time.monotonic() - started, 1)

    def _compile_one(self, name: str, entry: Entry) -> None:
        binary, say = self._plan.definitions.binaries[name], Progress(f"Go program {name}").update
        if self._plan.go is None:
            raise Failure("no_go", f"Go program {name}", "has no Go to compile it")
        with self._cache.workplace() as workplace:
            target = workplace / name
            golang.build(binary, self._plan.module, self._plan.go, self._plan.arch, target, self._runner, say)
            self._cache.store(target, entry)

    def _copy_manifest(self, name: str, entry: Entry) -> None:
        item, module = self._plan.definitions.manifests[name], self._plan.module
        path = item.path.replace("{version}", module.version(item.module))
        go = self._plan.go or golang.find_go(module.go)
        with self._cache.workplace() as workplace:
            target = workplace / "manifest"
            say = Progress(f"manifest {name}").update
            golang.copy_from_module(module, item.module, path, target, go, self._runner, say)
            self._cache.store(target, entry)


def _image_entry(cache: Cache, image: Image, definitions: Definitions, digests: Mapping[str, str], arch: str) -> Entry:
    return cache.entry("images", image.name, digest.of_inputs(images.inputs(image, definitions, digests, arch)), ".tar")


def _manifest_entry(cache: Cache, path: str, version: str) -> Entry:
    return Entry(cache.folder / "manifests" / Path(path.replace("{version}", version)).name)


def _used(intended: Plan, cache: Cache) -> set[Path]:
    """What this build's result needs, now or at the next change of an image."""
    used = {entry.file for entries in (intended.binaries, intended.images) for entry in entries.values()}
    for name in intended.images:
        image = intended.definitions.images[name]
        used.update(images.layer_files(image, intended.definitions, cache, intended.arch))
    return used


def _result(intended: Plan) -> dict[str, Any]:
    return {
        "binaries": {name: str(entry.file) for name, entry in intended.binaries.items()},
        "manifests": {name: str(entry.file) for name, entry in intended.manifests.items()},
        "images": {
            name: _image_result(intended.definitions.images[name], entry) for name, entry in intended.images.items()
        },
    }


def _image_result(image: Image, entry: Entry) -> dict[str, Any]:
    known = entry.read() or {}
    of = known.get("digest", "")
    return {
        "archive": str(entry.file),
        "digest": of,
        "reference": oci.reference(image, of) if of else "",
        "stored_name": oci.stored_name(image, of) if of else "",
        "stands_for": list(image.stands_for),
        "size": known.get("size", 0),
    }


@contextlib.contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    """Turn a full or forbidden disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE_ERRNO:
            raise no_space(what, str(error)) from error
        raise Failure(
            "cache_unusable", what, "could not be written", str(error), "Make the cache folder writable"
        ) from error
