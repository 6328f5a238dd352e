"""What a build needs, refused in a sentence before anything is changed."""

from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import preflight
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure


@pytest.fixture
def ready(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(preflight, "KEYRING", preflight.Path("/"))
    monkeypatch.setattr(preflight, "free_bytes", lambda folder: 1 << 40)


def test_a_machine_that_is_ready(ready, tmp_path):
    preflight.demand(["image x", "Go program y"], tmp_path)


def test_programs_and_keys_are_named_by_their_packages(ready, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("mmdebstrap", "setpriv") else name)
    monkeypatch.setattr(preflight, "KEYRING", tmp_path / "none")
    with pytest.raises(Failure, match=r"lacks system packages .*debian-archive-keyring mmdebstrap util-linux"):
        preflight.demand(["image x"], tmp_path)


def test_root_is_needed(ready, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Failure, match="needs root"):
        preflight.demand(["image x"], tmp_path)


def test_disk_is_counted_by_what_is_missing(ready, monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "free_bytes", lambda folder: 300 << 20)
    monkeypatch.setenv("GOCACHE", str(tmp_path / "cold"))
    with pytest.raises(Failure, match=r"too little free disk space .*300 MiB are free"):
        preflight.demand(["Go program kubernetes"], tmp_path)
    assert preflight.facts([], tmp_path).disk_needed == 0
    warm = tmp_path / "warm"
    (warm / "00").mkdir(parents=True)
    for number in range(30):
        (warm / "00" / str(number)).write_text("")
    monkeypatch.setenv("GOCACHE", str(warm))
    preflight.demand(["Go program kubernetes"], tmp_path)
