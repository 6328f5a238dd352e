"""How a connection is found."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import ClusterAuth
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("K8S_AUTH_", "KUBE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def kubeconfig(user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": "https://one:6443", **cluster}}],
        "users": [{"name": "u", "user": user or {"token": "s3cret"}}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
            {"name": "broken", "context": {"cluster": "missing", "user": "u"}},
        ],
    }


def write(path: Path, document: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_current_context_and_named_context(tmp_path: Path) -> None:
    path = write(tmp_path / "config", kubeconfig())
    connection = ClusterAuth(kubeconfig=path).connection()
    assert (connection.server, connection.context, connection.namespace) == ("https://one:6443", "one", "mine")
    assert connection.credentials().headers == {"Authorization": "Bearer s3cret"}
    assert ClusterAuth(kubeconfig=path, context="two").connection().namespace == "default"


@pytest.mark.parametrize(
    ("context", "code", "words"),
    [("three", "context_not_found", "one, two, broken"), ("broken", "kubeconfig_invalid", '"missing"')],
)
def test_wrong_contexts(tmp_path: Path, context: str, code: str, words: str) -> None:
    with pytest.raises(Failure) as caught:
        ClusterAuth(kubeconfig=write(tmp_path / "config", kubeconfig()), context=context).connection()
    assert caught.value.code == code
    assert words in caught.value.sentence


@pytest.mark.parametrize("text", ["token: s3cret: [", "- s3cret", "\x00s3cret"])
def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(Failure) as caught:
        ClusterAuth(kubeconfig=str(tmp_path / "config")).connection()
    assert caught.value.code == "kubeconfig_invalid"
    assert "s3cret" not in caught.value.sentence


def test_environment_and_options(tmp_path: Path) -> None:
    environment = {
        "K8S_AUTH_HOST": "https://elsewhere",
        "K8S_AUTH_API_KEY": "k",
        "K8S_AUTH_VERIFY_SSL": "no",
        "K8S_AUTH_IMPERSONATE_USER": "jane",
        "K8S_AUTH_IMPERSONATE_GROUPS": "a, b",
    }
    auth = ClusterAuth.from_params({"api_key": "", "context": None}, environment)
    connection = auth.connection()
    assert connection.server == "https://elsewhere"
    assert connection.verify is False
    assert connection.credentials().headers == {"Authorization": "Bearer k"}
    assert connection.headers == [("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")]
    given = ClusterAuth.from_params({"host": "given", "verify_ssl": True}, environment)
    assert given.connection().server == "https://given"
    assert given.validate_certs is True


def test_nothing_at_all_is_said() -> None:
    with pytest.raises(Failure) as caught:
        ClusterAuth.from_params({}, {}).connection()
    assert caught.value.code == "kubeconfig_not_found"


def test_several_files_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = kubeconfig(), kubeconfig()
    second["current-context"] = "other"
    second["contexts"] = [{"name": "other", "context": {"cluster": "c", "user": "u"}}]
    second["clusters"][0]["cluster"]["server"] = "https://ignored"
    paths = [write(tmp_path / "a", first), write(tmp_path / "b", second), str(tmp_path / "missing")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(paths))
    assert ClusterAuth().connection().context == "one"
    assert ClusterAuth(context="other").connection().server == "https://one:6443"


def test_relative_paths_belong_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CERTIFICATE")
    path = write(tmp_path / "config", kubeconfig(**{"certificate-authority": "ca.pem"}))
    assert ClusterAuth(kubeconfig=path).connection().authority == "CERTIFICATE"


def test_inline_kubeconfig_and_client_certificate() -> None:
    user = {
        "client-certificate-data": base64.b64encode(b"CERT").decode(),
        "client-key-data": base64.b64encode(b"KEY").decode(),
    }
    credentials = ClusterAuth(kubeconfig=kubeconfig(user)).connection().credentials()
    assert (credentials.certificate, credentials.key) == ("CERT", "KEY")
    assert "KEY" not in repr(credentials)


def test_token_file_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    connection = ClusterAuth(kubeconfig=kubeconfig({"tokenFile": str(token)})).connection()
    assert connection.credentials().headers["Authorization"] == "Bearer first"
    token.write_text("second\n")
    assert connection.credentials().headers["Authorization"] == "Bearer second"
    assert (connection.credentials().expires or 0) > time.time()


def plugin(tmp_path: Path, body: str) -> dict[str, Any]:
    path = tmp_path / "plugin"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(path),
            "env": [{"name": "A", "value": "x"}],
        }
    }


def test_exec_plugin(tmp_path: Path) -> None:
    answer = json.dumps({"status": {"token": "t-$A", "expirationTimestamp": "2099-01-01T00:00:00Z"}})
    user = plugin(tmp_path, f'echo "{answer}"'.replace('"{', "'{").replace('}"', "}'").replace("t-$A", "t-'$A'"))
    credentials = ClusterAuth(kubeconfig=kubeconfig(user)).connection().credentials()
    assert credentials.headers == {"Authorization": "Bearer t-x"}
    assert (credentials.expires or 0) > time.time()


@pytest.mark.parametrize(
    ("body", "words"), [("echo no login >&2; exit 3", "code 3 (no login)"), ("echo nonsense", "ExecCredential")]
)
def test_exec_plugin_that_fails(tmp_path: Path, body: str, words: str) -> None:
    connection = ClusterAuth(kubeconfig=kubeconfig(plugin(tmp_path, body))).connection()
    with pytest.raises(Failure) as caught:
        connection.credentials()
    assert caught.value.code == "credentials"
    assert words in caught.value.sentence


def test_exec_plugin_that_is_missing() -> None:
    user = {"exec": {"command": "not-a-program", "installHint": "get it from the shop"}}
    with pytest.raises(Failure, match="get it from the shop"):
        ClusterAuth(kubeconfig=kubeconfig(user)).connection().credentials()


def test_what_the_parameters_name_is_not_mixed_with_what_the_environment_names():
    environment = {"K8S_AUTH_HOST": "https://elsewhere", "K8S_AUTH_API_KEY": "k", "K8S_AUTH_CONTEXT": "other"}
    by_file = ClusterAuth.from_params({"kubeconfig": "/here", "context": "mine"}, environment)
    assert (by_file.host, by_file.api_key, by_file.context) == (None, None, "mine")
    by_host = ClusterAuth.from_params({"host": "https://mine"}, environment)
    assert (by_host.host, by_host.api_key, by_host.context) == ("https://mine", "k", None)
