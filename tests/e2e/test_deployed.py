"""What runs on the cluster is what the project promises: repeatable, private, restricted, and safe to look at."""

from __future__ import annotations

import json

import pytest

from tests.support.deployment import NAMESPACE, Deployment, eventually


def running(deployment: Deployment) -> set[str]:
    """What a run that changes nothing leaves alone: each pod, and of what an autoscaler scales the pods' template."""
    scaled = {item["spec"]["scaleTargetRef"]["name"] for item in deployment.get("horizontalpodautoscalers")}
    found = set()
    for pod in deployment.get("pods"):
        labels = pod["metadata"].get("labels", {})
        alone = labels.get("app.kubernetes.io/name") in scaled
        found.add(labels["pod-template-hash"] if alone else pod["metadata"]["uid"])
    return found


def test_a_second_run_changes_nothing_and_keeps_every_secret(deployment: Deployment) -> None:
    before, values = deployment.secrets(), deployment.secret_values()
    pods = running(deployment)
    run = deployment.play()
    print(f"second run: {run.recap} in {run.seconds:.1f} s")
    assert run.changed == 0, run.output[-4000:]
    assert deployment.secrets() == before
    assert running(deployment) >= pods
    assert values
    assert not [value for value in values if value in run.output], "a secret is in the output"


def test_check_and_diff_find_nothing_to_do(deployment: Deployment) -> None:
    values = deployment.secret_values()
    run = deployment.play("site.yml", "--check", "--diff", "-vvv")
    print(f"--check --diff: {run.recap} in {run.seconds:.1f} s")
    assert run.changed == 0, run.output[-4000:]
    assert not [value for value in values if value in run.output], "a secret is in the output"


def test_a_system_alone_needs_no_other_play(deployment: Deployment) -> None:
    run = deployment.play("site.yml", "--limit=medical_inventory")
    print(f"--limit medical_inventory: {run.recap} in {run.seconds:.1f} s")
    assert run.changed == 0
    assert set(run.recap) == {"medical_inventory"}


def test_check_and_diff_show_a_change_and_make_none(deployment: Deployment) -> None:
    overrides = json.dumps({"system_overrides": {"components": {"api": {"env": {"PROOF": "shown"}}}}})
    generation = deployment.get("deployment/api")["metadata"]["generation"]
    run = deployment.play("site.yml", "--limit=medical_inventory", "--check", "--diff", f"--extra-vars={overrides}")
    assert run.changed >= 1
    assert "PROOF" in run.output, run.output[-4000:]
    assert deployment.get("deployment/api")["metadata"]["generation"] == generation


def test_another_cluster_at_the_same_address_is_refused(deployment: Deployment) -> None:
    run = deployment.play(
        "site.yml", "--limit=medical_inventory", '--extra-vars={"preflight_uid": "not-this-one"}', expect=2
    )
    sentence = next(line for line in run.output.splitlines() if "not-this-one" in line)
    print(sentence.strip())


def test_every_pod_of_the_system_is_restricted(deployment: Deployment) -> None:
    labels = deployment.get(f"namespace/{NAMESPACE}", namespace="")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    refused = deployment.kubectl(
        "run", "--namespace", NAMESPACE, "intruder", "--image=none", "--privileged", "--restart=Never", expect=1
    )
    assert "violates PodSecurity" in refused
    for pod in deployment.get("pods"):
        assert (
            pod["spec"].get("automountServiceAccountToken") is False or "cnpg.io/cluster" in pod["metadata"]["labels"]
        )


def test_the_database_is_spoken_to_with_verified_tls_only(deployment: Deployment) -> None:
    seen = deployment.sql(
        "select usename, ssl, count(*) from pg_stat_ssl join pg_stat_activity using (pid)"
        " where client_addr is not null group by 1, 2 order by 1, 2"
    )
    print(seen)
    assert "|t|" in seen
    assert "|f|" not in seen
    for component in ("api", "websocket"):
        pod = deployment.pods(component)[0]
        name = pod["metadata"]["name"]
        assert deployment.exec(name, "printenv", "PGSSLMODE").strip() == "verify-full"
        root = deployment.exec(name, "printenv", "PGSSLROOTCERT").strip()
        assert "BEGIN CERTIFICATE" in deployment.exec(name, "cat", root)


def test_a_database_that_cannot_prove_its_name_is_not_trusted(deployment: Deployment) -> None:
    """By its address the certificate does not fit: the client must refuse, which is what verify-full is for."""
    pod = deployment.pods("api")[0]["metadata"]["name"]
    address = next(
        item["spec"]["clusterIP"] for item in deployment.get("services") if item["metadata"]["name"].endswith("-rw")
    )
    program = (
        f"import os; os.environ['PGHOST'] = '{address}'\n"
        "try:\n import psycopg as driver\nexcept ImportError:\n import psycopg2 as driver\n"
        "try:\n driver.connect(dbname=os.environ['PGDATABASE']); print('trusted')\n"
        "except driver.OperationalError as error:\n print('refused:', error)"
    )
    said = deployment.exec(pod, "python3", "-c", program)
    print(said.strip())
    assert said.strip().startswith("refused")
    assert "certificate" in said or "does not match" in said


def test_models_can_be_read_and_not_written(deployment: Deployment) -> None:
    for pod in deployment.pods("api"):
        said = deployment.exec(pod["metadata"]["name"], "touch", "/app/models/intruder", expect=1)
        assert "Read-only file system" in said


def test_autoscaling_has_its_figures(deployment: Deployment) -> None:
    def current() -> bool:
        (scaler,) = [item for item in deployment.get("horizontalpodautoscalers") if "api" in item["metadata"]["name"]]
        conditions = {item["type"]: item["status"] for item in scaler["status"].get("conditions", [])}
        return conditions.get("ScalingActive") == "True" and bool(scaler["status"].get("currentMetrics"))

    eventually("the HPA of api reads its metrics", current, timeout=120, every=2)


def test_what_was_promised_is_there(deployment: Deployment) -> None:
    assert deployment.get("networkpolicies")
    budgets = {item["metadata"]["name"] for item in deployment.get("poddisruptionbudgets")}
    print("budgets:", sorted(budgets))
    for component in ("api", "websocket", "proxy"):
        assert any(component in name for name in budgets), f"no PodDisruptionBudget for {component}"


@pytest.mark.parametrize("component", ["api", "websocket", "proxy"])
def test_two_pods_of_each_are_ready(deployment: Deployment, component: str) -> None:
    pods = deployment.pods(component)
    assert len(pods) >= 2
    for pod in pods:
        conditions = {item["type"]: item["status"] for item in pod["status"]["conditions"]}
        assert conditions["Ready"] == "True", pod["metadata"]["name"]
