"""What a gate costs with 50, 500 and 5,000 pods, and how soon it tells what it sees.

Each gate is a process of its own on a real API server; KWOK plays the kubelet. Times are measured on this machine's
monotonic clock, which all processes share: from the moment at which another watch sees the event to the verdict.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT)]

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier  # noqa: E402
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (  # noqa: E402
    Cluster,
    ClusterAuth,
    Object,
    Watcher,
    WatchEvent,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, GateFailed  # noqa: E402
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress  # noqa: E402
from tests.support import kubelet, kwok  # noqa: E402
from tests.support.control_plane import ControlPlane, find_binary  # noqa: E402
from tests.support.counting import Counting  # noqa: E402

PODS = (50, 500, 5000)
NAMESPACE = "bench"


class Watching(Progress):
    """Says once that a gate has read all lists and waits."""

    def __init__(self) -> None:
        super().__init__("bench")
        self._said = False

    def update(self, text: str) -> None:
        if not self._said:
            self._said = True
            print(json.dumps({"watching": text}), flush=True)


def child(kubeconfig: str, name: str) -> None:
    """Run one gate and print what it cost."""
    cluster = Counting(kubeconfig)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE}}
    gate = Gate(cluster, [target], 1500, progress=Watching())
    try:
        gate.run()
        code = "healthy"
    except GateFailed as failure:
        code = failure.code
    ended = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "code": code,
                "ended": ended,
                "requests": cluster.transport.requests,
                "again": cluster.again,
                "cpu": used.ru_utime + used.ru_stime,
                "mib": used.ru_maxrss / 1024,
                "queued": queued(),
            }
        ),
        flush=True,
    )


def queued() -> float:
    """Seconds for which this process's main thread could have run and had no CPU: what a busy machine costs it."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return math.nan


class Seen:
    """Notes when a Deployment is first seen in a state."""

    def __init__(self, cluster: Cluster, name: str, replicas: int) -> None:
        self.at = 0.0
        self._name, self._replicas = name, replicas
        deployments = cluster.resource("apps/v1", "Deployment")
        self._watcher = Watcher(cluster, deployments, self._take, NAMESPACE, fields=f"metadata.name={name}")

    def __enter__(self) -> Seen:
        self._watcher.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._watcher.stop(2)

    def _take(self, event: WatchEvent) -> None:
        for obj in event.objects:
            if not self.at and _available(obj) >= self._replicas:
                self.at = time.monotonic()


def _available(obj: Object) -> int:
    status = obj.get("status") or {}
    if status.get("observedGeneration") != obj["metadata"].get("generation"):
        return 0
    return int(status.get("availableReplicas") or 0)


class Bench:
    """The measurements on one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self.kubeconfig = str(plane.kubeconfig)
        self.cluster = Cluster(ClusterAuth(kubeconfig=self.kubeconfig))
        namespaces, accounts = self.cluster.resource("v1", "Namespace"), self.cluster.resource("v1", "ServiceAccount")
        self.cluster.create(namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        kubelet.wait_until(lambda: self.cluster.get(accounts, "default", NAMESPACE), 60)

    def gate(self, name: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """Start a gate; when this returns it waits, or has ended with a result."""
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", self.kubeconfig, name], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        return process, json.loads(process.stdout.readline())

    @staticmethod
    def result(process: subprocess.Popen[str], first: dict[str, Any]) -> dict[str, Any]:
        """What a gate printed at its end."""
        assert process.stdout
        found = first if "code" in first else json.loads(process.stdout.readline())
        process.wait()
        process.stdout.close()
        return dict(found)

    def rollout(self, replicas: int) -> dict[str, Any]:
        """From nothing to all pods ready; then once more with everything there."""
        name = f"app-{replicas}"
        with Seen(self.cluster, name, replicas) as seen:
            # It waits for a Deployment that does not exist yet, so that it sees all of it.
            gate = self.gate(name)
            Applier(self.cluster, NAMESPACE).run([kwok.deployment(name, replicas)])
            found = self.result(*gate)
            assert found["code"] == "healthy", found
            kubelet.wait_until(lambda: seen.at, 300)
        again = self.result(*self.gate(name))
        kwok.remove(self.cluster, name, NAMESPACE)
        return {
            "requests": found["requests"], "again": found["again"], "return": found["ended"] - seen.at,
            "cpu": found["cpu"], "mib": found["mib"], "queued": found["queued"],
            "requests with all there": again["requests"], "cpu with all there": again["cpu"],
            "mib with all there": again["mib"],
        }  # fmt: skip

    def broken(self, replicas: int) -> float:
        """Seconds from the event that makes a failure certain to the verdict."""
        name = f"broken-{replicas}"
        Applier(self.cluster, NAMESPACE).run([kwok.deployment(name, replicas, node="no-kubelet")])
        pods = self.cluster.resource("v1", "Pod")
        kubelet.wait_until(lambda: len(self.cluster.list(pods, NAMESPACE, labels=f"app={name}").items) >= replicas, 900)
        gate = self.gate(name)
        pod = self.cluster.list(pods, NAMESPACE, labels=f"app={name}").items[-1]
        status = kubelet.waiting("ErrImagePull", 'failed to resolve "app:1": not found')(pod)
        self.cluster.merge(pods, pod["metadata"]["name"], NAMESPACE, {"status": status}, subresource="status")
        certain = time.monotonic()
        found = self.result(*gate)
        assert found["code"] == "image_not_found", found
        kwok_gone = threading.Thread(target=self._sweep, args=(name,))
        kwok_gone.start()
        kwok.remove(self.cluster, name, NAMESPACE)
        kwok_gone.join()
        return float(found["ended"]) - certain

    def _sweep(self, name: str) -> None:
        """Pods of a node that nobody plays have to be removed by force."""
        pods = self.cluster.resource("v1", "Pod")
        time.sleep(3)
        while items := self.cluster.list(pods, NAMESPACE, labels=f"app={name}").items:
            for pod in items:
                kubelet.end(self.cluster, pod)
            time.sleep(0.5)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, nargs="+", default=PODS)
    parser.add_argument("--child", nargs=2, metavar=("KUBECONFIG", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(*options.child)
        return 0
    binary = find_binary()
    if binary is None:
        sys.exit("there is no compiled Kubernetes: run `make build`")
    plane = ControlPlane(binary).start(300)
    try:
        bench = Bench(plane)
        log = plane.folder / "kwok.log"
        print(
            "| pods | requests | watches opened again | with all there | return after ready | verdict after the event "
            "| CPU | without a CPU | memory |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        with kwok.Kwok(bench.cluster, Path(bench.kubeconfig), log):
            for replicas in options.pods:
                found = bench.rollout(replicas)
                verdict = bench.broken(replicas)
                print(
                    f"| {replicas} | {found['requests']} | {found['again']} | {found['requests with all there']} "
                    f"| {found['return']:.2f} s | {verdict:.2f} s "
                    f"| {found['cpu']:.1f} s, {found['cpu with all there']:.1f} s | {found['queued']:.1f} s "
                    f"| {found['mib']:.0f} MiB, {found['mib with all there']:.0f} MiB |",
                    flush=True,
                )
    finally:
        plane.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
