"""KWOK: nodes and pods without kubelets, by the thousand."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from tests.support.control_plane import die_with_parent
from tests.support.go_tool import GoTool
from tests.support.kubelet import NODES, wait_until

KWOK = GoTool("kwok", "sigs.k8s.io/kwok", "v0.8.0")
NODE = "kwok-node"


def _stage(name: str, kind: str, when: list[dict[str, object]], then: dict[str, object]) -> dict[str, object]:
    """What KWOK does with objects of a kind that fit a selector."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind}, "selector": {"matchExpressions": when}, "next": then,
        },
    }  # fmt: skip


_CONTAINERS = """
phase: Running
startTime: {{ Now | Quote }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ Now | Quote }}}}
{{ end }}
"""


def _conditions(*types: str) -> str:
    lines = (
        f'- {{type: {name}, status: "True", reason: Kwok, lastTransitionTime: {{{{ Now | Quote }}}}}}' for name in types
    )
    return "conditions:\n" + "\n".join(lines) + "\n"


def stages() -> list[dict[str, object]]:
    """A node gets ready, so does each pod, and one that is deleted is gone."""
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    going = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
    staying = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    pending = {"key": ".status.phase", "operator": "In", "values": ["Pending"]}
    unready = {"key": ready, "operator": "NotIn", "values": ["True"]}
    running = _conditions("PodScheduled", "Initialized", "ContainersReady", "Ready") + _CONTAINERS
    return [
        _stage("node-ready", "Node", [unready], {"statusTemplate": _conditions("Ready")}),
        _stage("pod-ready", "Pod", [staying, pending], {"statusTemplate": running}),
        _stage("pod-gone", "Pod", [going], {"delete": True}),
    ]


class Kwok:
    """Plays the kubelet of one node: each pod that names it is running and ready a moment later.

    :param kubeconfig: of the administrator.
    """

    def __init__(self, cluster: Cluster, kubeconfig: Path, log: Path) -> None:
        self._cluster, self._kubeconfig, self._log = cluster, kubeconfig, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Kwok:
        self._cluster.apply(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        settings = self._log.with_suffix(".yaml")
        settings.write_text(yaml.safe_dump_all(stages()))
        options = [f"--kubeconfig={self._kubeconfig}", f"--manage-single-node={NODE}", f"--config={settings}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [KWOK.binary(), *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            wait_until(self._ready, 90)
        except AssertionError:
            self.__exit__()
            raise AssertionError(f"KWOK did not get ready:\n{self._log.read_text()[-2000:]}") from None
        return self

    def _ready(self) -> bool:
        node = self._cluster.get(NODES, NODE) or {}
        conditions = (node.get("status") or {}).get("conditions") or []
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def __exit__(self, *_details: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()
        self._cluster.delete(NODES, NODE)


def deployment(name: str, replicas: int, node: str = NODE) -> Object:
    """A Deployment whose pods are on one node without any scheduler.

    :param node: another one than KWOK's leaves them pending.
    """
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            # All at once: the gate is measured, not the controller's pace.
            "strategy": {"rollingUpdate": {"maxSurge": "100%"}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeName": node, "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": False,
                    # A gate believes one without a probe only after a while; KWOK asks none.
                    "containers": [
                        {"name": "main", "image": "app:1", "readinessProbe": {"exec": {"command": ["true"]}}}
                    ],
                },
            },
        },
    }  # fmt: skip


def remove(cluster: Cluster, name: str, namespace: str, timeout: float = 600.0) -> None:
    """Delete a Deployment and wait until its pods are gone."""
    cluster.delete(cluster.resource("apps/v1", "Deployment"), name, namespace)
    pods = cluster.resource("v1", "Pod")
    deadline = time.monotonic() + timeout
    while cluster.list(pods, namespace, labels=f"app={name}").items:
        if time.monotonic() > deadline:
            raise AssertionError("pods of a deleted Deployment did not go")
        time.sleep(0.5)
