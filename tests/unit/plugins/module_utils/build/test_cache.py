"""The cache: finished things only, whatever happened before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import cache as module
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache, Entry
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

ROOT = Path(__file__).parents[5]


def stored(cache: Cache, kind: str, name: str, digest: str, size: int = 4, age: float = 0) -> Entry:
    entry = cache.entry(kind, name, digest, "" if kind == "bin" else ".tar")
    with cache.workplace() as workplace:
        made = workplace / "made"
        made.write_bytes(b"x" * size)
        cache.store(made, entry, digest=f"sha256:{digest}")
    os.utime(entry.note, (time.time() - age, time.time() - age))
    return entry


def test_what_is_stored_is_found_and_the_workplace_is_gone(cache):
    entry = stored(cache, "images", "redis", "a" * 32)
    assert entry.file == cache.folder / "images" / f"redis-{'a' * 16}.tar"
    assert entry.read() == {"digest": f"sha256:{'a' * 32}", "size": 4}
    assert list((cache.folder / "tmp").iterdir()) == []


def test_a_binary_keeps_its_name(cache):
    assert cache.entry("bin", "kubernetes", "b" * 32).file == cache.folder / "bin" / ("b" * 16) / "kubernetes"


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry.note.unlink(),
        lambda entry: entry.file.unlink(),
        lambda entry: entry.file.write_bytes(b"xx"),
        lambda entry: entry.note.write_text('{"dig'),
        lambda entry: entry.note.write_text("[]"),
        lambda entry: entry.note.write_text(""),
    ],
    ids=["no note", "no file", "cut short", "half a note", "another note", "empty note"],
)
def test_what_is_not_whole_does_not_exist(cache, damage):
    entry = stored(cache, "images", "redis", "a" * 32)
    damage(entry)
    assert entry.read() is None
    assert stored(cache, "images", "redis", "a" * 32).read()


def test_a_new_build_removes_what_a_killed_one_left(cache):
    whole, half = stored(cache, "images", "redis", "a" * 32), cache.folder / "images" / "nginx-1.tar"
    orphan = cache.folder / "bin" / "1" / "kubernetes"
    work = cache.folder / "tmp" / "x" / "root" / "etc"
    work.mkdir(parents=True)
    orphan.parent.mkdir(parents=True)
    for file in (half, orphan, work / "passwd"):
        file.write_text("half")
    with cache.locked(Progress("test")):
        assert not half.exists()
        assert not orphan.exists()
        assert not (cache.folder / "tmp").exists()
        assert whole.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_that_was_left_is_unmounted_before_its_folder_is_removed(cache, tmp_path):
    precious, point = tmp_path / "precious", cache.folder / "tmp" / "x" / "mount point"
    precious.mkdir()
    (precious / "file").write_text("keep")
    point.mkdir(parents=True)
    subprocess.run(["mount", "--bind", precious, point], check=True)
    cache.clean()
    assert (precious / "file").read_text() == "keep"
    assert not (cache.folder / "tmp").exists()
    assert str(point) not in Path("/proc/self/mountinfo").read_text().replace("\\040", " ")


def test_the_least_recently_used_goes_first_and_what_is_needed_stays(cache):
    needed = stored(cache, "images", "needed", "a" * 32, size=60, age=900)
    old = stored(cache, "layers", "old", "b" * 32, size=60, age=800)
    binary = stored(cache, "bin", "tool", "c" * 32, size=60, age=700)
    new = stored(cache, "images", "new", "d" * 32, size=60, age=10)
    assert cache.prune({needed.file}, limit=1000) == []
    assert cache.prune({needed.file}, limit=120) == [old.file, binary.file]
    assert [entry.read() is not None for entry in (needed, old, binary, new)] == [True, False, False, True]
    assert not binary.file.parent.exists()


def test_use_is_remembered(cache):
    old, older = (stored(cache, "images", name, name * 32, age=100) for name in "ab")
    older.touch()
    assert cache.prune(set(), limit=4) == [old.file]


def test_a_second_build_waits_says_so_and_survives_the_first_being_killed(cache, tmp_path, monkeypatch):
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache\n"
        "from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress\n"
        f"with Cache(Path({str(cache.folder)!r})).locked(Progress('first')):\n"
        "    print('locked', flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    first = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout and first.stdout.readline() == "locked\n"
    monkeypatch.setenv("GROUNDWORK_PROGRESS", str(tmp_path))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: first.send_signal(signal.SIGKILL))
    with cache.locked(Progress("second")):
        first.wait()
        assert (cache.folder / "lock").read_text() == str(os.getpid())
    lines = [json.loads(line) for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [line["text"] for line in lines] == [f"waiting for the build of process {first.pid} to end"]


def test_the_cache_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.default_folder() == tmp_path / "groundwork.platform"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module.default_folder() == tmp_path / ".cache" / "groundwork.platform"


def test_free_space_is_that_of_the_nearest_folder(tmp_path):
    assert module.free_bytes(tmp_path / "not" / "there") > 0
