"""Makes the releases of the catalogue on a cluster and notes what the gate says of each, and when."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.build.cache import default_folder
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    Cluster,
    ClusterAuth,
    Resource,
    Watcher,
    WatchEvent,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate
from tests.support.catalogue import registry
from tests.support.catalogue.actions import clean
from tests.support.catalogue.case import Broken, Healing
from tests.support.catalogue.objects import Place
from tests.support.kubelet import wait_until

WATCHED = [
    Resource("", "v1", "Pod", "pods", True),
    Resource("", "v1", "Event", "events", True),
    Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True),
    Resource("apps", "v1", "Deployment", "deployments", True),
    Resource("apps", "v1", "ReplicaSet", "replicasets", True),
    Resource("batch", "v1", "Job", "jobs", True),
    Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True),
]
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False)
REGISTRY_PORT = 5000
AT_ONCE = 8
"""Cases that are made at the same time: they wait most of the time."""


@dataclasses.dataclass
class Seen:
    """What came of one case.

    :param code: of the gate's failure; empty when it said healthy.
    :param seconds: from the end of applying to the verdict.
    :param late: seconds from the first event that made it certain (and its grace) to the verdict; None where the case
        names no such event, or it was never seen.
    :param looked: whether what the case says of its looks was really seen.
    """

    case: Broken | Healing
    code: str = ""
    sentence: str = ""
    seconds: float = 0.0
    late: float | None = None
    looked: bool = True
    data: str = ""


class Recorder:
    """Notes when what was first seen on the API, beside the gate and independent of it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._texts: list[tuple[float, str]] = []
        self._lock = threading.Lock()
        self._watchers = [Watcher(cluster, kind, self._take, namespace) for kind in WATCHED]

    def __enter__(self) -> Recorder:
        for watcher in self._watchers:
            watcher.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for watcher in self._watchers:
            watcher.stop()

    def _take(self, event: WatchEvent) -> None:
        now = time.monotonic()
        with self._lock:
            self._texts += [(now, json.dumps(item)) for item in event.objects]

    def first(self, pattern: str) -> float | None:
        """When something that matches was first seen."""
        with self._lock:
            return next((when for when, text in self._texts if re.search(pattern, text)), None)


def run_all(kubeconfig: Path, cases: Sequence[Broken | Healing], shell: str, pause: str, address: str) -> list[Seen]:
    """Make all cases, several at a time, each in a namespace of its own that is removed afterwards."""

    def one(case: Broken | Healing) -> Seen:
        with namespace_of(kubeconfig, f"case-{case.name}") as (cluster, namespace):
            return _run(cluster, case, Place(shell, pause, address, namespace))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The longest first, so that the end is not one long wait.
        ordered = sorted(cases, key=lambda case: -getattr(case, "grace", 30.0))
        seen = list(pool.map(one, ordered))
    by_name = {item.case.name: item for item in seen}
    return [by_name[case.name] for case in cases]


@contextlib.contextmanager
def registry_at(node: str) -> Iterator[str]:
    """The stand-in for a registry, on the loopback of a node of the embedded cluster; its host and port."""
    archive = max((default_folder() / "images").glob("pause-*.tar"), key=lambda path: path.stat().st_mtime)
    program = [sys.executable, str(registry.__file__), str(REGISTRY_PORT), str(archive)]
    process = subprocess.Popen(["ip", "netns", "exec", node, *program])
    try:
        yield f"127.0.0.1:{REGISTRY_PORT}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def namespace_of(kubeconfig: Path, name: str) -> Iterator[tuple[Cluster, str]]:
    """A connection of a case's own and a namespace in which pods can be made; removed afterwards."""
    cluster = Cluster(ClusterAuth(kubeconfig=str(kubeconfig)))
    accounts = Resource("", "v1", "ServiceAccount", "serviceaccounts", True)
    try:
        cluster.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        wait_until(lambda: cluster.get(accounts, "default", name), 60)
        yield cluster, name
    finally:
        clean(cluster, name)
        cluster.close()


def _run(cluster: Cluster, case: Broken | Healing, place: Place) -> Seen:
    namespace = place.namespace
    if case.before is not None:
        items = Applier(cluster, namespace).run(case.before(place))
        Gate(cluster, [item.obj for item in items], 120).run()
    if case.prepare is not None:
        case.prepare(cluster, namespace)
    seen = Seen(case)
    with Recorder(cluster, namespace) as recorder:
        items = Applier(cluster, namespace).run(case.make(place))
        applied = time.monotonic()
        if case.meanwhile is not None:
            threading.Thread(target=case.meanwhile, args=(cluster, namespace), daemon=True).start()
        try:
            Gate(cluster, [item.obj for item in items], case.timeout, existing=True, **case.options).run()
        except Failure as failure:
            seen.code, seen.sentence = failure.code, failure.sentence
            seen.data = json.dumps(failure.as_dict())
        ended = time.monotonic()
        seen.seconds = ended - applied
        if isinstance(case, Broken) and case.certain:
            certain = recorder.first(case.certain)
            seen.late = None if certain is None else ended - certain - case.grace
        if isinstance(case, Healing):
            seen.looked = recorder.first(case.looks) is not None
    return seen


def page(broken: Sequence[Seen], healing: Sequence[Seen]) -> str:
    """The page of the documentation."""
    return f"""\
# Broken releases, and what the gate says of them

Each of these releases was made for real on one node of the embedded cluster, {AT_ONCE} at a time, and judged with
the defaults of `groundwork.platform.health_gate`. `make catalogue` makes them again and writes this page;
`tests/support/catalogue` holds their manifests. *Seconds* are from the end of applying to the verdict. *After it was
certain* is the time from the first event on the API that made the end certain, or from the end of the grace that is
given to what may heal.

## Never healthy
{_table(broken)}
## Only look broken
None of these may be condemned.

{_table(healing)}"""


def _table(seen: Sequence[Seen]) -> str:
    """The cases as a Markdown table."""
    lines = ["| release | verdict | what the gate says | seconds | after it was certain |", "|---|---|---|---|---|"]
    for item in seen:
        late = "" if item.late is None else f"{item.late:.1f} s"
        said = item.sentence.replace("|", "\\|").replace("\n", " ")
        said = re.sub(r"@sha256:[0-9a-f]{64}", "@sha256:...", said)
        lines.append(f"| {item.case.what} | {item.code or 'healthy'} | {said} | {item.seconds:.1f} | {late} |")
    return "\n".join(lines) + "\n"
