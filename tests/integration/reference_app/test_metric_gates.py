"""Metric and HTTP gates on the real application, scraped by Debian's Prometheus."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, GateFailed, Verdict
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from tests.integration.reference_app.conftest import Replica, Service, Site, Stores, eventually
from tests.support.fake_api import FakeApi
from tests.support.objects import ready_pod, replica_set, workload
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus on this machine: apt-get install prometheus"
)
API = workload("api", ready=True)
ERRORS = 'sum(rate(http_requests_total{status="404"}[10s])) / sum(rate(http_requests_total[10s]))'


@pytest.fixture(scope="module")
def app(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    site = Site(stores, tmp_path_factory.mktemp("gated"))
    replica = site.replica("api-1", "serve", "api")
    yield replica
    replica.stop(signal.SIGKILL)


class Prometheus(Service):
    """Scrapes one replica each second."""

    def __init__(self, folder: Path, scraped: int) -> None:
        self.port = free_port()
        job = {"job_name": "app", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        program = shutil.which("prometheus")
        assert program
        options = {
            "config.file": folder / "prometheus.yml",
            "storage.tsdb.path": folder / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
        }
        super().__init__([program, *(f"--{name}={value}" for name, value in options.items())], folder / "log")

    def value(self, query: str) -> float | None:
        """A query's only value."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def prometheus(app: Replica, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    service = Prometheus(tmp_path_factory.mktemp("prometheus"), app.port)
    service.start()
    try:
        eventually("Prometheus has scraped twice", lambda: (service.value("count_over_time(up[1m])") or 0) >= 2, 60)
        yield service
    finally:
        service.stop()


@pytest.fixture
def api(app: Replica, prometheus: Prometheus) -> Iterator[FakeApi]:
    with FakeApi(API, replica_set(API), ready_pod(API)) as server:
        server.services = {"app:http": app.port, "prometheus:9090": prometheus.port}
        yield server


class Traffic:
    """Requests for a path, again and again."""

    def __init__(self, app: Replica, path: str) -> None:
        self._app, self._path, self._over = app, path, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(0.05):
            self._app.ask("GET", self._path)


def judge(api: FakeApi, tmp_path: Path, timeout: float = 60, **params: Any) -> Verdict:
    options = Options.from_params(params, timeout, "n")
    cluster = Cluster(ClusterAuth(kubeconfig=api.kubeconfig(tmp_path / "kubeconfig")))
    try:
        return Gate(cluster, [API], options=options, existing=True).run()
    finally:
        cluster.close()


