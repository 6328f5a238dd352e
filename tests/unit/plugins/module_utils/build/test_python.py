"""PyPI packages: chosen for the image's interpreter, whichever runs the build."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import python
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Python
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

LOCK = """# a comment
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r requirements.in
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
tzdata==2026.6 ; sys_platform == 'win32' --hash=sha256:dd
celery[redis]==5.7.0 \\
    --hash=sha256:ee
"""


def test_conditions_are_judged_for_the_images_interpreter():
    assert python.locked(LOCK, "3.13", "amd64").splitlines() == [
        "numpy==2.5.5 --hash=sha256:cc",
        "celery[redis]==5.7.0 --hash=sha256:ee",
    ]
    assert python.locked(LOCK, "3.11", "amd64").startswith("numpy==2.4.6 --hash=sha256:aa --hash=sha256:bb\n")


@pytest.mark.parametrize("line", ["numpy", "numpy==2.0", "numpy>=2 --hash=sha256:aa", "-r other.txt", "git+https://x"])
def test_what_is_not_locked_is_refused(line):
    with pytest.raises(Failure) as refused:
        python.locked(line, "3.13", "amd64")
    assert refused.value.code == "bad_requirements"


def test_wheels_are_for_the_images_interpreter():
    stated = Python("3.13", Path("requirements.lock"))
    command = python.pip_command(stated, Path("/w/r.txt"), Path("/w/packages"), "arm64")
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps", "--python-version=3.13", "--abi=cp313"} < set(
        command
    )
    assert "--platform=manylinux_2_28_aarch64" in command
    assert command[-4:] == ["--target", "/w/packages", "--requirement", "/w/r.txt"]


def test_nothing_of_this_machine_stays_in_the_packages(tmp_path):
    packages = tmp_path / "packages"
    for name in (
        "bin/tool",
        "tool/__init__.py",
        "tool/tests/deep/x.py",
        "tool-1.dist-info/RECORD",
        "tool-1.dist-info/METADATA",
    ):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text("x")
    python._drop_traces(packages)
    python._remove_left_out(packages, "/site", ["/site/tool/**/tests"])
    assert sorted(item.path for item in python._items(packages, "/site") if item.content) == [
        "/site/tool-1.dist-info/METADATA",
        "/site/tool/__init__.py",
    ]


def test_layers_are_unpacked_by_a_python_without_extraction_filters(tmp_path, monkeypatch):
    """Debian 12 has Python 3.11.2; the parameter came with 3.11.4."""
    with_filter = tarfile.TarFile.extractall
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path: with_filter(self, path))
    (tmp_path / "owned").write_text("kept")
    with tarfile.open(tmp_path / "layer.tar", "w") as tar:
        tar.add(tmp_path / "owned", "usr/bin/owned")
        tar.add(tmp_path / "owned", "usr/bin/.wh.gone")
    root = python.unpack([tmp_path / "layer.tar"], tmp_path / "root", lambda _text: None)
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["owned"]
