# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of a model on a volume: on the controller it judges and sends a model, in the pod it keeps it.

Layout of the volume, which readers may rely on at any moment:

    versions/<version>/...          never changes once it is there
    versions/<version>/SHA256SUMS   one line for each file
    current -> versions/<version>   switched by one rename
    history                         one line for each switch that still counts, oldest first: time, version

This file is imported on the controller, and its text is run in a pod by whatever Python 3.9 or later the system's image
has: hence the standard library only. There it prints one JSON object; an error is one sentence on standard error and
exit status 1, and what it is doing comes on standard error behind ``progress: ``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import IO, Any

SUMS, CURRENT, HISTORY, VERSIONS, MODEL = "SHA256SUMS", "current", "history", "versions", "model.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
# A model file whose version is one of these is a template: it takes the version that it is published as.
UNNAMED = ("", "built-in")


class Refusal(Exception):
    """Why nothing was done, in one sentence."""


def contents(source: Path, version: str) -> dict[str, Path | bytes]:
    """What will be published, by relative path: files as they are, or bytes for those that are made here."""
    if not NAME.fullmatch(version):
        raise Refusal(
            f"{version!r} cannot be the name of a version: use letters, digits and . _ + -, at most 63, beginning with "
            "a letter or digit."
        )
    if source.is_file():
        found: dict[str, Path | bytes] = {MODEL if source.suffix == ".json" else source.name: source}
    elif source.is_dir():
        found = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}
    else:
        raise Refusal(f"There is no model at {source}: name a file or a folder.")
    given = found.pop(SUMS, None)
    if not found:
        raise Refusal(f"The folder {source} holds no file.")
    for name, path in found.items():
        if isinstance(path, Path) and path.stat().st_size == 0:
            raise Refusal(f"{name} of the model at {source} is empty: copy it again.")
        if "\n" in name or "\\" in name:
            raise Refusal(f"The model at {source} has a file whose name cannot stand in {SUMS}: {name!r}.")
    if isinstance(given, Path):
        compare(sums_of(found), parse_sums(given.read_text("utf-8", "replace")), f"the model at {source}")
    if MODEL in found:
        found[MODEL] = named(Path(str(found[MODEL])), version)
    return found


def named(path: Path, version: str) -> bytes:
    """The model file, as one of that version."""
    text = path.read_bytes()
    try:
        model = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path} is not JSON ({error}): nothing was published.") from None
    if not isinstance(model, dict):
        raise Refusal(f"{path} holds no JSON object: nothing was published.")
    own = model.get("version", "")
    if own == version:
        return text
    if own not in UNNAMED:
        raise Refusal(f"{path} says that it is version {own!r}, not {version!r}: give the version as in the file.")
    return (json.dumps({**model, "version": version}, indent=2) + "\n").encode()


def digest_of(content: Path | bytes) -> str:
    """SHA-256 of a file or of bytes."""
    digest = hashlib.sha256()
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def sums_of(found: dict[str, Path | bytes]) -> dict[str, str]:
    """Relative path to digest."""
    return {name: digest_of(content) for name, content in sorted(found.items())}


