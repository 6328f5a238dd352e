"""Releases on a real API server with real controllers; what nodes would do, the test writes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import (
    Cluster,
    ClusterAuth,
    Object,
    WatchEvent,
)
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health import watching
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, GateFailed, Verdict
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from tests.support import kubelet
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import Behaviour, Kubelet, wait_until
from tests.support.listening import Listener, Overheard


def deployment(image: str = "app:1", replicas: int = 2, **pod: Any) -> Object:
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "api"}},
            "template": {
                "metadata": {"labels": {"app": "api"}},
                "spec": {"containers": [{"name": "main", "image": image}], "terminationGracePeriodSeconds": 0, **pod},
            },
        },
    }  # fmt: skip


def service() -> Object:
    spec = {"selector": {"app": "api"}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": spec}


def stateful_set(replicas: int = 2) -> Object:
    spec = {**deployment()["spec"], "replicas": replicas, "serviceName": "db"}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}


def release(cluster: Cluster, namespace: str, *objects: Object, **options: Any) -> Verdict:
    """Apply and gate, as the apply module does."""
    items = Applier(cluster, namespace).run(list(objects))
    return Gate(cluster, [item.obj for item in items], **{"timeout": 30, **options}).run()


def condemned(action: Callable[[], Any]) -> GateFailed:
    """The failure of a gate."""
    with pytest.raises(GateFailed) as caught:
        action()
    return caught.value


def grace_of(failure: GateFailed) -> float:
    """Seconds from when the first reason was first seen to when it was certain, as the gate noted them.

    The verdict came then and with no deadline, or there would be no such moment.
    """
    told = failure.as_dict()
    assert told["first_seen"] <= told["certain"] <= told["seconds"]
    return float(told["certain"] - told["first_seen"])


def test_a_healthy_release(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace):
        verdict = release(cluster, namespace, deployment(), service(), stateful_set())
        assert verdict.healthy
        assert {item["state"] for item in verdict.objects} == {"ready"}
        # Nothing to wait for the second time.
        said = Listener()
        assert release(cluster, namespace, deployment(), service(), stateful_set(), progress=said).healthy
        assert said.lines == []


def test_requests_do_not_grow_with_pods(cluster: Cluster, namespace: str) -> None:
    with Kubelet(Cluster(ClusterAuth(kubeconfig=cluster.connection.source.split()[-1])), namespace) as nodes:
        items = Applier(cluster, namespace).run([deployment(replicas=2)])
        before = cluster.transport.requests
        Gate(cluster, [item.obj for item in items], 30).run()
        few = cluster.transport.requests - before
        items = Applier(cluster, namespace).run([deployment(replicas=40)])
        before = cluster.transport.requests
        Gate(cluster, [item.obj for item in items], 60).run()
        assert cluster.transport.requests - before <= few + 2
        assert len(nodes.pods()) == 40


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        (kubelet.waiting("InvalidImageName", "couldn't parse image reference"), "image_invalid", "invalid image"),
        (kubelet.waiting("ErrImagePull", 'failed to resolve "app:1": not found'), "image_not_found", "app:1"),
        (kubelet.waiting("ErrImagePull", "pull access denied, authorization failed"), "image_denied", "app:1"),
        (kubelet.crashing(3, 137, "OOMKilled"), "out_of_memory", "memory"),
        (kubelet.crashing(5, 2), "crash_loop", "exit code 2"),
    ],
)
def test_a_certain_failure_is_told_when_it_is_seen(
    cluster: Cluster, namespace: str, behaviour: Behaviour, code: str, words: str
) -> None:
    with Kubelet(cluster, namespace, behaviour):
        failure = condemned(lambda: release(cluster, namespace, deployment(), service(), timeout=60))
    assert failure.code == code
    assert failure.object == f"Deployment {namespace}/api"
    assert words in failure.sentence
    chain = failure.as_dict()["chain"]
    assert [step.split()[0] for step in chain] == ["Deployment", "ReplicaSet", "Pod", "container"]
    assert grace_of(failure) == 0


def test_a_missing_secret_has_a_short_grace(cluster: Cluster, namespace: str) -> None:
    behaviour = kubelet.waiting("CreateContainerConfigError", 'secret "credentials" not found')
    with Kubelet(cluster, namespace, behaviour):
        targets = _applied(cluster, namespace, deployment())
        failure = condemned(lambda: Gate(cluster, targets, 60, policy=Policy(config=2)).run())
    assert failure.code == "config_missing"
    assert "credentials" in failure.evidence
    assert grace_of(failure) == pytest.approx(2)


def test_a_secret_that_has_come_is_left_to_the_kubelet_to_find(cluster: Cluster, namespace: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "data": {"password": "eA=="}}
    behaviour = kubelet.waiting("CreateContainerConfigError", "couldn't find key password in Secret x/credentials")
    with Kubelet(cluster, namespace, behaviour) as nodes:
        targets = _applied(cluster, namespace, secret, deployment())
        gate, verdicts = Gate(cluster, targets, 300, policy=Policy(config=0.0)), list[Verdict]()
        thread = threading.Thread(target=lambda: verdicts.append(gate.run()))
        thread.start()
        # It has asked, and is none the worse for the kubelet's words.
        wait_until(lambda: gate.judge.answers, 60)
        nodes.now_behave(kubelet.ready)
        thread.join(250)
    assert verdicts[0].healthy


def _applied(cluster: Cluster, namespace: str, *objects: Object) -> list[Object]:
    return [item.obj for item in Applier(cluster, namespace).run(list(objects))]


def test_what_heals_is_not_condemned(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace, kubelet.waiting("ErrImagePull", "dial tcp: i/o timeout")) as nodes:
        said = Listener()
        said.on("cannot pull its image", lambda: nodes.now_behave(kubelet.crashing(1)))
        said.on("crashes", lambda: nodes.now_behave(kubelet.ready))
        assert release(cluster, namespace, deployment(), timeout=120, progress=said).healthy


def test_pods_of_the_old_revision_do_not_count(cluster: Cluster, namespace: str) -> None:
    with Kubelet(cluster, namespace, kubelet.crashing(9)) as nodes:
        _applied(cluster, namespace, deployment("app:broken"))
        wait_until(lambda: len(nodes.pods()) == 2)

        def behave(pod: Object) -> dict[str, Any]:
            broken = pod["spec"]["containers"][0]["image"] == "app:broken"
            return kubelet.crashing(9)(pod) if broken else kubelet.ready(pod)

        nodes.now_behave(behave)
        assert release(cluster, namespace, deployment("app:mended"), timeout=40).healthy


def test_pod_security_refuses_the_pods(cluster: Cluster, namespace: str) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    cluster.merge(cluster.resource("v1", "Namespace"), namespace, None, labels)
    failure = condemned(lambda: release(cluster, namespace, deployment(), timeout=30))
    assert failure.code == "pod_security"
    assert "allowPrivilegeEscalation" in failure.evidence
    assert grace_of(failure) == 0


def test_a_quota_that_is_used_up_is_named_after_its_grace(cluster: Cluster, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "1"}},
    }
    _applied(cluster, namespace, quota)
    quotas = cluster.resource("v1", "ResourceQuota")
    wait_until(lambda: (cluster.get(quotas, "small", namespace) or {})["status"]["hard"])
    with Kubelet(cluster, namespace):
        targets = _applied(cluster, namespace, deployment(replicas=2))
        failure = condemned(lambda: Gate(cluster, targets, 30, policy=Policy(admission=2)).run())
    assert failure.code == "quota_exceeded"
    assert "small" in failure.evidence
    assert grace_of(failure) == pytest.approx(2)


def test_a_stateful_set_whose_pods_are_refused(cluster: Cluster, namespace: str) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    cluster.merge(cluster.resource("v1", "Namespace"), namespace, None, labels)
    failure = condemned(lambda: release(cluster, namespace, stateful_set(), timeout=30))
    assert failure.code == "pod_security"
    assert failure.object == f"StatefulSet {namespace}/db"


def test_unschedulable_pods_and_the_timeout_name_their_reason(cluster: Cluster, namespace: str) -> None:
    behaviour = kubelet.unschedulable("0/3 nodes are available: 3 Insufficient cpu.")
    with Kubelet(cluster, namespace, behaviour):
        targets = _applied(cluster, namespace, deployment())
        failure = condemned(lambda: Gate(cluster, targets, 30, policy=Policy(schedule=2)).run())
        assert failure.code == "unschedulable"
        assert "Insufficient cpu" in failure.evidence
        assert grace_of(failure) == pytest.approx(2)
        failure = condemned(lambda: Gate(cluster, targets, 2).run())
        assert failure.code == "timeout"
        assert "finds no node" in failure.cause
        assert failure.as_dict()["certain"] is None
        assert failure.seconds >= 2


def test_a_service_that_selects_nothing(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = "ansible_collections.groundwork.platform.plugins.module_utils.health.rules"
    monkeypatch.setattr(f"{rules}.SELECTOR_GRACE", 1.0)
    wrong = service()
    wrong["spec"]["selector"] = {"app": "apy"}
    with Kubelet(cluster, namespace):
        failure = condemned(lambda: release(cluster, namespace, deployment(), wrong))
    assert failure.code == "no_endpoints"
    assert "app=apy" in failure.cause


def test_a_failed_job_and_a_completed_one(cluster: Cluster, namespace: str) -> None:
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "app:1"}]}},
        },
    }  # fmt: skip
    with Kubelet(cluster, namespace, kubelet.failed):
        failure = condemned(lambda: release(cluster, namespace, job))
    assert failure.code == "job_failed"
    assert "exit code 3" in failure.sentence
    other = {**job, "metadata": {"name": "other"}}
    with Kubelet(cluster, namespace, kubelet.succeeded):
        assert release(cluster, namespace, other).healthy


def test_stays_healthy(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def restarted(pod: Object) -> dict[str, Any]:
        status = kubelet.ready(pod)
        status["containerStatuses"][0]["restartCount"] = 1
        return status

    monkeypatch.setattr(Overheard, "events", list[WatchEvent](), raising=False)
    monkeypatch.setattr(watching, "Watcher", Overheard)
    with Kubelet(cluster, namespace) as nodes:

        def restart() -> None:
            nodes.now_behave(restarted)
            # The gate goes on when the news is there.
            wait_until(lambda: '"restartCount": 1' in json.dumps([item.objects for item in Overheard.events]), 60)

        said = Listener().on("stay so", restart)
        targets = _applied(cluster, namespace, deployment())
        verdict = Gate(cluster, targets, 120, stable_for=2, progress=said).run()
    assert "until a container was restarted" in verdict.notes[-1]


def test_the_api_server_is_killed_in_the_middle_of_a_gate(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    with Kubelet(cluster, namespace, lambda pod: None) as nodes:
        targets = _applied(cluster, namespace, deployment(), service())
        wait_until(lambda: len(nodes.pods()) == 2)
        results, said = list[Verdict](), Listener()
        gate = Gate(cluster, targets, 120, progress=said)
        thread = threading.Thread(target=lambda: results.append(gate.run()))
        thread.start()
        said.wait("waiting for")
        control_plane.kill("kube-apiserver")
        said.wait("does not answer")
        control_plane.revive()
        nodes.now_behave(kubelet.ready)
        thread.join(100)
        assert results
        assert results[0].healthy


def test_a_deleted_target_ends_the_wait(cluster: Cluster, namespace: str) -> None:
    targets = _applied(cluster, namespace, deployment())
    deployments = cluster.resource("apps/v1", "Deployment")
    said = Listener().on("waiting for", lambda: cluster.delete(deployments, "api", namespace))
    failure = condemned(lambda: Gate(cluster, targets, 120, progress=said).run())
    assert failure.code in ("deleted", "terminating")
    assert grace_of(failure) == 0


def test_what_only_has_to_exist_is_waited_for(cluster: Cluster, namespace: str) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace}}
    failure = condemned(lambda: Gate(cluster, [settings], 2).run())
    assert "does not exist" in failure.cause
    config_maps = cluster.resource("v1", "ConfigMap")
    said = Listener().on("does not exist", lambda: cluster.create(config_maps, settings))
    assert Gate(cluster, [settings], 120, progress=said).run().healthy


def test_one_look_does_not_wait(cluster: Cluster, namespace: str) -> None:
    said = Listener()
    verdict = Gate(cluster, _applied(cluster, namespace, deployment()), 30, progress=said).look()
    assert not verdict.healthy
    assert verdict.objects[0]["state"] == "progressing"
    assert said.lines == []


def test_kinds_that_may_not_be_read_are_said_and_not_fatal(
    control_plane: ControlPlane, cluster: Cluster, namespace: str
) -> None:
    roles = cluster.resource("rbac.authorization.k8s.io/v1", "Role")
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "some", "namespace": namespace},
    }
    cluster.create(roles, {**role, "rules": [rule]})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "some", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "some"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "writer"}],
    }  # fmt: skip
    cluster.create(cluster.resource("rbac.authorization.k8s.io/v1", "RoleBinding"), binding)
    limited = Cluster(ClusterAuth(kubeconfig=str(control_plane.user_kubeconfig("writer"))))
    with Kubelet(cluster, namespace):
        targets = _applied(cluster, namespace, deployment(), service())
        verdict = Gate(limited, targets, 30).run()
    assert verdict.healthy
    assert any("Service" in note and "cannot list resource" in note for note in verdict.notes)


def test_a_stopped_api_server_is_told(control_plane: ControlPlane, cluster: Cluster, namespace: str) -> None:
    targets = _applied(cluster, namespace, deployment())
    control_plane.kill("kube-apiserver")
    try:
        with pytest.raises(Failure) as caught:
            Gate(cluster, targets, 4).run()
        assert caught.value.code == "unreachable"
    finally:
        control_plane.revive()


def own_address() -> str:
    """An address of this machine that is not loopback: an API server proxies to no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only chooses the address it would send from.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


