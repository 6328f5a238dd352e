"""The Go side: which toolchain, what decides a binary, and what is told while it compiles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import digest, golang
from ansible_collections.groundwork.platform.plugins.module_utils.build.definitions import Binary, load
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

GO = golang.Go(Path("/go/bin/go"), "1.26.8")


@pytest.fixture
def module(project: Path) -> golang.Module:
    return golang.read_module(project / "local_cluster")


@pytest.fixture
def binaries(project: Path) -> dict[str, Binary]:
    return dict(load(project / "local_cluster/images.yml", "amd64").binaries)


def fake_go(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho go{version}\n")
    program.chmod(0o755)
    return program


def test_versions_come_from_go_mod_replacements_first(module):
    assert (module.path, module.go) == ("example.test/cluster", "1.26.4")
    assert module.version("k8s.io/kubernetes") == "1.36.3"
    assert module.version("k8s.io/client-go") == "0.36.3"
    assert module.version("k8s.io/kubectl") == "0.36.3"
    with pytest.raises(Failure, match="does not require example"):
        module.version("example.test/nothing")


def test_a_broken_go_mod_is_named(tmp_path):
    with pytest.raises(Failure, match="cannot be read"):
        golang.read_module(tmp_path)
    (tmp_path / "go.mod").write_text("module x\n")
    with pytest.raises(Failure, match="lacks its module or go line"):
        golang.read_module(tmp_path)


def test_the_command_is_static_trimmed_and_stamped(module, binaries):
    command = golang.build_command(GO, binaries["server"], module, Path("/out/server"))
    stamp = "-s -w -X example.test/version.major=1 -X example.test/version.full=v1.36.3"
    assert command == [
        *("/go/bin/go", "build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly"),
        *("-ldflags", stamp, "-o", "/out/server", "./cmd/server"),
    ]
    assert golang.environment("arm64")["CGO_ENABLED"] == "0"
    assert golang.environment("arm64")["GOARCH"] == "arm64"


def test_sources_are_found_by_following_imports(module, binaries):
    found = [path.relative_to(module.folder).as_posix() for path in golang.sources(binaries["server"], module)]
    assert found == ["cmd/server", "internal/deep", "internal/deeper"]
    assert golang.sources(binaries["operator"], module) == []


@pytest.mark.parametrize(
    ("file", "server", "operator"),
    [
        ("cmd/server/main.go", True, False),
        ("internal/deeper/deeper.go", True, False),
        ("internal/other/other.go", False, False),
        ("internal/deep/deep_test.go", False, False),
        ("go.mod", True, True),
        ("go.sum", True, True),
    ],
)
def test_the_digest_changes_with_what_is_compiled_only(module, binaries, file, server, operator):
    def digests() -> list[str]:
        return [digest.of_inputs(golang.inputs(binaries[name], module, GO, "amd64")) for name in ("server", "operator")]

    before = digests()
    path = module.folder / file
    path.write_text((path.read_text() if path.exists() else "package deep\n") + "\n// changed\n")
    assert [one != other for one, other in zip(before, digests(), strict=True)] == [server, operator]


def test_the_digest_changes_with_the_toolchain_and_the_machine(module, binaries):
    def of(go: golang.Go, arch: str) -> str:
        return digest.of_inputs(golang.inputs(binaries["server"], module, go, arch))

    assert len({of(GO, "amd64"), of(GO, "arm64"), of(golang.Go(GO.program, "1.26.9"), "amd64")}) == 3


def test_the_first_go_that_is_new_enough_is_taken(tmp_path, monkeypatch):
    old, new = fake_go(tmp_path / "old", "1.19.8"), fake_go(tmp_path / "venv", "1.26.6")
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert golang.find_go("1.26.4") == golang.Go(new, "1.26.6")
    new.unlink()
    monkeypatch.setattr(golang, "_OTHER_PLACE", str(tmp_path / "nowhere"))
    with pytest.raises(Failure, match=r"Go 1\.26\.4 or newer was not found \(.*1\.19\.8") as refused:
        golang.find_go("1.26.4")
    assert refused.value.code == "no_go"


@pytest.mark.parametrize(("one", "other"), [("1.26", "1.9.9"), ("1.26.10", "1.26.9"), ("1.27rc1", "1.26.9")])
def test_versions_compare_by_number(one, other):
    assert golang.version_key(one) > golang.version_key(other)


def test_a_failure_shows_the_compilers_first_complaint():
    lines = [
        "go: downloading example.test/x v1.0.0",
        "# example.test/cluster/cmd/server",
        "cmd/server/main.go:7:2: undefined: nothing",
        "cmd/server/main.go:9:2: undefined: more",
    ]
    assert golang.first_error(lines) == "cmd/server/main.go:7:2: undefined: nothing"
    assert golang.first_error(["x", "go.mod needs updating"]) == "go.mod needs updating"


def test_progress_counts_packages(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(golang, "Occasionally", lambda say: say)
    downloads = golang._Downloads(said.append)
    for line in ("go: downloading k8s.io/api v0.36.3", "stale a/b", "stale c"):
        downloads(line)
    compilation = golang._Compilation(said.append, downloads.stale)
    for line in ("a/b", "# a/b", "\tvet: x", "c"):
        compilation(line)
    assert said == [
        "downloading Go modules: 1, now k8s.io/api",
        "compiling 2 packages",
        "compiling: 1 of 2 packages, now a/b",
        "linking (2 packages compiled)",
    ]
