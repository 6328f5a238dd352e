"""Who is asking: checks a request's bearer token (RFC 7519) against the keys that its issuer publishes (RFC 7517).

Keys are fetched when first needed, kept, and fetched again in the background; an issuer that is away stops nobody whose
key is known. A key id that is not known has the keys fetched again at once, but not more than every few seconds: the
id is the client's to choose. Only asymmetric signatures count, so that a public key can never pass for a shared secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from jwt import PyJWK

from reference_app import metrics
from reference_app.problems import Problem
from reference_app.settings import TokenSettings

log = logging.getLogger(__name__)

_ALGORITHMS = {"RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "ES256": "EC", "ES384": "EC", "EdDSA": "OKP"}
_LARGEST_TOKEN, _LARGEST_SET = 8192, 1 << 20
_LEEWAY = 30.0
_AGAIN = 5.0
_TIMEOUT = 3.0
_KEPT = 86400.0
"""Seconds for which keys count after they were last fetched: an issuer that is away for longer has revoked nothing, but
nobody can know."""

Fetch = Callable[[], bytes]


@dataclass(frozen=True)
class Claims:
    """What a good token says: who (`sub`), and everything else as the issuer put it."""

    subject: str
    all: dict[str, Any]

    def text(self, name: str) -> str:
        """A claim that is a string; empty where it is none."""
        value = self.all.get(name)
        return value if isinstance(value, str) else ""

    def words(self, name: str) -> frozenset[str]:
        """A claim that is a list of strings; empty where it is none."""
        value = self.all.get(name)
        return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()


class Verifier:
    """Checks tokens of one issuer for one audience.

    :param fetch: returns the key set's JSON; default: by HTTP from `settings.jwks_url`. Runs in a thread.
    :param clock: seconds that only rise.
    """

    def __init__(
        self, settings: TokenSettings, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._clock = settings, clock
        self._fetch = fetch or (lambda: fetch_keys(settings.jwks_url, settings.jwks_ca))
        self._keys: dict[str, PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def check(self, authorization: str) -> Claims:
        """The claims of the token in an Authorization header; raises Problem 401, or 503 while no key can be had."""
        try:
            return await self._check(authorization)
        except Problem as problem:
            metrics.tokens.labels(problem.code).inc()
            raise

    async def _check(self, authorization: str) -> Claims:
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem(401, "token_missing", "a bearer token is needed in the header Authorization")
        token = token.strip()
        if len(token) > _LARGEST_TOKEN:
            raise Problem(401, "token_invalid", "the token is longer than any that the issuer makes")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Problem(401, "token_invalid", "the token is no JSON Web Token") from None
        algorithm, identity = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS or not isinstance(identity, str):
            raise Problem(401, "token_invalid", "the token is not signed in a way that is accepted")
        key = await self._key(identity)
        if key is None or key.key_type != _ALGORITHMS[algorithm] or key.algorithm_name != algorithm:
            raise Problem(401, "token_invalid", "the token is signed by a key that the issuer does not have")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Problem(401, "token_expired", "the token has expired: ask the issuer for a new one") from None
        except jwt.InvalidTokenError:
            # Not why: that would tell a forger which part is wrong.
            raise Problem(401, "token_invalid", "the token is not one of the issuer's for this system") from None
        if not claims["sub"]:
            raise Problem(401, "token_invalid", "the token names nobody")
        metrics.tokens.labels("good").inc()
        return Claims(claims["sub"], claims)

    async def _key(self, identity: str) -> PyJWK | None:
        now = self._clock()
        if now - self._fetched > _KEPT:
            self._keys = {}
        if identity not in self._keys:
            await self._refresh(now)
        elif now - self._fetched > self._settings.refresh and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh(now))
        if not self._keys:
            raise Problem(503, "issuer_away", "the issuer's keys cannot be had, so no token can be checked", 5)
        return self._keys.get(identity)

    async def _refresh(self, asked: float) -> None:
        """Fetches the keys, unless somebody has since the caller asked, or it was tried a moment ago."""
        async with self._lock:
            if self._fetched > asked or self._clock() - self._tried < _AGAIN:
                return
            self._tried = self._clock()
            try:
                keys = parse_keys(await asyncio.to_thread(self._fetch))
            except (OSError, ValueError) as error:
                log.warning("the issuer's keys could not be fetched: %s", getattr(error, "reason", None) or error)
                return
            self._keys, self._fetched = keys, self._clock()


def parse_keys(text: bytes) -> dict[str, PyJWK]:
    """A key set's usable keys by their ids; raises ValueError."""
    found = json.loads(text)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no key set")  # noqa: TRY004 - what was received is wrong, not a type of ours
    keys = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or not isinstance(one.get("kid"), str):
            continue
        try:
            key = PyJWK.from_dict(one)
        except (jwt.PyJWTError, ValueError, TypeError):
            # One that is not understood must not take the others with it.
            continue
        if key.key_type == _ALGORITHMS.get(str(key.algorithm_name)):
            keys[one["kid"]] = key
    if not keys:
        raise ValueError("it holds no key that can be used")
    return keys


def fetch_keys(url: str, ca: str = "") -> bytes:
    """The key set at an address; raises OSError or ValueError.

    :param ca: file of the certificate authority, where it is not one of the machine's.
    """
    context = ssl.create_default_context(cafile=ca or None) if url.startswith("https:") else None
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - settings allow http(s)
    with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310
        text: bytes = answer.read(_LARGEST_SET + 1)
    if len(text) > _LARGEST_SET:
        raise ValueError("it is larger than any key set")
    return text
