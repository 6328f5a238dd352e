"""`make bench`: how long the main job takes, what the cluster costs, how fast a photograph is counted; then applying,
gates and verdicts, each beside what users would take instead.

Everything runs in a clone of the last commit in a temporary folder, so that the cluster of this checkout is left alone.
A figure is the median of its runs with all of them beside it, and the load average at the start of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("system", "apply", "gate", "verdicts")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclasses.dataclass
class Figure:
    """One row of the table.

    :param what: what was measured.
    :param unit: s, MiB or ms.
    :param target: the most that it should be, None where nothing is promised.
    """

    what: str
    unit: str
    target: float | None
    values: list[float] = dataclasses.field(default_factory=list)
    loads: list[float] = dataclasses.field(default_factory=list)

    def add(self, value: float, load: float) -> None:
        """Note one run."""
        self.values.append(value)
        self.loads.append(load)

    def row(self) -> str:
        """Render the figure as a row of a Markdown table."""
        if not self.values:
            return f"| {self.what} | - | not measured | | |"
        median = statistics.median(self.values)
        target = "-" if self.target is None else f"{self.target:g} {self.unit}"
        verdict = "" if self.target is None or median <= self.target else " **missed**"
        runs = ", ".join(f"{value:.1f}" for value in self.values)
        loads = ", ".join(f"{load:.2f}" for load in self.loads)
        return f"| {self.what} | {target} | {median:.1f} {self.unit}{verdict} | {runs} | {loads} |"


class Bench:
    """Runs the project's own commands in a clone and reads what they leave behind."""

    def __init__(self, clone: Path, env: dict[str, str]) -> None:
        self.clone = clone
        self.env = env
        self.figures: list[Figure] = []

    def show(self) -> None:
        """Print the figures that have not been printed yet."""
        if self.figures:
            print("\n| what | at most | median | runs | load average |\n|---|---|---|---|---|")
            print("\n".join(figure.row() for figure in self.figures), flush=True)
        self.figures = []

    def figure(self, what: str, unit: str, target: float | None) -> Figure:
        """Add a row to the table."""
        self.figures.append(Figure(what, unit, target))
        return self.figures[-1]

    def make(self, *arguments: str) -> float:
        """Run make in the clone; returns its seconds, or ends the benchmark with its output if it fails."""
        started = time.monotonic()
        command = ["make", "--no-print-directory", *arguments]
        done = subprocess.run(command, cwd=self.clone, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        seconds = time.monotonic() - started
        print(f"  {' '.join(command)}: {seconds:.1f} s", flush=True)
        return seconds

    def kubectl(self, *arguments: str) -> Any:
        """Run kubectl against the clone's cluster and return its JSON."""
        command = [str(self.clone / ".venv/bin/python"), "tools/cluster.py", "kubectl", *arguments, "-o", "json"]
        done = subprocess.run(command, cwd=self.clone, env=self.env, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        """Return what the role local_cluster wrote about the cluster."""
        file = self.clone / "inventories" / "local" / ".cluster" / "status.json"
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return result


def condition_time(subject: dict[str, Any], kind: str) -> float:
    """Return when a condition of an object became true, in seconds since the epoch."""
    for condition in subject["status"]["conditions"]:
        if condition["type"] == kind and condition["status"] == "True":
            return datetime.fromisoformat(condition["lastTransitionTime"]).timestamp()
    raise SystemExit(f"{subject['metadata']['name']} is not {kind}")


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB; what it shares counts by its share (proportional set size).

    The control plane's processes are one program, so adding their plain resident sizes counts that program once each.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def measure_up(bench: Bench, runs: int) -> None:
    """Warm `make up` from no cluster, the cluster's own milestones in it, and `make up` with nothing to do."""
    warm = bench.figure("warm caches, no cluster: `make up` to Medical Inventory answering", "s", 180)
    node = bench.figure("cluster: node Ready after its start", "s", 20)
    addons = bench.figure("cluster: CoreDNS and metrics-server Available after its start", "s", 45)
    memory = bench.figure("control plane, resident", "MiB", 1.2 * 1024)
    idle = bench.figure("`make up` with nothing to do", "s", 25)
    for _ in range(runs):
        bench.make("down")
        before = load()
        warm.add(bench.make("up"), before)
        status = bench.status()
        supervisor = json.loads(Path(status["processes"]).read_text(encoding="utf-8"))
        started = datetime.fromisoformat(supervisor["started"][:19] + "+00:00").timestamp()
        node.add(condition_time(bench.kubectl("get", "node")["items"][0], "Ready") - started, before)
        deployments = [
            bench.kubectl("get", "deployment", "--namespace", "kube-system", name)
            for name in ("coredns", "metrics-server")
        ]
        addons.add(max(condition_time(deployment, "Available") for deployment in deployments) - started, before)
        memory.add(sum(resident(p["pid"]) for p in supervisor["processes"] if p["name"] in CONTROL_PLANE), load())
    for _ in range(runs):
        before = load()
        idle.add(bench.make("up"), before)


def measure_latency(bench: Bench, runs: int) -> None:
    """A photograph through proxy, api and PostgreSQL and back, and to a WebSocket client on the other replica."""
    median = bench.figure("photograph 1280x960, 20 items, never cached: median of 200 requests", "ms", 100)
    p95 = bench.figure("the same, 95th percentile", "ms", None)
    stream = bench.figure("until a WebSocket client on the other replica has it, median", "ms", None)
    for _ in range(runs):
        before = load()
        command = [str(bench.clone / ".venv/bin/python"), "tools/try.py", "--bench", "200", "--json"]
        done = subprocess.run(command, cwd=bench.clone, env=bench.env, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        median.add(result["median_ms"], before)
        p95.add(result["p95_ms"], before)
        stream.add(result["other_replica_median_ms"], before)


def measure_cold(bench: Bench, folder: Path) -> None:
    """`make up` with every cache empty: ours, Go's two, pip's, and no virtual environment."""
    cold = bench.figure("empty caches: `make up`", "s", 1200)
    empty = {"XDG_CACHE_HOME": str(folder / "cache"), "GOPATH": str(folder / "go"), "GOFLAGS": "-modcacherw"}
    bench.make("down")
    shutil.rmtree(bench.clone / ".venv")
    before = load()
    previous, bench.env = bench.env, {**bench.env, **empty}
    cold.add(bench.make("up"), before)
    bench.make("down")
    bench.env = previous


def compare(bench: Bench, parts: list[str]) -> None:
    """Print the tables of the other benchmarks; the verdicts are made on the clone's cluster."""
    for part in parts:
        more = ["inventories/local/.cluster"] if part == "verdicts" else []
        command = [str(bench.clone / ".venv/bin/python"), f"tests/benchmarks/{part}.py", *more]
        print(f"\n## {part}\n", flush=True)
        subprocess.run(command, cwd=bench.clone, env=bench.env, check=True)


def main() -> int:
    """Measure, print the table, and remove the clone's cluster again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each figure is taken (default 3)")
    parser.add_argument("--cold", action="store_true", help="take the run from empty caches too (20 minutes more)")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    options = parser.parse_args()
    parts = [part for part in PARTS if part in options.parts]
    with tempfile.TemporaryDirectory(prefix="groundwork-bench-") as name:
        clone = Path(name) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        env = {
            key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "ANSIBLE_CONFIG", "MAKEFLAGS"}
        }
        bench = Bench(clone, env)
        try:
            bench.make("prepare-test")
            bench.make("build")
            if "system" in parts:
                measure_up(bench, options.runs)
                measure_latency(bench, options.runs)
                bench.show()
            elif "verdicts" in parts:
                bench.make("up")
            compare(bench, [part for part in parts if part != "system"])
            if options.cold:
                measure_cold(bench, Path(name))
        finally:
            bench.make("down")
    bench.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
