"""Loading whole systems: layers, and every mistake with its place."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import SystemInvalid
from ansible_collections.groundwork.platform.plugins.module_utils.model.system import load
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Amount, PostgreSQL, Redis

ROOT = Path(__file__).resolve().parents[5]
BASE = """\
image: example/app:1.0
components:
  api:
    args: [serve]
    port: 8000
    replicas: {min: 2, max: 4}
    scale_on: {cpu: 70}
    talks_to: [db, cache]
    volumes: {files: /files}
  front:
    proxy:
      routes: {/: api}
    public: {host: app, node_port: 30080}
stores:
  db: {type: postgresql, instances: 2}
  cache: {type: redis}
volumes:
  files: {size: 1Gi}
migration: {component: api, command: [migrate]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop" / "environments").mkdir(parents=True)
    (tmp_path / "shop" / "system.yml").write_text(BASE)
    (tmp_path / "shop" / "environments" / "dev.yml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaints(folder: Path, overrides: dict[str, Any] | None = None, environment: str = "") -> list[str]:
    (folder / "shop" / "environments" / "dev.yml").write_text(textwrap.dedent(environment))
    try:
        load("shop", [folder], "dev", overrides)
    except SystemInvalid as failure:
        assert failure.code == "system_invalid"
        assert [str(problem) for problem in failure.problems] == [
            line.strip() for line in failure.sentence.splitlines()[1:]
        ]
        assert len(failure.as_dict()["errors"]) == len(failure.problems)
        return [str(problem) for problem in failure.problems]
    return []


def test_a_system_is_typed_and_complete(folder: Path) -> None:
    system = load("shop", [folder], "dev", {"domain": "shop.example", "registry": "r.example/x"}).system
    api = system.components["api"]
    assert api.image == "r.example/x/example/app:1.0"
    assert api.resources.cpu == Amount(100, 500)
    assert (api.scaling.smallest, api.scaling.largest, api.scaling.automatic) == (2, 4, True)
    assert system.components["front"].talks_to == ("api",)
    assert (system.components["front"].user, system.components["front"].port) == (10101, 8080)
    assert system.namespace == "shop"
    database, cache = system.stores["db"], system.stores["cache"]
    assert isinstance(database, PostgreSQL)
    assert isinstance(cache, Redis)
    assert (database.database, database.owner, database.size) == ("shop", "shop", 10 * 1024**3)


@pytest.mark.parametrize(
    ("image", "registry", "full"),
    [
        ("app:1", "r.example", "r.example/app:1"),
        ("team/app:1", "r.example/", "r.example/team/app:1"),
        ("ghcr.io/team/app:1", "r.example", "ghcr.io/team/app:1"),
        ("localhost/app", "r.example", "localhost/app"),
        ("host:5000/app", "r.example", "host:5000/app"),
    ],
)
def test_the_registry_goes_in_front_of_what_names_none(folder: Path, image: str, registry: str, full: str) -> None:
    assert load("shop", [folder], "dev", {"image": image, "registry": registry}).system.components["api"].image == full


def test_environment_then_overrides(folder: Path) -> None:
    (folder / "shop/environments/dev.yml").write_text(
        "components: {api: {replicas: 1, drain: 5s, env: {A: 1, B: true}}}\n"
    )
    api = load("shop", [folder], "dev", {"components": {"api": {"drain": "7s", "env": {"A": None}}}}).system.components[
        "api"
    ]
    assert (api.scaling.smallest, api.scaling.largest, api.drain, api.env) == (1, 1, 7, {"B": "true"})


def test_what_is_switched_off_is_neither_routed_nor_talked_to(folder: Path) -> None:
    over = {
        "components": {"worker": {"args": ["work"], "port": 9, "enabled": False}, "api": {"talks_to": ["db", "worker"]}}
    }
    over["components"]["front"] = {"proxy": {"routes": {"/work": "worker"}}}
    system = load("shop", [folder], "dev", over).system
    assert system.disabled == ("worker",)
    assert system.components["api"].talks_to == ("db",)
    proxy = system.components["front"].proxy
    assert proxy is not None
    assert [route.path for route in proxy.routes] == ["/"]


def test_names_that_are_not_there(folder: Path) -> None:
    with pytest.raises(Failure) as found:
        load("shopp", [folder], "dev")
    assert found.value.code == "system_not_found"
    assert "did you mean shop" in found.value.sentence
    with pytest.raises(Failure) as found:
        load("shop", [folder], "devel")
    assert found.value.code == "environment_not_found"
    assert "did you mean dev" in found.value.sentence


def test_the_first_folder_that_has_it_wins(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "shop" / "environments"
    other.mkdir(parents=True)
    (other / "dev.yml").write_text("")
    (other.parent / "system.yml").write_text(BASE.replace("shop", "x").replace("example/app:1.0", "other:2"))
    assert (
        load("shop", [tmp_path / "none", tmp_path / "other", folder], "dev").system.components["api"].image == "other:2"
    )


def test_all_mistakes_of_all_layers_at_once(folder: Path) -> None:
    found = complaints(
        folder,
        {"componets": {}, "stores": {"cache": {"eviction": "lru"}}},
        """\
        components:
          api:
            prot: 8001
            talks_to: [db, cahce]
            resources: {cpu: [2, 1], memory: lots}
          front:
            public: {host: App}
        """,
    )
    assert found == [
        "shop/environments/dev.yml:3: components.api.prot: found the key prot, expected a known key; "
        "did you mean port?",
        'shop/environments/dev.yml:5: components.api.resources.memory: found "lots", expected an amount with its unit, '
        "such as 512Mi, or [request, limit]",
        'shop/environments/dev.yml:7: components.front.public.host: found "App", expected a DNS label',
        "system_overrides: componets: found the key componets, expected a known key; did you mean components?",
        'system_overrides: stores.cache.eviction: found "lru", expected noeviction, allkeys-lru, allkeys-lfu, '
        "allkeys-random, volatile-lru, volatile-lfu, volatile-random or volatile-ttl",
    ]


def test_what_is_sound_is_checked_beside_what_is_not(folder: Path) -> None:
    found = complaints(
        folder,
        {
            "components": {
                "front": {"proxy": {"routes": {"/": "apo"}}, "public": {"node_port": 80}},
                "worker": {"args": ["w"], "talks_to": ["dbb"]},
            },
            "stores": {"db": {"type": "mysql"}},
        },
    )
    assert len(found) == 3
    assert 'components.worker.talks_to[0]: found "dbb"' in found[1]
    assert 'stores.db.type: found "mysql", expected postgresql, redis or influxdb' in found[2]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"components": {"api": {"talks_to": ["dbx"]}}}, 'talks_to[0]: found "dbx", expected a component or store'),
        ({"components": {"api": {"talks_to": ["api"]}}}, 'found "api", expected a component or store'),
        ({"components": {"api": {"volumes": {"filez": "/x"}}}}, "did you mean files?"),
        ({"components": {"api": {"volumes": {"files": "/tmp/x"}}}}, "a path that the container does not need"),
        ({"components": {"api": {"replicas": {"min": 5}}}}, "found min 5 above max 4, expected min up to max"),
        (
            {"components": {"api": {"scale_on": {"memroy": 80}}}},
            "found the key memroy, expected a known key",
        ),
        ({"components": {"api": {"scale_on": None}}}, "scale_on: found nothing, expected cpu or memory"),
        ({"components": {"api": {"keep_available": 2}}}, "fewer than the 2 replicas"),
        ({"components": {"api": {"resources": {"cpu": ["2", "1"]}}}}, "a request of 2 above the limit of 1"),
        ({"components": {"api": {"resources": {"memory": "0"}}}}, "a request of nothing"),
        ({"components": {"api": {"gpu": {"count": 1}}}}, "GPUs in an environment that does not count on any"),
        ({"components": {"api": {"port": None}}}, "a component with a port"),
        ({"components": {"api": {"env": {"PGHOST": "x"}}}}, "the variable PGHOST, expected none: it follows from db"),
        ({"components": {"api": {"env": {"PORT": 1}}}}, "expected none: it follows from port"),
        ({"components": {"front": {"port": 80}}}, "expected none: a proxy's is derived"),
        ({"components": {"front": {"proxy": {"routes": {"/": "db"}}}}}, "expected a component with a port"),
        ({"components": {"front": {"proxy": {"routes": {"/healthz": "api"}}}}}, "the proxy's own /healthz"),
        ({"components": {"front": {"proxy": {"routes": {"/a": "api", "/a/": "api"}}}}}, "each path once"),
        (
            {"components": {"apii": {"port": 1}}},
            "found nothing to run, expected image, command or args; did you mean api?",
        ),
        ({"components": {"db-rw": {"args": ["x"]}}}, "one that the store db does not use"),
        ({"stores": {"db-rw": {"type": "redis"}}}, "one that the store db does not use"),
        ({"stores": {"allow-dns": {"type": "redis"}}}, "one that the network policy that allows DNS does not use"),
        ({"volumes": {"tmp": {"size": "1Gi"}}}, "one that no pod uses for temporary files"),
        ({"volumes": {"db-ca": {"size": "1Gi"}}}, "one that no pod uses for the store db"),
        ({"env": {"PGHOST": "x"}}, "env.PGHOST: found the variable PGHOST, expected none: it follows from db"),
        ({"env": {"RATE": 1.5}}, "text, a whole number, true or false; quote others"),
        ({"components": {"migrate": {"args": ["x"]}}}, "one that the migration does not use"),
        ({"components": {"api-pods": {"args": ["x"]}}}, "one that api's pods do not use"),
        ({"components": {"x": {"args": ["x"], "port": 1, "public": {"node_port": 30080}}}}, "30080, as front has"),
        ({"components": {"x": {"args": ["x"], "sticky": True}}}, "a port, which sticky needs"),
        ({"image": None}, "image here, or for the whole system"),
        ({"migration": {"component": "apo"}}, "did you mean api?"),
        ({"migration": {"component": "front"}}, "a component that runs in every environment"),
        ({"migration": {"store": "cache"}}, "a PostgreSQL store that api talks to"),
        (
            {"migration": {"destructive": "restore_point", "restore_point": {"type": "command", "image": "x"}}},
            "migration.restore_point.command: found nothing, expected the command that makes it",
        ),
        ({"stores": {"db": {"synchronous_replicas": 2}}}, "fewer than the 2 instances"),
        ({"stores": {"db": {"owner": "postgres"}}}, "a name that PostgreSQL does not use itself"),
        (
            {"stores": {"other": {"type": "redis"}}, "components": {"api": {"talks_to": ["cache", "other"]}}},
            "one redis store",
        ),
        ({"components": {"api": {"scale_up": {"policies": [{"pods": 1, "every": "1h"}]}}}}, "from 1s to 30m"),
        (
            {"components": {"api": {"scale_down": {"stabilize": "2h", "policies": [{"pods": 1, "every": "1m"}]}}}},
            "at most 1h",
        ),
        ({"capabilities": {"gateway": True}}, "the domain below which app is public"),
        ({"network": {"api_server_cidrs": ["10.0.0.1/24"]}}, "a network such as 10.0.0.0/24"),
        ({"components": {"api": {"scale_up": {"policies": [{"pods": 1}]}}}}, "every: found nothing"),
        ({"components": {"api": {"replicas": "three"}}}, "a whole number, or {min, max}"),
        ({"components": {"api": {"resources": {"cpu": ["1", "2", "3"]}}}}, "found a list of 3"),
        ({"components": {"api": {"drain": 30}}}, "a duration with its unit"),
        ({"components": {"API": {"args": ["x"]}}}, "a lower-case name"),
        ({"components": None}, "components: found nothing"),
        ({"components": {}, "stores": {"db": {"tpye": "x", "type": None}}}, "db.type: found nothing"),
    ],
)
def test_what_does_not_fit_together(folder: Path, overrides: dict[str, Any], said: str) -> None:
    found = complaints(folder, overrides)
    assert any(said in one for one in found), found