def render_sums(sums: dict[str, str]) -> str:
    """The file SHA256SUMS, as `sha256sum --check` reads it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def parse_sums(text: str) -> dict[str, str]:
    """What SHA256SUMS says."""
    pairs = (line.split(None, 1) for line in text.splitlines() if line.strip())
    return {pair[1].lstrip("*"): pair[0].lower() for pair in pairs if len(pair) == 2}


def compare(actual: dict[str, str], expected: dict[str, str], what: str) -> None:
    """Refuses when a file is missing, added or altered."""
    for name in sorted(set(actual) | set(expected)):
        if name not in actual:
            raise Refusal(f"{name} is listed in {SUMS} and missing from {what}.")
        if name not in expected:
            raise Refusal(f"{name} of {what} is not listed in {SUMS}.")
        if actual[name] != expected[name]:
            raise Refusal(f"{name} of {what} does not match {SUMS}: its SHA-256 is {actual[name][:16]}...")


def check(source: Path, version: str) -> dict[str, Any]:
    """Judges a model before anything is touched; the digest tells versions with the same name apart."""
    sums = sums_of(contents(source, version))
    return {
        "version": version,
        "digest": hashlib.sha256(render_sums(sums).encode()).hexdigest(),
        "files": sorted(sums),
    }


def send(source: Path, version: str, stream: IO[bytes]) -> None:
    """Writes what will be published, with SHA256SUMS ahead, as a tar archive."""
    found = contents(source, version)
    sums = render_sums(sums_of(found)).encode()
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, content in [(SUMS, sums), *sorted(found.items())]:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.size = content.stat().st_size
                with content.open("rb") as file:
                    archive.addfile(entry, file)


def receive(stream: IO[bytes], folder: Path) -> None:
    """Unpacks such an archive; each file is on the disk when this returns."""
    total = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            parts = PurePosixPath(entry.name).parts
            if not entry.isfile() or not parts or parts[0] == "/" or ".." in parts:
                raise Refusal(f"The archive holds {entry.name!r}, which is no plain file within it.")
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = archive.extractfile(entry)
            if file is None:
                raise Refusal(f"The archive holds no content for {entry.name!r}.")
            with path.open("wb") as target:
                while chunk := file.read(1 << 20):
                    target.write(chunk)
                    total += len(chunk)
                    report(f"received {total >> 20} MiB")
                target.flush()
                os.fsync(target.fileno())
            path.chmod(0o444)
    for path in [folder, *(part for part in folder.rglob("*") if part.is_dir())]:
        path.chmod(0o755)
        sync_folder(path)


_last_report = 0.0


def say(line: str) -> None:
    """Writes a line to standard error, which is where the module listens."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def report(text: str) -> None:
    """Says what is going on, once a second at most."""
    global _last_report
    if time.monotonic() - _last_report >= 1:
        _last_report = time.monotonic()
        say(f"progress: {text}")


def show(root: Path) -> dict[str, Any]:
    """What is on the volume: the current version, the one before it, and all, oldest first."""
    folder = root / VERSIONS
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        if not NAME.fullmatch(path.name) or not path.is_dir():
            continue
        sums = path / SUMS
        text = sums.read_bytes() if sums.is_file() else b""
        found.append(
            {
                "version": path.name,
                "digest": hashlib.sha256(text).hexdigest() if text else "",
                "published": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((sums if text else path).stat().st_mtime)),
                "bytes": sum(part.stat().st_size for part in path.rglob("*") if part.is_file()),
            }
        )
    history = history_of(root)
    return {
        "current": current_of(root),
        "previous": next((name for name in reversed(history) if name != history[-1]), ""),
        "versions": sorted(found, key=lambda version: (version["published"], version["version"])),
    }


def current_of(root: Path) -> str:
    """The version that the link `current` leads to; empty when there is none."""
    link = root / CURRENT
    return link.readlink().name if link.is_symlink() else ""


def history_of(root: Path) -> list[str]:
    """The versions that were current, oldest first, as far as they are still there."""
    file = root / HISTORY
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split()[1] for line in lines if len(line.split()) == 2]
    kept = [name for name in names if (root / VERSIONS / name).is_dir()]
    current = current_of(root)
    # A switch that was cut short between the link and the history.
    return kept if not current or kept[-1:] == [current] else [*kept, current]


