"""Secrets that are generated once, on a real API server."""

from __future__ import annotations

import base64

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.generated_secret import keep

WANTED = {"name": "app", "labels": {"a": "b"}, "data": {"username": "app"}, "keys": {"password": {"length": 40}}}


def data(cluster: Cluster, namespace: str) -> dict[str, str]:
    found = cluster.get(cluster.resource("v1", "Secret"), "app", namespace)
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def test_generates_once_and_adds_what_is_missing(cluster: Cluster, namespace: str) -> None:
    assert keep(cluster, namespace, [WANTED], check_mode=True)[0].action == "created"
    assert keep(cluster, namespace, [WANTED])[0].generated == ["password"]
    first = data(cluster, namespace)
    assert first["username"] == "app"
    assert len(first["password"]) == 40
    assert keep(cluster, namespace, [WANTED])[0].action == "unchanged"
    more = {**WANTED, "keys": {**WANTED["keys"], "token": {"alphabet": "hex"}}, "labels": {"c": "d"}}
    outcome = keep(cluster, namespace, [more])[0]
    assert (outcome.action, outcome.generated) == ("changed", ["token"])
    second = data(cluster, namespace)
    assert second["password"] == first["password"]
    assert set(second["token"]) <= set("0123456789abcdef")
    assert keep(cluster, namespace, [more])[0].action == "unchanged"


def test_check_mode_without_the_namespace(cluster: Cluster) -> None:
    assert keep(cluster, "not-there-yet", [WANTED], check_mode=True)[0].action == "created"


def test_a_value_that_can_be_guessed_is_refused(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(Failure) as caught:
        keep(cluster, namespace, [{"name": "app", "keys": {"password": {"length": 4}}}])
    assert caught.value.code == "bad_secret"
