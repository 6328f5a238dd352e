"""An embedded cluster for real: made, killed, interrupted, continued, refused, and removed without a trace."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import cgroups, node, preflight, service
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.lifecycle import Embedded, Wanted
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress
from tests.support.control_plane import find_binary

ROOT = Path(__file__).resolve().parents[2]
BINARY = find_binary()
MISSING = [name for names in preflight.PROGRAMS.values() for name in names if not preflight.program(name)]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="an embedded cluster needs root"),
    pytest.mark.skipif(BINARY is None, reason="the compiled Kubernetes is not in the cache: make build"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

# What `up` does, in a process that can be killed.
UP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.lifecycle import Embedded, Wanted
layout = Layout.of(sys.argv[2], Path(sys.argv[3]))
cluster = Embedded(layout)
cluster.up(Wanted(layout, Path(sys.argv[5]))) if sys.argv[4] == "up" else cluster.down()
"""


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Layout.of(f"itest-{os.getpid()}", ROOT)


@pytest.fixture(scope="module")
def made(layout: Layout) -> Iterator[Embedded]:
    cluster = Embedded(layout)
    yield cluster
    cluster.down()


@pytest.fixture
def cluster(made: Embedded) -> Embedded:
    """The module's cluster, up whatever the test before did."""
    made.up(wanted(made.layout))
    return made


def wanted(layout: Layout) -> Wanted:
    assert BINARY is not None
    return Wanted(layout, BINARY, timeout=180)


def kill_supervisor(layout: Layout) -> int:
    """Kill it, and return its process when it is gone; a killed process is seen for a while yet."""
    killed = node.living(layout)
    assert killed
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while node.living(layout):
        assert time.monotonic() < deadline, "the supervisor outlived its death"
        time.sleep(0.01)
    return killed


def config_map(name: str, value: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"key": value},
    }


def kept(cluster: Embedded, name: str) -> str:
    found = cluster.api.get(f"/api/v1/namespaces/default/configmaps/{name}")
    return str(found["data"]["key"]) if found else ""


def process(cluster: Embedded, name: str) -> int:
    listed = node.status(cluster.layout)["processes"]
    return int(next(entry["pid"] for entry in listed if entry["name"] == name))


