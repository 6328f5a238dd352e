"""Bad luck during a deploy: it converges all the same, or says why not."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from tests.support.deployment import NAMESPACE, Deployment, Run, eventually


def changing(value: str) -> str:
    """An override that rolls every pod of api and websocket."""
    component = {"env": {"E2E_RELEASE": value}}
    return "--extra-vars=" + json.dumps(
        {"system_overrides": {"components": {"api": component, "websocket": component}}}
    )


def daemon(deployment: Deployment, name: str) -> int:
    """The process id of one of the embedded cluster's daemons."""
    file = Path("/var/lib/groundwork.platform") / deployment.name / "processes-status.json"
    processes = json.loads(file.read_text())["processes"]
    return int(next(item["pid"] for item in processes if item["name"] == name))


def released(deployment: Deployment, run: Run, value: str) -> None:
    """The run ended well, and every pod of api is of that release and ready."""
    assert run.code == 0, run.output[-6000:]
    for component in ("api", "websocket"):
        for pod in deployment.pods(component):
            values = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
            assert values.get("E2E_RELEASE") == value, pod["metadata"]["name"]


def whole(deployment: Deployment) -> bool:
    """Both instances of the database are ready."""
    return deployment.get("clusters.postgresql.cnpg.io")[0]["status"].get("readyInstances") == 2


def answers(deployment: Deployment) -> None:
    """The whole path works: proxy, api, database and cache."""
    eventually("the api is ready", lambda: deployment.http("/readyz").status == 200, timeout=60)
    photograph, truth = deployment.photograph(seed=time.monotonic_ns() % 2**31, items=5)
    assert deployment.http("/detections", photograph).json["count"] == sum(truth.values())


def test_a_pod_deleted_during_a_deploy(second: Deployment) -> None:
    process = second.start("site.yml", "--limit=medical_inventory", changing("pod"))
    victim = second.pods("api")[0]["metadata"]["name"]
    time.sleep(8)
    second.kubectl("delete", "pod", victim, "--namespace", NAMESPACE, "--wait=false", "--ignore-not-found")
    for pod in second.pods("api"):
        second.kubectl(
            "delete", "pod", pod["metadata"]["name"], "--namespace", NAMESPACE, "--wait=false", "--ignore-not-found"
        )
    run = second.finish(process)
    print(f"deploy with every api pod deleted: {run.recap}")
    released(second, run, "pod")
    answers(second)


def test_the_api_server_killed_during_a_deploy(second: Deployment) -> None:
    process = second.start("site.yml", "--limit=medical_inventory", changing("apiserver"))
    killed = []
    for pause in (4, 5, 5):
        time.sleep(pause)
        pid = daemon(second, "kube-apiserver")
        if pid and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    run = second.finish(process)
    print(f"deploy with {len(killed)} kills of the API server: {run.recap}")
    assert len(killed) >= 2
    released(second, run, "apiserver")
    answers(second)


def test_the_database_primary_restarted_during_a_deploy(second: Deployment) -> None:
    eventually("the database is whole", lambda: whole(second), timeout=180, every=2)
    primary = second.primary()
    process = second.start("site.yml", "--limit=medical_inventory", changing("database"))
    time.sleep(3)
    second.kubectl("delete", "pod", primary, "--namespace", NAMESPACE, "--wait=false", "--grace-period=1")
    run = second.finish(process)
    print(f"deploy with the primary {primary} deleted: {run.recap}; now {second.primary()}")
    released(second, run, "database")
    answers(second)


def test_photographs_are_stored_again_after_the_primary_dies(second: Deployment) -> None:
    eventually("the database is whole", lambda: whole(second), timeout=180, every=2)
    photograph, _truth = second.photograph(seed=time.monotonic_ns() % 2**31, items=2)
    primary = second.primary()
    second.kubectl("delete", "pod", primary, "--namespace", NAMESPACE, "--wait=false", "--grace-period=0", "--force")
    died = time.monotonic()
    statuses: list[tuple[float, int]] = []

    def stored_by_another() -> bool:
        statuses.append((time.monotonic() - died, second.http("/detections", photograph).status))
        return statuses[-1][1] in {200, 201} and second.primary() != primary

    eventually("another primary stores a photograph", stored_by_another, timeout=120, every=0.2)
    refused = [f"{when:.1f} s: {status}" for when, status in statuses if status not in {200, 201}]
    print(f"{primary} died; {second.primary()} stores after {statuses[-1][0]:.1f} s; refused meanwhile: {refused}")


def test_the_declared_release_comes_back(second: Deployment) -> None:
    """What the tests above changed by an override is undone by a run without it, and then nothing is left to do."""
    eventually("the database is whole", lambda: whole(second), timeout=180, every=2)
    run = second.play("site.yml", "--limit=medical_inventory")
    print(f"back: {run.recap} in {run.seconds:.0f} s")
    assert second.play("site.yml", "--limit=medical_inventory").changed == 0
    names = {item["name"] for pod in second.pods("api") for item in pod["spec"]["containers"][0]["env"]}
    assert "E2E_RELEASE" not in names
