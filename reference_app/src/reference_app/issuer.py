"""A local issuer of tokens, for clusters without one: `serve issuer`. It gives anybody a token who asks for it.

Its keys follow from ISSUER_SECRET, so that all its replicas, and the next start, have the same and nothing is stored.
Of several words in it the first signs and all are published: put a new one in front, and take the last away later.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Annotated, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter
from jwt.algorithms import ECAlgorithm
from pydantic import BaseModel, Field, StringConstraints

from reference_app.settings import SettingsError, TokenSettings

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SHORTEST = 16
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]


@dataclass(frozen=True)
class Key:
    """A signing key on P-256, its id and its public half."""

    private: ec.EllipticCurvePrivateKey
    public: dict[str, Any]

    @property
    def identity(self) -> str:
        """The id that tokens name."""
        return str(self.public["kid"])


class Asked(BaseModel):
    """Whom a token is for; further claims as they are wanted."""

    subject: Word
    seconds: int = Field(default=3600, ge=1, le=86400)
    claims: dict[Word, Any] = {}


def make_key(secret: str) -> Key:
    """The key that follows from a secret."""
    number = int.from_bytes(hashlib.sha512(b"reference_app issuer " + secret.encode()).digest())
    private = ec.derive_private_key(number % (_ORDER - 1) + 1, ec.SECP256R1())
    public: dict[str, Any] = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    # The thumbprint of RFC 7638: its members sorted, nothing else.
    members = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    kid = hashlib.sha256(members.encode()).hexdigest()[:16]
    return Key(private, {**public, "kid": kid, "use": "sig", "alg": "ES256"})


def sign(key: Key, settings: TokenSettings, subject: str, seconds: float, claims: dict[str, Any]) -> str:
    """A token; `claims` cannot replace what every token has."""
    now = int(time.time())
    always = {
        "iss": settings.issuer,
        "aud": settings.audience,
        "sub": subject,
        "iat": now,
        "exp": now + int(seconds),
    }
    return jwt.encode({**claims, **always}, key.private, "ES256", {"kid": key.identity})


def routes(settings: TokenSettings) -> APIRouter:
    """POST /token, and what an issuer publishes; raises SettingsError without a secret that is long enough."""
    secrets = settings.issuer_secret.split()
    if not secrets or min(map(len, secrets)) < _SHORTEST:
        raise SettingsError(f"the environment's ISSUER_SECRET must have at least {_SHORTEST} characters")
    keys = [make_key(secret) for secret in secrets]
    router = APIRouter(tags=["issuer"])

    @router.get("/.well-known/openid-configuration")
    async def configuration() -> dict[str, Any]:
        """Where the keys are."""
        return {
            "issuer": settings.issuer,
            "jwks_uri": settings.jwks_url,
            "id_token_signing_alg_values_supported": ["ES256"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        }

    @router.get("/.well-known/jwks.json")
    async def key_set() -> dict[str, Any]:
        """The public keys."""
        return {"keys": [key.public for key in keys]}

    @router.post("/token")
    async def token(asked: Asked) -> dict[str, Any]:
        """A token for anybody, with any claims."""
        made = sign(keys[0], settings, asked.subject, asked.seconds, asked.claims)
        return {"access_token": made, "token_type": "Bearer", "expires_in": asked.seconds}

    return router