def eventually(check: Callable[[], bool], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def traces(layout: Layout) -> list[str]:
    """Everything of a cluster that is on the machine."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{layout.name}" in line]
    folders = [path for path in (layout.state, layout.run, layout.netns, layout.lock) if path.exists()]
    links = [path for path in Path("/sys/class/net").iterdir() if path.name == layout.host_link]
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"groundwork.platform/{layout.name}/" in command:
            commands.append(command)
    return [str(found) for found in (*mounts, *folders, *links, *commands, *cgroups.folders(layout.name))]


def test_a_second_run_finds_nothing_to_do_at_once(cluster: Embedded) -> None:
    started = time.monotonic()
    assert cluster.up(wanted(cluster.layout)) is False
    assert time.monotonic() - started < 5
    status = cluster.status()
    assert status["state"] == "running"
    assert {entry["state"] for entry in status["processes"]} == {"running"}


def test_what_a_run_would_change_is_known_without_changing_it(cluster: Embedded) -> None:
    asked = wanted(cluster.layout)
    assert cluster.pending(asked) is False
    (cluster.layout.config / "kube-proxy.yaml").write_text("")
    assert cluster.pending(asked) is True
    assert (cluster.layout.config / "kube-proxy.yaml").read_text() == ""
    cluster.up(asked)
    assert cluster.pending(asked) is False


def test_configuration_that_a_killed_run_wrote_and_told_nobody_of_is_told(cluster: Embedded) -> None:
    before = process(cluster, "kube-scheduler")
    path = cluster.layout.state / "processes.json"
    changed = json.loads(path.read_text())
    for entry in changed["processes"]:
        if entry["name"] == "kube-scheduler":
            entry["env"]["GROUNDWORK_INPUTS"] = "what the killed run had computed"
    path.write_text(json.dumps(changed))
    os.kill(node.living(cluster.layout), signal.SIGHUP)
    eventually(lambda: process(cluster, "kube-scheduler") not in (0, before))
    assert cluster.up(wanted(cluster.layout)) is True
    (cluster.layout.state / "told.json").unlink()
    assert cluster.up(wanted(cluster.layout)) is True
    assert cluster.up(wanted(cluster.layout)) is False


def test_a_cluster_that_its_kubeconfig_names_is_used_and_never_touched(cluster: Embedded, tmp_path: Path) -> None:
    document = yaml.safe_load(cluster.kubeconfig())
    elsewhere = {"name": "elsewhere", "context": {**document["contexts"][0]["context"], "namespace": "default"}}
    document |= {"contexts": [elsewhere, *document["contexts"]], "current-context": "elsewhere"}
    theirs, ours = tmp_path / "config", tmp_path / "cluster"
    theirs.write_text(yaml.safe_dump(document))
    before = theirs.read_bytes()

    def place(**more: object) -> service.Place:
        given = {"directory": ours, "checkout": tmp_path, "kubeconfig": theirs, "context": cluster.layout.name, **more}
        return service.Place.of(given)

    with pytest.raises(Failure, match="2 contexts and none is named"):
        service.present(place(context=""), None, {})
    assert not ours.exists()
    assert service.checked(place())["provider"] == "kubeconfig"
    assert service.present(place(), None, {})["changed"] is True
    assert service.present(place(), None, {})["changed"] is False
    assert (ours / "uid").read_text().strip() == cluster.uid()
    assert json.loads((ours / "status.json").read_text())["node_address"] == cluster.layout.node_address
    (ours / "uid").write_text("another\n")
    with pytest.raises(Failure, match="leads to another cluster than the one recorded"):
        service.present(place(), None, {})
    assert service.absent(place())["changed"] is True
    assert not ours.exists()
    assert theirs.read_bytes() == before
    assert cluster.status()["state"] == "running"


def test_secrets_are_encrypted_in_etcd_and_never_in_the_audit_log(cluster: Embedded) -> None:
    cluster.api.apply(config_map("plain", "recognisable-plain-value"))
    secret = {**config_map("seeded", "x"), "kind": "Secret", "data": {"key": "cmVjb2duaXNhYmxlLXNlY3JldA=="}}
    path = "/api/v1/namespaces/default/secrets/seeded?fieldManager=test&force=true"

    status, _ = cluster.api._request("PATCH", path, json.dumps(secret), "application/apply-patch+yaml")
    assert status in (200, 201)
    time.sleep(2)
    written = b"".join(path.read_bytes() for path in (cluster.layout.state / "etcd").rglob("*") if path.is_file())
    assert b"recognisable-plain-value" in written
    assert b"recognisable-secret" not in written
    log = (cluster.layout.logs / "audit.log").read_text()
    assert "secrets" in log
    assert "cmVjb2duaXNhYmxlLXNlY3JldA" not in log
    assert "recognisable" not in log


def test_system_namespaces_enforce_restricted(cluster: Embedded) -> None:
    for name in ("kube-system", "kube-public", "kube-node-lease"):
        namespace = cluster.api.get(f"/api/v1/namespaces/{name}")
        assert namespace is not None
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_killed_api_server_comes_back(cluster: Embedded) -> None:
    before = process(cluster, "kube-apiserver")
    os.kill(before, signal.SIGKILL)
    cluster.up(wanted(cluster.layout))
    assert process(cluster, "kube-apiserver") != before


def test_a_killed_supervisor_is_replaced_and_data_kept(cluster: Embedded) -> None:
    cluster.api.apply(config_map("kept", "one"))
    kill_supervisor(cluster.layout)
    assert cluster.up(wanted(cluster.layout)) is True
    assert kept(cluster, "kept") == "one"


def test_a_supervisor_that_is_killed_while_the_cluster_comes_up_is_replaced(cluster: Embedded) -> None:
    killed: list[int] = []

    class KillsOnce(Progress):
        """Kills the supervisor when the API server is first waited for."""

        def update(self, text: str) -> None:
            if text.startswith("waiting for the API server") and not killed:
                killed.append(kill_supervisor(cluster.layout))

    kill_supervisor(cluster.layout)
    assert Embedded(cluster.layout, KillsOnce(cluster.layout.name)).up(wanted(cluster.layout)) is True
    assert killed
    assert node.living(cluster.layout) not in (0, *killed)
    assert cluster.status()["node"] == {"name": cluster.layout.name, "ready": True, "reason": ""}


def test_a_full_disk_is_named_and_the_next_run_continues(tmp_path: Path) -> None:
    """The disk fills while the daemons start; what it holds by then must not stand in the way later."""
    root = tmp_path / "state"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", root], check=True)
    layout = Layout.of(f"itest-full-{os.getpid()}", ROOT, state_root=root)
    roomy = preflight.Machine(free_bytes=lambda _path: 2**40)
    ballast = root / "ballast"

    class FillsTheDisk(Progress):
        """Takes all room when the daemons are about to start."""

        def update(self, text: str) -> None:
            if text == "starting the node":
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(root).free - 2**20)

    try:
        with pytest.raises(Failure, match=f"the disk of {layout.state} is full") as refusal:
            Embedded(layout, FillsTheDisk(layout.name), machine=roomy).up(wanted(layout))
        assert refusal.value.code == "no_space"
        print(refusal.value.sentence)
        ballast.unlink()
        cluster = Embedded(layout, machine=roomy)
        assert cluster.up(wanted(layout)) is True
        assert cluster.status()["state"] == "running"
    finally:
        Embedded(layout, machine=roomy).down()
        subprocess.run(["umount", root], check=True)


def test_a_rebooted_machine_continues_with_its_data(cluster: Embedded) -> None:
    """After a reboot there are files, and no process, namespace, link or control group."""
    cluster.api.apply(config_map("kept", "two"))
    uid = cluster.uid()
    cgroups.kill(cluster.layout.name)
    cgroups.remove(cluster.layout.name)
    subprocess.run(["ip", "netns", "delete", cluster.layout.name], check=True)
    shutil.rmtree(cluster.layout.run)
    assert cluster.status()["state"] == "stopped"
    assert cluster.up(wanted(cluster.layout)) is True
    assert (kept(cluster, "kept"), cluster.uid()) == ("two", uid)


def test_a_namespace_that_lost_its_name_is_replaced(cluster: Embedded) -> None:
    subprocess.run(["ip", "netns", "delete", cluster.layout.name], check=True)
    assert cluster.up(wanted(cluster.layout)) is True
    assert cluster.status()["state"] == "running"


def test_damaged_certificates_and_configuration_are_mended(cluster: Embedded) -> None:
    (cluster.layout.pki / "kube-proxy.crt").write_bytes(b"half")
    (cluster.layout.config / "kubelet.yaml").write_text("")
    before = process(cluster, "etcd")
    assert cluster.up(wanted(cluster.layout)) is True
    assert process(cluster, "etcd") == before, "what did not change was restarted"


def test_killed_at_any_moment_it_goes_on(cluster: Embedded) -> None:
    seed = int(os.environ.get("GROUNDWORK_SEED", time.time()))
    print(f"GROUNDWORK_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    layout = cluster.layout
    assert cluster.down() is True
    for verb in ("up", "up", "down", "up"):
        command = [sys.executable, "-c", UP, str(ROOT / "collections"), layout.name, str(ROOT), verb, str(BINARY)]
        run = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 5.0 if verb == "up" else 1.0))
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    cluster.up(wanted(layout))
    assert cluster.status()["state"] == "running"


def test_another_checkout_may_not_touch_it(cluster: Embedded, tmp_path: Path) -> None:
    other = Embedded(Layout.of(cluster.layout.name, tmp_path))
    for run in (other.down, lambda: other.up(wanted(other.layout))):
        with pytest.raises(Failure, match=str(ROOT)):
            run()
    assert cluster.status()["state"] == "running"


def test_its_subnet_is_refused_to_another_before_anything_is_made(cluster: Embedded) -> None:
    other = Layout.of(f"{cluster.layout.name}-b", ROOT, str(cluster.layout.subnet))
    with pytest.raises(Failure, match="already in use"):
        Embedded(other).up(wanted(other))
    assert traces(other) == []


def test_it_goes_without_a_trace_even_with_a_dead_supervisor(cluster: Embedded) -> None:
    os.kill(node.living(cluster.layout), signal.SIGKILL)
    assert cluster.down() is True
    assert traces(cluster.layout) == []
    assert cluster.down() is False
