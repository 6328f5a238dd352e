"""What nodes would do, on a control plane that has none: writes the status of pods as a test says."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    ApiError,
    Cluster,
    Object,
    Resource,
    Watcher,
    WatchEvent,
)

NODE = "node"
NODES = Resource("", "v1", "Node", "nodes", False)
PODS = Resource("", "v1", "Pod", "pods", True)
EVENTS = Resource("", "v1", "Event", "events", True)
Behaviour = Callable[[Object], "dict[str, Any] | None"]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _conditions(ready: bool, scheduled: bool = True) -> list[dict[str, Any]]:
    states = {"PodScheduled": scheduled, "Initialized": scheduled, "ContainersReady": ready, "Ready": ready}
    return [
        {"type": name, "status": "True" if holds else "False", "lastTransitionTime": now()}
        for name, holds in states.items()
    ]


def _status(pod: Object, phase: str, ready: bool, **container: Any) -> dict[str, Any]:
    return {
        "phase": phase,
        "podIP": "10.1.2.3",
        "podIPs": [{"ip": "10.1.2.3"}],
        "startTime": now(),
        "conditions": _conditions(ready),
        "containerStatuses": [
            {
                "name": item["name"], "image": item["image"], "imageID": "", "ready": ready, "started": ready,
                "restartCount": 0, "state": {}, **container,
            }
            for item in pod["spec"]["containers"]
        ],
    }  # fmt: skip


def ready(pod: Object) -> dict[str, Any]:
    """It runs and is ready."""
    # Since long, so that nobody has to see it run for a while before believing that it does.
    return _status(pod, "Running", True, state={"running": {"startedAt": "2026-01-01T00:00:00Z"}})


def running(pod: Object) -> dict[str, Any]:
    """It runs and does not get ready."""
    return _status(pod, "Running", False, state={"running": {"startedAt": now()}})


def waiting(reason: str, message: str = "") -> Behaviour:
    """Its containers wait for a reason."""
    return lambda pod: _status(pod, "Pending", False, state={"waiting": {"reason": reason, "message": message}})


def crashing(restarts: int, exit_code: int = 1, reason: str = "Error") -> Behaviour:
    """Its containers crash, and have been restarted so often."""
    ended = {"exitCode": exit_code, "reason": reason, "startedAt": now(), "finishedAt": now()}
    return lambda pod: _status(
        pod,
        "Running",
        False,
        restartCount=restarts,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}},
        lastState={"terminated": ended},
    )


def succeeded(pod: Object) -> dict[str, Any]:
    """It has done its work."""
    return _status(pod, "Succeeded", False, state={"terminated": {"exitCode": 0, "reason": "Completed"}})


def failed(pod: Object) -> dict[str, Any]:
    """It has failed."""
    return _status(pod, "Failed", False, state={"terminated": {"exitCode": 3, "reason": "Error"}})


def unschedulable(message: str) -> Behaviour:
    """There is no node for it."""
    conditions = _conditions(False, scheduled=False)
    conditions[0].update({"reason": "Unschedulable", "message": message})
    return lambda pod: {"phase": "Pending", "conditions": conditions}


class Kubelet:
    """Gives each pod of a namespace the status that a behaviour returns; None leaves it alone.

    A behaviour is asked once for each pod, and again for all after :meth:`now_behave`.
    """

    def __init__(self, cluster: Cluster, namespace: str, behaviour: Behaviour = ready) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._behaviour = behaviour
        self._pods: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._watcher = Watcher(cluster, PODS, self._take, namespace)

    def __enter__(self) -> Kubelet:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        self.cluster.apply(NODES, node)
        status = {"conditions": [{"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": now()}]}
        self.cluster.merge(NODES, NODE, None, {"status": status}, subresource="status")
        self._watcher.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._watcher.stop(2)

    def now_behave(self, behaviour: Behaviour) -> None:
        """Behave otherwise from now on, with the pods that are there too."""
        with self._lock:
            self._behaviour = behaviour
            pods = list(self._pods.values())
        for pod in pods:
            self._write(pod)

    def event(self, obj: Object, reason: str, message: str, kind: str = "Warning") -> None:
        """Write an event about an object."""
        name = f"{obj['metadata']['name']}.{uuid.uuid4().hex[:10]}"
        about = {
            "kind": obj["kind"], "apiVersion": obj["apiVersion"], "name": obj["metadata"]["name"],
            "namespace": self.namespace, "uid": obj["metadata"]["uid"],
        }  # fmt: skip
        self.cluster.create(
            EVENTS,
            {
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": self.namespace},
                "involvedObject": about, "reason": reason, "message": message, "type": kind, "count": 1,
                "firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "kubelet"},
            },
        )  # fmt: skip

    def pods(self) -> list[Object]:
        """The pods that are there."""
        return self.cluster.list(PODS, self.namespace).items

    def _take(self, event: WatchEvent) -> None:
        for pod in event.objects:
            uid = pod["metadata"]["uid"]
            with self._lock:
                known = uid in self._pods
                if event.type == "DELETED":
                    self._pods.pop(uid, None)
                    continue
                self._pods[uid] = pod
            if pod["metadata"].get("deletionTimestamp"):
                end(self.cluster, pod)
            elif not known:
                self._write(pod)

    def _write(self, pod: Object) -> None:
        status = self._behaviour(pod)
        if status is None:
            return
        metadata = pod["metadata"]
        if status["conditions"][0]["status"] == "True":
            bind(self.cluster, pod)
        for _try in range(50):
            try:
                self.cluster.merge(
                    PODS, metadata["name"], metadata["namespace"], {"status": status}, subresource="status"
                )
            except ApiError as error:
                if error.status == 404:
                    return
                time.sleep(0.1)
            else:
                return


def bind(cluster: Cluster, pod: Object) -> None:
    """Give a pod its node, as the scheduler does."""
    metadata = pod["metadata"]
    if pod["spec"].get("nodeName"):
        return
    body = {
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }  # fmt: skip
    with contextlib.suppress(ApiError):
        cluster.transport.request("POST", PODS.path(metadata["namespace"], metadata["name"]) + "/binding", None, body)


def end(cluster: Cluster, pod: Object) -> None:
    """Let a pod that is being deleted be gone."""
    metadata = pod["metadata"]
    with contextlib.suppress(ApiError):
        cluster.transport.request(
            "DELETE", PODS.path(metadata["namespace"], metadata["name"]), None, {"gracePeriodSeconds": 0}
        )


def wait_until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(KeyError, IndexError):
            result = condition()
            if result:
                return result
        if time.monotonic() > deadline:
            raise AssertionError("did not happen in time")
        time.sleep(0.05)
