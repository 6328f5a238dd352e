"""The modules as Ansible runs them: documented, idempotent, faithful in check mode, and silent about secrets."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from tests.support import kubelet
from tests.support.control_plane import ControlPlane
from tests.support.kubelet import Kubelet, wait_until

ROOT = Path(__file__).resolve().parents[2]
SECRET = "recognisable-hunter2"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"


class Play:
    """Runs tasks with ansible-playbook and keeps all that was printed."""

    def __init__(self, folder: Path, plane: ControlPlane, namespace: str) -> None:
        self.folder, self.plane, self.namespace = folder, plane, namespace
        self.output = ""

    def run(self, *tasks: dict[str, Any], options: tuple[str, ...] = (), ok: bool = True) -> list[dict[str, Any]]:
        """Results of the tasks, in order."""
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "module_defaults": {
                "group/groundwork.platform.kubernetes": {"kubeconfig": str(self.plane.kubeconfig), "context": "test"}
            },
            "tasks": list(tasks),
        }
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump([play], sort_keys=False))
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_DISPLAY_OK_HOSTS": "true",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
        }
        done = subprocess.run(
            [str(PLAYBOOK), "-i", "localhost,", "-vvv", *options, str(path)],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        self.output += done.stdout + done.stderr
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return _results(done.stdout)


def _results(text: str) -> list[dict[str, Any]]:
    """The JSON objects after ``ok: [localhost] =>`` and so on."""
    decoder, found = json.JSONDecoder(), []
    for piece in text.split("[localhost]")[1:]:
        start = piece.find("=> {")
        if start >= 0:
            found.append(decoder.raw_decode(piece[start + 3 :])[0])
    return found


@pytest.fixture
def play(tmp_path: Path, control_plane: ControlPlane, cluster: Cluster) -> Iterator[Play]:
    name = f"play-{uuid.uuid4().hex[:8]}"
    yield Play(tmp_path, control_plane, name)
    cluster.delete(cluster.resource("v1", "Namespace"), name)


def manifests(namespace: str, colour: str = "blue") -> list[dict[str, Any]]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": SECRET}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"colour": colour}},
    ]


def test_first_run_second_run_and_check_mode(play: Play, cluster: Cluster) -> None:
    apply = {
        "groundwork.platform.apply": {
            "namespace": play.namespace,
            "definition": manifests(play.namespace),
            "wait": True,
        }
    }
    secret = {
        "groundwork.platform.generated_secret": {
            "namespace": play.namespace,
            "secrets": [{"name": "g", "keys": {"password": {"length": 24}}, "data": {"user": SECRET}}],
        }
    }
    definition = manifests(play.namespace)[1:]
    gate = {"groundwork.platform.health_gate": {"namespace": play.namespace, "definition": definition}}
    tasks: tuple[dict[str, Any], ...] = ({"groundwork.platform.cluster_info": {}}, apply, secret, gate)

    checked = play.run(*tasks, options=("--check", "--diff"))
    assert [result["changed"] for result in checked] == [False, True, True, False]
    assert {item["checked"] for item in checked[1]["objects"]} == {"server", "schema"}
    assert checked[3]["verdict"] == "not_healthy"
    assert cluster.get(cluster.resource("v1", "Namespace"), play.namespace) is None

    first = play.run(*tasks, options=("--diff",))
    assert [result["changed"] for result in first] == [False, True, True, False]
    assert first[0]["reachable"] is True
    assert first[1]["gate"]["verdict"] == "healthy"
    assert {entry["after_header"] for entry in first[1]["diff"]} == {
        f"Namespace {play.namespace}", f"Secret {play.namespace}/s", f"ConfigMap {play.namespace}/c",
    }  # fmt: skip

    for options in ((), ("--check", "--diff")):
        assert not any(result["changed"] for result in play.run(*tasks, options=options))

    generated = cluster.get(cluster.resource("v1", "Secret"), "g", play.namespace)
    assert generated is not None
    password = generated["data"]["password"]
    for value in (SECRET, base64.b64encode(SECRET.encode()).decode(), password, base64.b64decode(password).decode()):
        # The play itself, which -vvv does not print, is where the value comes from.
        assert value not in play.output


def test_a_failure_is_a_sentence_and_data(play: Play, cluster: Cluster) -> None:
    play.run({"groundwork.platform.apply": {"definition": manifests(play.namespace), "namespace": play.namespace}})
    wait_until(lambda: cluster.get(cluster.resource("v1", "ServiceAccount"), "default", play.namespace))
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
        },
    }  # fmt: skip
    task = {"groundwork.platform.apply": {"namespace": play.namespace, "definition": deployment, "wait": True}}
    with Kubelet(cluster, play.namespace, kubelet.waiting("ErrImagePull", "app:1: not found")):
        failed = play.run(task, ok=False)[0]
    assert failed["failure"]["code"] == "image_not_found"
    assert failed["msg"].startswith(f"Deployment {play.namespace}/api cannot get ready: container main of Pod ")
    assert failed["failure"]["chain"][0] == f"Deployment {play.namespace}/api"
    assert "Traceback" not in play.output


def test_wrong_clusters_are_refused(play: Play) -> None:
    wrong = play.run({"groundwork.platform.cluster_info": {"expected_uid": "another"}}, ok=False)[0]
    assert wrong["failure"]["code"] == "wrong_cluster"
    absent = play.run({"groundwork.platform.cluster_info": {"kubeconfig": "/not/there", "absent_ok": True}})[0]
    assert absent["reachable"] is False
    assert "/not/there" in absent["reason"]
    missing = play.run({"groundwork.platform.cluster_info": {"context": "elsewhere"}}, ok=False)[0]
    assert missing["failure"]["code"] == "context_not_found"
    objects = [{"kind": "Namespace", "name": "default"}, {"api_version": "x.example/v1", "kind": "X", "name": "x"}]
    found = play.run({"groundwork.platform.cluster_info": {"objects": objects}})[0]["objects"]
    assert found[0]["metadata"]["name"] == "default"
    assert found[1] is None


def test_a_migration_in_check_mode(play: Play) -> None:
    container = {"name": "m", "image": "app:1", "command": ["alembic", "upgrade", "head"]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    task = {"groundwork.platform.migration": {"namespace": play.namespace, "definition": job}}
    result = play.run(task, options=("--check",))[0]
    assert result["changed"] is True
    assert result["command"] == ["alembic", "upgrade", "head"]