def metric(prometheus: Prometheus, query: str, condition: str, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{prometheus.port}"
    return {"name": "m", "query": query, "condition": condition, "url": url, "interval": 1, **more}


def test_an_error_rate_that_is_low_enough_for_long_enough(
    api: FakeApi, app: Replica, prometheus: Prometheus, tmp_path: Path
) -> None:
    with Traffic(app, "/healthz"):
        gate = metric(prometheus, f"({ERRORS}) or vector(0)", "<= 0.01", **{"for": 5})
        verdict = judge(api, tmp_path, metric_gates=[gate])
    assert verdict.healthy
    assert verdict.seconds >= 5
    assert verdict.checks[0]["state"] == "ready"


def test_an_error_rate_that_is_too_high_is_the_verdict(
    api: FakeApi, app: Replica, prometheus: Prometheus, tmp_path: Path
) -> None:
    with Traffic(app, "/nowhere"):
        eventually("the rate is there", lambda: (prometheus.value(ERRORS) or 0) > 0.1, 60)
        with pytest.raises(GateFailed) as caught:
            judge(api, tmp_path, metric_gates=[metric(prometheus, ERRORS, "<= 0.01", grace=3)])
    assert caught.value.code == "metric_violated"
    assert caught.value.object == "Metric gate m"
    assert "is not <= 0.01: 0." in caught.value.evidence


def test_a_query_is_refused_before_anything_is_ready(api: FakeApi, prometheus: Prometheus, tmp_path: Path) -> None:
    api.put(workload("api"))
    with pytest.raises(GateFailed) as caught:
        judge(api, tmp_path, metric_gates=[metric(prometheus, "sum(rate(x[)", "<= 1")])
    assert caught.value.code == "check_refused"
    assert "parse error" in caught.value.evidence


@pytest.mark.parametrize(("policy", "code"), [("pass", ""), ("fail", "metric_no_data"), ("wait", "metric_no_data")])
def test_a_metric_that_nobody_has(api: FakeApi, prometheus: Prometheus, tmp_path: Path, policy: str, code: str) -> None:
    gate = metric(prometheus, "there_is_no_such_metric", "<= 1", no_data=policy, grace=2)
    if not code:
        assert judge(api, tmp_path, metric_gates=[gate]).healthy
        return
    with pytest.raises(GateFailed) as caught:
        judge(api, tmp_path, metric_gates=[gate])
    assert caught.value.code == code


@pytest.mark.parametrize(("condition", "passes"), [(">= baseline", True), ("<= baseline - 1", False)])
def test_a_value_from_before_the_release(
    api: FakeApi, app: Replica, prometheus: Prometheus, tmp_path: Path, condition: str, passes: bool
) -> None:
    """The counter only goes up, so it is at least what it was some seconds ago."""
    counter = 'http_requests_total{route="/healthz"}'
    query = f"sum({counter})"
    with Traffic(app, "/healthz"):
        eventually("it has a history", lambda: prometheus.value(f"sum({counter} offset 3s)") is not None, 60)
        gate = metric(prometheus, query, condition, baseline=2, grace=2)
        if passes:
            assert judge(api, tmp_path, metric_gates=[gate]).healthy
            return
        with pytest.raises(GateFailed) as caught:
            judge(api, tmp_path, metric_gates=[gate])
    assert "(baseline " in caught.value.evidence


def test_prometheus_behind_the_api_server(api: FakeApi, prometheus: Prometheus, tmp_path: Path) -> None:
    service = {"name": "prometheus", "port": "9090"}
    gate = {"name": "up", "query": 'up{job="app"}', "condition": "== 1", "service": service}
    assert judge(api, tmp_path, metric_gates=[gate]).healthy


def test_a_replica_that_dies_while_it_has_to_stay_up(
    api: FakeApi, stores: Stores, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The objects look ready all the time; only the metric tells."""
    replica = Site(stores, tmp_path_factory.mktemp("dying")).replica("api-9", "serve", "api")
    prometheus = Prometheus(tmp_path_factory.mktemp("dying-prometheus"), replica.port)
    prometheus.start()
    try:
        eventually("it is scraped", lambda: prometheus.value("up") == 1, 60)
        threading.Timer(3, replica.stop, [signal.SIGKILL]).start()
        with pytest.raises(GateFailed) as caught:
            judge(api, tmp_path, metric_gates=[metric(prometheus, "up", "== 1", grace=2)], stable_for=40)
    finally:
        prometheus.stop()
        replica.stop(signal.SIGKILL)
    assert caught.value.code == "metric_violated"
    assert "job=app} 0" in caught.value.evidence


def test_the_applications_own_health_page_through_its_service(api: FakeApi, tmp_path: Path) -> None:
    page = {
        "name": "page", "service": {"name": "app", "port": "http"}, "path": "/readyz", "successes": 3,
        "interval": 0.2,
    }  # fmt: skip
    verdict = judge(api, tmp_path, http_gates=[page])
    assert verdict.healthy
    assert "GET Service n/app:http/readyz answers 200" in verdict.checks[0]["message"]


def test_a_service_without_endpoints_gets_its_grace(api: FakeApi, app: Replica, tmp_path: Path) -> None:
    page = {"name": "page", "service": {"name": "late", "port": "http"}, "path": "/healthz", "interval": 0.2}
    started = time.monotonic()
    threading.Timer(3, api.services.update, [{"late:http": app.port}]).start()
    assert judge(api, tmp_path, http_gates=[{**page, "grace": 50}]).healthy
    assert time.monotonic() - started >= 3
    with pytest.raises(GateFailed) as caught:
        judge(api, tmp_path, http_gates=[{**page, "service": {"name": "never", "port": "http"}, "grace": 1}])
    assert caught.value.code == "http_check_failed"
    assert "no endpoints available" in caught.value.evidence
