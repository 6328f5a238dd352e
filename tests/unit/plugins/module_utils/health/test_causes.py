"""What waits for what, found in the objects, their settings and their logs."""

from __future__ import annotations

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health.causes import CONNECTION, Causes, common_cause
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Diagnosis
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Signal
from tests.support.objects import container, custom, pod, service, waiting, workload


def crash(of: Object, code: str = "crash_loop", evidence: str = "", cause: str = "crashes") -> Diagnosis:
    broken = pod(of, containerStatuses=[container(waiting("CrashLoopBackOff"))])
    signal = Signal(code, ("pod",), "container main of Pod n/x", cause, evidence, pod=broken, container="main")
    name = f"{of['kind']} n/{of['metadata']['name']}"
    return Diagnosis(code, name, cause, evidence, signal=signal, kind=of["kind"])


def log(of: Object, *lines: str) -> dict[tuple[str, str], list[str]]:
    return {(f"pod-{of['metadata']['name']}-0", "main"): list(lines)}


API = workload("api")
DB = workload("db", "StatefulSet")


@pytest.mark.parametrize(
    "line",
    [
        'psycopg.OperationalError: connection to server at "db" (10.96.0.7), port 5432 failed: Connection refused',
        'could not translate host name "db.n" to address: Name or service not known',
        "dial tcp: lookup db.n.svc.cluster.local: no such host",
        "dial tcp 10.96.0.7:5432: connect: connection refused",
        "Error 111 connecting to db:6379. Connection refused.",
        "redis.exceptions.BusyLoadingError: LOADING db is loading the dataset in memory",
        "Error: getaddrinfo ENOTFOUND db",
        "java.net.SocketTimeoutException: db:8080: timed out",
        "db:5432 - no response",
        "waiting for db ...",
    ],
)
def test_a_log_that_names_a_service_of_the_set(line: str) -> None:
    causes = Causes([API, DB, service("db")])
    assert causes.needs(crash(API), log(API, "starting up the application", line)) == {"StatefulSet n/db"}


@pytest.mark.parametrize("line", ["KeyError: 'db'", "created table db", "listening on 0.0.0.0:8000"])
def test_a_log_about_something_else(line: str) -> None:
    assert not CONNECTION.search(line)
    causes = Causes([workload("api", env={"HOST": "db"}), DB, service("db")])
    assert causes.needs(crash(API), log(API, line)) == set()


@pytest.mark.parametrize("host", ["db", "db.n", "db.n.svc", "db.n.svc.cluster.local", "10.96.0.7"])
def test_without_a_log_the_settings_say_whom_it_talks_to(host: str) -> None:
    api = workload("api", env={"DATABASE_URL": f"postgresql://app@{host}:5432/app"})
    assert Causes([api, DB, service("db")]).needs(crash(api), {}) == {"StatefulSet n/db"}


def test_a_name_in_another_namespace_is_another_one() -> None:
    api = workload("api", env={"HOST": "db.elsewhere.svc"})
    assert Causes([api, DB, service("db")]).needs(crash(api), {}) == set()


def test_an_init_container_that_waits_for_a_store() -> None:
    wait = {"name": "main", "image": "i", "command": ["sh", "-c", "until pg_isready -h pg-rw; do sleep 1; done"]}
    api = workload("api", initContainers=[wait], containers=[{"name": "api", "image": "i"}])
    store = custom("postgresql.cnpg.io/v1", "Cluster", "pg")
    assert Causes([api, store]).needs(crash(api, "init_waiting"), {}) == {"Cluster n/pg"}


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        (custom("external-secrets.io/v1", "ExternalSecret", "x", {"target": {"name": "keys"}}),
         'secret "keys" not found'),
        (custom("external-secrets.io/v1", "ExternalSecret", "keys"), 'secret "keys" not found'),
        (custom("cert-manager.io/v1", "Certificate", "x", {"secretName": "keys"}), 'secret "keys" not found'),
        (custom("postgresql.cnpg.io/v1", "Cluster", "pg"), 'secret "pg-app" not found'),
        (custom("bitnami.com/v1alpha1", "SealedSecret", "keys"), 'secret "keys" not found'),
        (custom("v1", "ConfigMap", "keys"), "couldn't find key url in ConfigMap n/keys"),
    ],
)  # fmt: skip
def test_who_makes_a_missing_secret(maker: Object, message: str) -> None:
    found = Causes([API, maker]).needs(crash(API, "config_missing", message), {})
    assert found == {f"{maker['kind']} n/{maker['metadata']['name']}"}


