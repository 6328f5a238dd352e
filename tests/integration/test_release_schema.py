# ruff: noqa: S608 - SQL of the tests' own
"""Returns that depend on the database's schema: a real API server and a real PostgreSQL; the nodes are played."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils import pod_exec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.migration.record import Records
from ansible_collections.groundwork.platform.plugins.module_utils.release import schema as schemas
from ansible_collections.groundwork.platform.plugins.module_utils.release.failing import handle
from tests.integration.test_release import Shop, healthy, manifests, wanted
from tests.support import postgres
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import PODS, Kubelet
from tests.support.pod_runner import PodRunner
from tests.support.postgres import Server

pytestmark = pytest.mark.skipif(
    postgres.find_programs() is None,
    reason=f"no PostgreSQL: apt-get install postgresql, or name its programs' folder in {postgres.VARIABLE}",
)
DATABASE = {"cluster": "postgres", "name": "shop", "tool": "alembic"}
DROP = [{"kind": "loses_data", "statement": "DROP TABLE items", "why": "drops table items", "line": 1}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres.running() as one:
        yield one


class Site(Shop):
    """A shop with a database, whose migrations a test plays."""

    def __init__(self, cluster: Cluster, namespace: str, server: Server) -> None:
        super().__init__(cluster, namespace)
        self.server = server

    def at(self, revision: str) -> None:
        """Bring the database's schema to a revision, whoever does it."""
        self.server.sql("DELETE FROM alembic_version", f"INSERT INTO alembic_version VALUES ('{revision}')")

    def migrated(self, version: str, before: str, after: str, destructive: Any = ()) -> None:
        """A release with a migration."""
        self.at(after)
        schema = {"revision": after, "revision_before": before, "action": "run", "destructive": list(destructive)}
        self.release(manifests(version), schema={**schema, "database": DATABASE})


@pytest.fixture
def site(cluster: Cluster, namespace: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    server.sql("DROP TABLE IF EXISTS alembic_version", "CREATE TABLE alembic_version (version_num text)")
    good = healthy(":bad")

    def nodes(pod: Object) -> dict[str, Any] | None:
        return None if "cnpg.io/cluster" in (pod["metadata"].get("labels") or {}) else good(pod)

    with PodRunner(cluster, namespace, {}) as runner, Kubelet(cluster, namespace, nodes):
        monkeypatch.setattr(pod_exec, "run", runner.exec)
        runner.primary("postgres", server.environment("postgres"))
        made = Site(cluster, namespace, server)
        made.migrated("1", "", "0001")
        yield made


def test_the_revision_is_read_in_the_primary(site: Site) -> None:
    site.migrated("2", "0001", "0002")
    outcome = site.releases().rollback()
    assert (outcome.restores, outcome.notes) == (1, [])
    assert outcome.schema == {"revision": "0002", "source": "database", "unread": ""}
    assert site.store.list()[0].schema == {"revision": "0002", "action": "unchanged", "database": DATABASE}


def test_somebody_who_migrated_by_hand_is_noticed(site: Site) -> None:
    site.migrated("2", "0001", "0002")
    site.at("0003")
    for check_mode in (True, False):
        with pytest.raises(Failure) as caught:
            site.releases(check_mode=check_mode).rollback()
        assert caught.value.code == "schema_unknown"
        assert "it is at revision 0003" in caught.value.sentence
        assert "somebody has migrated by hand" in caught.value.sentence
    assert site.image() == "shop/api:2"
    assert site.outcomes() == {1: "superseded", 2: "deployed"}
    # What the module migration has run outside of a release is no secret to anybody.
    step = {"outcome": "succeeded", "finished": "2026-01-01T00:00:00Z", "destructive": []}
    Records(site.cluster, site.namespace).write("m", {**step, "revision": {"before": "0002", "after": "0003"}})
    outcome = site.releases(check_mode=True).rollback()
    assert outcome.notes == [
        "the schema is at revision 0003, while release 2 left it at 0002: it was changed by something else"
    ]
    site.at("0004")
    outcome = site.releases().rollback(expand_only=True)
    assert outcome.restores == 1
    assert "which was declared to only add" in " ".join(outcome.notes)
    assert site.store.list()[0].schema["revision"] == "0004"


def test_a_schema_that_was_taken_back_counts_as_it_is(site: Site) -> None:
    site.migrated("2", "0001", "0002", DROP)
    with pytest.raises(Failure, match="DROP TABLE items") as caught:
        site.releases().rollback()
    assert caught.value.code == "schema_newer"
    site.at("0001")
    assert site.releases().rollback().restores == 1


def test_a_release_that_fails_asks_too(site: Site) -> None:
    schema = {"revision": "0002", "revision_before": "0001", "action": "run", "destructive": [], "database": DATABASE}
    site.at("0009")
    with pytest.raises(Failure) as caught:
        site.release(manifests("bad"), schema=schema)
    handled = handle(site.releases(), wanted(manifests("bad"), schema=schema), caught.value, "rollback")
    assert handled.action == "kept"
    assert "Release 2 stays as it is: Release 1 cannot run" in handled.sentence
    assert "somebody has migrated by hand" in handled.sentence
    site.at("0002")
    handled = handle(site.releases(), wanted(manifests("bad"), schema=schema), caught.value, "rollback")
    assert handled.action == "rolled_back", handled.sentence


def test_without_a_primary_the_record_counts_and_that_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "ATTEMPTS", 1)
    site.migrated("2", "0001", "0002")
    site.at("0009")
    site.cluster.delete(PODS, "postgres-1", site.namespace)
    outcome = site.releases().rollback()
    assert outcome.restores == 1
    assert outcome.schema is not None
    assert (outcome.schema["revision"], outcome.schema["source"]) == ("0002", "record")
    assert "could not be asked for its revision, since Cluster" in outcome.notes[0]
    assert "has no running primary" in outcome.notes[0]


def test_who_may_not_look_into_pods_falls_back_on_the_record(
    site: Site, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.migrated("2", "0001", "0002")
    everything = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
    groups = ["", "apps", "coordination.k8s.io", "autoscaling", "policy", "discovery.k8s.io", "events.k8s.io", "batch"]
    resources = [{"apiGroups": groups, "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    for kind in ("secrets", "configmaps", "services", "deployments", "leases"):
        resources.append({"apiGroups": groups, "resources": [kind], "verbs": everything})
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": "releaser", "namespace": site.namespace}
    subject = {"kind": "User", "name": "writer", "apiGroup": rbac}
    reference = {"kind": "Role", "name": "releaser", "apiGroup": rbac}
    for kind, more in (("Role", {"rules": resources}), ("RoleBinding", {"subjects": [subject], "roleRef": reference})):
        made = {"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": metadata, **more}
        site.cluster.create(site.cluster.resource(f"{rbac}/v1", kind), made)
    # The server itself refuses to run anything in the pod.
    monkeypatch.undo()
    writer = Site(
        Cluster(ClusterAuth(kubeconfig=str(control_plane.user_kubeconfig("writer")))), site.namespace, site.server
    )
    outcome = writer.releases().rollback()
    assert outcome.restores == 1
    assert "is refused with status 403" in outcome.notes[0]
    assert outcome.schema is not None
    assert outcome.schema["source"] == "record"
