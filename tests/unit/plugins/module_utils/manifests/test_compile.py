"""What Medical Inventory becomes: each figure of its document, and what holds for every system."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system
from ansible_collections.groundwork.platform.plugins.module_utils.migration.options import ARGUMENTS, settings_of
from ansible_collections.groundwork.platform.plugins.module_utils.model.problems import SystemInvalid
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import millicores, number_of_bytes
from tests.support import medical_inventory as support

ENVIRONMENTS, ROOT, PINS = support.ENVIRONMENTS, support.ROOT, support.PINS
compiled, shared, objects, find, container = (
    support.compiled,
    support.shared,
    support.objects,
    support.find,
    support.container,
)
GOLDEN = Path(__file__).with_name("objects.txt")


def test_the_objects_are_those_expected() -> None:
    lines = []
    for environment in ENVIRONMENTS:
        stages = shared(environment)["stages"]
        for stage, content in stages.items():
            for one in content if isinstance(content, list) else [content]:
                lines.append(f"{environment} {stage} {one.get('kind', 'Secret')}/{one.get('metadata', one)['name']}")
    text = "".join(f"{line}\n" for line in lines)
    if os.environ.get("GROUNDWORK_UPDATE"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text, "run the unit tests once with GROUNDWORK_UPDATE=1, and look at the difference"


def test_the_same_input_gives_the_same_bytes() -> None:
    """Also in another process with another order of hashes."""
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from ansible_collections.groundwork.platform.plugins.module_utils.manifests.compile import compile_system;"
        "print(json.dumps(compile_system('medical_inventory', [sys.argv[2]], 'prod', {}, {}, json.loads(sys.argv[3]))))"
    )
    arguments = [str(ROOT / "collections"), str(ROOT / "systems"), json.dumps(PINS)]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {json.dumps(compiled("prod")) + "\n"}


def test_it_is_fast() -> None:
    began = time.process_time()
    compiled("prod")
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_object_is_labelled_and_in_its_namespace(environment: str) -> None:
    for one in objects(shared(environment)):
        metadata, name = one["metadata"], f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] != "Namespace":
            assert metadata["namespace"] == "medical-inventory", name
        for label in ("name", "instance", "component", "part-of", "managed-by"):
            assert metadata["labels"][f"app.kubernetes.io/{label}"], name
    api = find(shared(environment), "Deployment", "api")
    assert api["metadata"]["labels"]["app.kubernetes.io/version"] == "1.0.0"
    names = [(one["kind"], one["metadata"]["name"]) for one in objects(shared(environment))]
    assert len(names) == len(set(names))


def test_scaling_is_the_document_s() -> None:
    """2 to 20 at CPU 70 and memory 80; up fast, down carefully; GPU 1 to 4; websocket 1 to 10."""
    prod = shared("prod")
    api = find(prod, "HorizontalPodAutoscaler", "api")["spec"]
    assert (api["minReplicas"], api["maxReplicas"]) == (2, 20)
    assert targets(api) == {"cpu": 70, "memory": 80}
    assert api["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 30},
                {"type": "Pods", "value": 4, "periodSeconds": 60},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
        },
    }
    gpu = find(prod, "HorizontalPodAutoscaler", "api-gpu")["spec"]
    assert (gpu["minReplicas"], gpu["maxReplicas"], targets(gpu)) == (1, 4, {"cpu": 60, "memory": 75})
    assert gpu["behavior"]["scaleUp"]["selectPolicy"] == "Min"
    assert gpu["behavior"]["scaleUp"]["policies"] == [
        {"type": "Percent", "value": 100, "periodSeconds": 60},
        {"type": "Pods", "value": 1, "periodSeconds": 120},
    ]
    assert gpu["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    assert gpu["behavior"]["scaleDown"]["policies"] == [{"type": "Percent", "value": 25, "periodSeconds": 120}]
    websocket = find(prod, "HorizontalPodAutoscaler", "websocket")["spec"]
    assert (websocket["minReplicas"], websocket["maxReplicas"]) == (1, 10)
    assert targets(websocket) == {"cpu": 60, "memory": 70}


def targets(spec: dict[str, Any]) -> dict[str, int]:
    return {one["resource"]["name"]: one["resource"]["target"]["averageUtilization"] for one in spec["metrics"]}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_autoscaler_owns_the_number_of_replicas(environment: str) -> None:
    scaled = {
        one["metadata"]["name"] for one in objects(shared(environment)) if one["kind"] == "HorizontalPodAutoscaler"
    }
    for one in objects(shared(environment)):
        if one["kind"] != "Deployment":
            continue
        initial = one["metadata"].get("annotations", {}).get("groundwork.platform/initial-replicas")
        if one["metadata"]["name"] in scaled:
            assert "replicas" not in one["spec"]
            assert int(initial) >= 1
        else:
            assert one["spec"]["replicas"] >= 1
            assert initial is None


def test_gpu_pods_go_to_gpu_nodes() -> None:
    pod = find(shared("prod"), "Deployment", "api-gpu")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"accelerator": "nvidia-tesla-gpu"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    limits = pod["containers"][0]["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["memory"]) == ("1", "8Gi")
    assert find(shared("prod"), "ResourceQuota", "quota")["spec"]["hard"]["requests.nvidia.com/gpu"]


def test_storage_is_the_document_s() -> None:
    sizes = {
        environment: find(shared(environment), "Cluster", "postgres")["spec"]["storage"] for environment in ENVIRONMENTS
    }
    assert [sizes[one]["size"] for one in ("dev", "staging", "prod")] == ["10Gi", "10Gi", "50Gi"]
    assert sizes["prod"]["storageClass"] == "fast-ssd"
    assert "storageClass" not in sizes["local"]
    models = find(shared("prod"), "PersistentVolumeClaim", "models")["spec"]
    assert models["resources"]["requests"]["storage"] == "20Gi"
    assert "ReadOnlyMany" in models["accessModes"]
    redis = find(shared("prod"), "StatefulSet", "redis")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert redis["resources"]["requests"]["storage"] == "1Gi"
    for name in ("api", "api-gpu"):
        pod = find(shared("prod"), "Deployment", name)["spec"]["template"]["spec"]
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod["volumes"]
        assert {"name": "models", "mountPath": "/app/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_what_the_application_reads_from_its_environment() -> None:
    env = {one["name"]: one for one in container(shared("local"), "Deployment", "api")["env"]}
    values = {name: one["value"] for name, one in env.items() if "value" in one}
    assert values == {
        "PORT": "8000",
        "PGHOST": "postgres-rw",
        "PGPORT": "5432",
        "PGDATABASE": "medical_inventory",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/groundwork/postgres-ca/ca.crt",
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
        "MODEL_PATH": "/app/models",
        "DOMAIN_MODULE": "medical_inventory",
        "LOG_LEVEL": "info",
    }
    secrets = {name: one["valueFrom"]["secretKeyRef"] for name, one in env.items() if "valueFrom" in one}
    assert secrets == {
        "PGUSER": {"name": "postgres-app", "key": "username"},
        "PGPASSWORD": {"name": "postgres-app", "key": "password"},
        "REDIS_PASSWORD": {"name": "redis-auth", "key": "password"},
    }
    assert len(env) == len(container(shared("local"), "Deployment", "api")["env"])


def test_of_the_authority_s_secret_only_the_certificate_is_mounted() -> None:
    for name, template in support.pod_templates(shared("prod")).items():
        for volume in template["spec"]["volumes"]:
            if volume.get("secret", {}).get("secretName", "").endswith("-ca"):
                assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"], name


def test_the_migration_runs_as_its_component_does() -> None:
    job = shared("local")["stages"]["migration"]
    api, run = container(shared("local"), "Deployment", "api"), job["spec"]["template"]["spec"]["containers"][0]
    assert run["image"] == api["image"]
    assert run["command"] == ["alembic", "upgrade", "head"]
    assert {"name": "PGOPTIONS", "value": "-c lock_timeout=10s -c statement_timeout=1200s"} in run["env"]
    assert job["spec"]["backoffLimit"] == 0
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_migration_knows_its_database() -> None:
    assert shared("local")["migration"] == {
        "tool": "auto",
        "expand_only": False,
        "database": {"cluster": "postgres", "name": "medical_inventory"},
        "lock": {"timeout": 300},
        "preflight": {"wait": 0},
        "destructive": "refuse",
    }
    # The module takes what is compiled for it.
    params = {"definition": shared("local")["stages"]["migration"], **shared("local")["migration"]}
    settings = settings_of(params)
    assert settings is not None
    assert settings.tool.kind == "alembic"
    assert set(shared("local")["migration"]) <= set(ARGUMENTS)


def test_room_for_a_restore_point() -> None:
    changed = compiled("local", {"migration": {"destructive": "restore_point", "restore_point": {"size": "3Gi"}}})
    assert changed["migration"]["restore_point"] == {"type": "dump", "size": "3Gi", "keep": 3}
    before, after = (find(one, "ResourceQuota", "quota")["spec"]["hard"] for one in (shared("local"), changed))
    assert number_of_bytes(after["requests.storage"]) - number_of_bytes(before["requests.storage"]) >= 3 * 1024**3
    assert int(after["persistentvolumeclaims"]) > int(before["persistentvolumeclaims"])


def test_a_migration_without_a_database() -> None:
    result = compiled("local", {"components": {"api": {"talks_to": ["redis"]}}})
    assert result["migration"] == {"tool": "auto", "expand_only": False}


def test_every_image_is_looked_up() -> None:
    images: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            images.update(value[key] for key in ("image", "imageName") if isinstance(value.get(key), str))
            for below in value.values():
                collect(below)
        elif isinstance(value, list):
            for below in value:
                collect(below)

    collect(objects(shared("local")))
    assert images == {
        "registry.example/medical-inventory/api:1.0.0",
        "docker.io/nginxinc/nginx-unprivileged:1.28",
        "docker.io/library/redis:8.0",
        "ghcr.io/cloudnative-pg/postgresql:17-minimal-trixie",
    }
    mapping = {image: f"docker.io/groundwork/x@sha256:{index:064}" for index, image in enumerate(sorted(images))}
    mapped = compiled("local", images=mapping)
    images.clear()
    collect(objects(mapped))
    assert images == set(mapping.values())
    policies = {one["spec"]["containers"][0]["imagePullPolicy"] for one in support.pod_templates(mapped).values()}
    assert policies == {"IfNotPresent"}, "what a digest names can't change, and there may be no registry"
    policies = {
        one["spec"]["containers"][0]["imagePullPolicy"] for one in support.pod_templates(shared("prod")).values()
    }
    assert policies == {"Always"}


def test_an_image_by_digest_needs_the_version_from_the_pins() -> None:
    over = {"stores": {"postgres": {"image": "mirror.example/pg@sha256:" + "0" * 64}}}
    assert find(compiled("local", over), "Cluster", "postgres")["spec"]["imageCatalogRef"]["major"] == 17
    pins = {**PINS, "postgresql": {"images": {"postgresql": "mirror.example/pg:latest"}}}
    with pytest.raises(Failure, match="does not tell its PostgreSQL version"):
        compile_system("medical_inventory", [ROOT / "systems"], "local", {}, {}, pins)


@pytest.mark.parametrize("pins", [{}, {"redis": None}, {"redis": {"images": {}}}, {"redis": "x"}])
def test_a_missing_pin_is_named(pins: dict[str, Any]) -> None:
    with pytest.raises(Failure, match=r"components\.\w+\.images\.\w+ is missing"):
        compile_system("medical_inventory", [ROOT / "systems"], "local", {}, {}, pins)


def test_pods_roll_when_a_configuration_changes_and_only_then() -> None:
    def checksum(result: dict[str, Any], kind: str, name: str) -> str:
        annotations = find(result, kind, name)["spec"]["template"]["metadata"]["annotations"]
        return annotations["groundwork.platform/config-checksum"]

    before = shared("local")
    after = compiled("local", {"components": {"proxy": {"proxy": {"body_limit": "5Mi"}}}})
    assert checksum(before, "Deployment", "proxy") != checksum(after, "Deployment", "proxy")
    assert checksum(before, "StatefulSet", "redis") == checksum(after, "StatefulSet", "redis")
    after = compiled("local", {"stores": {"redis": {"eviction": "noeviction"}}})
    assert checksum(before, "StatefulSet", "redis") != checksum(after, "StatefulSet", "redis")
    assert find(before, "Deployment", "api") == find(after, "Deployment", "api")


def test_sticky_components_have_a_headless_service_that_the_proxy_knows() -> None:
    local = shared("local")
    assert find(local, "Service", "websocket-pods")["spec"]["clusterIP"] == "None"
    upstreams = find(local, "ConfigMap", "proxy-config")["data"]["upstreams"]
    assert upstreams == "api api 8000 plain\nwebsocket websocket-pods 8000 sticky\n"
    assert not [one for one in objects(local) if one["metadata"]["name"] == "api-pods"]


def test_what_is_public_and_how() -> None:
    local = shared("local")["public"]
    assert local == [
        {
            "name": "proxy",
            "component": "proxy",
            "service": "proxy",
            "type": "NodePort",
            "scheme": "http",
            "port": 30080,
            "host": "",
            "routes": {"/": "api", "/ws": "websocket"},
        }
    ]
    assert find(shared("local"), "Service", "proxy")["spec"]["ports"][0]["nodePort"] == 30080
    prod = shared("prod")["public"][0]
    assert (prod["type"], prod["port"], prod["host"]) == ("ClusterIP", 80, "inventory.clinic.example")
    assert prod["routes"] == {"/": "api", "/gpu": "api-gpu", "/ws": "websocket"}


def test_what_is_not_delivered_is_said() -> None:
    prod = shared("prod")
    assert prod["capabilities"]["needed"] == ["cloudnative_pg", "gpu", "metrics_server"]
    assert "redis_sentinel" in prod["capabilities"]["pending"]
    assert any(note.startswith("redis_sentinel is counted on and not delivered yet") for note in prod["notes"])
    assert "gpu" not in prod["capabilities"]["pending"]
    assert shared("local")["capabilities"] == {
        "declared": [],
        "needed": ["cloudnative_pg", "metrics_server"],
        "pending": {},
    }
    assert shared("local")["notes"] == [
        "api-gpu does not run in local",
        "proxy is public over port 30080 of every node, without TLS",
    ]


def test_what_is_left_out_is_said_with_what_would_bring_it() -> None:
    over: dict[str, Any] = {
        "metrics": {"waiting": {"query": "sum(waiting)", "alert_above": 50}},
        "components": {
            "api": {
                "scale_on": {"waiting": {"per_replica": 5}},
                "vertical": {"mode": "recommend"},
                "gpu": {"required": False},
                "public": {"host": "api", "rate_limit": {"requests": 100}},
            }
        },
        "dashboards": {"work": {"title": "Work", "shows": ["waiting"]}},
        "seed": {"component": "api", "command": ["seed"]},
    }
    said = {(one["object"], one["needs"]): one["why"] for one in compiled("local", over)["withheld"]}
    for expected in [
        ("BackendTrafficPolicy/api", "gateway"),
        ("Certificate/api", "certificates"),
        ("ConfigMap/dashboard-work", "prometheus_operator"),
        ("Deployment/api", "gpu"),
        ("HTTPRoute/api", "gateway"),
        ("Job/seed", ""),
        ("PrometheusRule/medical-inventory", "prometheus_operator"),
        ("ScaledObject/api", "keda"),
        ("VerticalPodAutoscaler/api", "vpa"),
    ]:
        assert expected in said, said
    assert said["ScaledObject/api", "keda"] == "local does not count on keda: scaling is by CPU and memory only"
    assert said["Job/seed", ""].startswith("not derived yet")
    prod = {(one["object"], one["needs"]): one["why"] for one in compiled("prod", over)["withheld"]}
    assert ("Deployment/api", "gpu") not in prod
    assert ("Job/seed", "") not in prod, "it is not asked for in prod"
    assert prod["ScaledObject/api", "keda"].startswith("not derived yet")


def test_a_quota_that_is_given_holds_and_must_be_large_enough() -> None:
    hard = find(compiled("local", {"quota": {"cpu": 4, "pods": 50}}), "ResourceQuota", "quota")["spec"]["hard"]
    assert (hard["requests.cpu"], hard["pods"]) == ("4", "50")
    with pytest.raises(SystemInvalid) as failure:
        compiled("local", {"quota": {"cpu": 1, "memory": "1Gi", "storage": "1Gi", "pods": 2}})
    assert [problem.path for problem in failure.value.problems] == [
        "quota.cpu",
        "quota.memory",
        "quota.pods",
        "quota.storage",
    ]
    assert "at least 1035m, which all parts need at their largest" in str(failure.value.problems[0])


def test_sentinel_asked_for_by_a_store_alone_is_said_too() -> None:
    assert "redis_sentinel" in compiled("local", {"stores": {"redis": {"mode": "sentinel"}}})["capabilities"]["pending"]


def test_local_fits_two_cores_with_everything_at_its_largest() -> None:
    """The control plane has the rest: 1.2 cores and 4 GiB are ours, a rollout and all replicas included."""
    hard = find(compiled("local", {"quota": {"headroom": 0}}), "ResourceQuota", "quota")["spec"]["hard"]
    assert millicores(hard["requests.cpu"]) <= 1200
    assert number_of_bytes(hard["requests.memory"]) <= 4 * 1024**3


def test_prod_is_highly_available() -> None:
    cluster = find(shared("prod"), "Cluster", "postgres")["spec"]
    assert cluster["instances"] == 3
    assert cluster["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert find(shared("local"), "Cluster", "postgres")["spec"]["instances"] == 2
    assert find(shared("dev"), "Cluster", "postgres")["spec"]["enablePDB"] is False, "or its node could not be drained"


def test_the_database_is_reached_over_tls_only_and_as_the_document_names_it() -> None:
    spec = find(shared("prod"), "Cluster", "postgres")["spec"]
    assert spec["postgresql"]["pg_hba"] == ["hostnossl all all all reject"]
    assert spec["bootstrap"]["initdb"]["database"] == "medical_inventory"
    assert spec["bootstrap"]["initdb"]["owner"] == "inventory_user"
    assert spec["enableSuperuserAccess"] is False
    assert "monitoring" not in spec


def test_no_secret_is_in_any_manifest() -> None:
    for environment in ENVIRONMENTS:
        text = json.dumps(shared(environment))
        assert not re.search(r'"kind": "Secret"', text)
    assert shared("local")["stages"]["secrets"] == [
        {
            "name": "redis-auth",
            "labels": find(shared("local"), "ServiceAccount", "redis")["metadata"]["labels"],
            "keys": {"password": {"length": 32, "alphabet": "alphanumeric"}},
        }
    ]


def test_a_system_of_one_worker_is_small() -> None:
    over: dict[str, Any] = {"components": dict.fromkeys(("api", "api-gpu", "websocket", "proxy")), "migration": None}
    over |= {"stores": None, "volumes": None}
    over["components"]["worker"] = {"args": ["work"]}
    result = compiled("dev", over)
    kinds = sorted(one["kind"] for one in result["stages"]["components"])
    assert kinds == ["Deployment"]
    assert result["stages"]["migration"] is None
    assert result["stages"]["secrets"] == []
    assert result["public"] == []
    worker = container(result, "Deployment", "worker")
    assert "readinessProbe" not in worker
    assert "ports" not in worker


PIECES: list[Any] = [
    None, "", "x", "api", "redis", "1Gi", "5m", "500m", 0, 1, 3, -1, 2.5, True, [], ["api"], ["1", "2"], {}, {"x": 1},
    {"min": 1, "max": 3}, {"type": "redis"}, {"port": 80, "args": ["x"]}, {"proxy": {"routes": {"/": "api"}}},
]  # fmt: skip


def test_whatever_is_overridden_compiles_or_is_refused_with_its_place() -> None:
    """Never a traceback, and never a complaint without the place that it is about."""
    chance = random.Random(11)  # noqa: S311 - repeatable on purpose
    base = yaml.safe_load((ROOT / "systems/medical_inventory/system.yml").read_text())
    outcomes = {"compiled": 0, "refused": 0}
    for _ in range(300):
        overrides: dict[str, Any] = {}
        for _ in range(chance.choice([1, 1, 2])):
            here, there, depth = base, overrides, chance.randint(1, 4)
            while isinstance(here, dict) and here:
                key = chance.choice([*here, "new"])
                depth -= 1
                below = here.get(key)
                if depth == 0 or not isinstance(below, dict):
                    there[key] = copy.deepcopy(chance.choice(PIECES))
                    break
                here, there = below, there.setdefault(key, {})
                if not isinstance(there, dict):
                    break
        try:
            result = compiled(chance.choice(ENVIRONMENTS), overrides)
        except SystemInvalid as failure:
            outcomes["refused"] += 1
            assert failure.problems
            for problem in failure.problems:
                assert problem.place.file == "system_overrides" or problem.place.line is not None, str(problem)
        else:
            outcomes["compiled"] += 1
            json.dumps(result, allow_nan=False)
    assert min(outcomes.values()) > 20, outcomes
