"""The files by which everybody else sees a local cluster, whichever provider it comes from."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import files, service
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Completed
from tests.unit.plugins.module_utils.local_cluster.support import Recorder
from tests.unit.plugins.module_utils.local_cluster.test_providers import KIND, NAME, TWO

BUILT = {
    "redis": {
        "archive": "redis.tar",
        "reference": f"docker.io/groundwork/redis:8@sha256:{'1' * 64}",
        "stands_for": ["docker.io/library/redis:8.0"],
    }
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What API servers say, without any."""
    found = {"uid": "1234"}
    monkeypatch.setattr(service, "_uid", lambda kubeconfig: found["uid"])
    monkeypatch.setattr(service, "_node_address", lambda kubeconfig: "172.18.0.2")
    return found


def place(directory: Path, runner: Recorder, *, check_mode: bool = False, **params: Any) -> service.Place:
    shared = {"directory": str(directory), "checkout": str(directory.parent), "name": NAME, **params}
    return service.Place.of(shared, check_mode=check_mode, runner=runner, state_root=directory.parent / "state")


def test_a_kind_cluster_is_described_as_any_other(directory: Path) -> None:
    result = service.present(place(directory, Recorder(KIND)), None, {})
    assert result["changed"] is True
    assert result["provider"] == "kind"
    assert (directory / "uid").read_text() == "1234\n"
    assert stat.S_IMODE((directory / "kubeconfig").stat().st_mode) == 0o600
    status = json.loads((directory / "status.json").read_text())
    assert (status["name"], status["node_address"], status["state"]) == (NAME, "172.18.0.2", "running")


def test_a_second_run_changes_nothing(directory: Path) -> None:
    service.present(place(directory, Recorder(KIND)), None, {})
    assert service.present(place(directory, Recorder(KIND)), None, {})["changed"] is False


def test_check_mode_writes_nothing_and_runs_nothing_that_changes(directory: Path) -> None:
    runner = Recorder({**KIND, "kind get clusters": Completed(0, "")})
    assert service.present(place(directory, runner, check_mode=True), None, {})["changed"] is True
    assert not runner.ran("kind create")
    assert service.load(place(directory, runner, check_mode=True), BUILT)["changed"] is True
    assert not runner.ran("docker exec --interactive")
    assert not directory.exists()


def test_the_provider_is_recorded_before_the_cluster_is_made(directory: Path) -> None:
    failing = {**KIND, "kind get clusters": Completed(0, ""), "kind create": Completed(1, "", "no room\n")}
    with pytest.raises(Failure, match="no room"):
        service.present(place(directory, Recorder(failing)), None, {})
    assert json.loads((directory / "status.json").read_text())["provider"] == "kind"


def test_removal_goes_by_what_is_recorded_and_leaves_no_file(directory: Path) -> None:
    service.present(place(directory, Recorder(KIND)), None, {})
    runner = Recorder(KIND)
    assert service.absent(place(directory, runner, provider="embedded"))["changed"] is True
    assert runner.ran("kind delete")
    assert not directory.exists()


def test_removal_in_check_mode_removes_nothing(directory: Path) -> None:
    service.present(place(directory, Recorder(KIND)), None, {})
    runner = Recorder(KIND)
    assert service.absent(place(directory, runner, check_mode=True))["changed"] is True
    assert not runner.ran("kind delete")
    assert (directory / "kubeconfig").exists()


def test_only_missing_images_are_loaded_and_the_map_is_written(directory: Path, tmp_path: Path) -> None:
    archive = tmp_path / "nginx.tar"
    archive.write_bytes(b"")
    nginx = {
        "archive": str(archive),
        "reference": f"docker.io/groundwork/nginx@sha256:{'2' * 64}",
        "stands_for": ["docker.io/nginxinc/nginx-unprivileged:1.28"],
    }
    manifest = tmp_path / "cnpg-1.30.0.yaml"
    manifest.write_text("kind: Namespace\n")
    built, manifests = {**BUILT, "nginx": nginx}, {"cloudnative_pg": str(manifest)}
    result = service.load(place(directory, Recorder(KIND)), built, manifests)
    assert result["loaded"] == ["nginx"]
    assert yaml.safe_load((directory / "images.yml").read_text()) == {
        "docker.io/library/redis:8.0": BUILT["redis"]["reference"],
        "docker.io/nginxinc/nginx-unprivileged:1.28": nginx["reference"],
    }
    assert (directory / "manifests" / "cloudnative_pg.yaml").read_text() == "kind: Namespace\n"


def test_an_archive_that_is_gone_is_said(directory: Path) -> None:
    runner = Recorder({**KIND, f"docker exec {NAME}-control-plane ctr --namespace k8s.io images list": Completed(0)})
    with pytest.raises(Failure, match=r"redis\.tar is not there"):
        service.load(place(directory, runner), BUILT)


def test_an_image_that_is_not_built_yet_counts_as_missing_in_check_mode_only(directory: Path) -> None:
    unbuilt = {"redis": {"archive": "redis.tar", "reference": "", "stands_for": []}}
    assert service.load(place(directory, Recorder(KIND), check_mode=True), unbuilt)["changed"] is True
    with pytest.raises(Failure, match="'redis' needs"):
        service.load(place(directory, Recorder(KIND)), unbuilt)


def test_a_full_disk_is_a_sentence(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", str(directory / "kubeconfig"))

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(Failure, match="is full: make room and run it again") as caught:
        service.present(place(directory, Recorder(KIND)), None, {})
    assert caught.value.code == "no_space"


class TestNamedKubeconfig:
    @pytest.fixture
    def params(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "config").write_text(yaml.safe_dump(TWO))
        return {"kubeconfig": str(tmp_path / "config"), "context": "first"}

    def test_it_is_copied_and_needs_no_images(self, directory: Path, params: dict[str, str]) -> None:
        assert service.checked(place(directory, Recorder(), **params))["builds_images"] is False
        result = service.present(place(directory, Recorder(), **params), None, {})
        assert (result["provider"], result["name"]) == ("kubeconfig", "first")
        assert yaml.safe_load((directory / "kubeconfig").read_text())["current-context"] == "first"
        assert service.load(place(directory, Recorder(), **params), BUILT)["loaded"] == []
        assert yaml.safe_load((directory / "images.yml").read_text()) == {}

    def test_another_cluster_behind_the_same_name_is_refused(
        self, directory: Path, params: dict[str, str], identity: dict[str, str]
    ) -> None:
        service.present(place(directory, Recorder(), **params), None, {})
        identity["uid"] = "5678"
        before = (directory / "uid").read_text()
        for run in (service.checked, lambda where: service.present(where, None, {})):
            with pytest.raises(Failure, match="has UID 5678, not 1234"):
                run(place(directory, Recorder(), **params))
        assert (directory / "uid").read_text() == before

    def test_nothing_is_written_for_one_that_does_not_answer(
        self, directory: Path, params: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def silent(kubeconfig: Path) -> str:
            raise Failure("unreachable", "API server https://a", "does not answer")

        monkeypatch.setattr(service, "_uid", silent)
        with pytest.raises(Failure, match="https://a does not answer"):
            service.present(place(directory, Recorder(), **params), None, {})
        assert not directory.exists()

    def test_its_removal_is_that_of_our_files(self, directory: Path, params: dict[str, str], tmp_path: Path) -> None:
        service.present(place(directory, Recorder(), **params), None, {})
        assert service.absent(place(directory, Recorder(), **params))["changed"] is True
        assert not directory.exists()
        assert (tmp_path / "config").exists()
