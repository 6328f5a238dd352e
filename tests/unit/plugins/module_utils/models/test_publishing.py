"""What is asked of the cluster to publish a model, with pods that run their program on this machine."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils import pod_exec
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.models import publishing


def system_pod(name: str = "api-1", ready: bool = True, claim: str = "models", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": name, **metadata},
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "runAsNonRoot": True},
            "containers": [
                {"name": "sidecar", "image": "sidecar"},
                {
                    "name": "api",
                    "image": "app@sha256:1",
                    "env": [
                        {"name": "DOMAIN_MODULE", "value": "medical_inventory"},
                        {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    ],
                    "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "data", "mountPath": "/app/models", "readOnly": True}],
                },
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


class FakeCluster:
    """Pods by name; a publisher becomes ready at once unless `start` says otherwise."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = {pod["metadata"]["name"]: pod for pod in pods}
        self.log: list[str] = []
        self.start: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    def resource(self, _version: str, kind: str) -> str:
        return kind

    def list(self, _resource: str, _namespace: str, fields: str = "") -> Any:
        assert fields == "status.phase=Running"
        return SimpleNamespace(items=[pod for pod in self.pods.values() if pod["status"]["phase"] == "Running"])

    def get(self, _resource: str, name: str, _namespace: str) -> dict[str, Any] | None:
        return self.pods.get(name)

    def create(self, _resource: str, obj: dict[str, Any], dry_run: bool = False) -> dict[str, Any]:
        name = obj["metadata"]["name"]
        self.log.append(f"{'try' if dry_run else 'create'} {name}")
        if name in self.pods:
            raise ApiError("exists", name, "exists", status=409, reason="AlreadyExists")
        made = {**obj, "metadata": {**obj["metadata"], "uid": f"uid-{len(self.log)}"}, "status": self.start}
        if not dry_run:
            self.pods[name] = made
        return made

    def delete(self, _resource: str, name: str, _namespace: str, uid: str | None = None) -> bool:
        self.log.append(f"delete {name}")
        pod = self.pods.get(name)
        if pod is None or (uid and pod["metadata"]["uid"] != uid):
            return False
        del self.pods[name]
        return True


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volume; a program in a pod runs here, on this folder."""
    folder = tmp_path / "volume"
    folder.mkdir()

    def run(
        _cluster: Any,
        _where: tuple[str, str, str],
        command: list[str],
        feed: Callable[[Any], None],
        _hear: Callable[[str], None],
    ) -> pod_exec.Outcome:
        stream = io.BytesIO()
        feed(stream)
        local = [str(folder) if part in ("/models", "/app/models") else part for part in command]
        done = subprocess.run(
            [sys.executable, "-I", *local[1:]], input=stream.getvalue(), capture_output=True, check=False
        )
        return pod_exec.Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    monkeypatch.setattr(pod_exec, "run", run)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"version": "built-in"}))
    return path


def models(cluster: FakeCluster, **options: Any) -> publishing.Models:
    return publishing.Models(cluster, "medical-inventory", "models", **options)  # type: ignore[arg-type]


def test_publishing_twice_changes_once_and_leaves_no_pod(root: Path, source: Path) -> None:
    cluster = FakeCluster(system_pod())
    result = models(cluster).published("1.0.0", source, 5, ["true"])
    assert (result["changed"], result["current"], result["verdict"]) == (True, "1.0.0", "judged good by the image")
    assert result["diff"] == {"before": {"current": ""}, "after": {"current": "1.0.0"}}
    assert cluster.log == ["create models-publisher", "delete models-publisher"]
    cluster.log.clear()
    result = models(cluster).published("1.0.0", source, 5, [])
    assert (result["changed"], cluster.log) == (False, [])
    assert (root / "current" / "model.json").is_file()


def test_check_mode_writes_nothing_and_tells_what_would_be(root: Path, source: Path) -> None:
    cluster = FakeCluster(system_pod())
    result = models(cluster, check_mode=True).published("1.0.0", source, 5, [])
    assert (result["changed"], result["current"], cluster.log) == (True, "1.0.0", ["try models-publisher"])
    assert not list(root.iterdir())
    models(cluster).published("1.0.0", source, 5, [])
    assert models(cluster, check_mode=True).published("1.0.0", source, 5, [])["changed"] is False
    result = models(cluster, check_mode=True).rolled_back("")
    assert (result["changed"], result["current"]) == (True, "")
    assert (root / "current").is_symlink()


def test_a_bad_model_is_refused_before_the_cluster_is_asked(source: Path) -> None:
    source.write_text("{")
    cluster = FakeCluster()
    with pytest.raises(Failure, match="not JSON") as caught:
        models(cluster).published("1.0.0", source, 5, [])
    assert (caught.value.code, cluster.log) == ("model_invalid", [])


def test_other_contents_under_the_same_version_are_refused(root: Path, source: Path) -> None:
    cluster = FakeCluster(system_pod())
    models(cluster).published("1.0.0", source, 5, [])
    source.write_text(json.dumps({"version": "1.0.0", "more": 1}))
    cluster.log.clear()
    with pytest.raises(Failure, match="other contents"):
        models(cluster).published("1.0.0", source, 5, [])
    assert not cluster.log


def test_what_the_image_refuses_stays_unpublished(root: Path, source: Path) -> None:
    cluster = FakeCluster(system_pod())
    with pytest.raises(Failure, match="labels are missing"):
        models(cluster).published("1.0.0", source, 5, ["sh", "-c", "echo labels are missing >&2; exit 1"])
    assert models(cluster).listed()["versions"] == []
    assert "models-publisher" not in cluster.pods


def test_versions_are_listed_and_rolled_back(root: Path, source: Path) -> None:
    cluster = FakeCluster(system_pod())
    for version in ("1", "2"):
        models(cluster).published(version, source, 5, [])
    listed = models(cluster).listed()
    assert ([one["version"] for one in listed["versions"]], listed["current"]) == (["1", "2"], "2")
    assert models(cluster).rolled_back("2")["changed"] is False
    assert models(cluster).rolled_back("")["current"] == "1"
    with pytest.raises(Failure, match="has no version 7"):
        models(cluster).rolled_back("7")
    assert models(cluster).rolled_back("")["current"] == ""
    with pytest.raises(Failure, match="nothing to roll back"):
        models(cluster).rolled_back("")


@pytest.mark.parametrize(
    "pods",
    [
        [],
        [system_pod(claim="other")],
        [system_pod(deletionTimestamp="2026-01-01T00:00:00Z")],
        [system_pod(name="models-publisher")],
    ],
)
def test_a_volume_that_no_pod_has_is_said(pods: list[dict[str, Any]]) -> None:
    with pytest.raises(Failure, match="no running pod that mounts the claim models"):
        models(FakeCluster(*pods)).listed()


def test_a_ready_pod_is_asked_first() -> None:
    cluster = FakeCluster(system_pod("api-1", ready=False), system_pod("api-2"))
    assert models(cluster)._mounted().name == "api-2"


def test_another_publication_is_not_disturbed(root: Path, source: Path) -> None:
    other = system_pod("models-publisher", creationTimestamp="2026-01-01T00:00:00Z")
    cluster = FakeCluster(system_pod(), other)
    with pytest.raises(Failure, match="being written to") as caught:
        models(cluster).published("1", source, 5, [])
    assert caught.value.code == "model_busy"
    assert cluster.pods["models-publisher"] is other
    other["status"]["phase"] = "Failed"
    assert models(cluster).published("1", source, 5, [])["changed"] is True


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}}],
            },
            "cannot start: ErrImageNeverPull: no image",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nodes"}
                ],
            },
            "did not start within 0.1 s",
        ),
    ],
)
def test_a_pod_that_does_not_start_is_explained_and_removed(
    root: Path, source: Path, status: dict[str, Any], words: str
) -> None:
    cluster = FakeCluster(system_pod())
    cluster.start = status
    with pytest.raises(Failure) as caught:
        models(cluster, timeout=0.1).published("1", source, 5, [])
    assert words.split(":")[0] in caught.value.sentence
    assert "models-publisher" not in cluster.pods


def test_the_publishing_pod_is_as_restricted_as_the_systems_own_and_has_no_secret() -> None:
    mounted = publishing.mounted_in(system_pod(), "models")
    assert mounted is not None
    pod = publishing.publisher(mounted, "medical-inventory", "models")
    container = pod["spec"]["containers"][0]
    assert container["image"] == "app@sha256:1"
    assert container["securityContext"] == {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["env"] == [{"name": "DOMAIN_MODULE", "value": "medical_inventory"}]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["fsGroup"] == 10001
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "secret" not in json.dumps(pod).lower().replace("imagepullsecrets", "")


@pytest.mark.parametrize(("cut", "good"), [(1, True), (publishing.ATTEMPTS, False)])
def test_a_pod_that_ends_while_it_is_asked_is_no_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch, cut: int, good: bool
) -> None:
    left, really = [cut], pod_exec.run

    def run(*arguments: Any) -> pod_exec.Outcome:
        left[0] -= 1
        if left[0] >= 0:
            raise Failure("exec", "A command in pod api-1", "was cut off")
        return really(*arguments)

    monkeypatch.setattr(pod_exec, "run", run)
    monkeypatch.setattr(publishing, "PAUSE", 0.0)
    asking = models(FakeCluster(system_pod()))
    if good:
        assert asking.listed()["versions"] == []
        return
    with pytest.raises(Failure, match="was cut off"):
        asking.listed()
