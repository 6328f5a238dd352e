"""The five reference systems: sound in every environment, with the values of their documents."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import jsonschema
import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.model.schema import published
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import (
    Amount,
    Bounds,
    InfluxDB,
    MetricTarget,
    PostgreSQL,
    Redis,
    ScalePolicy,
    Scaling,
    Store,
    System,
)
from tests.support import systems

GIBIBYTE, MEBIBYTE, DAY = 1024**3, 1024**2, 86400


def test_there_are_five() -> None:
    assert systems.SYSTEMS == ("ai_imutis", "cardioai_pro", "healthcare_backend", "medical_inventory", "pynomaly")


@pytest.mark.parametrize(("name", "environment"), systems.EACH)
def test_each_compiles_and_editors_accept_it(name: str, environment: str) -> None:
    result = systems.shared(name, environment)
    json.dumps(result, allow_nan=False)
    base = yaml.safe_load((systems.FOLDER / name / "system.yml").read_text())
    jsonschema.Draft202012Validator(published()).validate(base)
    layer = yaml.safe_load((systems.FOLDER / name / "environments" / f"{environment}.yml").read_text())
    jsonschema.Draft202012Validator(published("environment")).validate(layer)


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_staging_and_prod_count_on_everything_and_local_on_nothing(name: str) -> None:
    every = systems.system("medical_inventory", "prod").capabilities
    assert len(every) > 12
    assert systems.system(name, "staging").capabilities == systems.system(name, "prod").capabilities == every
    assert systems.system(name, "local").capabilities == ()


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_what_local_cannot_do_is_said(name: str) -> None:
    local = systems.system(name, "local")
    said = {(one["object"], one["needs"]) for one in systems.shared(name, "local")["withheld"]}
    for component in local.components.values():
        if component.scaling.automatic and component.scaling.metrics:
            assert (f"ScaledObject/{component.name}", "keda") in said
        if component.public is not None:
            assert (f"HTTPRoute/{component.name}", "gateway") in said
    assert (f"PrometheusRule/{local.namespace}", "prometheus_operator") in said
    for dashboard in local.dashboards:
        assert (f"ConfigMap/dashboard-{dashboard}", "prometheus_operator") in said


def asked(system: System) -> tuple[int, int]:
    """CPU in millicores and memory in bytes that all pods ask for at their fewest."""
    pods = [(one.scaling.smallest, one.resources) for one in system.components.values()]
    pods += [(servers(store), store.resources) for store in system.stores.values()]
    return (
        sum(count * one.cpu.request for count, one in pods),
        sum(count * one.memory.request for count, one in pods),
    )


def servers(store: Store) -> int:
    if isinstance(store, PostgreSQL):
        return store.instances
    return store.nodes if isinstance(store, Redis) else 1


def test_all_five_fit_one_node_of_two_cores_beside_the_control_plane() -> None:
    figures = [asked(systems.system(name, "local")) for name in systems.SYSTEMS]
    assert sum(cpu for cpu, _memory in figures) < 1500
    assert sum(memory for _cpu, memory in figures) < 12 * GIBIBYTE


def test_nothing_of_one_is_in_the_way_of_another() -> None:
    """On one cluster: no two namespaces, node ports or hosts alike."""
    for environment in systems.ENVIRONMENTS:
        all_of_them = [systems.system(name, environment) for name in systems.SYSTEMS]
        taken: list[Any] = [system.namespace for system in all_of_them]
        for system in all_of_them:
            for component in system.components.values():
                if component.public is not None:
                    taken.append(component.public.node_port)
                    taken.append((component.public.host, system.domain))
        counted = Counter(
            one for one in taken if one is not None and None not in (one if isinstance(one, tuple) else ())
        )
        assert max(counted.values()) == 1, counted


def scaling(name: str, component: str, environment: str = "prod") -> Scaling:
    return systems.system(name, environment).components[component].scaling


def bounds(scale: Scaling) -> tuple[int, int, int | None, int | None]:
    return scale.smallest, scale.largest, scale.cpu, scale.memory


def test_cardioai_pro_is_its_document() -> None:
    prod = systems.system("cardioai_pro", "prod")
    api, worker, frontend = (prod.components[name] for name in ("api", "worker", "frontend"))
    assert bounds(api.scaling) == (3, 20, 70, 80)
    assert (api.resources.cpu, api.resources.memory) == (Amount(500, 2000), Amount(GIBIBYTE, 4 * GIBIBYTE))
    assert api.scaling.metrics[0] == MetricTarget("ecg_processing_p95", None, 5, 900)
    assert api.scaling.metrics[1] == MetricTarget("ecg_queue_depth", 5, None, 900)
    assert (worker.scaling.smallest, worker.scaling.largest) == (2, 10)
    assert (worker.resources.cpu, worker.resources.memory) == (Amount(250, 1000), Amount(512 * MEBIBYTE, 2 * GIBIBYTE))
    assert (frontend.scaling.smallest, frontend.scaling.largest) == (2, 8)
    assert frontend.resources.cpu == Amount(100, 500)
    assert frontend.resources.memory == Amount(128 * MEBIBYTE, 512 * MEBIBYTE)
    assert [one.keep_available for one in (api, worker, frontend)] == [2, 1, 1]
    assert [one.spot for one in (api, worker, frontend)] == [70, 70, 70]
    for one in (api, worker, frontend):
        assert one.scaling.down is not None
        assert (one.scaling.down.stabilize, one.scaling.down.below) == (300, 30)
    # GPUs where there are some, and none where there are not.
    assert api.gpu is not None
    assert worker.gpu is not None
    local = systems.system("cardioai_pro", "local").components["api"]
    assert (local.gpu, local.without_gpu) == (None, True)
    beat = prod.components["beat"]
    assert (beat.strategy.type, beat.scaling.largest, beat.port, beat.talks_to) == ("recreate", 1, None, ("redis",))
    assert prod.stores["postgres"].size == 10 * GIBIBYTE
    assert prod.stores["redis"].size == 5 * GIBIBYTE
    assert {store.storage_class for store in prod.stores.values()} == {"fast-ssd"}
    assert prod.cost is not None
    assert (prod.cost.reduction, prod.cost.level) == (65, "aggressive")
    assert prod.hibernation is None
    assert systems.system("cardioai_pro", "staging").hibernation is not None
    assert prod.metrics["ecg_processing_p95"].alert_above == 10
    assert prod.metrics["ecg_queue_depth"].alert_above == 50
    assert 'namespace="cardioai-pro"' in (prod.metrics["ecg_queue_depth"].query or "")
    assert (prod.alerts["memory"].above, prod.alerts["savings"].above) == (90, 1000)
    promised = prod.objectives
    assert {name: one.below for name, one in promised.latency.items()} == {"api": 200, "ecg_analysis_p95": 50}
    assert (promised.requests_per_second, promised.concurrent_tasks, promised.utilization) == (1000, 100, 80)
    assert promised.scale_up == 60
    assert (prod.monitoring.retention, prod.monitoring.storage) == (30 * DAY, 20 * GIBIBYTE)


def test_medical_inventory_is_its_document() -> None:
    prod = systems.system("medical_inventory", "prod")
    assert bounds(scaling("medical_inventory", "api")) == (2, 20, 70, 80)
    assert bounds(scaling("medical_inventory", "api-gpu")) == (1, 4, 60, 75)
    assert bounds(scaling("medical_inventory", "websocket")) == (1, 10, 60, 70)
    gpu = prod.components["api-gpu"]
    assert gpu.gpu is not None
    assert (gpu.gpu.count, gpu.resources.memory.limit) == (1, 8 * GIBIBYTE)
    sizes = {name: prod.volumes[name].size // GIBIBYTE for name in prod.volumes}
    assert sizes == {"models": 20, "logs": 5}
    assert (prod.volumes["logs"].storage_class, prod.volumes["models"].storage_class) == ("standard", "fast-ssd")
    assert [systems.system("medical_inventory", one).stores["postgres"].size for one in ("staging", "prod")] == [
        10 * GIBIBYTE,
        50 * GIBIBYTE,
    ]
    assert [systems.system("medical_inventory", one).monitoring.storage for one in ("staging", "prod")] == [
        5 * GIBIBYTE,
        20 * GIBIBYTE,
    ]
    assert prod.monitoring.dashboards_storage == 2 * GIBIBYTE
    assert {one.title for one in prod.dashboards.values()} == {
        "API Performance Overview",
        "Model Usage Analytics",
        "Infrastructure Monitoring",
        "Business Metrics",
    }
    redis = prod.stores["redis"]
    assert isinstance(redis, Redis)
    assert (redis.mode, redis.nodes, redis.size) == ("sentinel", 3, GIBIBYTE)
    api = prod.components["api"].vertical
    assert api is not None
    assert (api.mode, api.owns) == ("recommend", ("cpu", "memory"))
    assert prod.components["websocket"].sticky


def test_ai_imutis_is_its_document() -> None:
    prod = systems.system("ai_imutis", "prod")
    assert bounds(scaling("ai_imutis", "api")) == (3, 10, 70, 80)
    base = systems.system("ai_imutis", "staging").stores["postgres"]
    postgres, redis = prod.stores["postgres"], prod.stores["redis"]
    assert isinstance(base, PostgreSQL)
    assert isinstance(postgres, PostgreSQL)
    assert isinstance(redis, Redis)
    assert bounds(base.scaling) == (1, 3, 80, 85)
    assert (postgres.size, postgres.extensions) == (50 * GIBIBYTE, ("postgis",))
    assert (redis.size, redis.nodes) == (20 * GIBIBYTE, 3)
    assert (prod.alerts["cache-cpu"].above, prod.alerts["cache-memory"].above) == (75, 80)
    assert (prod.monitoring.interval, prod.monitoring.storage) == (15, 50 * GIBIBYTE)
    assert prod.monitoring.prometheus_host == "prometheus"
    assert prod.objectives.startup == {"api": 60, "postgres": 120, "redis": 20}
    assert (prod.objectives.scale_up, prod.objectives.deploy) == (180, 300)
    assert set(prod.secrets) == {"application", "firebase", "sentry"}
    assert set(prod.secrets["firebase"].keys) == {"project-id", "service-account.json"}
    assert set(prod.outside) == {"firebase", "sentry"}
    public = prod.components["api"].public
    assert public is not None
    assert public.rate_limit is not None
    assert (public.rate_limit.requests, public.rate_limit.per) == (100, 60)
    assert {"Content-Security-Policy", "Strict-Transport-Security", "X-Frame-Options"} <= set(public.headers)
    assert prod.tracing is not None
    # A seed is for everybody but those who have data to lose.
    assert prod.seed is None
    assert systems.system("ai_imutis", "staging").seed is not None


def test_pynomaly_is_its_document() -> None:
    prod = systems.system("pynomaly", "prod")
    api, worker = scaling("pynomaly", "api"), scaling("pynomaly", "worker")
    assert bounds(api) == (5, 100, 70, 80)
    assert bounds(worker) == (3, 50, 75, 85)
    assert api.up is not None
    assert api.down is not None
    assert api.up.policies == (ScalePolicy("Percent", 100, 15),)
    assert api.down.policies == (ScalePolicy("Percent", 10, 60),)
    assert [one.metric for one in worker.metrics] == ["queue_length"]
    assert [bounds(scaling("pynomaly", "api", one))[:2] for one in ("dev", "staging")] == [(1, 2), (2, 5)]
    assert prod.components["proxy"].scaling.smallest == 3
    postgres, cache, queue = (prod.stores[name] for name in ("postgres", "cache", "queue"))
    influxdb = prod.stores["influxdb"]
    assert isinstance(postgres, PostgreSQL)
    assert postgres.parameters == {
        "maintenance_work_mem": "512MB",
        "max_connections": "500",
        "shared_buffers": "2GB",
        "work_mem": "32MB",
    }
    assert postgres.resources.memory.request == 8 * GIBIBYTE, "of which shared_buffers is a quarter"
    assert postgres.backup is not None
    assert (postgres.backup.dump, postgres.backup.point_in_time) == ("0 2 * * *", True)
    assert isinstance(cache, Redis)
    assert isinstance(queue, Redis)
    assert (cache.mode, cache.eviction, cache.max_memory) == ("cluster", "allkeys-lru", 8 * GIBIBYTE)
    assert (queue.mode, queue.eviction, queue.env_prefix) == ("sentinel", "noeviction", "QUEUE")
    assert isinstance(influxdb, InfluxDB)
    assert influxdb.retention == 30 * DAY
    assert influxdb.downsampling
    alerts = {name: (one.measure, one.above, one.lasting) for name, one in prod.alerts.items()}
    assert (
        alerts.items()
        >= {
            "memory": ("memory", 90, 300),
            "cpu": ("cpu", 90, 300),
            "response-time": ("latency_average", 2, 300),
            "storage": ("storage", 90, 300),
        }.items()
    )
    assert {one.title for one in prod.dashboards.values()} == {
        "API Performance",
        "Infrastructure",
        "Data Science",
        "Security",
    }
    promised = prod.objectives
    assert (promised.availability, promised.concurrent_requests, promised.nodes) == (99.9, 10000, 100)
    assert (promised.recovery_time, promised.recovery_point) == (3600, 900)
    least, better = prod.requires.minimum, prod.requires.recommended
    assert least is not None
    assert better is not None
    assert (least.nodes, least.cpu, least.memory, least.storage) == (3, 32, 128 * GIBIBYTE, 2048 * GIBIBYTE)
    assert (better.nodes, better.cpu, better.memory, better.storage) == (10, 100, 500 * GIBIBYTE, 5120 * GIBIBYTE)
    assert prod.compliance == ("encrypted_secrets", "encrypted_traffic", "gdpr", "soc2")
    assert Counter(prod.maintenance.values()) == {"daily": 3, "weekly": 5, "monthly": 4}


def test_healthcare_backend_is_its_document() -> None:
    ranges = {one: bounds(scaling("healthcare_backend", "api", one))[:2] for one in systems.ENVIRONMENTS}
    assert ranges == {"local": (1, 3), "dev": (1, 3), "staging": (3, 20), "prod": (10, 100)}
    prod = systems.system("healthcare_backend", "prod")
    api = prod.components["api"]
    assert bounds(api.scaling)[2:] == (70, 80)
    assert {one.metric: one.per_replica for one in api.scaling.metrics} == {
        "active_appointments_count": 500,
        "http_requests_per_second": 1000,
    }
    up, down = api.scaling.up, api.scaling.down
    assert up is not None
    assert down is not None
    assert (up.stabilize, up.select, {(one.unit, one.value) for one in up.policies}) == (
        30,
        "Max",
        {("Pods", 5), ("Percent", 100)},
    )
    assert (down.stabilize, down.select, {(one.unit, one.value) for one in down.policies}) == (
        300,
        "Min",
        {("Percent", 50), ("Pods", 2)},
    )
    vertical = {"api": api.vertical, **{name: store.vertical for name, store in prod.stores.items()}}
    found = {name: (one.cpu, one.memory, one.mode) for name, one in vertical.items() if one is not None}
    assert found == {
        "api": (Bounds(250, 4000), Bounds(512 * MEBIBYTE, 8 * GIBIBYTE), "recommend"),
        "redis": (Bounds(100, 2000), Bounds(256 * MEBIBYTE, 4 * GIBIBYTE), "recommend"),
        "postgres": (Bounds(500, 4000), Bounds(GIBIBYTE, 16 * GIBIBYTE), "recommend"),
    }
    redis = prod.stores["redis"]
    assert isinstance(redis, Redis)
    assert (redis.mode, redis.nodes, redis.max_nodes, redis.size) == ("cluster", 6, 9, 10 * GIBIBYTE)
    assert redis.resources.cpu == Amount(500, 1000)
    assert prod.stores["postgres"].size == 100 * GIBIBYTE
    assert prod.stores["postgres"].resources.memory == Amount(8 * GIBIBYTE, 16 * GIBIBYTE)
    assert (api.resources.cpu, api.resources.memory) == (Amount(2000, 4000), Amount(4 * GIBIBYTE, 8 * GIBIBYTE))
    dev = systems.system("healthcare_backend", "dev")
    assert (dev.components["api"].resources.cpu, dev.stores["postgres"].size) == (Amount(250, 1000), 5 * GIBIBYTE)
    assert api.keep_available == 2
    assert set(prod.metrics) == {
        "http_requests_per_second",
        "active_appointments_count",
        "db_connection_pool_usage",
        "queue_depth",
    }
    assert prod.tenants is not None
    assert (prod.tenants.name, prod.tenants.count) == ("clinic", 200)
    assert (prod.objectives.availability, prod.objectives.users) == (99.99, 1_000_000)
    assert prod.logging is not None
    assert (prod.logging.audit, prod.logging.hipaa) == (True, True)
