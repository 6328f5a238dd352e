"""Tokens: whose count and whose never, how keys are fetched and kept, and the local issuer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from reference_app.issuer import Key, make_key, sign
from reference_app.problems import Problem
from reference_app.settings import SettingsError, TokenSettings
from reference_app.tokens import Claims, Verifier, fetch_keys, parse_keys

from reference_app import settings
from tests.support.application import Site

SETTINGS = TokenSettings("https://issuer.example", "clinic", "https://issuer.example/jwks")
KEY = make_key("a secret that is long enough")
OTHER = make_key("another secret, as long")
# Tokens are made when tests are collected, which may be long before they are used.
DAY = 86400


def key_set(*keys: Key | dict[str, Any]) -> bytes:
    return json.dumps({"keys": [key.public if isinstance(key, Key) else key for key in keys]}).encode()


class Issuer:
    """Serves a key set, counts how often, and may be away."""

    def __init__(self, *keys: Key | dict[str, Any]) -> None:
        self.keys, self.fetched, self.away, self.now = list(keys), 0, False, 1000.0

    def fetch(self) -> bytes:
        self.fetched += 1
        if self.away:
            raise ConnectionRefusedError("connection refused")
        return key_set(*self.keys)

    def verifier(self, **changes: Any) -> Verifier:
        return Verifier(SETTINGS, self.fetch, lambda: self.now)


def check(verifier: Verifier, token: str, scheme: str = "Bearer") -> Claims:
    return asyncio.run(verifier.check(f"{scheme} {token}"))


def refused(verifier: Verifier, token: str, scheme: str = "Bearer") -> str:
    with pytest.raises(Problem) as problem:
        check(verifier, token, scheme)
    assert problem.value.status in (401, 503)
    return problem.value.code


def token(key: Key = KEY, seconds: float = DAY, **claims: Any) -> str:
    return sign(key, SETTINGS, "ada", seconds, claims)


def test_a_good_token_says_who_and_what() -> None:
    claims = check(Issuer(KEY).verifier(), token(clinic="c-1", roles=["admin", 7], odd=3), "bearer")
    assert claims.subject == "ada"
    assert (claims.text("clinic"), claims.text("odd"), claims.text("none")) == ("c-1", "", "")
    assert (claims.words("roles"), claims.words("clinic")) == ({"admin"}, frozenset())


def made(key: Any, algorithm: str, kid: str = "k", **claims: Any) -> str:
    now = int(time.time())
    always = {"iss": SETTINGS.issuer, "aud": SETTINGS.audience, "sub": "ada", "iat": now, "exp": now + DAY}
    return jwt.encode({**always, **claims}, key, algorithm, {"kid": kid})


@pytest.mark.parametrize(
    ("key", "algorithm", "to_jwk"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256", RSAAlgorithm.to_jwk),
        (ec.generate_private_key(ec.SECP256R1()), "ES256", ECAlgorithm.to_jwk),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", ECAlgorithm.to_jwk),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA", OKPAlgorithm.to_jwk),
    ],
)
def test_every_usual_kind_of_key_counts(key: Any, algorithm: str, to_jwk: Callable[..., dict[str, Any]]) -> None:
    public = to_jwk(key.public_key(), as_dict=True) | {"kid": "k", "alg": algorithm}
    assert check(Issuer(public).verifier(), made(key, algorithm)).subject == "ada"


def encoded(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged_with_the_public_key() -> str:
    """The classic: the published key as the secret of an HMAC."""
    body = f"{encoded({'alg': 'HS256', 'kid': KEY.identity})}.{token().split('.')[1]}"
    secret = json.dumps(KEY.public).encode()
    return f"{body}.{encoded(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def without_an_end() -> str:
    claims = {"sub": "ada", "iss": SETTINGS.issuer, "aud": SETTINGS.audience}
    return jwt.encode(claims, KEY.private, "ES256", {"kid": KEY.identity})


def with_other_claims() -> str:
    header, body, signature = token(clinic="c-1").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{header}.{encoded(claims | {'clinic': 'c-2'})}.{signature}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "token_missing"),
        ("x", "token_invalid"),
        ("a.b.c", "token_invalid"),
        ("é.é.é", "token_invalid"),
        ("x" * 9000, "token_invalid"),
        (token(OTHER), "token_invalid"),
        (sign(Key(OTHER.private, KEY.public), SETTINGS, "ada", DAY, {}), "token_invalid"),
        (token(seconds=-60), "token_expired"),
        (made(KEY.private, "ES256", KEY.identity, iss="https://evil.example"), "token_invalid"),
        (made(KEY.private, "ES256", KEY.identity, aud="another"), "token_invalid"),
        (made(KEY.private, "ES256", KEY.identity, sub=""), "token_invalid"),
        (made(KEY.private, "ES256", KEY.identity, nbf=int(time.time()) + 600), "token_invalid"),
        (without_an_end(), "token_invalid"),
        (f"{encoded({'alg': 'none', 'kid': KEY.identity})}.{token().split('.')[1]}.", "token_invalid"),
        (f"{encoded({'alg': 'ES256', 'kid': ['x']})}.{token().split('.')[1]}.x", "token_invalid"),
        (f"{encoded({'alg': ['ES256'], 'kid': 'x'})}.{token().split('.')[1]}.x", "token_invalid"),
        (forged_with_the_public_key(), "token_invalid"),
        (with_other_claims(), "token_invalid"),
    ],
)  # fmt: skip
def test_every_other_token_is_refused(text: str, code: str) -> None:
    assert refused(Issuer(KEY).verifier(), text) == code


def test_only_the_bearer_scheme_counts() -> None:
    assert refused(Issuer(KEY).verifier(), token(), "Basic") == "token_missing"


def test_keys_are_fetched_once_and_kept_while_the_issuer_is_away() -> None:
    issuer = Issuer(KEY)
    verifier = issuer.verifier()

    async def many() -> None:
        await asyncio.gather(*(verifier.check(f"Bearer {token()}") for _ in range(20)))

    asyncio.run(many())
    assert issuer.fetched == 1
    issuer.away = True
    issuer.now += 3600
    for _ in range(3):
        assert check(verifier, token()).subject == "ada"
    issuer.now += 86400
    assert refused(verifier, token()) == "issuer_away"


def test_a_new_key_is_noticed_and_invented_key_ids_fetch_little() -> None:
    issuer = Issuer(KEY)
    verifier = issuer.verifier()
    check(verifier, token())
    issuer.keys = [OTHER, KEY]
    issuer.now += 10
    assert check(verifier, token(OTHER)).subject == "ada"
    before = issuer.fetched
    for number in range(50):
        assert refused(verifier, made(KEY.private, "ES256", f"invented-{number}")) == "token_invalid"
        issuer.now += 0.5
    assert issuer.fetched - before <= 6
    issuer.keys = [OTHER]
    issuer.now += 301

    async def later() -> None:
        await verifier.check(f"Bearer {token(OTHER)}")
        await asyncio.sleep(0.2)

    asyncio.run(later())
    assert refused(verifier, token(KEY)) == "token_invalid", "the key was withdrawn"


def test_an_issuer_that_never_answered_is_asked_again_after_a_while() -> None:
    issuer = Issuer(KEY)
    issuer.away = True
    verifier = issuer.verifier()
    assert [refused(verifier, token()) for _ in range(5)] == ["issuer_away"] * 5
    assert issuer.fetched == 1
    issuer.away = False
    issuer.now += 6
    assert check(verifier, token()).subject == "ada"


SECRET = b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"}]}'


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b'{"keys": [1, {"kid": "x"}]}', SECRET]
)
def test_a_key_set_without_a_key_for_signatures_is_none(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_keys(text)


def test_a_key_that_is_not_understood_leaves_the_others() -> None:
    odd = [
        {"kid": "a", "kty": "PQC"},
        {"kid": "b", "kty": "EC", "crv": "P-256", "x": "!", "y": "!"},
        {**KEY.public, "use": "enc"},
    ]
    assert set(parse_keys(key_set(*odd, OTHER))) == {OTHER.identity}


def test_the_issuer_has_the_same_keys_again_and_publishes_no_private_half() -> None:
    again = make_key("a secret that is long enough")
    assert (again.public, OTHER.identity != KEY.identity) == (KEY.public, True)
    assert set(KEY.public) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_the_issuer_gives_tokens_that_are_good(tmp_path: Path) -> None:
    told = TokenSettings(
        "https://issuer.example", "clinic", "http://x", issuer_secret="first-secret-0123 second-secret-0123"
    )
    site = Site(tmp_path, roles=frozenset(("issuer",)), tokens=told)
    published = site.ask("GET", "/.well-known/jwks.json")
    assert set(parse_keys(published.body)) == {make_key(word).identity for word in told.issuer_secret.split()}
    body = json.dumps({"subject": "ada", "claims": {"clinic": "c-1", "iss": "https://evil.example"}}).encode()
    answer = site.ask("POST", "/token", body, headers={"Content-Type": "application/json"})
    verifier = Verifier(told, lambda: published.body)
    claims = check(verifier, answer.json["access_token"])
    assert (claims.subject, claims.text("clinic"), claims.text("iss")) == ("ada", "c-1", told.issuer)
    assert site.ask("GET", "/.well-known/openid-configuration").json["jwks_uri"] == told.jwks_url
    assert site.ask("POST", "/token", b"{}", headers={"Content-Type": "application/json"}).status == 422


def test_an_issuer_needs_a_secret(tmp_path: Path) -> None:
    for secret in ("", "short"):
        with pytest.raises(SettingsError, match="ISSUER_SECRET"):
            Site(tmp_path, roles=frozenset(("issuer",)), tokens=TokenSettings(issuer_secret=secret))


def test_settings_come_from_the_environment_or_mounted_files(tmp_path: Path) -> None:
    mounted = tmp_path / "issuer"
    mounted.write_text("https://issuer.example/\n")
    read = settings.read({"TOKEN_ISSUER_FILE": str(mounted), "TOKEN_AUDIENCE": "clinic"}).tokens
    assert (read.issuer, read.jwks_url) == (
        "https://issuer.example/",
        "https://issuer.example/.well-known/jwks.json",
    )
    assert "secret" not in repr(settings.read({"ISSUER_SECRET": "very-secret"}))
    for environment, word in (
        ({"TOKEN_ISSUER_FILE": str(tmp_path / "none")}, "TOKEN_ISSUER_FILE"),
        ({"TOKEN_ISSUER_FILE": str(mounted), "TOKEN_ISSUER": "x"}, "both"),
        ({"TOKEN_ISSUER": "https://x"}, "TOKEN_AUDIENCE"),
        ({"TOKEN_JWKS_URL": "file:///etc/passwd"}, "TOKEN_JWKS_URL"),
    ):
        with pytest.raises(SettingsError, match=word):
            settings.read(environment)


def test_keys_are_fetched_over_http(tmp_path: Path) -> None:
    import http.server
    import threading

    body = [key_set(KEY)]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/jwks" else 404)
            self.send_header("Content-Length", str(len(body[0])))
            self.end_headers()
            self.wfile.write(body[0])

        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert set(parse_keys(fetch_keys(f"{url}/jwks"))) == {KEY.identity}
        with pytest.raises(OSError, match="404"):
            fetch_keys(f"{url}/elsewhere")
        body[0] = b" " * (2 << 20)
        with pytest.raises(ValueError, match="larger"):
            fetch_keys(f"{url}/jwks")
        server.shutdown()
    with pytest.raises(OSError):
        fetch_keys(f"{url}/jwks")
