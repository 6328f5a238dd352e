"""What each tool says of the same broken releases, and when: this collection, kubectl, kubernetes.core and Helm 4.

Runs against a full node (a local cluster that `make up` made) and makes a part of the catalogue of broken releases on
it, each once for every tool in a namespace of its own. A time is that of the whole process that waits; every tool is
given the same deadline. A cause counts as named when the tool's output holds all that a person needs to mend it, by the
same expressions that the catalogue's own test uses.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

import yaml  # noqa: E402

from tests.support.catalogue.broken import BROKEN  # noqa: E402
from tests.support.catalogue.case import Broken  # noqa: E402
from tests.support.catalogue.objects import Place  # noqa: E402
from tests.support.catalogue.run import namespace_of, registry_at  # noqa: E402
from tests.support.control_plane import find_binary  # noqa: E402
from tests.support.helm import HELM  # noqa: E402

CASES = (
    *("image-name", "image-tag", "init-image", "crash", "no-such-program", "out-of-memory", "read-only", "liveness"),
    *("secret-for-env", "config-map-key", "secret-for-volume", "root", "storage-class", "selector", "too-large"),
    *("quota", "limit-range", "pod-security", "policy", "service-account", "store-crash", "agent-image", "job"),
    *("database-down", "no-endpoints"),
)
WAITED_FOR = ("Deployment", "StatefulSet", "DaemonSet")
APPLY = "ansible_collections.groundwork.platform.plugins.modules.apply"


@dataclasses.dataclass
class Said:
    """What a tool made of a release.

    :param seconds: of the whole process, from its start to its end.
    :param condemned: whether it ended as failed before its deadline.
    :param named: whether its output names the cause.
    """

    seconds: float
    condemned: bool
    named: bool
    output: str = ""


@dataclasses.dataclass
class Bench:
    """One cluster, and how the tools reach it."""

    kubeconfig: Path
    folder: Path
    place: Place
    deadline: int

    def ours(self, namespace: str, manifests: Path) -> list[list[str]]:
        """The module's own process, as Ansible starts it."""
        given = {
            "src": str(manifests), "namespace": namespace, "kubeconfig": str(self.kubeconfig),
            "wait": True, "wait_timeout": self.deadline,
        }  # fmt: skip
        arguments = manifests.with_name("arguments.json")
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        return [[sys.executable, "-m", APPLY, str(arguments)]]

    def kubectl(self, namespace: str, manifests: Path) -> list[list[str]]:
        """Apply, then wait for each workload in turn: nothing in kubectl waits for several."""
        program = [str(find_binary()), "kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={namespace}"]
        commands = [[*program, "apply", "--server-side", f"--filename={manifests}"]]
        for obj in yaml.safe_load_all(manifests.read_text()):
            name = f"{obj['kind'].lower()}/{obj['metadata']['name']}"
            if obj["kind"] in WAITED_FOR:
                commands.append([*program, "rollout", "status", name, f"--timeout={self.deadline}s"])
            elif obj["kind"] == "Job":
                commands.append([*program, "wait", "--for=condition=complete", name, f"--timeout={self.deadline}s"])
        return commands

    def kubernetes_core(self, namespace: str, manifests: Path) -> list[list[str]]:
        """One task with all objects, which it waits for one after the other."""
        given = {
            "src": str(manifests), "namespace": namespace, "kubeconfig": str(self.kubeconfig),
            "wait": True, "wait_timeout": self.deadline, "apply": True,
        }  # fmt: skip
        program = str(Path(sys.executable).parent / "ansible")
        interpreter = f"--extra-vars=ansible_python_interpreter={sys.executable}"
        return [[program, "localhost", "-m", "kubernetes.core.k8s", "-a", json.dumps(given), interpreter]]

    def helm(self, namespace: str, manifests: Path) -> list[list[str]]:
        """A chart whose templates are the objects."""
        chart = manifests.with_name("chart")
        (chart / "templates").mkdir(parents=True)
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: case\nversion: 1.0.0\n")
        (chart / "templates" / "all.yaml").write_text(manifests.read_text())
        options = [
            "--wait",
            f"--timeout={self.deadline}s",
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={namespace}",
        ]
        return [[str(HELM.binary()), "install", "case", str(chart), *options]]

    def run(self, tool: str, case: Broken) -> Said:
        """Make a release with a tool."""
        make: Callable[[str, Path], list[list[str]]] = getattr(self, tool)
        name = f"bench-{tool.replace('_', '-')}-{case.name}"
        with namespace_of(self.kubeconfig, name) as (cluster, namespace):
            folder = self.folder / namespace
            folder.mkdir()
            manifests = folder / "all.yaml"
            place = dataclasses.replace(self.place, namespace=namespace)
            manifests.write_text(yaml.safe_dump_all(case.make(place)))
            if case.prepare is not None:
                case.prepare(cluster, namespace)
            output, started, code = "", time.monotonic(), 0
            for command in make(namespace, manifests):
                done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
                output, code = output + done.stdout + done.stderr, done.returncode
                if code:
                    break
            seconds = time.monotonic() - started
            named = code != 0 and all(re.search(pattern, output) for pattern in case.says)
            return Said(seconds, code != 0 and seconds < self.deadline, named, output)

    def _environment(self) -> dict[str, str]:
        paths = {"PYTHONPATH": str(ROOT / "collections"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        return {**os.environ, **paths, "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"), "HOME": str(self.folder)}


TOOLS = {
    "ours": "groundwork.platform.apply, wait",
    "kubectl": "kubectl apply, rollout status",
    "kubernetes_core": "kubernetes.core.k8s, wait",
    "helm": "helm 4 install --wait",
}


def table(cases: list[Broken], said: dict[tuple[str, str], Said], deadline: int) -> str:
    """The figures as a Markdown table."""
    lines = [f"| release | {' | '.join(TOOLS.values())} |", "|---|" + "---|" * len(TOOLS)]
    for case in cases:
        cells = []
        for tool in TOOLS:
            found = said[tool, case.name]
            verdict = (
                f"{found.seconds:.1f} s"
                if found.condemned
                else "deadline"
                if found.seconds >= deadline
                else "**healthy**"
            )
            cells.append(f"{verdict}{', cause named' if found.named else ''}")
        lines.append(f"| {case.what} | {' | '.join(cells)} |")
    sums = [
        f"{sum(said[tool, case.name].named for case in cases)} of {len(cases)} causes named, "
        f"{sum(said[tool, case.name].condemned for case in cases)} before the deadline"
        for tool in TOOLS
    ]
    return "\n".join([*lines, f"| all | {' | '.join(sums)} |"])


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="the local cluster's folder, with kubeconfig and images.yml")
    parser.add_argument("--deadline", type=int, default=75, help="seconds that every tool may wait (default 75)")
    parser.add_argument("--cases", nargs="*", default=CASES, help="names of the catalogue's broken releases")
    parser.add_argument("--at-once", type=int, default=4, help="releases that are waited for side by side (default 4)")
    options = parser.parse_args()
    cases = [case for case in BROKEN if case.name in options.cases]
    images = yaml.safe_load((options.directory / "images.yml").read_text())
    status = json.loads((options.directory / "status.json").read_text())
    shell = next(present for published, present in images.items() if "/redis:" in published)
    pause = next(present for published, present in images.items() if "/pause:" in published)
    HELM.binary()
    with tempfile.TemporaryDirectory(prefix="groundwork-verdicts-") as name, registry_at(status["name"]) as registry:
        bench = Bench(options.directory / "kubeconfig", Path(name), Place(shell, pause, registry, ""), options.deadline)
        with ThreadPoolExecutor(options.at_once) as pool:
            jobs = {(tool, case.name): pool.submit(bench.run, tool, case) for case in cases for tool in TOOLS}
            said = {key: job.result() for key, job in jobs.items()}
    print(table(cases, said, options.deadline))
    load = os.getloadavg()[0]
    print(f"\nEvery tool was given {options.deadline} s; load average {load:.1f}, {options.at_once} at once.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
