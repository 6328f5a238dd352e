"""Programs that a build runs: their failures in a sentence, and their end with ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Occasionally, Runner
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ROOT = Path(__file__).parents[5]


def test_lines_are_seen_as_they_come_and_input_is_given():
    seen: list[str] = []
    assert Runner().run("x", ["sh", "-c", "cat; echo two >&2"], stdin="one\n", watch=seen.append) == ["one", "two"]
    assert seen == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("write /x: no space left on device", "no_space"),
        ("tar: x: Cannot write: No space left on device", "no_space"),
        ("go: x@v1: Get https://proxy: dial tcp: lookup proxy: no such host", "no_network"),
        ("E: Failed to fetch http://x Could not connect to x:80", "no_network"),
        ("E: You don't have enough free space in /x.", "no_space"),
        ("Temporary failure resolving 'deb.debian.org'", "no_network"),
        ("main.go:1:1: expected package", "build_failed"),
    ],
)
def test_failures_tell_what_it_was(line, code):
    with pytest.raises(Failure) as failed:
        Runner().run("image x", ["sh", "-c", 'echo "$1"; exit 1', "sh", line])
    assert failed.value.code == code
    assert line in failed.value.sentence
    assert failed.value.object == "image x"


def test_the_telling_line_is_chosen():
    with pytest.raises(Failure, match=r"image x could not be built \(E: first\)\.$"):
        Runner().run("image x", ["sh", "-c", "echo E: first; echo noise; false"], cause=lambda lines: lines[0])
    with pytest.raises(Failure, match=r"\(exit status 3\)"):
        Runner().run("image x", ["sh", "-c", "exit 3"])


def test_stopping_ends_what_runs_and_lets_nothing_start():
    runner, failures = Runner(), []

    def work() -> None:
        try:
            runner.run("x", ["sh", "-c", "sleep 60 & wait"])
        except Failure as failure:
            failures.append(failure.code)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    runner.stop()
    thread.join(5)
    assert failures == ["interrupted"]
    with pytest.raises(Failure, match="was not started"):
        runner.run("x", ["true"])
    with pytest.raises(Failure):
        runner.pause(0)


def test_programs_die_with_us_even_by_kill(tmp_path):
    pid_file = tmp_path / "pid"
    code = (
        "from ansible_collections.groundwork.platform.plugins.module_utils.build.process import Runner\n"
        f"Runner().run('x', ['sh', '-c', 'echo $$ > {pid_file}; exec sleep 60'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    us = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    us.send_signal(signal.SIGKILL)
    us.wait()
    child = Path("/proc", pid_file.read_text().strip())
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or "Z" in (child / "stat").read_text().split()[2]


def test_texts_are_passed_on_only_so_often():
    said: list[str] = []
    rare, always = Occasionally(said.append, 60), Occasionally(said.append, 0)
    for number in range(3):
        rare(f"rare {number}")
        always(f"always {number}")
    assert said == ["rare 0", "always 0", "always 1", "always 2"]
