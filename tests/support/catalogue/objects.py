"""Short ways to write the objects of the catalogue."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object

FOREVER = ["sleep", "infinity"]
SMALL = {"cpu": "10m", "memory": "32Mi"}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a case is made, and what its containers run.

    :param shell: has a shell, the usual small programs, and redis-server.
    :param pause: does nothing, for ever.
    :param registry: host and port of the stand-in for a registry.
    :param namespace: the case's own.
    """

    shell: str
    pause: str
    registry: str
    namespace: str


def container(image: str, *command: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container that asks for little; a command of one word with spaces is for a shell."""
    line = ["sh", "-c", *command] if len(command) == 1 and " " in command[0] else list(command)
    told = {"command": line} if line else {}
    return {"name": name, "image": image, "resources": {"requests": SMALL}, **told, **more}


def pod(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod's spec that ends at once and mounts no token."""
    return {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": list(containers),
        **more,
    }


def deployment(spec: dict[str, Any], name: str = "app", replicas: int = 1, **more: Any) -> Object:
    """A Deployment; ``more`` goes to its spec."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            **more,
        },
    }


def stateful_set(spec: dict[str, Any], name: str = "store", replicas: int = 1, **more: Any) -> Object:
    """A StatefulSet; ``more`` goes to its spec."""
    return {**deployment(spec, name, replicas, serviceName=name, **more), "kind": "StatefulSet"}


def daemon_set(spec: dict[str, Any], name: str = "agent") -> Object:
    """A DaemonSet."""
    made = deployment(spec, name)
    del made["spec"]["replicas"]
    return {**made, "kind": "DaemonSet"}


def job(spec: dict[str, Any], name: str = "once", **more: Any) -> Object:
    """A Job that is tried once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {**spec, "restartPolicy": "Never"}}, **more},
    }


def service(name: str, port: int = 6379, selector: str = "") -> Object:
    """A Service of the pods that a workload of that name has."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": selector or name}, "ports": [{"port": port}]},
    }


def claim(name: str = "data", **more: Any) -> Object:
    """A small claim; ``more`` goes to its spec."""
    size = {"requests": {"storage": "16Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": size, **more},
    }


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> Object:
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def quota(**hard: str) -> Object:
    """A ResourceQuota."""
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": hard}}


def mounted(name: str, path: str, **source: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A volume, and its mount."""
    return {"name": name, **source}, {"name": name, "mountPath": path}


def executes(line: str, **more: Any) -> dict[str, Any]:
    """A probe that runs a line in a shell every second."""
    return {"exec": {"command": ["sh", "-c", line]}, "periodSeconds": 1, **more}


def connects(port: int, **more: Any) -> dict[str, Any]:
    """A probe that connects to a port every second."""
    return {"tcpSocket": {"port": port}, "periodSeconds": 1, **more}
