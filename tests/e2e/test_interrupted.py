"""`site.yml` killed at any moment goes on with the next run; a terminal is never silent; what is removed is gone."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import terminal
from tests.support.deployment import ROOT, Deployment, eventually

SILENCE = 5.0


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One more cluster, removed at the end whatever happened."""
    deployment = Deployment.beside(tmp_path_factory.mktemp("other"), "other")
    yield deployment
    deployment.play("playbooks/down.yml")


def interrupt(deployment: Deployment, after: float, number: signal.Signals) -> str:
    """Run site.yml in a terminal and signal it after a while: to its whole foreground group, as a keyboard does."""
    controller, end = pty.openpty()
    process = subprocess.Popen(
        deployment.command("site.yml"), cwd=ROOT, env={**deployment.env, "TERM": "xterm"},
        stdin=end, stdout=end, stderr=end, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    started = time.monotonic()
    output = b""

    def strike() -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)

    timer = threading.Timer(after, strike)
    timer.start()
    try:
        while process.poll() is None and time.monotonic() - started < after + 120:
            if select.select([controller], [], [], 0.2)[0]:
                try:
                    output += os.read(controller, 65536)
                except OSError:
                    break
        process.wait(timeout=60)
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(controller)
    ended = time.monotonic() - started
    print(f"{number.name} after {after:.0f} s; it ended with {process.returncode} {ended:.0f} s after its start")
    return output.decode("utf-8", "replace")


def test_killed_at_any_moment_it_goes_on_and_a_terminal_is_never_silent(beside: Deployment) -> None:
    if beside.kubeconfig.exists():
        beside.play("playbooks/down.yml")
    seed = int(os.environ.get("GROUNDWORK_SEED", time.time()))
    print(f"GROUNDWORK_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    interrupt(beside, chance.uniform(2, 10), signal.SIGKILL)
    interrupt(beside, chance.uniform(10, 25), signal.SIGINT)
    interrupt(beside, chance.uniform(20, 45), signal.SIGKILL)
    session = terminal.run(beside.command("site.yml"), ROOT, beside.env, timeout=900)
    print(session.text[-1500:])
    print(f"longest silence {session.longest_silence:.1f} s after: {session.before_silence[-200:]!r}")
    assert session.code == 0, session.text[-6000:]
    assert session.longest_silence <= SILENCE
    eventually("the api is ready", lambda: beside.http("/readyz").status == 200)
    again = beside.play()
    assert again.changed == 0, again.output[-6000:]


def test_two_clusters_live_side_by_side_and_one_goes_without_the_other(second: Deployment, other: Deployment) -> None:
    other.play("playbooks/local_cluster.yml")
    assert second.name != other.name
    assert second.status["node_address"] != other.status["node_address"]
    before = {pod["metadata"]["uid"]: pod["status"]["phase"] for pod in second.get("pods")}
    name = other.name
    run = other.play("playbooks/down.yml")
    assert run.changed >= 1
    assert traces(name) == []
    assert {pod["metadata"]["uid"]: pod["status"]["phase"] for pod in second.get("pods")} == before
    assert second.http("/readyz").status == 200
    assert other.play("playbooks/down.yml").changed == 0


def traces(name: str) -> list[str]:
    """What a removed cluster left: processes, mounts, network namespace, links, cgroups, rules, state."""
    token = name.removeprefix("groundwork-")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if f"groundwork.platform/{name}/" in command:
            found.append(f"process {command}")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if f"groundwork.platform/{name}/" in line or f"netns/{name} " in line]
    links = [f"link {path}" for path in Path("/sys/class/net").iterdir() if token in path.name]
    groups = [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
    groups += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(name)]
    kept = [
        Path("/run/netns") / name,
        Path("/var/lib/groundwork.platform") / name,
        Path("/run/groundwork.platform") / name,
    ]
    found += [*links, *groups, *(f"state {path}" for path in kept if path.exists())]
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    return found + [f"rule {line}" for line in rules.splitlines() if token in line]