METRIC = {"metrics": {"waiting": {"query": "sum(waiting)"}}}


def api(**keys: Any) -> dict[str, Any]:
    return {"components": {"api": keys}}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (api(worker={}), "components.api.worker.queue: found nothing, expected the name of a redis store"),
        (
            api(worker={"queue": "cahce"}),
            'found "cahce", expected a redis store (cache); did you mean cache?',
        ),
        (api(worker={"queue": "db"}), 'worker.queue: found "db", expected a redis store (cache)'),
        (
            {**api(worker={"queue": "cache"}), "stores": {"cache": {"eviction": "allkeys-lru"}}},
            "which evicts (allkeys-lru), expected a redis store with noeviction: an evicted task would be lost",
        ),
        (
            {**api(worker={"queue": "cache"}), "stores": {"cache": {"mode": "cluster"}}},
            "a Redis Cluster, expected a redis store of mode standalone or sentinel: Celery",
        ),
        (api(worker={"queue": "cache"}, scheduler={"queue": "cache"}), "expected two components"),
        (
            {"components": {"beat": {"args": ["beat"], "scheduler": {"queue": "cache"}, "replicas": 2}}},
            "components.beat.replicas: found more than one scheduler, expected 1",
        ),
        (
            {"components": {"beat": {"args": ["beat"], "scheduler": {"queue": "cache"}, "port": 8}}},
            "components.beat.port: found port, expected none: a scheduler is one pod",
        ),
        (api(scale_on={"wating": {"per_replica": 1}}), 'found "wating", expected cpu, memory or a metric of `metrics`'),
        ({**METRIC, **api(scale_on={"waiting": {}})}, "found neither per_replica nor value, expected one of the two"),
        (
            {**METRIC, **api(scale_on={"waiting": {"value": 1, "per_replica": 1}})},
            "found both per_replica and value, expected one of the two",
        ),
        (
            {**METRIC, **api(scale_on={"cpu": None, "waiting": {"value": 1}})},
            "only metrics that nobody scales on here, expected cpu or memory beside, or capabilities.keda: true",
        ),
        (
            {"metrics": {"q": {"queue": {"store": "cache"}}}, **api(scale_on={"q": {"value": 1, "ahead": "15m"}})},
            "found 15m, expected a query of metrics.q, which can be predicted",
        ),
        (api(scale_down={"policies": [{"pods": 1, "every": "1m"}], "below": 70}), "less than what scale_on holds"),
        (
            api(vertical={"mode": "auto"}),
            "auto for cpu, which scale_on owns, expected mode: recommend, or bounds",
        ),
        (api(vertical={"cpu": ["4", "1"]}), "found at least 4 and at most 1, expected the least up to the most"),
        ({"stores": {"db": {"vertical": {"mode": "auto"}}}}, "stores.db.vertical.mode: found auto, expected recommend"),
        (api(secrets={"keys": "/x"}), 'components.api.secrets.keys: found "keys", expected a secret of the system'),
        (api(secrets={"keys": "/tmp/x"}), "found /tmp/x, expected a path that the container does not need"),
        ({"secrets": {"db-app": {"keys": {"a": {}}}}}, "one that does not begin as those of db"),
        ({"secrets": {"files": {"keys": {"a": {}}}}}, "one that no volume of a pod has"),
        ({"components": {"front": {"proxy": {"routes": {"/": None}}}}}, "found nothing to serve, expected routes, or"),
        ({"components": {"front": {"proxy": {"static": "/www"}}}}, "expected an image that has the files"),
        ({"components": {"front": {"env": {"A": 1}}}}, "none: a proxy takes nothing from the environment"),
        ({"components": {"front": {"public": {"routes": {"/x": "apu"}}}}}, "did you mean api?"),
        (api(public={"routes": {"/": "api"}, "node_port": 30000}), "the host whose paths are routed"),
        (api(public={}), "found no way in, expected a host, a node_port, or both"),
        ({"metrics": {"waiting": {}}}, "metrics.waiting: found nothing that is counted, expected query or queue"),
        ({"metrics": {"errors": {"query": "1"}}}, "one that no measure of every system has"),
        (
            {"metrics": {"q": {"queue": {"store": "cache"}, "alert_above": 5}}},
            "metrics.q.query: found nothing, expected a query, which the alert needs",
        ),
        ({"metrics": {"q": {"queue": {"store": "db"}}}}, "expected a redis store (cache)"),
        ({"alerts": {"a": {"measure": "memry", "above": 1}}}, "expected a metric or measure; did you mean memory?"),
        ({"alerts": {"a": {"measure": "memory"}}}, "found neither above nor below, expected one of the two"),
        ({"alerts": {"a": {"measure": "memory", "above": 1, "component": "apo"}}}, "did you mean api?"),
        ({"dashboards": {"a": {"title": "A", "shows": ["reqests"]}}}, "did you mean requests?"),
        (
            {"objectives": {"latency": {"apo": {"below": "1s"}}}},
            "expected a component or metric (api or front); did",
        ),
        ({"objectives": {"startup": {"dbb": "1m"}}}, "expected a component or store"),
        ({"objectives": {"recovery_point": "15m"}}, "expected point_in_time, or no recovery_point of 15m can be held"),
        (
            {"capabilities": {"external_secrets": True}, "secrets": {"k": {"keys": {"a": {}}, "external": "x"}}},
            "secret_store: found nothing, expected the store that brings k",
        ),
        (
            {"capabilities": {"pg_backup": True}, "stores": {"db": {"backup": {"schedule": "0 2 * * *"}}}},
            "object_store: found nothing, expected where backups of db go",
        ),
        ({"stores": {"db": {"backup": {}}}}, "point_in_time alone, expected a schedule"),
        ({"stores": {"db": {"backup": {"point_in_time": False}}}}, "nothing that is ever made"),
        ({"snapshots": {"schedule": "0 3 * * *", "replicate": True}}, "object_store.replica_url"),
        ({"outside": {"db": {"host": "x.example"}}}, "one that no component or store has"),
        ({"seed": {"component": "apo", "command": ["x"]}}, 'seed.component: found "apo", expected a component'),
        ({"seed": {"component": "front", "command": ["x"]}}, "a component that runs in every environment"),
        (
            {"compliance": {"soc2": True}},
            "found no audit, expected true, which compliance.soc2 asks for",
        ),
        ({"compliance": {"soc2": True}}, "maintenance.security_audit: found nothing, expected how often"),
        ({"compliance": {"hipaa": True}}, "logging.hipaa: found health information in logs"),
        ({"compliance": {"gdpr": True}}, "stores.db.backup: found nothing, expected a backup with its retention"),
        ({"compliance": {"encrypted_traffic": True}}, "an environment that counts on encrypted_network"),
        (
            {"tenants": {"count": 2}, "stores": {"db": None}, "migration": None, **api(talks_to=[])},
            "a postgresql store that keeps them apart",
        ),
        (
            {
                "requires": {
                    "minimum": {"nodes": 3, "cpu": 4, "memory": "8Gi", "storage": "1Ti"},
                    "recommended": {"nodes": 3, "cpu": 2, "memory": "8Gi", "storage": "1Ti"},
                }
            },
            "requires.recommended.cpu: found 2, below the minimum of 4",
        ),
        ({"monitoring": {"grafana_host": "app"}}, "one that neither Grafana nor Prometheus has"),
        ({"stores": {"db": {"instances": {"min": 3, "max": 2}}}}, "min 3 above max 2"),
        ({"stores": {"db": {"instances": {"min": 1, "max": 2}}}}, "cpu or memory, which decides between min and max"),
        (
            {"stores": {"db": {"pooler": {"pool_size": 60}}}},
            "found 120 connections of all poolers, expected no more than the 100 of parameters.max_connections",
        ),
        ({"hibernation": {"sleep": "daily", "wake": "0 6 * * *"}}, "minute, hour, day, month and weekday"),
        ({"objectives": {"latency": {"api": {"below": "fast"}}}}, "a time with its unit, such as 200ms or 2s"),
    ],
)
def test_what_is_demanded_and_cannot_be(folder: Path, overrides: dict[str, Any], said: str) -> None:
    found = complaints(folder, overrides)
    assert any(said in one for one in found), found


