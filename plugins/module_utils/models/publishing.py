# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishes, lists and rolls back model versions on a system's volume, from pods that have it.

Reading is asked of a pod of the system that mounts the claim anyway. Writing takes a short-lived pod of the same image,
user and restrictions with the claim writable; its fixed name keeps two writers apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from ansible_collections.groundwork.platform.plugins.module_utils import pod_exec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.models import volume
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress

POD, CONTAINER = "models-publisher", "publisher"
LIFE = 3600
"""Seconds after which a publishing pod ends by itself, should nobody be left to remove it."""
ATTEMPTS, PAUSE = 4, 1.0
"""How often a pod is asked what is on the volume, and seconds between."""
# The program comes first on standard input, its length on a line before it: a long command line may not pass proxies.
_BOOTSTRAP = "import sys; i = sys.stdin.buffer; exec(compile(i.read(int(i.readline())), 'volume.py', 'exec'))"
_DOOMED = frozenset(("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "ImagePullBackOff"))

Object = dict[str, Any]


@dataclasses.dataclass
class Mounted:
    """A pod of the system that has the claim, and how."""

    pod: Object
    container: Object
    path: str

    @property
    def name(self) -> str:
        """The pod's name."""
        return str(self.pod["metadata"]["name"])


@dataclasses.dataclass
class Models:
    """The model versions of one system.

    :param namespace: of the system.
    :param claim: name of the PersistentVolumeClaim.
    :param check_mode: change nothing, and say what would change.
    :param timeout: seconds until the publishing pod must run.
    """

    cluster: Cluster
    namespace: str
    claim: str
    check_mode: bool = False
    timeout: float = 120.0

    def __post_init__(self) -> None:
        self._progress = Progress(f"models of {self.namespace}")
        self._pods = self.cluster.resource("v1", "Pod")

    def listed(self) -> dict[str, Any]:
        """What is on the volume."""
        return {"changed": False, **self._ask()[1]}

    def published(self, version: str, source: Path, keep: int, judge: list[str]) -> dict[str, Any]:
        """Make a version current, sending it first where it is not there yet.

        :raises Failure: ``model_invalid`` before anything was touched, ``model_refused`` by the pod.
        """
        try:
            checked = volume.check(source, version)
        except (volume.Refusal, OSError) as error:
            raise Failure("model_invalid", f"Version {version}", "cannot be published", str(error)) from error
        mounted, before = self._ask()
        there = {known["version"]: known["digest"] for known in before["versions"]}
        if there.get(version, checked["digest"]) != checked["digest"]:
            raise Failure(
                "model_refused",
                f"Version {version} on claim {self.claim} of namespace {self.namespace}",
                "is there with other contents, and a version never changes",
                hint="publish under a new version",
            )
        if before["current"] == version:
            return {"changed": False, **before}
        arguments = [f"--version={version}", f"--keep={keep}", *(["--judge", *judge] if judge else [])]
        return self._change(
            mounted, before, version, ["publish", "/models", *arguments], lambda s: volume.send(source, version, s)
        )

    def rolled_back(self, version: str) -> dict[str, Any]:
        """Make an earlier version current: the one named, or the one before.

        :raises Failure: ``model_refused`` when there is none such.
        """
        mounted, before = self._ask()
        where = f"Claim {self.claim} of namespace {self.namespace}"
        if not before["current"]:
            cause = "has no current version, so there is nothing to roll back"
            raise Failure("model_refused", where, cause, hint="publish a version")
        known = [one["version"] for one in before["versions"]]
        if version and version not in known:
            raise Failure("model_refused", where, f"has no version {version}", f"there are {', '.join(known)}")
        if version == before["current"]:
            return {"changed": False, **before}
        target = version or before["previous"]
        return self._change(mounted, before, target, ["rollback", "/models", f"--version={version}"], None)

    def _change(
        self,
        mounted: Mounted,
        before: dict[str, Any],
        target: str,
        arguments: list[str],
        feed: Callable[[IO[bytes]], None] | None,
    ) -> dict[str, Any]:
        pod = publisher(mounted, self.namespace, self.claim)
        if self.check_mode:
            # The server's own judgement of the pod: quota, Pod Security, webhooks.
            with contextlib.suppress(_Exists):
                self._create(pod, dry_run=True)
            after = {**before, "current": target}
        else:
            with self._publisher(pod):
                after = self._run((POD, CONTAINER), arguments, feed)
        diff = {key: {"current": state["current"]} for key, state in (("before", before), ("after", after))}
        return {"changed": True, "diff": diff, **after}

    def _ask(self) -> tuple[Mounted, dict[str, Any]]:
        """A pod that mounts the claim, and what it sees there.

        A pod may end while it is asked, as one does that is scaled down: then another is, as asking changes nothing.
        """
        for attempt in range(ATTEMPTS):
            mounted = self._mounted()
            try:
                return mounted, self._read(mounted)
            except Failure as failure:
                if failure.code != "exec" or attempt == ATTEMPTS - 1:
                    raise
            time.sleep(PAUSE)
        raise AssertionError("the last attempt returns or raises")

    def _mounted(self) -> Mounted:
        found = [
            mounted
            for pod in self.cluster.list(self._pods, self.namespace, fields="status.phase=Running").items
            if (mounted := mounted_in(pod, self.claim)) is not None
        ]
        if not found:
            raise Failure(
                "no_pod",
                f"Namespace {self.namespace}",
                f"has no running pod that mounts the claim {self.claim}, so the volume cannot be asked",
                hint="release the system first, wake it if it sleeps, or correct namespace and claim",
            )
        return max(found, key=lambda mounted: is_ready(mounted.pod))

    def _read(self, mounted: Mounted) -> dict[str, Any]:
        self._progress.update(f"asking pod {mounted.name} what is on the volume")
        return self._run((mounted.name, mounted.container["name"]), ["list", mounted.path], None)

    def _run(
        self, where: tuple[str, str], arguments: list[str], feed: Callable[[IO[bytes]], None] | None
    ) -> dict[str, Any]:
        program = source_of_volume()

        def write(stream: IO[bytes]) -> None:
            stream.write(f"{len(program)}\n".encode() + program)
            if feed is not None:
                feed(stream)

        def hear(line: str) -> None:
            if line.startswith("progress: "):
                self._progress.update(line.removeprefix("progress: "))

        command = ["python3", "-c", _BOOTSTRAP, *arguments]
        outcome = pod_exec.run(self.cluster, (self.namespace, *where), command, write, hear)
        if outcome.code == 0:
            answer: dict[str, Any] = json.loads(outcome.stdout)
            return answer
        lines = [line for line in outcome.stderr.splitlines() if line.strip() and not line.startswith("progress: ")]
        raise Failure(
            "model_refused",
            f"Claim {self.claim} of namespace {self.namespace}",
            "was left as it was",
            lines[-1] if lines else f"the program in pod {where[0]} ended with {outcome.code}",
        )

    @contextlib.contextmanager
    def _publisher(self, pod: Object) -> Iterator[None]:
        """The publishing pod, ready to work; gone afterwards."""
        uid = self._start(pod)
        try:
            self._await_ready(uid)
            self._progress.update("writing to the volume")
            yield
        finally:
            self.cluster.delete(self._pods, POD, self.namespace, uid=uid)

    def _start(self, pod: Object) -> str:
        self._progress.update(f"starting pod {POD}")
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return self._create(pod)
            except _Exists:
                other = self.cluster.get(self._pods, POD, self.namespace)
            if other is not None:
                self._stand_back(other, deadline)
            time.sleep(0.5)

    def _stand_back(self, other: Object, deadline: float) -> None:
        """Removes a publishing pod that has ended, waits for one that is going, refuses beside one at work."""
        metadata = other["metadata"]
        ended = (other.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if ended and not metadata.get("deletionTimestamp"):
            self.cluster.delete(self._pods, POD, self.namespace, uid=metadata["uid"])
        elif not metadata.get("deletionTimestamp") or time.monotonic() > deadline:
            raise Failure(
                "model_busy",
                f"Claim {self.claim} of namespace {self.namespace}",
                f"is being written to by pod {POD} since {metadata.get('creationTimestamp')}",
                hint=f"wait for it; should its run have been killed, delete the pod (it ends by itself after {LIFE} s)",
            )

    def _create(self, pod: Object, dry_run: bool = False) -> str:
        try:
            return str(self.cluster.create(self._pods, pod, dry_run)["metadata"]["uid"])
        except ApiError as error:
            if error.reason == "AlreadyExists":
                raise _Exists from error
            raise

    def _await_ready(self, uid: str) -> None:
        deadline = time.monotonic() + self.timeout
        while True:
            pod = self.cluster.get(self._pods, POD, self.namespace)
            if pod is None or pod["metadata"]["uid"] != uid:
                raise self._not_running("was removed by somebody", "")
            if is_ready(pod):
                return
            reason, message = waiting_for(pod)
            self._progress.update(f"waiting for pod {POD}: {reason or 'starting'}")
            doomed = reason in _DOOMED or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
            if doomed or time.monotonic() > deadline:
                cause = "cannot start" if doomed else f"did not start within {self.timeout:g} s"
                raise self._not_running(cause, f"{reason}: {message}".strip(": "))
            time.sleep(0.3)

    def _not_running(self, cause: str, evidence: str) -> Failure:
        return Failure("publisher", f"Pod {POD} of namespace {self.namespace}", cause, evidence, "see its events")


class _Exists(Exception):
    """There is a pod of that name."""


def source_of_volume() -> bytes:
    """The text of :mod:`volume`, also from within the archive that a module is run from."""
    spec = find_spec(volume.__name__)
    loader: Any = spec.loader if spec is not None else None
    return str(loader.get_source(volume.__name__)).encode()


def mounted_in(pod: Mapping[str, Any], claim: str) -> Mounted | None:
    """Where a pod has the claim; None when it has not, is going away, or is a publisher itself."""
    if pod["metadata"].get("deletionTimestamp") or pod["metadata"]["name"] == POD:
        return None
    volumes = {
        one["name"]
        for one in pod["spec"].get("volumes") or []
        if (one.get("persistentVolumeClaim") or {}).get("claimName") == claim
    }
    for container in pod["spec"]["containers"]:
        for mount in container.get("volumeMounts") or []:
            if mount["name"] in volumes and not mount.get("subPath"):
                return Mounted(dict(pod), container, mount["mountPath"])
    return None


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def waiting_for(pod: Mapping[str, Any]) -> tuple[str, str]:
    """What keeps a pod from running: reason and message."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return str(waiting["reason"]), str(waiting.get("message") or "")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return str(condition.get("reason") or ""), str(condition.get("message") or "")
    return str(status.get("reason") or ""), str(status.get("message") or "")


def publisher(mounted: Mounted, namespace: str, claim: str) -> Object:
    """The publishing pod: like the system's own, but with the claim writable and nothing secret."""
    spec = mounted.pod["spec"]
    security = {**(spec.get("securityContext") or {}), "fsGroupChangePolicy": "OnRootMismatch"}
    # A fresh volume belongs to root; the group lets the image's user write to it.
    security.setdefault("fsGroup", security.get("runAsGroup") or security.get("runAsUser") or 10001)
    inherited = {
        key: spec[key] for key in ("imagePullSecrets", "tolerations", "nodeSelector", "runtimeClassName") if key in spec
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": POD,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": POD,
                "app.kubernetes.io/component": "models",
                "app.kubernetes.io/managed-by": "groundwork.platform",
            },
        },
        "spec": {
            **inherited,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": security,
            "containers": [
                {
                    "name": CONTAINER,
                    "image": mounted.container["image"],
                    "imagePullPolicy": mounted.container.get("imagePullPolicy", "IfNotPresent"),
                    "command": ["sleep", str(LIFE)],
                    # What the image's own judgement of a model may depend on; never what comes from a Secret.
                    "env": [one for one in mounted.container.get("env") or [] if "value" in one],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
                        "limits": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "256Mi"},
                    },
                    "securityContext": mounted.container.get("securityContext") or {},
                    "volumeMounts": [
                        {"name": "models", "mountPath": "/models"},
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
                    ],
                }
            ],
            "volumes": [
                {"name": "models", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "128Mi"}},
            ],
        },
    }
