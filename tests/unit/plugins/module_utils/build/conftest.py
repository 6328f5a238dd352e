"""A small collection to build, and stand-ins for the programs that build it."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import (
    builder,
    debian,
    golang,
    layers,
    preflight,
)
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache

GO_MOD = """module example.test/cluster

go 1.26.4

require k8s.io/kubernetes v1.36.3 // the one

require (
\tk8s.io/client-go v0.36.3
\texample.test/operator v1.2.3
\tk8s.io/kubectl v0.0.0
)

replace (
\tk8s.io/kubectl => k8s.io/kubectl v0.36.3
)
"""

IMAGES = """
go_module: .
binaries:
  server:
    package: ./cmd/server
    version_of: k8s.io/kubernetes
    stamp: {example.test/version.major: "{major}", example.test/version.full: "v{version}"}
  operator: {package: example.test/operator/cmd/operator}
manifests:
  operator: {module: example.test/operator, path: "releases/operator-{version}.yaml"}
bases:
  debian: {suite: trixie}
images:
  operator:
    programs: {operator: {to: /operator}}
    stands_for: [example.test/operator:1.2.3]
  store:
    base: debian
    packages: [store-server]
    users: {store: {uid: 26, gid: 26}}
    tag: "17"
  app:
    base: debian
    copy: [{from: ../app, to: /app}]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A collection with a Go module, image definitions and an application."""
    root = tmp_path / "collection"
    for name, text in {
        "local_cluster/go.mod": GO_MOD,
        "local_cluster/go.sum": "",
        "local_cluster/images.yml": IMAGES,
        "local_cluster/cmd/server/main.go": 'package main\n\nimport "example.test/cluster/internal/deep"\n',
        "local_cluster/internal/deep/deep.go": 'package deep\n\nimport (\n\t"example.test/cluster/internal/deeper"\n)',
        "local_cluster/internal/deeper/deeper.go": "package deeper\n",
        "local_cluster/internal/other/other.go": "package other\n",
        "app/main.py": "print('hello')\n",
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@dataclasses.dataclass
class Calls:
    """What the stand-ins were asked to make; ``fail`` maps such a name to what happens then."""

    made: list[str] = dataclasses.field(default_factory=list)
    fail: dict[str, Callable[[], object]] = dataclasses.field(default_factory=dict)

    def record(self, name: str) -> None:
        self.made.append(name)
        if name in self.fail:
            self.fail[name]()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace everything that needs a toolchain, a network or root."""
    calls = Calls()

    def compile_go(binary, module, go, arch, target, runner, say):
        target.write_text(f"program {binary.name}")
        calls.record(f"compile {binary.name}")

    def copy_manifest(module, name, path, target, go, runner, say):
        target.write_text(path)
        calls.record(f"copy {path}")

    def bootstrap(what, suite, packages, below, target, workplace, mirror, runner, say):
        (workplace / "half-made").write_text("x")
        calls.record(f"bootstrap {what}: {' '.join(packages) or 'essential'}")
        items = [layers.Item("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"), layers.Item("bin/sh", b"shell", mode=0o755)]
        layers.make([*items, *(layers.Item(f"usr/bin/{name}", name.encode()) for name in packages)], [], target)

    monkeypatch.setattr(golang, "build", compile_go)
    monkeypatch.setattr(golang, "copy_from_module", copy_manifest)
    monkeypatch.setattr(golang, "find_go", lambda least: golang.Go(Path("/usr/bin/go"), "1.26.8"))
    monkeypatch.setattr(debian, "bootstrap", bootstrap)
    monkeypatch.setattr(preflight, "demand", lambda missing, cache: None)
    monkeypatch.setattr(builder, "machine", lambda: "amd64")
    return calls


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def tar_names(file: Path) -> list[str]:
    """The names in a tar file, in its order."""
    with tarfile.open(file) as tar:
        return tar.getnames()
