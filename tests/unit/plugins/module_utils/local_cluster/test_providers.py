"""Detection, commands and image loading of every provider, against what the programs print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.commands import Completed
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.images import Image
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.providers import (
    NAMES,
    Provider,
    Request,
    choose,
    single_context,
)
from tests.unit.plugins.module_utils.local_cluster.support import Recorder, Silent, recorded

NAME = "groundwork-0a1b2c"
REDIS = Image(
    "redis",
    Path("/cache/redis.tar"),
    f"docker.io/groundwork/redis:8@sha256:{'1' * 64}",
    ("docker.io/library/redis:8.0",),
)
NGINX = Image("nginx", Path("/cache/nginx.tar"), f"docker.io/groundwork/nginx@sha256:{'2' * 64}")

DOCKER = {"docker info --format {{.ServerVersion}}": Completed(0, "29.1.2\n")}
KIND = {
    **DOCKER,
    "kind version": recorded("kind/version.txt"),
    "kind get clusters": recorded("kind/get_clusters.txt"),
    "kind get kubeconfig": recorded("kind/get_kubeconfig.txt"),
    "kind create": Completed(0),
    "kind delete": Completed(0),
    "docker exec": Completed(0),
    f"docker exec {NAME}-control-plane ctr --namespace k8s.io images list": recorded("kind/ctr_images_list.txt"),
}
MINIKUBE = {
    "minikube version": recorded("minikube/version.txt"),
    "minikube profile list": recorded("minikube/profile_list.json"),
    f"minikube --profile {NAME}": Completed(0),
    f"minikube --profile {NAME} status": Completed(0, "Running"),
    f"minikube --profile {NAME} ssh -- sudo ctr --namespace k8s.io images list": recorded("kind/ctr_images_list.txt"),
}
DESKTOP = {
    **DOCKER,
    "docker info --format {{.OperatingSystem}}": recorded("docker_desktop/info.txt"),
    "kubectl config get-contexts": recorded("docker_desktop/get_contexts.txt"),
    "kubectl config view": recorded("docker_desktop/config_view.txt"),
    "docker image list": recorded("docker_desktop/image_list.txt"),
    "docker image load": recorded("docker_desktop/image_load.txt"),
    "docker image tag": Completed(0),
}


def provider(tmp_path: Path, runner: Recorder, name: str = "auto", recorded_: str = "", **changes: Any) -> Provider:
    layout = Layout.of(NAME, tmp_path, state_root=tmp_path / "state")
    return choose(Request(layout=layout, provider=name, **changes), recorded_, Silent(), runner)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "embedded"),
        ({**KIND, **MINIKUBE, **DESKTOP}, "kind"),
        ({**MINIKUBE, **DESKTOP}, "minikube"),
        (DESKTOP, "docker_desktop"),
        ({key: value for key, value in KIND.items() if not key.startswith("docker info")}, "embedded"),
        ({**DESKTOP, "kubectl config get-contexts": Completed(0, "work\n")}, "embedded"),
        ({**MINIKUBE, "minikube profile list": recorded("minikube/profile_list_none.json")}, "embedded"),
        (DOCKER, "embedded"),
    ],
)
def test_auto_takes_what_answers(tmp_path: Path, answers: dict[str, Completed], expected: str) -> None:
    assert provider(tmp_path, Recorder(answers)).name == expected


def test_auto_prefers_the_kubeconfig_that_the_user_names(tmp_path: Path) -> None:
    assert provider(tmp_path, Recorder(KIND), kubeconfig=tmp_path / "config").name == "kubeconfig"


def test_auto_never_looks_at_the_users_own_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (tmp_path / "config").write_text(yaml.safe_dump(TWO))
    assert provider(tmp_path, Recorder()).name == "embedded"


def test_auto_keeps_the_cluster_that_is_there_when_docker_comes_later(tmp_path: Path) -> None:
    assert provider(tmp_path, Recorder(KIND), recorded_="embedded").name == "embedded"


def test_an_unknown_provider_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="mainframe") as caught:
        provider(tmp_path, Recorder(), "mainframe")
    assert all(name in caught.value.sentence for name in NAMES)


@pytest.mark.parametrize("name", ["kind", "minikube", "docker_desktop"])
def test_a_provider_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match="local_cluster_provider"):
        provider(tmp_path, Recorder(), name).check()


class TestKind:
    def test_an_existing_cluster_is_left_alone(self, tmp_path: Path) -> None:
        runner = Recorder(KIND)
        assert provider(tmp_path, runner, "kind").up(None, []) is False
        assert not runner.ran("kind create")

    def test_a_cluster_is_made_without_touching_the_users_kubeconfig(self, tmp_path: Path) -> None:
        none = Completed(0, "", "No kind clusters found.\n")
        runner = Recorder({**KIND, "kind get clusters": none})
        assert provider(tmp_path, runner, "kind").up(None, []) is True
        (command,) = runner.ran("kind create")
        assert f"--name {NAME}" in command
        assert "--kubeconfig " in command

    def test_its_context_gets_the_clusters_name(self, tmp_path: Path) -> None:
        value = yaml.safe_load(provider(tmp_path, Recorder(KIND), "kind").kubeconfig())
        assert [entry["name"] for entry in value["contexts"]] == [NAME]
        assert value["current-context"] == NAME

    def test_images_keep_their_digests(self, tmp_path: Path) -> None:
        runner = Recorder(KIND)
        kind = provider(tmp_path, runner, "kind")
        assert REDIS.stored_name in kind.present()
        assert NGINX.stored_name not in kind.present()
        kind.load(NGINX)
        assert runner.commands[-1] == (
            f"docker exec --interactive {NAME}-control-plane ctr --namespace k8s.io images import"
            " --all-platforms --digests --base-name docker.io/groundwork/nginx -"
        )

    def test_only_its_own_cluster_is_removed(self, tmp_path: Path) -> None:
        runner = Recorder(KIND)
        assert provider(tmp_path, runner, "kind").down() is True
        assert f"--name {NAME}" in runner.ran("kind delete")[0]
        other = Recorder({**KIND, "kind get clusters": Completed(0, "other\n")})
        assert provider(tmp_path, other, "kind").down() is False
        assert not other.ran("kind delete")


class TestMinikube:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".minikube" / "profiles" / NAME).mkdir(parents=True)

    def test_a_running_cluster_is_left_alone(self, tmp_path: Path) -> None:
        runner = Recorder(MINIKUBE)
        assert provider(tmp_path, runner, "minikube").up(None, []) is False
        assert not runner.ran(f"minikube --profile {NAME} start")

    def test_a_stopped_cluster_is_started_with_containerd_and_a_kubeconfig_of_its_own(self, tmp_path: Path) -> None:
        runner = Recorder({**MINIKUBE, f"minikube --profile {NAME} status": Completed(7, "Stopped")})
        minikube = provider(tmp_path, runner, "minikube")
        assert minikube.up(None, []) is True
        (command,) = runner.ran(f"minikube --profile {NAME} start")
        assert "--container-runtime=containerd" in command
        assert runner.environments[runner.commands.index(command)]["KUBECONFIG"] != str(tmp_path / ".kube" / "config")
        assert yaml.safe_load(minikube.kubeconfig())["current-context"] == NAME

    def test_images_keep_their_digests(self, tmp_path: Path) -> None:
        runner = Recorder(MINIKUBE)
        minikube = provider(tmp_path, runner, "minikube")
        assert REDIS.stored_name in minikube.present()
        minikube.load(NGINX)
        copy, load = runner.commands[-2:]
        assert copy == f"minikube --profile {NAME} cp /cache/nginx.tar /tmp/nginx.tar"
        assert "images import --digests --base-name docker.io/groundwork/nginx /tmp/nginx.tar" in load


class TestDockerDesktop:
    def test_it_is_never_made_nor_removed(self, tmp_path: Path) -> None:
        runner = Recorder(DESKTOP)
        desktop = provider(tmp_path, runner, "docker_desktop")
        desktop.check()
        assert desktop.up(None, []) is False
        assert desktop.down() is False
        assert yaml.safe_load(desktop.kubeconfig())["current-context"] == "docker-desktop"

    def test_images_are_named_by_tags_made_of_their_digests(self, tmp_path: Path) -> None:
        runner = Recorder(DESKTOP)
        desktop = provider(tmp_path, runner, "docker_desktop")
        assert desktop.reference(REDIS) == "docker.io/groundwork/redis:111111111111"
        assert desktop.stored(REDIS) in desktop.present()
        assert desktop.stored(NGINX) not in desktop.present()
        desktop.load(NGINX)
        assert runner.commands[-1].startswith("docker image tag sha256:409467f978b4")
        assert runner.commands[-1].endswith("docker.io/groundwork/nginx:222222222222")

    def test_an_archive_that_does_not_load_is_said(self, tmp_path: Path) -> None:
        full = Completed(1, "", "write /blob: no space left on device\n")
        desktop = provider(tmp_path, Recorder({**DESKTOP, "docker image load": full}), "docker_desktop")
        with pytest.raises(Failure, match=r"Image nginx could not be loaded .* no space left"):
            desktop.load(NGINX)


TWO = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [
        {"name": "a", "cluster": {"server": "https://a", "certificate-authority": "ca.pem"}},
        {"name": "b", "cluster": {"server": "https://b"}},
    ],
    "users": [{"name": "me", "user": {"token": "recognisable-secret"}}, {"name": "you", "user": {"client-key": "/k"}}],
    "contexts": [
        {"name": "first", "context": {"cluster": "a", "user": "me"}},
        {"name": "second", "context": {"cluster": "b", "user": "you"}},
    ],
    "current-context": "second",
}


class TestKubeconfig:
    def test_just_the_named_context_is_copied(self, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(TWO))
        before = path.read_bytes()
        found = provider(tmp_path, Recorder(), "kubeconfig", kubeconfig=path, context="first")
        value = yaml.safe_load(found.kubeconfig())
        assert [entry["name"] for entry in value["contexts"]] == ["first"]
        assert [entry["name"] for entry in value["clusters"]] == ["a"]
        assert [entry["name"] for entry in value["users"]] == ["me"]
        assert value["clusters"][0]["cluster"]["certificate-authority"] == str(tmp_path / "ca.pem")
        assert path.read_bytes() == before

    def test_it_is_never_made_nor_removed(self, tmp_path: Path) -> None:
        runner = Recorder()
        found = provider(tmp_path, runner, "kubeconfig", kubeconfig=tmp_path / "config")
        assert found.up(None, []) is False
        assert found.down() is False
        assert runner.commands == []

    @pytest.mark.parametrize(
        ("text", "context", "said"),
        [
            (yaml.safe_dump(TWO), "", "2 contexts and none is named"),
            (yaml.safe_dump(TWO), "third", "no context 'third'"),
            ("{", "", "is not YAML"),
            ("[]", "", "is no kubeconfig"),
            (yaml.safe_dump({**TWO, "users": []}), "first", "whose cluster or user is not in it"),
            ("clusters: 7\ncontexts: nothing\n", "x", "has no context 'x'"),
        ],
    )
    def test_a_wrong_one_is_refused_without_showing_what_is_in_it(self, text: str, context: str, said: str) -> None:
        with pytest.raises(Failure, match=said) as caught:
            single_context(text, context, "/home/me/config")
        assert "recognisable-secret" not in str(caught.value.as_dict())
        assert "/home/me/config" in caught.value.sentence

    def test_one_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Failure, match="No such file"):
            provider(tmp_path, Recorder(), "kubeconfig", kubeconfig=tmp_path / "missing").check()