def write_durably(path: Path, text: str) -> None:
    """Replaces a small file; a crash leaves the old or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable, where the file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def switch(root: Path, version: str, history: list[str]) -> None:
    """Makes a version current, in one rename; with no version, removes the link."""
    link = root / CURRENT
    if not version:
        link.unlink(missing_ok=True)
    elif current_of(root) != version:
        temporary = root / f".{CURRENT}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path(VERSIONS) / version)
        temporary.replace(link)
    sync_folder(root)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_durably(root / HISTORY, "".join(f"{now} {name}\n" for name in history))


def verify(folder: Path, version: str) -> None:
    """Refuses a folder whose files are not those of its SHA256SUMS."""
    found: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() != SUMS
    }
    try:
        expected = parse_sums((folder / SUMS).read_text())
    except OSError as error:
        raise Refusal(f"Version {version} has no readable {SUMS} ({error.strerror}).") from None
    compare(sums_of(found), expected, f"version {version}")


def judge(folder: Path, command: list[str]) -> str:
    """Asks the image's own command for its judgement; an image that has none is not asked."""
    if not command or not shutil.which(command[0]):
        return "not judged: the image has no command for it"
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise Refusal(f"The application refuses the model: {last}")
    return "judged good by the image"


def publish(root: Path, version: str, keep: int, command: list[str], stream: IO[bytes]) -> dict[str, Any]:
    """Takes a model in, makes it durable, has it judged, makes it current, and removes old versions.

    Until it is judged it lies under a name that no reader looks at; refused, it is removed again.
    """
    if not NAME.fullmatch(version):
        raise Refusal(f"{version!r} cannot be the name of a version.")
    versions = root / VERSIONS
    versions.mkdir(exist_ok=True)
    target = versions / version
    for leftover in versions.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = versions / f".new-{version}"
    temporary.mkdir()
    try:
        receive(stream, temporary)
        report("verifying")
        verify(temporary, version)
        verdict = judge(temporary, command)
        if not target.is_dir():
            temporary.replace(target)
            sync_folder(versions)
        elif (target / SUMS).read_bytes() != (temporary / SUMS).read_bytes():
            raise Refusal(f"Version {version} is on the volume with other contents: publish under a new version.")
        else:
            verify(target, version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    switch(root, version, [*(name for name in history_of(root) if name != version), version])
    return {"verdict": verdict, "pruned": prune(root, keep), **show(root)}


def rollback(root: Path, version: str) -> dict[str, Any]:
    """Makes an earlier version current again: the one named, or the one before the current."""
    before = show(root)
    if not before["current"]:
        raise Refusal("No version is current, so there is nothing to roll back.")
    history = history_of(root)
    target = version or before["previous"]
    if version and version not in {known["version"] for known in before["versions"]}:
        raise Refusal(f"Version {version} is not on the volume: list the versions, or publish it.")
    if target == before["current"]:
        return before
    if target:
        verify(root / VERSIONS / target, target)
    # What is rolled back leaves the history: rolling back twice goes back two versions.
    kept = history[: len(history) - history[::-1].index(target)] if target in history else [target] if target else []
    switch(root, target, kept)
    return show(root)


def prune(root: Path, keep: int) -> list[str]:
    """Removes all but the newest versions; never the current one nor the one before it."""
    state = show(root)
    names = [version["version"] for version in state["versions"]]
    spared = {state["current"], state["previous"], *names[max(0, len(names) - keep) :]}
    removed = [name for name in names if name not in spared]
    for name in removed:
        # Renamed first, so that no reader ever finds half of a version under its name.
        away = root / VERSIONS / f".new-pruned-{name}"
        (root / VERSIONS / name).replace(away)
        shutil.rmtree(away, ignore_errors=True)
    return removed


def main(arguments: list[str], stream: IO[bytes]) -> int:
    """What the pod is asked to do; returns the exit status."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "publish", "rollback"):
        command = commands.add_parser(name)
        command.add_argument("root", type=Path)
        command.add_argument("--version", default="")
        command.add_argument("--keep", type=int, default=5)
        command.add_argument("--judge", nargs="*", default=[])
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            result = show(options.root)
        elif options.command == "publish":
            result = publish(options.root, options.version, options.keep, options.judge, stream)
        else:
            result = rollback(options.root, options.version)
    except Refusal as refusal:
        say(str(refusal))
        return 1
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        say(f"The volume cannot be used: {reason} ({getattr(error, 'filename', None) or options.root}).")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], sys.stdin.buffer))
