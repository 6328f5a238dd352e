"""What protects a cluster: its mark, its lock, its control groups; and how daemons that fail are told of."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import cgroups, files, lifecycle, node
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.lifecycle import Embedded, locked, owned
from tests.unit.plugins.module_utils.local_cluster.support import Recorder, Silent


def layout_of(tmp_path: Path, checkout: str = "mine", name: str = "c") -> Layout:
    (tmp_path / checkout).mkdir(exist_ok=True)
    return Layout(
        name,
        tmp_path / checkout,
        Layout.of(name, tmp_path, "10.211.7.0/24").subnet,
        tmp_path / "state",
        tmp_path / "run",
    )


def mark(layout: Layout, checkout: Path) -> None:
    files.write_json(layout.mark, {"checkout": str(checkout), "name": layout.name})


class TestMark:
    def test_another_checkouts_cluster_is_neither_removed_nor_changed(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        mark(layout, tmp_path / "theirs")
        runner = Recorder()
        with pytest.raises(Failure, match="theirs") as caught:
            Embedded(layout, Silent(), runner).down()  # type: ignore[arg-type]
        assert caught.value.code == "foreign_cluster"
        assert runner.commands == []
        assert layout.mark.exists()

    def test_clusters_of_a_checkout_are_found_by_their_marks(self, tmp_path: Path) -> None:
        for name, checkout in (("one", "mine"), ("two", "theirs"), ("three", "mine")):
            layout = layout_of(tmp_path, checkout, name)
            mark(layout, layout.checkout)
        assert owned(tmp_path / "mine", tmp_path / "state") == ["one", "three"]

    def test_a_broken_mark_protects_nothing_and_hinders_nothing(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        layout.state.mkdir(parents=True)
        layout.mark.write_text('{"checkout": ')
        assert Embedded(layout, Silent(), Recorder()).status()["state"] == "absent"  # type: ignore[arg-type]


def hold(layout: Layout, ready: Any, release: Any) -> None:
    with locked(layout, Silent(), 1.0):  # type: ignore[arg-type]
        ready.set()
        release.wait(10)


class TestLock:
    def test_a_second_run_waits_says_so_and_goes_on(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        layout.state.mkdir(parents=True)
        context = multiprocessing.get_context("fork")
        ready, release = context.Event(), context.Event()
        other = context.Process(target=hold, args=(layout, ready, release))
        other.start()
        assert ready.wait(10)
        progress = Silent()
        with pytest.raises(Failure, match=f"process {other.pid}"), locked(layout, progress, 0.3):  # type: ignore[arg-type]
            pass
        assert str(other.pid) in progress.said[0]
        release.set()
        with locked(layout, progress, 10.0):  # type: ignore[arg-type]
            assert layout.lock.exists()
        other.join()

    def test_without_a_cluster_no_lock_is_left(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        with locked(layout, Silent(), 1.0):  # type: ignore[arg-type]
            assert layout.lock.read_text() == str(os.getpid())
        assert not layout.run_root.exists()

    def test_a_lock_that_its_holder_removed_is_not_taken_for_one(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        layout.state.mkdir(parents=True)
        layout.run_root.mkdir()
        stale = layout.lock.open("w")
        layout.lock.unlink()
        with locked(layout, Silent(), 1.0):  # type: ignore[arg-type]
            assert layout.lock.exists()
        stale.close()


class TestControlGroups:
    def test_processes_of_all_hierarchies_and_depths_are_found(self, tmp_path: Path) -> None:
        for place, content in (
            ("memory/c/kubepods/p/x", "12\n13\n"),
            ("pids/c/supervisor", "14\n0\n"),
            ("pids/d", "15\n"),
        ):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "cgroup.procs").write_text(content)
        found = cgroups.folders("c", [tmp_path / "memory", tmp_path / "pids", tmp_path / "cpu"])
        assert cgroups.processes(found) == {12, 13, 14}

    def test_both_versions_are_understood(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text(
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
            "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
            "cgroup /mnt/again cgroup rw,relatime,cpu 0 0\n"
            "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
        )
        assert cgroups.hierarchies(mounts) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


class TestDaemons:
    def test_a_process_number_used_again_is_not_the_supervisor(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        files.write(layout.state / "supervisor.pid", f"{os.getpid()}\n")
        assert node.living(layout) == 0

    def test_a_daemon_that_will_not_come_up_is_named_with_what_it_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layout = layout_of(tmp_path)
        files.write(
            layout.logs / "etcd.log",
            "2026-01-01T00:00:00Z supervise: etcd begins\nmvcc: database is corrupt\n2026 supervise: etcd ended\n",
        )
        entry = {"name": "etcd", "restarts": lifecycle.HOPELESS, "state": "waiting"}
        files.write(node.status_path(layout), json.dumps({"processes": [entry]}))
        monkeypatch.setattr(node, "living", lambda layout: 1)
        cluster = Embedded(layout, Silent(), Recorder())  # type: ignore[arg-type]
        with pytest.raises(Failure, match=r"etcd of .* c ended 7 times .mvcc: database is corrupt") as caught:
            cluster._check_daemons(time.monotonic() + 60, "it does not answer")
        assert str(layout.logs / "etcd.log") in caught.value.sentence

    def test_a_program_is_adopted_so_that_the_cache_may_go(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        binary = tmp_path / "kubernetes"
        binary.write_text("one")
        first = node.adopt(layout, binary)
        assert node.adopt(layout, binary) == first
        binary.unlink()
        assert first.read_text() == "one"
        binary.write_text("another")
        second = node.adopt(layout, binary)
        assert second != first
        node.forget_others(second)
        assert list(second.parent.iterdir()) == [second]

    def test_a_program_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(Failure, match="make build"):
            node.adopt(layout_of(tmp_path), tmp_path / "missing")


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert files.write(path, "content", 0o600) is True
    assert files.write(path, "content", 0o600) is False
    assert path.stat().st_mode & 0o777 == 0o600
    assert files.write(path, "content", 0o644) is True
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_what_a_daemon_died_of_is_told_and_not_its_stack(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text(
        '{"level":"info","msg":"starting"}\n'
        '{"level":"panic","msg":"failed to create WAL","error":"no space left on device","stacktrace":"a\\nb"}\n'
        "panic: failed to create WAL\n\ngoroutine 1 [running]:\nmain.main()\n\tmain.go:57 +0x17b\n"
        "2026-01-01T00:00:00Z supervise: etcd ended unasked\n"
    )
    assert lifecycle._last_line(log) == "failed to create WAL: no space left on device"
    log.write_text("I0101 12:00:00.000000 1 a.go:1] well\nE0101 12:00:00.000000 1 a.go:2] port in use\nusage: x\n")
    assert lifecycle._last_line(log).endswith("port in use")
    log.write_text("plain words\n")
    assert lifecycle._last_line(log) == "plain words"
    assert lifecycle._last_line(tmp_path / "absent.log") == ""
