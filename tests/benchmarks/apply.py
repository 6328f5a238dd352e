"""How long it takes to apply many objects: this collection, kubectl and kubernetes.core side by side.

All speak to the same API server, which this starts for itself, and each time is that of the whole process, from its
start to its exit. ``module`` is the module's own process, as Ansible starts it; ``playbook`` is all of ansible-playbook
around it. One kubernetes.core.k8s task per object is measured on fewer objects, and scaled by what each more took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

import yaml  # noqa: E402

from tests.support.control_plane import ControlPlane, find_binary  # noqa: E402

MODULE = "ansible_collections.groundwork.platform.plugins.modules.apply"


@dataclasses.dataclass
class Row:
    """One line of the table.

    :param values: seconds of each run.
    :param target: at most so many seconds, given the medians of all rows; None where nothing is promised.
    :param note: what is to be known of the figure.
    """

    what: str
    values: list[float]
    target: Callable[[dict[str, float]], float] | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """What the table shows and targets are held to."""
        return statistics.median(self.values)

    def line(self, medians: dict[str, float]) -> str:
        """As a row of a Markdown table."""
        limit = self.target(medians) if self.target else None
        verdict = "" if limit is None or self.median <= limit else " **missed**"
        shown = "-" if limit is None else f"{limit:.2f} s"
        runs = ", ".join(f"{value:.2f}" for value in self.values)
        return f"| {self.what} | {shown} | {self.median:.2f} s{verdict} | {runs} | {self.note} |"


class Bench:
    """One API server, and what is applied to it.

    :param count: objects.
    :param kind: ``ConfigMap`` or ``Deployment``.
    """

    def __init__(self, plane: ControlPlane, folder: Path, count: int, kind: str) -> None:
        self.plane, self.folder, self.count, self.kind = plane, folder, count, kind
        self._number = 0

    def namespace(self) -> str:
        """A new, empty namespace."""
        self._number += 1
        name = f"bench-{self._number}"
        self.kubectl("create", "namespace", name)
        return name

    def kubectl(self, *arguments: str) -> float:
        """Seconds that a command of kubectl takes."""
        binary = self.plane.binary
        program = [str(binary / "kubectl")] if binary.is_dir() else [str(binary), "kubectl"]
        return self._timed([*program, "--kubeconfig", str(self.plane.kubeconfig), *arguments])

    def manifests(self, count: int | None = None, change: str = "") -> Path:
        """A file with the objects."""
        path = self.folder / f"manifests-{count or self.count}{change}.yaml"
        if not path.exists():
            objects = [_object(self.kind, number, change) for number in range(count or self.count)]
            path.write_text(yaml.safe_dump_all(objects))
        return path

    def kubectl_apply(self, namespace: str, manifests: Path) -> float:
        """Seconds of ``kubectl apply --server-side``."""
        return self.kubectl("--namespace", namespace, "apply", "--server-side", "--filename", str(manifests))

    def module(self, namespace: str, manifests: Path, **options: Any) -> float:
        """Seconds of the module's process."""
        given = {"src": str(manifests), "namespace": namespace, "kubeconfig": str(self.plane.kubeconfig), **options}
        path = self.folder / "arguments.json"
        path.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        return self._timed([sys.executable, "-m", MODULE, str(path)])

    def playbook(self, namespace: str, manifests: Path) -> float:
        """Seconds of ansible-playbook with one task of the module."""
        return self._play([{"groundwork.platform.apply": {"src": str(manifests), "namespace": namespace}}])

    def one_task_each(self, namespace: str, count: int) -> float:
        """Seconds of ansible-playbook with one kubernetes.core.k8s task per object, server-side apply as well."""
        tasks = []
        for number in range(count):
            definition = _object(self.kind, number, "")
            definition["metadata"]["namespace"] = namespace
            options = {"definition": definition, "apply": True, "server_side_apply": {"field_manager": "bench"}}
            tasks.append({"kubernetes.core.k8s": options})
        return self._play(tasks)

    def _play(self, tasks: list[dict[str, Any]]) -> float:
        connection = {"kubeconfig": str(self.plane.kubeconfig)}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "module_defaults": {
                "group/groundwork.platform.kubernetes": connection,
                "group/kubernetes.core.k8s": connection,
            },
            "tasks": tasks,
        }
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump([play], sort_keys=False))
        return self._timed([str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(path)])

    def _timed(self, command: list[str]) -> float:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "PYTHONPATH": str(ROOT / "collections"),
            "HOME": str(self.folder),
        }
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return seconds


