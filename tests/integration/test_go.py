"""The Go code of our own, tested by Go. The programs have been built before, so its cache is warm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import golang

MODULE = golang.read_module(Path(__file__).parents[2] / "local_cluster")
GO = golang.find_go(MODULE.go).program
# As the programs are built: with other settings, Go would compile Kubernetes once more.
ENVIRONMENT = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -mod=readonly", "GOTOOLCHAIN": "local"}


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        command, cwd=MODULE.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["./internal/supervise", "./internal/storage"])
def test_go_tests_pass(package: str) -> None:
    _run(GO, "test", package)


def test_go_code_is_formatted() -> None:
    gofmt = Path(_run(GO, "env", "GOROOT").strip()) / "bin" / "gofmt"
    if not gofmt.exists():
        pytest.skip(f"this Go came without {gofmt}")
    assert _run(gofmt, "-l", ".") == ""