def test_what_prod_alone_refuses(folder: Path) -> None:
    (folder / "shop/environments/prod.yml").write_text("hibernation: {sleep: 0 20 * * *, wake: 0 6 * * *}\n")
    with pytest.raises(SystemInvalid, match="an environment prod that sleeps"):
        load("shop", [folder], "prod")
    assert load("shop", [folder], "dev", {"hibernation": {"sleep": "0 20 * * *", "wake": "0 6 * * *"}})


def test_two_stores_of_a_kind_need_two_prefixes(folder: Path) -> None:
    over: dict[str, Any] = {
        "stores": {"other": {"type": "redis"}},
        "components": {"api": {"talks_to": ["cache"], "worker": {"queue": "other"}}},
    }
    assert any("cache and other, expected one redis store for each" in one for one in complaints(folder, over))
    over["stores"]["other"]["env_prefix"] = "QUEUE"
    assert not complaints(folder, {**over, "migration": None})


def test_one_capability_against_all(folder: Path) -> None:
    over = {"domain": "x.example", "capabilities": {"all": True, "waf": False, "gateway": False}}
    counted = load("shop", [folder], "dev", over).system.capabilities
    assert "keda" in counted
    assert not {"waf", "gateway"} & set(counted)


def test_a_folder_s_name_must_do_for_a_namespace_or_one_be_given(folder: Path) -> None:
    (folder / "shop").rename(folder / "My_Shop")
    with pytest.raises(SystemInvalid, match="namespace: found nothing, expected a name, since My_Shop is none"):
        load("My_Shop", [folder], "dev")
    assert load("My_Shop", [folder], "dev", {"namespace": "shop"}).system.namespace == "shop"
