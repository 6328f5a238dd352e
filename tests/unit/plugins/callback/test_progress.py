"""What a person sees while a playbook works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.progress import ENVIRONMENT_VARIABLE, Progress
from ansible_collections.groundwork.platform.plugins.plugin_utils.journal import Journal, clock
from tests.support import terminal

ROOT = Path(__file__).resolve().parents[4]
PLAYBOOK = ROOT / "tests" / "unit" / "plugins" / "callback" / "quiet.yml"


def ansible_playbook() -> str:
    return str(Path(sys.executable).with_name("ansible-playbook"))


def test_a_journal_gives_each_line_once_and_waits_for_unfinished_ones(tmp_path):
    journal = Journal(tmp_path)
    file = tmp_path / "1.jsonl"
    file.write_text(json.dumps({"time": 2, "text": "second"}) + "\n" + '{"time": 3, "te')
    (tmp_path / "2.jsonl").write_text(json.dumps({"time": 1, "text": "first"}) + "\nnot json\n")
    assert [entry["text"] for entry in journal.read()] == ["first", "second"]
    assert journal.read() == []
    with file.open("a") as stream:
        stream.write('xt": "third"}\n')
    assert [entry["text"] for entry in journal.read()] == ["third"]


def test_progress_writes_changes_only_and_nothing_without_a_callback(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    progress = Progress("medical_inventory")
    for text in ("waiting", "waiting", "ready"):
        progress.update(text)
    lines = [json.loads(line) for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert [(line["subject"], line["text"]) for line in lines] == [
        ("medical_inventory", "waiting"),
        ("medical_inventory", "ready"),
    ]
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    Progress("medical_inventory").update("unheard")
    assert len(list(tmp_path.iterdir())) == 1


def test_progress_outlives_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    progress = Progress("x")
    folder.rmdir()
    progress.update("nobody listens")


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (59.9, "00:59"), (187, "03:07"), (6000, "100:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_terminal_is_never_silent_for_five_seconds():
    session = terminal.run([ansible_playbook(), "-i", "localhost,", str(PLAYBOOK)], cwd=ROOT, timeout=120)
    assert session.code == 0, session.text
    assert session.longest_silence < 5, f"silent for {session.longest_silence:.1f} s after: {session.before_silence}"
    assert "still in Work without a word" in session.text
    assert session.text.rstrip().endswith("try it with: make try")


def test_a_log_has_no_heartbeat_but_the_summary():
    command = [ansible_playbook(), "-i", "localhost,", str(PLAYBOOK), "-e", "seconds=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "still in" not in done.stdout
    assert "try it with: make try" in done.stdout
