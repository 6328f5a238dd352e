"""A small image, built for real: Debian's packages, a compiled program, a folder; killed once, then built twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.build import preflight
from ansible_collections.groundwork.platform.plugins.module_utils.build.builder import build
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache

ROOT = Path(__file__).parents[2]

HELLO = """package main

var greeting string

func main() { print("hello " + greeting) }
"""

IMAGES = """
binaries:
  hello: {package: ./cmd/hello, stamp: {main.greeting: built}}
bases:
  debian: {suite: trixie}
images:
  tiny:
    base: debian
    packages: [netbase]
    users: {tiny: {uid: 4711, gid: 4711, home: /data}}
    programs: {hello: {to: /usr/bin/hello, capabilities: [net_bind_service]}}
    folders: {/data: {uid: 4711, gid: 4711, mode: "0750"}}
    user: "4711:4711"
    command: [hello]
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(preflight.facts(["image tiny"], ROOT).packages), reason="needs root and mmdebstrap"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "collection"
    for name, text in {
        "local_cluster/go.mod": "module example.test/tiny\n\ngo 1.26\n",
        "local_cluster/go.sum": "",
        "local_cluster/images.yml": IMAGES,
        "local_cluster/cmd/hello/main.go": HELLO,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def processes_and_mounts_in(folder: Path) -> list[str]:
    """Processes that mention a folder on their command line, and mounts below it as any process sees them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            mounts = (process / "mountinfo").read_text()
        except OSError:
            continue
        if str(folder) in command and process.name != str(os.getpid()):
            found.append(command.replace("\0", " "))
        found += [line for line in mounts.splitlines() if f" {folder}/" in line]
    return found


def kill_in_the_middle(project: Path, folder: Path, progress: Path) -> None:
    """Start a build in a process of its own and kill that while packages are being installed."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ansible_collections.groundwork.platform.plugins.module_utils.build.builder import build\n"
        "from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import Cache\n"
        "build(Path(sys.argv[1]), Cache(Path(sys.argv[2])))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections"), "GROUNDWORK_PROGRESS": str(progress)}
    victim = subprocess.Popen([sys.executable, "-c", code, project, folder], env=environment)
    deadline = time.monotonic() + 120
    while "unpacking" not in "".join(file.read_text() for file in progress.glob("*.jsonl")):
        assert victim.poll() is None, "the build ended before it could be killed"
        assert time.monotonic() < deadline, "no package was unpacked in two minutes"
        time.sleep(0.05)
    assert processes_and_mounts_in(folder)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    deadline = time.monotonic() + 5
    while processes_and_mounts_in(folder) and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_build_survives_a_kill_and_gives_equal_digests(project, tmp_path, monkeypatch):
    progress, first, second = tmp_path / "progress", Cache(tmp_path / "first"), Cache(tmp_path / "second")
    progress.mkdir()
    kill_in_the_middle(project, first.folder, progress)
    assert processes_and_mounts_in(first.folder) == []

    results = [build(project, cache) for cache in (first, second)]
    assert [list((cache.folder / "tmp").iterdir()) for cache in (first, second)] == [[], []]
    digests = [result["images"]["tiny"]["digest"] for result in results]
    assert digests[0].startswith("sha256:")
    assert digests[0] == digests[1]
    binaries = [Path(result["binaries"]["hello"]) for result in results]
    assert binaries[0].read_bytes() == binaries[1].read_bytes()
    hello = subprocess.run([binaries[0]], capture_output=True, text=True, check=True)
    assert hello.stderr == "hello built"

    started = time.monotonic()
    assert build(project, first)["changed"] is False
    assert time.monotonic() - started < 1
    check_content(Path(results[0]["images"]["tiny"]["archive"]))


def check_content(archive: Path) -> None:
    """The archive has the essential packages below, what the image adds above, and nothing of this machine."""
    with tarfile.open(archive) as tar:
        (entry,) = json.loads(tar.extractfile("index.json").read())["manifests"]
        manifest = json.loads(tar.extractfile(f"blobs/{entry['digest'].replace(':', '/')}").read())
        content: list[dict[str, tarfile.TarInfo]] = []
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=tar.extractfile(f"blobs/{layer['digest'].replace(':', '/')}")) as inner:
                content.append({member.name: member for member in inner})
                if "etc/passwd" in content[-1]:
                    accounts = inner.extractfile("etc/passwd").read().decode()
    base, packages, own = content
    assert {"usr/bin/dash", "usr/bin/dpkg", "etc/passwd", "proc"} <= base.keys()
    assert {"etc/protocols", "etc/passwd", "var/lib/dpkg/status"} <= packages.keys()
    assert own.keys() == {"data", "usr/bin/hello"}
    assert (own["data"].uid, own["data"].mode) == (4711, 0o750)
    assert "tiny:x:4711:4711::/data:/usr/sbin/nologin\n" in accounts
    forbidden = {"etc/resolv.conf", "etc/hostname", "etc/machine-id", "etc/apt"}
    assert not forbidden & (base.keys() | packages.keys())
