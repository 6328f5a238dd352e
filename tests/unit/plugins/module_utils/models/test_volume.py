"""Versions on a model volume: complete or absent, verified, switched by one rename, and never altered."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.models import publishing, volume
from tests.support.models import archive, publish


def model(version: str = "built-in", **more: Any) -> bytes:
    return json.dumps({"version": version, **more}).encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def names(root: Path) -> list[str]:
    return [one["version"] for one in volume.show(root)["versions"]]


def test_a_version_is_published_with_checksums(root: Path) -> None:
    result = publish(root, "1.0.0", model())
    assert (result["current"], result["previous"], names(root)) == ("1.0.0", "", ["1.0.0"])
    assert (root / "current").readlink() == Path("versions/1.0.0")
    assert json.loads((root / "current" / "model.json").read_text())["version"] == "1.0.0"
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=root / "current", check=False)
    assert done.returncode == 0
    assert not list(root.glob("versions/.*"))


def test_check_tells_what_publishing_will_give(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.json"
    source.write_bytes(model())
    checked = volume.check(source, "1.0.0")
    volume.publish(root, "1.0.0", 5, [], archive(source, "1.0.0"))
    assert volume.show(root)["versions"][0]["digest"] == checked["digest"]


def test_a_folder_is_published_whole(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "weights").mkdir(parents=True)
    (source / "weights" / "a.bin").write_bytes(os.urandom(3 << 20))
    (source / "model.json").write_bytes(model("3.1"))
    volume.publish(root, "3.1", 5, [], archive(source, "3.1"))
    assert (root / "current/weights/a.bin").read_bytes() == (source / "weights/a.bin").read_bytes()


def test_history_goes_back_step_by_step_and_then_to_none(root: Path) -> None:
    for version in ("1", "2", "3"):
        publish(root, version, model())
    assert volume.show(root)["previous"] == "2"
    assert [volume.rollback(root, "")["current"] for _ in range(3)] == ["2", "1", ""]
    assert not (root / "current").is_symlink()
    with pytest.raises(volume.Refusal, match="nothing to roll back"):
        volume.rollback(root, "")
    publish(root, "2", model())
    assert volume.show(root)["current"] == "2"


def test_rolling_back_to_a_named_version(root: Path) -> None:
    for version in ("1", "2", "3"):
        publish(root, version, model())
    assert volume.rollback(root, "1")["current"] == "1"
    assert volume.rollback(root, "1")["current"] == "1"
    with pytest.raises(volume.Refusal, match="not on the volume"):
        volume.rollback(root, "9")


def test_a_version_never_changes(root: Path) -> None:
    publish(root, "1", model(a=1))
    with pytest.raises(volume.Refusal, match="other contents"):
        publish(root, "1", model(a=2))
    assert json.loads((root / "current/model.json").read_text())["a"] == 1
    publish(root, "1", model(a=1))


def test_old_versions_are_pruned_but_not_the_current_and_the_one_before(root: Path) -> None:
    for number in range(6):
        publish(root, str(number), model(), keep=3)
    assert names(root) == ["3", "4", "5"]
    publish(root, "6", model(), keep=1)
    assert names(root) == ["5", "6"]


def test_nothing_is_left_of_a_publication_that_was_refused(root: Path, tmp_path: Path) -> None:
    publish(root, "1", model())
    source = tmp_path / "model.json"
    source.write_bytes(model())
    whole = archive(source, "2").getvalue()
    for length in (0, 100, 600, 2000):
        with pytest.raises((volume.Refusal, tarfile.TarError, OSError, EOFError)):
            volume.publish(root, "2", 5, [], io.BytesIO(whole[:length]))
        assert names(root) == ["1"]
        assert not list(root.glob("versions/.*"))
    with pytest.raises(volume.Refusal, match="bad model"):
        volume.publish(root, "2", 5, ["sh", "-c", "echo bad model >&2; exit 1"], io.BytesIO(whole))
    assert volume.show(root)["current"] == "1"
    assert volume.publish(root, "2", 5, ["no-such-command"], io.BytesIO(whole))["verdict"].startswith("not judged")


def test_what_a_killed_publication_left_is_cleared_by_the_next(root: Path) -> None:
    (root / "versions" / ".new-2").mkdir(parents=True)
    (root / "versions" / ".new-2" / "half").write_bytes(b"x")
    (root / ".current.17").symlink_to("versions/2")
    publish(root, "3", model())
    assert names(root) == ["3"]
    assert not list(root.glob("versions/.*"))


def test_a_switch_cut_short_before_the_history_still_counts(root: Path) -> None:
    publish(root, "1", model())
    publish(root, "2", model())
    (root / "current").unlink()
    (root / "current").symlink_to("versions/1")
    assert volume.show(root)["previous"] == "2"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing", None, "no model at"),
        ("model.json", b"", "empty"),
        ("model.json", b"{", "not JSON"),
        ("model.json", b"[]", "no JSON object"),
        ("model.json", b'{"version": "2.0.0"}', "'2.0.0', not '1.0.0'"),
    ],
)
def test_a_bad_model_is_refused_on_the_controller(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(volume.Refusal, match=words):
        volume.check(tmp_path / name, "1.0.0")


@pytest.mark.parametrize("version", ["", ".", "..", "../x", "a/b", "-x", "a b", "x" * 64, ".new-1"])
def test_a_version_that_is_no_name_is_refused(tmp_path: Path, version: str) -> None:
    (tmp_path / "model.json").write_bytes(model())
    with pytest.raises(volume.Refusal, match="name of a version"):
        volume.check(tmp_path / "model.json", version)


def test_given_checksums_are_verified(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  a\n")
    with pytest.raises(volume.Refusal, match="does not match"):
        volume.check(tmp_path, "1")
    (tmp_path / "SHA256SUMS").write_text("")
    with pytest.raises(volume.Refusal, match="not listed"):
        volume.check(tmp_path, "1")


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../escape"])
def test_an_archive_cannot_write_elsewhere(root: Path, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        made.addfile(entry, io.BytesIO(b"x"))
    stream.seek(0)
    with pytest.raises(volume.Refusal, match="no plain file"):
        volume.publish(root, "1", 5, [], stream)
    assert not list(root.rglob("escape"))


def test_readers_never_find_anything_but_a_whole_version(root: Path) -> None:
    publish(root, "0", model())
    stop, bad = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            folder = (root / "current").resolve()
            if json.loads((folder / "model.json").read_text())["version"] != folder.name:
                bad.append(folder)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 30):
        publish(root, str(number), model(), keep=4)
    stop.set()
    reader.join()
    assert not bad


def test_the_program_runs_from_its_text_as_in_the_pod(root: Path, tmp_path: Path) -> None:
    """By the bootstrap and over standard input, with nothing of the collection on the path."""
    source = tmp_path / "model.json"
    source.write_bytes(model())
    program = publishing.source_of_volume()

    def run(*arguments: str, feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-I", "-c", publishing._BOOTSTRAP, *arguments],
            input=f"{len(program)}\n".encode() + program + feed,
            capture_output=True,
            check=False,
        )

    done = run("publish", str(root), "--version=1", "--keep=5", "--judge", "true", feed=archive(source, "1").getvalue())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["current"] == "1"
    assert json.loads(run("list", str(root)).stdout)["current"] == "1"
    done = run("rollback", str(root), "--version=7")
    assert (done.returncode, done.stderr.decode().strip()) == (
        1,
        "Version 7 is not on the volume: list the versions, or publish it.",
    )
    root.chmod(0o500)
    assert run("list", str(tmp_path / "none")).returncode == 0
