"""Nothing that looks like a credential, and nothing that is known to be one, gets out."""

from __future__ import annotations

import base64

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.health.redact import (
    redact,
    scrub,
    secrets_of,
    values_of,
)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:s3cr3t@db:5432/app",
        "redis://:s3cr3t@cache:6379/0",
        "postgresql://app:s3cr3t@with@db/app",
        "password=s3cr3t",
        "DB_PASSWORD: s3cr3t",
        '"api_key": "s3cr3t value", "x": 1',
        "secret-token = 's3cr3t'",
        "Authorization: Basic czNjcjN0s3cr3t",
        "authorization=Bearer s3cr3ts3cr3t",
        "Set-Cookie: session=s3cr3t; Path=/",
        "-----BEGIN RSA PRIVATE KEY----- s3cr3t -----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY----- s3cr3t",
        "PGPASSWORD=s3cr3t psql",
    ],
)
def test_what_looks_like_a_credential(text: str) -> None:
    assert "s3cr3t" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        'secret "db" not found',
        'connection to server at "db" (10.96.0.7), port 5432 failed: Connection refused',
        "http://example.com/path?x=1",
        "token expired",
        "couldn't find key password in Secret n/db",
    ],
)
def test_what_does_not_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_values_that_are_known() -> None:
    data = {
        "password": base64.b64encode(b"correct horse\n").decode(),
        "uri": base64.b64encode(b"postgresql://app:battery@db/app").decode(),
        "username": base64.b64encode(b"postgres").decode(),
        "pin": base64.b64encode(b"12").decode(),
        "raw": base64.b64encode(b"\xff\xfe\xfd\xfc").decode(),
    }
    known = set(values_of({"data": data}))
    assert redact("it was correct horse, battery; user postgres, 12 times", known) == (
        "it was *****, *****; user postgres, 12 times"
    )
    assert scrub({"a": ["correct horse", 1, None]}, known) == {"a": ["*****", 1, None]}


def test_where_a_pod_takes_secrets_from() -> None:
    pod = {
        "spec": {
            "initContainers": [{"envFrom": [{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "no"}}]}],
            "containers": [{"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b"}}}, {"name": "Y"}]}],
            "volumes": [
                {"secret": {"secretName": "c"}},
                {"projected": {"sources": [{"secret": {"name": "d"}}, {"serviceAccountToken": {}}]}},
                {"emptyDir": {}},
            ],
        }
    }
    assert secrets_of(pod) == {"a", "b", "c", "d"}
