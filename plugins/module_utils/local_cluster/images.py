# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads image archives into the runtime of a local cluster, and says which published image each stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import files
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Completed, Runner, check

# An archive of a gigabyte is unpacked at some 50 MB/s on a slow disk.
LOAD_TIMEOUT = 600.0


@dataclasses.dataclass(frozen=True)
class Image:
    """One image that was built.

    :param name: short, such as ``postgresql``.
    :param archive: OCI or Docker archive.
    :param reference: the name that pods use: ``docker.io/groundwork/<name>@sha256:...``.
    :param stands_for: published references that it replaces.
    """

    name: str
    archive: Path
    reference: str
    stands_for: tuple[str, ...] = ()

    @property
    def repository(self) -> str:
        """The reference without tag and digest."""
        named = self.reference.partition("@")[0]
        return named if ":" not in named.rpartition("/")[2] else named.rpartition(":")[0]

    @property
    def digest(self) -> str:
        """Of the manifest, with its algorithm: ``sha256:...``."""
        return self.reference.partition("@")[2]

    @property
    def stored_name(self) -> str:
        """The name under which a runtime finds it: a reference by digest is looked for without its tag."""
        return f"{self.repository}@{self.digest}"


def parse(value: Mapping[str, Mapping[str, Any]], *, unbuilt_ok: bool = False) -> list[Image]:
    """Images from the form in which ``local_build`` returns them.

    :param unbuilt_ok: leave out what is not built yet, as a build in check mode says by an empty reference.
    :raises Failure: ``bad_image`` for an entry without archive or reference by digest.
    """
    images = []
    for name, entry in sorted(value.items()):
        archive, reference = str(entry.get("archive") or ""), str(entry.get("reference") or "")
        if unbuilt_ok and not reference:
            continue
        if not archive or "@sha256:" not in reference:
            raise Failure("bad_image", f"Image '{name}'", "needs 'archive' and a 'reference' with @sha256:")
        images.append(Image(name, Path(archive), reference, tuple(entry.get("stands_for") or ())))
    return images


class Containerd:
    """A containerd on this machine, spoken to by its own program.

    :param socket: of the daemon.
    """

    def __init__(self, socket: Path, runner: Runner) -> None:
        self._command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images"]
        self._runner = runner

    def answers(self) -> bool:
        """Whether the daemon serves."""
        return self._runner([*self._command, "list", "--quiet"], timeout=5).ok

    def present(self) -> set[str]:
        """The names of all images there, by one call."""
        return set(check(self._runner, [*self._command, "list", "--quiet"]).split())

    def load(self, image: Image) -> None:
        """Import one archive under the image's reference.

        :raises Failure: ``image_not_loaded``.
        """
        names = ["--digests", "--base-name", image.repository]
        load_command(self._runner, [*self._command, "import", *names, str(image.archive)], image)


def load_missing(
    images: Iterable[Image],
    present: set[str],
    load: Callable[[Image], None],
    say: Callable[[str], None],
    stored: Callable[[Image], str] = lambda image: image.stored_name,
) -> list[str]:
    """Load what is not there yet.

    :param load: loads one image.
    :param say: hears what is being done.
    :param stored: the name by which ``present`` lists an image.
    :return: names of what was loaded.
    """
    missing = [image for image in images if stored(image) not in present]
    for number, image in enumerate(missing, 1):
        if not image.archive.is_file():
            raise Failure(
                "no_archive", f"Image archive {image.archive}", "is not there", hint="build it with `make build`"
            )
        say(f"loading image {image.name} ({number} of {len(missing)})")
        load(image)
    return [image.name for image in missing]


def mapping(
    images: Iterable[Image], reference_of: Callable[[Image], str] = lambda image: image.reference
) -> dict[str, str]:
    """Published reference to the one that the cluster has."""
    return {published: reference_of(image) for image in images for published in image.stands_for}


def write_mapping(path: Path, value: Mapping[str, str]) -> bool:
    """Write ``images.yml``: variable-like, sorted, and left alone when nothing changed."""
    return files.write(path, files.to_yaml(dict(value), sort_keys=True))


def load_command(runner: Runner, command: list[str], image: Image, *, stdin: Path | None = None) -> Completed:
    """Run one command that loads an image.

    :raises Failure: ``image_not_loaded``.
    """
    done = runner(command, timeout=LOAD_TIMEOUT, stdin=stdin)
    if not done.ok:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.code}").splitlines()
        raise Failure(
            "image_not_loaded",
            f"Image {image.name}",
            "could not be loaded into the cluster",
            lines[-1],
            "see whether the disk is full, then run it again",
        )
    return done
