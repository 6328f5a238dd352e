"""Helm 4, compiled once from the Go module proxy into the cache: what a benchmark is measured beside."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import default_folder
from ansible_collections.groundwork.platform.plugins.module_utils.build.golang import FLAGS, find_go

MODULE = "helm.sh/helm/v4"
VERSION = "v4.2.4"


def binary() -> Path:
    """The compiled program, compiled now if this version never was: two minutes on two cores."""
    go = find_go("1.26")
    flags = [flag for flag in FLAGS if flag != "-mod=readonly"]
    inputs = {"module": MODULE, "version": VERSION, "go": go.version, "flags": flags}
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    target = default_folder() / "helm" / digest / "helm"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix="build-") as name:
            subprocess.run(
                [str(go.program), "install", *flags, "-ldflags", "-s -w", f"{MODULE}/cmd/helm@{VERSION}"],
                env={**os.environ, "GOBIN": name, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0"},
                cwd=name, check=True,
            )  # fmt: skip
            Path(name, "helm").rename(target)
    return target
