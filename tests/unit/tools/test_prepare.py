"""What `make up` says on a machine on which it cannot work, before anything is changed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import preflight

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def prepare(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "tools" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def forbidden(*_arguments, **_options):
        raise AssertionError("something was run before the machine was found fit")

    monkeypatch.setattr(module, "run", forbidden)
    monkeypatch.setattr(module, "install_packages", forbidden)
    return module


def said(prepare, capsys) -> str:
    assert prepare.main(["up"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, f"not one sentence: {error}"
    assert "Traceback" not in error
    return error


def test_an_old_python_is_named(prepare, monkeypatch, capsys):
    monkeypatch.setattr(prepare.sys, "version_info", (3, 9, 2))
    assert "Python 3.9 is too old: install Python 3.11" in said(prepare, capsys)


def test_other_users_than_root_are_told(prepare, monkeypatch, capsys):
    monkeypatch.setattr(prepare.os, "geteuid", lambda: 1000)
    assert "User id 1000 is not root" in said(prepare, capsys)


def test_a_machine_without_apt_is_told(prepare, monkeypatch, capsys):
    monkeypatch.setattr(prepare.os, "geteuid", lambda: 0)
    monkeypatch.setattr(prepare.shutil, "which", lambda _name: None)
    assert "no apt-get" in said(prepare, capsys)


def test_what_the_preflight_refuses_is_said_as_it_says_it(prepare, monkeypatch, capsys):
    def refuse(**_options):
        raise Failure("disk_full", "The disk of /var/lib", "has 2 GiB free", hint="free 13 GiB")

    monkeypatch.setattr(prepare.os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "check_machine", refuse)
    assert "The disk of /var/lib has 2 GiB free: free 13 GiB." in said(prepare, capsys)


def test_a_python_that_is_too_new_looks_for_an_older_one(prepare, monkeypatch):
    monkeypatch.setattr(prepare.sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(prepare.shutil, "which", lambda name: "/usr/bin/python3.12" if name == "python3.12" else None)
    assert prepare.choose_python() == "/usr/bin/python3.12"
    monkeypatch.setattr(prepare.shutil, "which", lambda _name: None)
    with pytest.raises(prepare.Refused, match="newer than ansible-core"):
        prepare.choose_python()


def test_a_full_disk_is_one_sentence(prepare, monkeypatch, capsys):
    def full():
        raise OSError(28, "No space left on device", "/root/.venv/x")

    monkeypatch.setattr(prepare, "check_machine", full)
    assert "/root/.venv/x failed: No space left on device: free some room" in said(prepare, capsys)


def test_a_failing_step_shows_its_last_lines(monkeypatch, tmp_path):
    code = "import sys; print('reading'); print('E: no such package'); sys.exit(100)"
    script = f"import importlib.util as u; s = u.spec_from_file_location('p', {str(ROOT / 'tools/prepare.py')!r}); "
    script += "m = u.module_from_spec(s); s.loader.exec_module(m); "
    script += f"m.run('installing', [{sys.executable!r}, '-c', {code!r}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "installing failed (exit 100)" in done.stderr
    assert "E: no such package" in done.stderr