@pytest.mark.parametrize(
    ("waiter", "needed"),
    [
        (custom("external-secrets.io/v1", "ExternalSecret", "x", {"secretStoreRef": {"name": "vault"}}),
         custom("external-secrets.io/v1", "SecretStore", "vault")),
        (custom("cert-manager.io/v1", "Certificate", "x", {"issuerRef": {"name": "ca"}}),
         custom("cert-manager.io/v1", "Issuer", "ca")),
        (custom("autoscaling/v2", "HorizontalPodAutoscaler", "x", {"scaleTargetRef": {"name": "api"}}), API),
        (custom("gateway.networking.k8s.io/v1", "HTTPRoute", "x", {"parentRefs": [{"name": "edge"}]}),
         custom("gateway.networking.k8s.io/v1", "Gateway", "edge")),
        (custom("gateway.networking.k8s.io/v1", "HTTPRoute", "x", {"rules": [{"backendRefs": [{"name": "web"}]}]}),
         service("web")),
        (custom("networking.k8s.io/v1", "Ingress", "x", {"rules": [{"http": {"paths": [
            {"backend": {"service": {"name": "web"}}}]}}]}), service("web")),
        (custom("apiregistration.k8s.io/v1", "APIService", "x", {"service": {"namespace": "n", "name": "web"}}),
         service("web")),
        (service("api"), API),
    ],
)  # fmt: skip
def test_what_an_object_names_in_its_spec(waiter: Object, needed: Object) -> None:
    name = f"{waiter['kind']} n/{waiter['metadata']['name']}"
    found = Causes([waiter, needed]).needs(Diagnosis("x", name, "is not ready", kind=waiter["kind"]), {})
    assert found == {f"{needed['kind']} n/{needed['metadata']['name']}"}


def test_a_claim_before_its_pods() -> None:
    claim = custom("v1", "PersistentVolumeClaim", "data")
    found = Causes([API, claim]).needs(
        crash(API, "claim_unbound", cause="PersistentVolumeClaim n/data is not bound"), {}
    )
    assert found == {"PersistentVolumeClaim n/data"}


def test_a_webhook_that_does_not_answer_is_its_service() -> None:
    guard = workload("guard")
    message = 'failed calling webhook "v.x": Post "https://guard.n.svc:443/validate": connection refused'
    found = Causes([API, guard, service("guard")]).needs(crash(API, "webhook_unavailable", message), {})
    assert found == {"Deployment n/guard"}


def test_an_image_that_does_not_exist_waits_for_nobody() -> None:
    api = workload("api", env={"HOST": "db"})
    assert Causes([api, DB, service("db")]).needs(crash(api, "image_not_found"), {}) == set()


def test_a_chain_ends_at_its_root() -> None:
    secret = custom("external-secrets.io/v1", "ExternalSecret", "keys", {"secretStoreRef": {"name": "vault"}})
    store = custom("external-secrets.io/v1", "SecretStore", "vault")
    causes = Causes([API, secret, store])
    found = causes.order(
        [
            crash(API, "config_missing", 'secret "keys" not found'),
            Diagnosis("secret_sync_failed", "ExternalSecret n/keys", "is not Ready"),
            Diagnosis("secret_store_failed", "SecretStore n/vault", "is not Ready"),
        ],
        {},
    )
    assert [(item.target, item.because) for item in found] == [
        ("SecretStore n/vault", ""),
        ("ExternalSecret n/keys", "SecretStore n/vault"),
        ("Deployment n/api", "SecretStore n/vault"),
    ]


def test_two_that_wait_for_each_other_have_one_root() -> None:
    api, web = workload("api", env={"WEB": "web"}), workload("web", env={"API": "api"})
    found = Causes([api, web, service("api"), service("web")]).order([crash(api), crash(web)], {})
    assert [(item.target, item.because) for item in found] == [
        ("Deployment n/api", ""), ("Deployment n/web", "Deployment n/api"),
    ]  # fmt: skip


def test_the_root_of_most_comes_first() -> None:
    apps = [workload(f"app-{number}", env={"HOST": "db"}) for number in range(3)]
    alone = crash(workload("alone"), "image_invalid")
    found = Causes([*apps, DB, service("db"), workload("alone")]).order(
        [alone, *(crash(app) for app in apps), crash(DB, "out_of_memory")], {}
    )
    assert [item.target for item in found if not item.because] == ["StatefulSet n/db", "Deployment n/alone"]


@pytest.mark.parametrize(
    ("code", "cause", "evidence", "label"),
    [
        ("config_missing", "lacks", 'secret "keys" not found', "Secret n/keys"),
        ("quota_exceeded", "", "forbidden: exceeded quota: small, requested: pods=1", "ResourceQuota n/small"),
        ("image_not_found", "asks for an image that does not exist: a/b:1", "", "image a/b:1"),
        ("image_pull", "cannot pull its image a/b:1", "", "image a/b:1"),
        ("service_account_missing", "", 'serviceaccount "robot" not found', "ServiceAccount n/robot"),
        ("webhook_unavailable", "", 'failed calling webhook "v.x": refused', "webhook v.x"),
        ("unschedulable", "finds no node", "Insufficient cpu", "room on the nodes"),
        ("crash_loop", "crashes", "", ""),
    ],
)
def test_what_several_may_lack(code: str, cause: str, evidence: str, label: str) -> None:
    assert common_cause(Diagnosis(code, "Deployment n/api", cause, evidence)) == label