class Page(BaseHTTPRequestHandler):
    """Answers 503 until it is told otherwise."""

    status = 503

    def do_GET(self) -> None:
        body = json.dumps({"database": "up" if self.status == 200 else "down", "path": self.path}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def page(cluster: Cluster, namespace: str) -> Iterator[type[Page]]:
    """A Service with one endpoint, on this machine."""
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback, to which an API server does not proxy")
    handler = type("OwnPage", (Page,), {"status": 503})
    server = ThreadingHTTPServer((address, 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    port = server.server_address[1]
    # The API server proxies to addresses of pods only: this one has this machine's.
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "page", "labels": {"app": "page"}},
        "spec": {"containers": [{"name": "main", "image": "app:1"}], "terminationGracePeriodSeconds": 0},
    }  # fmt: skip
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    spec = {"selector": {"app": "page"}, "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "page"}, "spec": spec}
    made, _service = _applied(cluster, namespace, pod, service)
    kubelet.bind(cluster, {**made, "metadata": {**made["metadata"], "namespace": namespace}})
    status = {**kubelet.ready(pod), "podIP": address, "podIPs": [{"ip": address}]}
    cluster.merge(kubelet.PODS, "page", namespace, {"status": status}, subresource="status")
    proxy = f"/api/v1/namespaces/{namespace}/services/page:http/proxy/"
    wait_until(lambda: b"database" in cluster.transport.exchange("GET", proxy).body, 60)
    yield handler
    server.shutdown()
    server.server_close()


def through_the_service(namespace: str, **more: Any) -> Options:
    gate = {
        "name": "page",
        "service": {"name": "page", "port": "http"},
        "path": "/health?deep=1",
        "interval": 0.5,
        **more,
    }
    return Options.from_params({"http_gates": [gate]}, 60, namespace)


def test_an_http_gate_goes_through_the_api_server(cluster: Cluster, namespace: str, page: type[Page]) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    targets = _applied(cluster, namespace, settings)
    failure = condemned(lambda: Gate(cluster, targets, options=through_the_service(namespace, grace=1)).run())
    assert failure.code == "http_check_failed"
    assert "answers 503, not 200" in failure.evidence
    said = Listener().on("answers 503", lambda: setattr(page, "status", 200))
    options = through_the_service(namespace, body="database == 'up' && path == '/health?deep=1'", successes=2)
    verdict = Gate(cluster, targets, options=options, progress=said).run()
    assert verdict.healthy
    assert "answers 200" in verdict.checks[0]["message"]


def test_whoever_may_not_use_the_proxy_is_told_what_to_grant(
    control_plane: ControlPlane, cluster: Cluster, namespace: str, page: type[Page]
) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    targets = _applied(cluster, namespace, settings)
    nobody = Cluster(ClusterAuth(kubeconfig=str(control_plane.user_kubeconfig("nobody"))))
    options = through_the_service(namespace, grace=1)
    failure = condemned(lambda: Gate(nobody, targets, options=options, existing=True).run())
    assert "services/proxy" in failure.sentence
    nobody.close()
