"""A real API server with its controllers, for the whole session, and a namespace for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from tests.support.control_plane import BINARY_VARIABLE, ControlPlane, find_binary
from tests.support.kubelet import PODS, end, wait_until

# Files whose tests take longest. Each file is one process's, and what is begun last must not be what lasts longest.
FIRST = ["test_release_role", "test_image_build", "test_migration_guarded", "test_strategies", "test_modules"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    here = Path(__file__).parent
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(FIRST)) if here in item.path.parents else -1)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd, API server and controller manager, without nodes. Tests may kill and restart the API server."""
    binary = find_binary()
    if binary is None:
        pytest.fail(f"there is no compiled Kubernetes: run `make build`, or name one in {BINARY_VARIABLE}")
    plane = ControlPlane(binary).start()
    try:
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    """The administrator's connection to it."""
    cluster = Cluster(ClusterAuth(kubeconfig=str(control_plane.kubeconfig)))
    yield cluster
    cluster.close()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, in which pods can be created at once."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    namespaces, accounts = cluster.resource("v1", "Namespace"), cluster.resource("v1", "ServiceAccount")
    cluster.create(namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    wait_until(lambda: cluster.get(accounts, "default", name))
    yield name
    for pod in cluster.list(PODS, name).items:
        end(cluster, pod)
    cluster.delete(namespaces, name)