def _object(kind: str, number: int, change: str) -> dict[str, Any]:
    metadata = {"name": f"object-{number:05}", "labels": {"app.kubernetes.io/name": "bench"}}
    if kind == "ConfigMap":
        data = {"number": str(number), "change": change, "text": "some words that make up a setting\n" * 8}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}
    labels = {"app": metadata["name"]}
    container = {
        "name": "main",
        "image": f"app:1{change}",
        "ports": [{"containerPort": 80, "name": "http"}],
        "env": [{"name": f"V{index}", "value": str(index)} for index in range(8)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def measure(bench: Bench, runs: int, tasks: int) -> list[Row]:
    """All rows; each round measures every tool once, so that what disturbs the machine disturbs all."""
    names = ("kubectl first", "module first", "playbook first", "kubectl no-op", "module no-op", "playbook no-op")
    values: dict[str, list[float]] = {name: [] for name in names}
    manifests = bench.manifests()
    for _ in range(runs):
        for tool, run in (("kubectl", bench.kubectl_apply), ("module", bench.module), ("playbook", bench.playbook)):
            namespace = bench.namespace()
            values[f"{tool} first"].append(run(namespace, manifests))
            values[f"{tool} no-op"].append(run(namespace, manifests))
    rows = [
        Row("kubectl first", values["kubectl first"]),
        Row("module first", values["module first"], lambda m: m["kubectl first"], "with a dry run of all"),
        Row("playbook first", values["playbook first"], None, "ansible-playbook around it"),
        Row("kubectl no-op", values["kubectl no-op"]),
        Row("module no-op", values["module no-op"], lambda m: m["kubectl no-op"] / 2),
        Row("playbook no-op", values["playbook no-op"], None, "ansible-playbook around it"),
    ]
    if tasks > 1:
        namespace = bench.namespace()
        one, many = bench.one_task_each(namespace, 1), bench.one_task_each(namespace, tasks)
        each = (many - one) / (tasks - 1)
        scaled = one + each * (bench.count - 1)
        rows.append(Row("kubernetes.core.k8s", [scaled], None, f"scaled: {tasks} tasks took {many:.1f} s"))
        for name in ("playbook first", "playbook no-op"):
            next(row for row in rows if row.what == name).target = lambda m: m["kubernetes.core.k8s"] / 20
    return rows


def main() -> int:
    """Measure and print the table; returns 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000, help="how many objects (default 1000)")
    parser.add_argument("--kind", choices=["ConfigMap", "Deployment"], default="ConfigMap")
    parser.add_argument("--runs", type=int, default=3, help="how often each figure is taken (default 3)")
    parser.add_argument("--tasks", type=int, default=50, help="tasks of kubernetes.core.k8s; 0 leaves them out")
    options = parser.parse_args()
    binary = find_binary()
    if binary is None:
        sys.exit("there is no compiled Kubernetes: run `make build`")
    with tempfile.TemporaryDirectory(prefix="groundwork-bench-") as folder:
        plane = ControlPlane(binary).start()
        try:
            rows = measure(Bench(plane, Path(folder), options.objects, options.kind), options.runs, options.tasks)
        finally:
            plane.stop()
    medians = {row.what: row.median for row in rows}
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\n{options.objects} {options.kind}s, load average {os.getloadavg()[0]:.2f}\n")
    print("| what | at most | median | runs | |\n|---|---|---|---|---|")
    for row in rows:
        print(row.line(medians))
    print(f"\nThe largest process had {memory:.0f} MiB (the API server counts too).")
    missed = [row for row in rows if row.target and row.median > row.target(medians)]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
