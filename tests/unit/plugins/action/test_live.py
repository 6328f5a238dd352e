"""What a person sees of a module that waits: on a terminal, in a log, and in AWX, without our callback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

from ansible_collections.groundwork.platform.plugins.plugin_utils.journal import Journal
from ansible_collections.groundwork.platform.plugins.plugin_utils.live import HEARTBEAT, Screen, heartbeat
from tests.support import terminal
from tests.support.fake_api import FakeApi
from tests.support.objects import pod, replica_set, workload

ROOT = Path(__file__).resolve().parents[4]
PLAYBOOK = Path(__file__).with_name("gate.yml")
API = workload("api", replicas=2)
# No callback of ours, no configuration of this checkout: as in anybody's project.
ENVIRONMENT = {
    "ANSIBLE_CONFIG": os.devnull + ".cfg",
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_LOCALHOST_WARNING": "0",
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with FakeApi(API, replica_set(API), pod(API)) as server:
        server.kubeconfig(tmp_path / "kubeconfig")
        yield server


def heal(api: FakeApi, seconds: float, hosts: int = 1, told: list[float] | None = None) -> None:
    """The Deployment gets ready a while after all hosts watch it, one pod after the other."""
    half = workload("api", replicas=2)
    half["status"]["availableReplicas"] = 1

    def work() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            watches = [line for line in api.requests if "/deployments from" in line]
            if len(watches) >= hosts:
                break
            time.sleep(0.1)
        time.sleep(seconds / 2)
        api.put(half)
        time.sleep(seconds / 2)
        if told is not None:
            told.append(time.monotonic())
        api.put(workload("api", replicas=2, ready=True))

    threading.Thread(target=work, daemon=True).start()


def command(tmp_path: Path, *more: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("ansible-playbook")), "-i", "one,two,", str(PLAYBOOK),
        "-e", f"kubeconfig={tmp_path / 'kubeconfig'}", *more,
    ]  # fmt: skip


def test_a_terminal_shows_each_change_and_a_heartbeat(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    heal(api, 12, hosts=2)
    session = terminal.run(command(tmp_path), cwd=tmp_path, timeout=120)
    assert session.code == 0, session.text
    # Two hosts, in workers of their own, each with its lines.
    assert session.text.count("n: waiting for 1 of 1 objects: Deployment api has 0 of 2 pods available") >= 2
    assert session.text.count("n: waiting for 1 of 1 objects: Deployment api has 1 of 2 pods available") >= 2
    assert "still at it: n: waiting" in session.text
    assert session.longest_silence < 8, session.before_silence


def test_a_log_stays_quiet(api: FakeApi, tmp_path: Path) -> None:
    heal(api, 4)
    done = subprocess.run(
        command(tmp_path), env={**os.environ, **ENVIRONMENT}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for" not in done.stdout


def test_events_arrive_in_awx_while_the_task_runs(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "private" / "inventory").mkdir(parents=True)
    (tmp_path / "private" / "inventory" / "hosts").write_text("one\n")
    healed: list[float] = []
    heal(api, 12, told=healed)
    events: list[tuple[float, dict[str, Any]]] = []
    runner = ansible_runner.run(
        private_data_dir=str(tmp_path / "private"),
        playbook=str(PLAYBOOK),
        extravars={"kubeconfig": str(tmp_path / "kubeconfig")},
        envvars={**ENVIRONMENT, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        quiet=True,
        event_handler=lambda event: bool(events.append((time.monotonic(), event))) or True,
    )
    assert runner.rc == 0, runner.stdout.read()
    during = [(moment, event["stdout"]) for moment, event in events if "n: waiting for" in event.get("stdout", "")]
    assert during, [event.get("stdout") for _moment, event in events]
    before = [text for moment, text in during if moment < healed[0]]
    assert any("has 0 of 2 pods available" in text for text in before)
    assert any("has 1 of 2 pods available" in text for text in before)
    assert any("still at it" in text for text in before)
    (ended,) = [moment for moment, event in events if event["event"] == "runner_on_ok"]
    assert ended > healed[0]


def test_async_is_refused_with_what_to_do_instead(api: FakeApi, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "-e", "async_seconds=30"),
        env={**os.environ, **ENVIRONMENT}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot run with async" in " ".join(done.stdout.split())
    assert "set its timeout instead" in " ".join(done.stdout.split())
    assert api.requests == []


def test_check_mode_looks_once(api: FakeApi, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--check", "-v"),
        env={**os.environ, **ENVIRONMENT}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not_healthy" in done.stdout


def test_a_task_whose_output_is_hidden_shows_no_lines(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    heal(api, 3)
    session = terminal.run(command(tmp_path, "-e", "hidden=true"), cwd=tmp_path, timeout=120)
    assert session.code == 0, session.text
    assert "waiting for" not in session.text


def test_our_callback_prints_each_line_once(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ENVIRONMENT, "ANSIBLE_CALLBACKS_ENABLED": "groundwork.platform.progress"}.items():
        monkeypatch.setenv(name, value)
    heal(api, 6)
    session = terminal.run(command(tmp_path, "--limit", "one"), cwd=tmp_path, timeout=120)
    assert session.code == 0, session.text
    lines = [line for line in session.text.splitlines() if "Deployment api has 1 of 2" in line and "still" not in line]
    assert len(lines) == 1, session.text


def test_a_screen_shows_lines_cuts_them_and_shows_what_came_last(tmp_path: Path) -> None:
    shown: list[str] = []
    with Screen(Journal(tmp_path), shown.append, 30, 60.0):
        (tmp_path / "1.jsonl").write_text('{"subject": "n", "text": "waiting for a rather long list of things"}\n')
    assert shown == ["  00:00  n: waiting for a r..."]


@pytest.mark.parametrize(("text", "seconds"), [("", HEARTBEAT), ("1.5", 1.5), ("soon", HEARTBEAT), ("0", 0.25)])
def test_the_heartbeat_can_be_set(text: str, seconds: float) -> None:
    assert heartbeat({"GROUNDWORK_HEARTBEAT": text}) == seconds
