"""Small Kubernetes objects in the states that tests need."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object

CREATED = "2026-01-01T00:00:00Z"


def workload(
    name: str,
    kind: str = "Deployment",
    ready: bool = False,
    replicas: int = 1,
    env: dict[str, str] | None = None,
    **pod: Any,
) -> Object:
    """A workload whose controller has seen it, with pods that are ready or not."""
    env_list = [{"name": key, "value": value} for key, value in (env or {}).items()]
    spec = {"containers": [{"name": "main", "image": f"{name}:1", "env": env_list}], **pod}
    done = replicas if ready else 0
    status = {
        "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": done,
        "availableReplicas": done, "currentRevision": "r", "updateRevision": "r",
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "n", "uid": f"{kind}-{name}", "generation": 1,
                     "creationTimestamp": CREATED},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
        "status": status,
    }  # fmt: skip


def replica_set(of: Object) -> Object:
    """The ReplicaSet of a Deployment's template."""
    name = of["metadata"]["name"]
    owner = {"uid": of["metadata"]["uid"], "kind": "Deployment", "controller": True}
    metadata = {"name": f"{name}-1", "namespace": "n", "uid": f"rs-{name}", "ownerReferences": [owner]}
    return {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata,
        "spec": {"replicas": of["spec"]["replicas"], "template": of["spec"]["template"]}, "status": {},
    }  # fmt: skip


def pod(of: Object, number: int = 0, uid: str = "", created: str = CREATED, **status: Any) -> Object:
    """A pod of a workload."""
    name, kind = of["metadata"]["name"], of["kind"]
    owner = (
        {"uid": f"rs-{name}", "kind": "ReplicaSet"}
        if kind == "Deployment"
        else {"uid": of["metadata"]["uid"], "kind": kind}
    )
    metadata = {
        "name": f"{name}-{number}", "namespace": "n", "uid": uid or f"pod-{name}-{number}",
        "labels": {"app": name, "controller-revision-hash": "r"}, "creationTimestamp": created,
        "ownerReferences": [{**owner, "controller": True}],
    }  # fmt: skip
    spec = dict(of["spec"]["template"]["spec"])
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec,
        "status": {"phase": "Pending", "conditions": [], **status},
    }  # fmt: skip


def container(state: dict[str, Any], name: str = "main", **more: Any) -> dict[str, Any]:
    """The status of a container."""
    return {"name": name, "image": "i", "ready": False, "restartCount": 0, "state": state, **more}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The state of a container that waits."""
    return {"waiting": {"reason": reason, "message": message}}


def crashing(restarts: int, exit_code: int = 1, name: str = "main", reason: str = "Error") -> dict[str, Any]:
    """The status of a container that crashes and has been restarted so often."""
    last = {"terminated": {"exitCode": exit_code, "reason": reason}}
    return container(waiting("CrashLoopBackOff"), name, restartCount=restarts, lastState=last)


def running(ready: bool = True, **more: Any) -> dict[str, Any]:
    """The status of a container that runs."""
    # Long ago on the simulated clock, so that it need not be seen to run for a while.
    state = {"running": {"startedAt": "1970-01-01T00:00:00Z"}}
    return container(state, ready=ready, started=True, **more)


def ready_pod(of: Object, number: int = 0, **more: Any) -> Object:
    """A pod that is ready."""
    conditions = [{"type": "Ready", "status": "True"}]
    return pod(of, number, phase="Running", conditions=conditions, containerStatuses=[running(**more)])


def event(
    about: Object, reason: str, message: str = "", kind: str = "Warning", at: str = CREATED, **more: Any
) -> Object:
    """An event about an object."""
    metadata = {"name": f"{about['metadata']['name']}.{reason}", "namespace": "n", "uid": f"event-{reason}-{at}"}
    return {
        "apiVersion": "v1", "kind": "Event", "metadata": {**metadata, **more.pop("metadata", {})},
        "involvedObject": {"uid": about["metadata"]["uid"]}, "reason": reason, "message": message, "type": kind,
        "lastTimestamp": at, "count": 2, **more,
    }  # fmt: skip


def service(name: str, app: str = "") -> Object:
    """A Service in front of a workload."""
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "n", "uid": f"svc-{name}", "generation": 1},
        "spec": {"selector": {"app": app or name}, "clusterIP": "10.96.0.7"}, "status": {},
    }  # fmt: skip


def endpoints(of: str, ready: bool = True) -> Object:
    """The endpoints of a Service."""
    metadata = {"name": of, "namespace": "n", "uid": f"es-{of}", "labels": {"kubernetes.io/service-name": of}}
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "endpoints": [{"conditions": {"ready": ready}}],
    }  # fmt: skip


def custom(api_version: str, kind: str, name: str, spec: Any = None, status: Any = None, **metadata: Any) -> Object:
    """Any other object."""
    return {
        "apiVersion": api_version, "kind": kind, "spec": spec or {}, "status": status or {},
        "metadata": {"name": name, "namespace": "n", "uid": f"{kind}-{name}", "generation": 1, **metadata},
    }  # fmt: skip
