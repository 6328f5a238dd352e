"""What happens to a release from outside while it is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import ApiError, Cluster, Object, Resource

Action = Callable[[Cluster, str], None]
_PLURALS = {
    "Namespace": ("namespaces", False),
    "Node": ("nodes", False),
    "Pod": ("pods", True),
    "Deployment": ("deployments", True),
    "StorageClass": ("storageclasses", False),
    "ResourceQuota": ("resourcequotas", True),
    "ValidatingAdmissionPolicy": ("validatingadmissionpolicies", False),
    "ValidatingAdmissionPolicyBinding": ("validatingadmissionpolicybindings", False),
    "ValidatingWebhookConfiguration": ("validatingwebhookconfigurations", False),
}
# Cluster-wide objects that a case may make; they have the name of its namespace.
_WIDE = [
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("storage.k8s.io/v1", "StorageClass"),
]


def resource(api_version: str, kind: str) -> Resource:
    """A resource that the catalogue uses."""
    group, _slash, version = api_version.rpartition("/")
    plural, namespaced = _PLURALS[kind]
    return Resource(group, version, kind, plural, namespaced)


def after(seconds: float, *actions: Action) -> Action:
    """Do these once so many seconds have passed."""

    def act(cluster: Cluster, namespace: str) -> None:
        time.sleep(seconds)
        for action in actions:
            action(cluster, namespace)

    return act


def create(*objects: Object) -> Action:
    """Apply objects."""

    def act(cluster: Cluster, namespace: str) -> None:
        Applier(cluster, namespace).run(list(objects))

    return act


def delete(api_version: str, kind: str, name: str) -> Action:
    """Delete an object."""

    def act(cluster: Cluster, namespace: str) -> None:
        cluster.delete(resource(api_version, kind), name, namespace)

    return act


def delete_pods(cluster: Cluster, namespace: str) -> None:
    """Delete every pod that there is."""
    for pod in cluster.list(resource("v1", "Pod"), namespace).items:
        cluster.delete(resource("v1", "Pod"), pod["metadata"]["name"], namespace)


def clean(cluster: Cluster, namespace: str) -> None:
    """Remove a case's namespace and what it made for the whole cluster; nothing may hold it."""
    for api_version, kind in _WIDE:
        _remove(cluster, resource(api_version, kind), namespace)
    _remove(cluster, resource("v1", "Namespace"), namespace)
    for node in cluster.list(resource("v1", "Node")).items:
        labels = {key: None for key in node["metadata"]["labels"] if key.endswith(f"/{namespace}")}
        if labels:
            cluster.merge(resource("v1", "Node"), node["metadata"]["name"], None, {"metadata": {"labels": labels}})
    pods = resource("v1", "Pod")
    for pod in cluster.list(pods, namespace).items:
        if pod["metadata"].get("finalizers"):
            with _absence_is_fine():
                cluster.merge(pods, pod["metadata"]["name"], namespace, {"metadata": {"finalizers": None}})


def _remove(cluster: Cluster, kind: Resource, name: str) -> None:
    with _absence_is_fine():
        cluster.delete(kind, name, None)


@contextlib.contextmanager
def _absence_is_fine() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise
