"""What is secret in an object is found, digested and put back, and never written down."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.release.sealing import (
    PREFIX,
    Seal,
    looks_secret,
    opened,
    sealed_lazily,
    sealed_paths,
)
from tests.support.medical_inventory import ENVIRONMENTS, objects, shared

SEAL = Seal(b"key")
SECRET = "recognisable-hunter2"


def pod(**values: str) -> dict[str, Any]:
    env = [{"name": name, "value": value} for name, value in values.items()]
    container = {"name": "api", "image": "api:1", "env": env}
    spec = {"template": {"spec": {"containers": [container]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"}, "spec": spec}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "hunter2"),
        ("password", "x"),
        ("API_KEY", "abc"),
        ("apiKey", "abc"),
        ("AUTH_TOKEN", "abc"),
        ("SENTRY_DSN", "anything"),
        ("URL", "postgres://me:hunter2@db/shop"),
        ("anything", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
        ("anything", "Bearer eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl"),
        ("anything", "AKIAIOSFODNN7EXAMPLE"),
        ("args", "--password=hunter2"),
    ],
)
def test_credentials_are_found(name: str, value: str) -> None:
    assert looks_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "info"),
        ("TOKEN_TTL", "3600"),
        ("TOKEN", "3600"),
        ("PASSWORD", ""),
        ("USE_TOKEN", "true"),
        ("PASSWORD_FILE", "/run/secrets/password"),
        ("PGSSLROOTCERT", "/etc/groundwork/postgres-ca/ca.crt"),
        ("secretName", "redis-auth"),
        ("key", "password"),
        ("name", "password"),
        ("URL", "http://api:8000/path"),
        ("URL", "postgres://db/shop"),
        ("keepalive", "32"),
        ("password", PREFIX + "abc"),
    ],
)
def test_what_is_none_is_left_alone(name: str, value: str) -> None:
    assert not looks_secret(name, value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nothing_of_our_own_systems_looks_like_a_credential(environment: str) -> None:
    """Else each rollback would have to find the values again."""
    for obj in objects(shared(environment)):
        assert list(sealed_paths(SEAL.objects([obj]))) == []


def test_secrets_are_digested_with_a_key() -> None:
    data = {"password": base64.b64encode(SECRET.encode()).decode()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data}
    (sealed,) = SEAL.objects([secret])
    assert sealed["data"]["password"].startswith(PREFIX)
    assert sealed["data"]["password"] == SEAL.digest(SECRET)
    assert sealed["data"]["password"] != Seal(b"other").digest(SECRET)
    assert secret["data"] == data
    (text,) = SEAL.objects([{**secret, "data": {}, "stringData": {"password": SECRET}}])
    assert text["stringData"]["password"] == sealed["data"]["password"]
    broken = SEAL.objects([{**secret, "data": {"password": "no base64 " + SECRET}}])
    assert SECRET not in json.dumps(broken)


def test_nothing_secret_is_left_anywhere() -> None:
    annotation = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"data": SECRET})}
    things = [
        pod(DB_PASSWORD=SECRET, URL=f"amqp://me:{SECRET}@queue"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "annotations": annotation},
         "data": {"token": SECRET, "app.ini": f"[db]\nurl = mysql://u:{SECRET}@h/x\n"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "annotations": annotation},
         "stringData": {"anything": SECRET}},
        {"apiVersion": "x/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"nested": [{"apiToken": SECRET}]}},
    ]  # fmt: skip
    assert SECRET not in json.dumps(SEAL.objects(things))


def test_values_are_put_back_from_where_they_still_are() -> None:
    (sealed,) = SEAL.objects([pod(LOG="info", DB_PASSWORD=SECRET)])
    moved = pod(DB_PASSWORD=SECRET)
    assert opened(sealed, [moved], SEAL) == pod(LOG="info", DB_PASSWORD=SECRET)
    with pytest.raises(Failure) as caught:
        opened(sealed, [pod(DB_PASSWORD="another")], SEAL)
    assert caught.value.code == "sealed_value"
    assert ".spec.template.spec.containers[0].env[1].value" in caught.value.sentence
    assert SECRET not in caught.value.sentence
    with pytest.raises(Failure):
        opened(sealed, [], SEAL)


def test_the_key_is_asked_for_only_where_something_is_secret() -> None:
    def never() -> Seal:
        raise AssertionError("the key was asked for")

    assert sealed_lazily([pod(LOG="info")], never) == [pod(LOG="info")]
    assert SEAL.digest(SECRET) in json.dumps(sealed_lazily([pod(DB_PASSWORD=SECRET)], lambda: SEAL))
