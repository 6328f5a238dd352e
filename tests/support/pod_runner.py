"""Runs the containers of pods as processes of this machine, in the order in which a kubelet does.

For a control plane without nodes: what a Job's pod would do is done, with real files, signals and exit statuses, and
told to the API server. Logs and exec are answered by the runner itself.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    Watcher,
    WatchEvent,
)
from ansible_collections.groundwork.platform.plugins.module_utils.pod_exec import Outcome
from tests.support.kubelet import PODS, bind, end, now
from tests.support.postgres import unprivileged

SECRETS = Resource("", "v1", "Secret", "secrets", True)
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", True)


class PodRunner:
    """Runs the Jobs' pods of one namespace.

    :param environment: laid over that of every container: what leads to the database from here.
    """

    def __init__(self, cluster: Cluster, namespace: str, environment: dict[str, str]) -> None:
        self.cluster, self.namespace, self.environment = cluster, namespace, environment
        self.folder = Path(tempfile.mkdtemp(prefix="groundwork-runner-"))
        self.folder.chmod(0o777)
        self.pods: dict[str, Running] = {}
        self.static: dict[str, dict[str, str]] = {}
        self._watcher = Watcher(cluster, PODS, self._take, namespace)

    def __enter__(self) -> PodRunner:
        self._watcher.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._watcher.stop(2)
        for pod in list(self.pods.values()):
            pod.kill()
        # What a failing test shows.
        for file in sorted(self.folder.glob("*/*.log")):
            print(f"{file.relative_to(self.folder)}:\n{file.read_text()}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def primary(self, name: str, environment: dict[str, str]) -> None:
        """A pod that passes for a CloudNativePG Cluster's primary."""
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": f"{name}-1", "namespace": self.namespace,
                         "labels": {"cnpg.io/cluster": name, "cnpg.io/instanceRole": "primary"}},
            "spec": {"containers": [{"name": "postgres", "image": "postgres:17"}]},
        }  # fmt: skip
        self.static[f"{name}-1"] = environment
        self.cluster.create(PODS, pod)
        status = {"phase": "Running"}
        self.cluster.merge(PODS, f"{name}-1", self.namespace, {"status": status}, subresource="status")

    def logs(
        self, namespace: str, pod: str, container: str, tail: int = 20, previous: bool = False, *_more: Any
    ) -> list[str]:
        """In place of Cluster.logs."""
        file = self.folder / pod / f"{container}.log"
        return [] if previous or not file.exists() else file.read_text().splitlines()[-tail:]

    def exec(
        self, cluster: Cluster, where: tuple[str, str, str], command: list[str], *_more: Any, **_options: Any
    ) -> Outcome:
        """In place of pod_exec.run."""
        if where[1] in self.static:
            environment = self.static[where[1]]
        else:
            running = self.pods[where[1]]
            environment = running.environments[where[2]]
            command = [running.local(word) for word in command]
        done = subprocess.run([*unprivileged(), *command], env=environment, capture_output=True, text=True, check=False,
                              timeout=120)  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    def _take(self, event: WatchEvent) -> None:
        for pod in event.objects:
            name = pod["metadata"]["name"]
            owned = any(one["kind"] == "Job" for one in pod["metadata"].get("ownerReferences") or [])
            if not owned or event.type == "DELETED":
                continue
            if pod["metadata"].get("deletionTimestamp"):
                if name in self.pods:
                    self.pods[name].kill()
                end(self.cluster, pod)
            elif name not in self.pods:
                self.pods[name] = Running(self, pod)


