"""InfluxDB: one server, its setup, and what reaches it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from tests.support import medical_inventory as support

HOURLY = {"hourly": {"every": "1h", "keep": "365d"}}
VERSIONS = ("1", "2")


def compiled(version: str = "2", environment: str = "local", **store: Any) -> support.Manifest:
    overrides = {
        "components": {"api": {"talks_to": ["postgres", "redis", "series"]}},
        "stores": {"series": {"type": "influxdb", "version": version, **store}},
    }
    return support.compiled(environment, overrides)


def job(result: support.Manifest) -> support.Manifest:
    (found,) = [one for one in support.objects(result) if one["kind"] == "Job" and "series" in one["metadata"]["name"]]
    return found


def named(result: support.Manifest) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in support.objects(result)]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_server_with_its_setup_and_no_budget_that_would_hold_its_node(version: str) -> None:
    result = compiled(version)
    own = [one for one in named(result) if "series" in one]
    digest = job(result)["metadata"]["name"].removeprefix("series-setup-")
    assert own == [
        "ServiceAccount/series",
        "ServiceAccount/series-setup",
        "NetworkPolicy/series",
        "NetworkPolicy/series-setup",
        *(["ConfigMap/series-config"] if version == "1" else []),
        "ConfigMap/series-setup",
        "Service/series",
        "Service/series-nodes",
        "StatefulSet/series",
        f"Job/series-setup-{digest}",
    ]
    assert support.find(result, "StatefulSet", "series")["spec"]["replicas"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_its_pods_are_restricted(version: str) -> None:
    result = compiled(version)
    for template in (support.find(result, "StatefulSet", "series"), job(result)):
        pod = template["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10986
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"]["limits"])
        for one in container["env"]:
            assert "value" in one, "secrets come as files"


def test_secrets_are_generated_and_only_version_2_has_a_token() -> None:
    def keys(version: str) -> dict[str, Any]:
        secrets = compiled(version)["stages"]["secrets"]
        return next(one["keys"] for one in secrets if one["name"] == "series-auth")

    assert sorted(keys("1")) == ["admin-password", "password"]
    assert sorted(keys("2")) == ["admin-password", "admin-token", "password"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_component_gets_a_user_and_never_the_administrator(version: str) -> None:
    environment = support.container(compiled(version), "Deployment", "api")["env"]
    assert [one for one in environment if one["name"].startswith("INFLUX_")] == [
        {"name": "INFLUX_VERSION", "value": version},
        {"name": "INFLUX_URL", "value": "http://series:8086"},
        {"name": "INFLUX_BUCKET", "value": "medical_inventory/raw"},
        {"name": "INFLUX_USER", "value": "app"},
        {"name": "INFLUX_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "series-auth", "key": "password"}}},
    ]
    other = support.container(compiled(version, env_prefix="METRICS", database="m"), "Deployment", "api")["env"]
    assert {"name": "METRICS_BUCKET", "value": "m/raw"} in other


def test_probes_scraping_and_memory() -> None:
    one, two = (support.container(compiled(version), "StatefulSet", "series") for version in VERSIONS)
    assert one["readinessProbe"]["httpGet"]["path"] == "/ping"
    assert two["readinessProbe"]["httpGet"]["path"] == "/health"
    for container in (one, two):
        assert container["ports"] == [{"name": "http", "containerPort": 8086, "protocol": "TCP"}]
        assert {"name": "GOMEMLIMIT", "value": str(256 * 1024**2 * 7 // 10)} in container["env"]
    cache = 64 * 1024**2
    config = support.find(compiled("1"), "ConfigMap", "series-config")["data"]["influxdb.conf"]
    assert f"cache-max-memory-size = {cache}\n" in config
    assert {"name": "INFLUXD_STORAGE_CACHE_MAX_MEMORY_SIZE", "value": str(cache)} in two["env"]


def test_changed_configuration_rolls_the_server_and_changed_retention_only_its_setup() -> None:
    before, after = compiled("1"), compiled("1", retention="60d")
    assert support.find(before, "StatefulSet", "series") == support.find(after, "StatefulSet", "series")
    assert job(before)["metadata"]["name"] != job(after)["metadata"]["name"]
    consent = compiled("1", retention="60d", shorter_retention="delete")
    assert job(after)["metadata"]["name"] != job(consent)["metadata"]["name"]
    larger = compiled("1", resources={"memory": "1Gi"})
    key = "groundwork.platform/config-checksum"
    templates = [support.find(one, "StatefulSet", "series")["spec"]["template"] for one in (before, larger)]
    assert len({template["metadata"]["annotations"][key] for template in templates}) == 2


def test_the_setup_is_tried_again_except_for_what_it_refuses() -> None:
    spec = job(compiled())["spec"]
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert fail == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "setup", "operator": "In", "values": [3]},
    }
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in spec, "what is gone would run again"
    assert job(compiled())["metadata"]["annotations"] == {"groundwork.platform/on-rollback": "stays"}


def test_policies_and_how_averages_are_made() -> None:
    copies = {**HOURLY, "quarters": {"every": "15m", "keep": "90d"}}
    one = support.find(compiled("1", downsampling=copies), "ConfigMap", "series-setup")["data"]
    assert one["policies"] == "raw 720 24\nhourly 8760 168\nquarters 2160 24\n"
    assert [line.split()[0] for line in one["queries"].splitlines()] == ["downsample_hourly", "downsample_quarters"]
    assert "RESAMPLE FOR 30m" in one["queries"]
    two = support.find(compiled("2", downsampling=copies), "ConfigMap", "series-setup")["data"]
    assert two["policies"] == one["policies"]
    task = json.loads(two["quarters.task.json"])
    assert (task["org"], task["status"]) == ("medical_inventory", "active")
    assert 'name: "downsample_medical_inventory_quarters", every: 15m' in task["flux"]
    assert 'from(bucket: "medical_inventory/raw")' in task["flux"]
    assert 'to(bucket: "medical_inventory/quarters")' in task["flux"]
    assert "date.sub(from: stop, d: 30m)" in task["flux"]


@pytest.mark.parametrize(
    ("retention", "hours", "shard"), [("1h", 1, 1), ("47h", 47, 1), ("2d", 48, 24), ("180d", 4320, 168)]
)
def test_shards_are_as_long_as_influxdb_itself_would_have_them(retention: str, hours: int, shard: int) -> None:
    data = support.find(compiled("1", retention=retention), "ConfigMap", "series-setup")["data"]
    assert data["policies"] == f"raw {hours} {shard}\n"


def test_only_clients_and_the_setup_reach_it_and_it_reaches_nothing() -> None:
    result = compiled()
    spec = support.find(result, "NetworkPolicy", "series")["spec"]
    peers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in spec["ingress"][0]["from"]]
    assert peers == ["api", "migrate", "series-setup"]
    assert "egress" not in spec
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    setup = support.find(result, "NetworkPolicy", "series-setup")["spec"]
    assert "ingress" not in setup
    assert setup["egress"][0]["to"] == [{"podSelector": spec["podSelector"]}]
    api = support.find(result, "NetworkPolicy", "api")["spec"]["egress"]
    assert {"to": [{"podSelector": spec["podSelector"]}], "ports": [{"port": 8086, "protocol": "TCP"}]} in api


def test_the_quota_has_room_for_it() -> None:
    def hard(result: support.Manifest) -> support.Manifest:
        quota: support.Manifest = support.find(result, "ResourceQuota", "quota")["spec"]["hard"]
        return quota

    without, with_it = support.shared("local"), compiled(size="5Gi")
    assert int(hard(with_it)["persistentvolumeclaims"]) > int(hard(without)["persistentvolumeclaims"])
    assert int(hard(with_it)["pods"]) >= int(hard(without)["pods"]) + 2


@pytest.mark.parametrize("version", VERSIONS)
def test_the_image_is_pinned_or_the_user_s(version: str) -> None:
    image = support.container(compiled(version), "StatefulSet", "series")["image"]
    assert image.startswith(f"docker.io/library/influxdb:{version}.")
    own = compiled(version, image="registry.example/influxdb:9")
    for container in (
        support.container(own, "StatefulSet", "series"),
        job(own)["spec"]["template"]["spec"]["containers"][0],
    ):
        assert container["image"] == "registry.example/influxdb:9"


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ({"retention": "30m"}, "whole hours, at least 1h"),
        ({"retention": "90m"}, "whole hours, at least 1h"),
        ({"retention": "30"}, "a duration with its unit"),
        ({"downsampling": {"hourly": {"every": "1h", "keep": "30d"}}}, "more than the 30d that points themselves"),
        ({"downsampling": {"hourly": {"every": "1h", "keep": "2000000m"}}}, "whole hours"),
        ({"downsampling": {"slow": {"every": "16d", "keep": "365d"}}}, "at most half of the 30d"),
        ({"downsampling": {"none": {"every": "0h", "keep": "365d"}}}, "at least 1m"),
        ({"downsampling": {"raw": {"every": "1h", "keep": "365d"}}}, "the points themselves do not use"),
        ({"downsampling": {"Hourly": {"every": "1h", "keep": "365d"}}}, "a lower-case name"),
        ({"database": "_internal"}, "a lower-case name"),
        ({"version": "3"}, "expected 1 or 2"),
    ],
)
def test_what_influxdb_could_not_do_is_refused(store: dict[str, Any], why: str) -> None:
    with pytest.raises(Failure) as failure:
        compiled(**store)
    assert why in failure.value.sentence


def test_two_of_one_prefix_and_variables_that_it_sets_are_refused() -> None:
    with pytest.raises(Failure, match="one influxdb store for each component, or an env_prefix of its own"):
        support.compiled(
            "local",
            {
                "components": {"api": {"talks_to": ["a", "b"]}},
                "stores": {name: {"type": "influxdb"} for name in ("a", "b")},
                "migration": None,
            },
        )
    with pytest.raises(Failure, match="the variable INFLUX_URL"):
        support.compiled(
            "local",
            {
                "components": {"api": {"talks_to": ["postgres", "redis", "series"], "env": {"INFLUX_URL": "x"}}},
                "stores": {"series": {"type": "influxdb"}},
            },
        )
