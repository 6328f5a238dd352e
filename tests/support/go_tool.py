"""Programs of other projects, compiled once each from the Go module proxy into the cache."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import default_folder
from ansible_collections.groundwork.platform.plugins.module_utils.build.golang import FLAGS, find_go

GO = "1.26"


@dataclasses.dataclass(frozen=True)
class GoTool:
    """One program of a Go module; its main package lies in ``cmd/<name>``."""

    name: str
    module: str
    version: str

    def binary(self) -> Path:
        """The compiled program, compiled now if this version never was: some minutes on two cores.

        Whoever needs it meanwhile waits for that.
        """
        go = find_go(GO)
        flags = [flag for flag in FLAGS if flag != "-mod=readonly"]
        inputs = {"module": self.module, "version": self.version, "go": go.version, "flags": flags}
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
        folder = default_folder() / self.name
        target = folder / digest / self.name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():
                self._build(str(go.program), flags, target)
        return target

    def _build(self, go: str, flags: list[str], target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix="build-") as name:
            done = subprocess.run(
                [go, "install", *flags, "-ldflags", "-s -w", f"{self.module}/cmd/{self.name}@{self.version}"],
                env={**os.environ, "GOBIN": name, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0"},
                cwd=name, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise RuntimeError(f"{self.module} {self.version} could not be compiled:\n{done.stderr[-2000:]}")
            target.parent.mkdir(exist_ok=True)
            Path(name, self.name).rename(target)