class Running:
    """One pod."""

    def __init__(self, runner: PodRunner, pod: Object) -> None:
        self.runner, self.pod = runner, pod
        self.folder = runner.folder / pod["metadata"]["name"]
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.mounts: dict[str, Path] = {}
        self.environments: dict[str, dict[str, str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._killed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def local(self, text: str) -> str:
        """A path in the containers as it is here, wherever it stands in a text."""
        paths = "|".join(re.escape(path) for path in sorted(self.mounts, key=len, reverse=True))
        if not paths:
            return text
        return re.sub(rf"(?<![\w./])({paths})(?=/|$|[\"' ])", lambda found: str(self.mounts[found[1]]), text)

    def kill(self) -> None:
        """At once."""
        self._killed.set()
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def _run(self) -> None:
        bind(self.runner.cluster, self.pod)
        spec = self.pod["spec"]
        self._volumes(spec)
        sidecars: list[str] = []
        for container in spec.get("initContainers") or []:
            if container.get("restartPolicy") == "Always":
                sidecars.append(container["name"])
                self._sidecar(container)
            elif not self._once(container):
                self._finish(sidecars, "Failed")
                return
        good = self._all(spec["containers"])
        self._finish(sidecars, "Succeeded" if good else "Failed")

    def _volumes(self, spec: dict[str, Any]) -> None:
        volumes: dict[str, Path] = {}
        for volume in spec.get("volumes") or []:
            folder = self.folder / f"volume-{volume['name']}"
            if "persistentVolumeClaim" in volume:
                folder = self.runner.folder / f"claim-{volume['persistentVolumeClaim']['claimName']}"
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
            volumes[volume["name"]] = folder
            for resource, kind, key in ((SECRETS, "secret", "secretName"), (CONFIG_MAPS, "configMap", "name")):
                if kind in volume:
                    found = self.runner.cluster.get(resource, volume[kind][key], self.runner.namespace) or {}
                    for name, text in (found.get("data") or {}).items():
                        data = base64.b64decode(text) if kind == "secret" else text.encode()
                        (folder / name).write_bytes(data)
        for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
            for mount in container.get("volumeMounts") or []:
                if mount["name"] in volumes:
                    self.mounts[mount["mountPath"]] = volumes[mount["name"]]

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        environment: dict[str, str] = {}
        for one in container.get("env") or []:
            reference = (one.get("valueFrom") or {}).get("secretKeyRef")
            if reference:
                secret = self.runner.cluster.get(SECRETS, reference["name"], self.runner.namespace)
                assert secret is not None, f"no Secret {reference['name']}"
                environment[one["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
            else:
                environment[one["name"]] = self.local(str(one.get("value", "")))
        environment |= self.runner.environment
        last = self.folder / f"{container['name']}.last"
        if "GROUNDWORK_LAST_WORDS" in environment:
            environment["GROUNDWORK_LAST_WORDS"] = str(last)
        self.environments[container["name"]] = environment
        return environment

    def _start(self, container: dict[str, Any]) -> subprocess.Popen[bytes]:
        environment = self._environment(container)
        command = [self.local(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
        with (self.folder / f"{container['name']}.log").open("wb") as log:
            process = subprocess.Popen([*unprivileged(), *command], env=environment, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, cwd=container.get("workingDir", "/"))  # fmt: skip
        self._processes[container["name"]] = process
        self._state(container["name"], {"running": {"startedAt": now()}}, True)
        return process

    def _once(self, container: dict[str, Any]) -> bool:
        code = self._start(container).wait()
        self._ended(container["name"], code)
        return code == 0 and not self._killed.is_set()

    def _all(self, containers: list[dict[str, Any]]) -> bool:
        results = [self._once(container) for container in containers]
        return all(results)

    def _sidecar(self, container: dict[str, Any]) -> None:
        process = self._start(container)
        probe = [self.local(word) for word in container["startupProbe"]["exec"]["command"]]
        while process.poll() is None and subprocess.run(probe, check=False, capture_output=True).returncode != 0:
            time.sleep(0.05)

    def _finish(self, sidecars: list[str], phase: str) -> None:
        if self._killed.is_set():
            return
        for name in sidecars:
            self._processes[name].terminate()
            self._ended(name, self._processes[name].wait())
        self._tell(phase)

    def _ended(self, name: str, code: int) -> None:
        last = self.folder / f"{name}.last"
        ended = {"exitCode": abs(code), "reason": "Completed" if code == 0 else "Error", "finishedAt": now()}
        if last.exists():
            ended["message"] = last.read_text()
        self._state(name, {"terminated": ended}, False)

    def _state(self, name: str, state: dict[str, Any], started: bool) -> None:
        self._states[name] = {
            "name": name, "image": "i", "imageID": "", "ready": started, "started": started, "restartCount": 0,
            "state": state,
        }  # fmt: skip
        self._tell("Pending")

    def _tell(self, phase: str) -> None:
        if self._killed.is_set():
            return
        spec = self.pod["spec"]
        first = [one["name"] for one in spec.get("initContainers") or []]
        main = [one["name"] for one in spec["containers"]]
        if phase == "Pending" and any(name in self._states for name in main):
            phase = "Running"
        status = {
            "phase": phase, "startTime": now(),
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}],
            "initContainerStatuses": [self._states[name] for name in first if name in self._states],
            "containerStatuses": [self._states[name] for name in main if name in self._states],
        }  # fmt: skip
        metadata = self.pod["metadata"]
        for _try in range(20):
            try:
                self.runner.cluster.merge(PODS, metadata["name"], metadata["namespace"], {"status": status},
                                          subresource="status")  # fmt: skip
            except ApiError as error:
                if error.status == 404:
                    return
                time.sleep(0.1)
            else:
                return
