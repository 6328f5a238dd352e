"""Everything that the environment sets, read once; PostgreSQL's own variables (PGHOST ...) are left to libpq."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

MEBIBYTE = 1 << 20


class SettingsError(Exception):
    """A variable of the environment that cannot be used, in one sentence."""


@dataclass(frozen=True)
class InfluxSettings:
    """How InfluxDB is reached: by `user` and `password`, or by `org` and `token`, which version 1 does not know.

    Buckets are `database/policy` for both. `queue` counts points; `deadline` and `timeout` are seconds.
    """

    version: int = 2
    url: str = ""
    ca: str = ""
    bucket: str = ""
    org: str = ""
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    queue: int = 20_000
    deadline: float = 3.0
    timeout: float = 5.0


@dataclass(frozen=True)
class TokenSettings:
    """Whose tokens count: those of `issuer` for `audience`, signed by a key at `jwks_url`; without an issuer none.

    `jwks_ca` is a file with the certificate authority of that address; keys are fetched again after `refresh` seconds.
    `issuer_secret` is what the local issuer makes its keys from.
    """

    issuer: str = ""
    audience: str = ""
    jwks_url: str = ""
    jwks_ca: str = ""
    refresh: float = 300.0
    issuer_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Settings:
    """The application's settings. Durations in seconds, sizes in bytes.

    `ready_*` name what a replica must reach: `ready_at_start` before it is ready for the first time, `ready_while`
    to stay ready after it has been away for longer than `ready_grace`.
    """

    domain: str = "medical_inventory"
    replica: str = "local"
    port: int = 8000
    log_level: str = "INFO"
    model_path: Path = Path("/app/models")
    model_interval: float = 2.0
    redis_host: str = ""
    redis_port: int = 6379
    redis_password: str = ""
    redis_timeout: float = 0.5
    cache_seconds: int = 86400
    influx: InfluxSettings = InfluxSettings()
    tokens: TokenSettings = TokenSettings()
    database: bool = True
    database_pool: int = 8
    database_deadline: float = 3.0
    upload_limit: int = 20 * MEBIBYTE
    upload_budget: int = 48 * MEBIBYTE
    upload_idle: float = 15.0
    detectors: int = 2
    ready_at_start: frozenset[str] = frozenset(("database", "redis"))
    ready_while: frozenset[str] = frozenset(("database",))
    ready_grace: float = 15.0
    drain: float = 3.0
    stop_within: int = 20

    @property
    def redis_url(self) -> str:
        """Celery's form of the connection; it holds the password, so it is never logged."""
        password = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        return f"redis://{password}{self.redis_host}:{self.redis_port}/0"

    def key(self, *parts: str) -> str:
        """A Redis key or channel of this domain."""
        return ":".join((self.domain, *parts))


def read(environment: Mapping[str, str] = os.environ, roles: frozenset[str] = frozenset(("api",))) -> Settings:
    """Reads the settings for a process that plays `roles`; raises SettingsError."""
    get = _Reader(environment)
    defaults = Settings()
    uses_database = bool(roles & {"api", "worker"})
    influx = _influx(environment, get) if uses_database else InfluxSettings()
    uses_redis = bool(roles & {"api", "worker", "websocket", "beat"})
    used = {"redis": uses_redis, "database": uses_database, "influxdb": bool(influx.url)}
    needed = {name for name, uses in used.items() if uses}
    # An api without Redis still answers, only slower and unheard; a websocket without it has nothing to say.
    kept = {"database"} if "api" in roles else needed
    return Settings(
        domain=environment.get("DOMAIN_MODULE") or defaults.domain,
        replica=environment.get("POD_NAME") or environment.get("HOSTNAME") or socket.gethostname(),
        port=get.integer("PORT", defaults.port, 0, 65535),
        log_level=get.choice("LOG_LEVEL", defaults.log_level, ("DEBUG", "INFO", "WARNING", "ERROR")),
        model_path=Path(environment.get("MODEL_PATH") or defaults.model_path),
        model_interval=get.number("MODEL_INTERVAL", defaults.model_interval, 0.05, 3600),
        redis_host=environment.get("REDIS_HOST", "") if uses_redis else "",
        redis_port=get.integer("REDIS_PORT", defaults.redis_port, 1, 65535),
        redis_password=environment.get("REDIS_PASSWORD", ""),
        cache_seconds=get.integer("CACHE_SECONDS", defaults.cache_seconds, 1, 31_536_000),
        influx=influx,
        tokens=_tokens(get),
        database=uses_database,
        database_pool=get.integer("DATABASE_POOL", defaults.database_pool, 1, 100),
        database_deadline=get.number("DATABASE_DEADLINE", defaults.database_deadline, 0, 60),
        upload_limit=get.integer("UPLOAD_LIMIT", defaults.upload_limit, 1024, 1024 * MEBIBYTE),
        upload_budget=get.integer("UPLOAD_BUDGET", defaults.upload_budget, 1024, 8192 * MEBIBYTE),
        detectors=get.integer("DETECTORS", defaults.detectors, 1, 64),
        ready_at_start=get.names("READY_AT_START", needed),
        ready_while=get.names("READY_WHILE", kept),
        ready_grace=get.number("READY_GRACE", defaults.ready_grace, 0, 3600),
        drain=get.number("DRAIN_SECONDS", defaults.drain, 0, 600),
        stop_within=get.integer("STOP_WITHIN_SECONDS", defaults.stop_within, 1, 600),
    )


def _influx(environment: Mapping[str, str], get: _Reader) -> InfluxSettings:
    defaults = InfluxSettings()
    url = urlsplit(environment.get("INFLUX_URL", ""))
    if not url.geturl():
        return defaults
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(
            f"the environment's INFLUX_URL must be http://host:port or https://..., not {url.geturl()!r}"
        )
    version = get.integer("INFLUX_VERSION", defaults.version, 1, 2)
    token = environment.get("INFLUX_TOKEN", "")
    if token and version == 1:
        raise SettingsError("the environment sets INFLUX_TOKEN, and InfluxDB 1 has no tokens: set INFLUX_USER instead")
    needed = ["INFLUX_BUCKET", *(["INFLUX_ORG"] if token else ["INFLUX_USER", "INFLUX_PASSWORD"])]
    if missing := [name for name in needed if not environment.get(name)]:
        raise SettingsError(f"the environment lacks {', '.join(missing)}, which InfluxDB needs")
    bucket = environment["INFLUX_BUCKET"]
    if not all(bucket.partition("/")):
        raise SettingsError(f"the environment's INFLUX_BUCKET must be database/policy, not {bucket!r}")
    return InfluxSettings(
        version=version,
        url=url.geturl(),
        ca=environment.get("INFLUX_CA", ""),
        bucket=bucket,
        org=environment.get("INFLUX_ORG", ""),
        token=token,
        user=environment.get("INFLUX_USER", ""),
        password=environment.get("INFLUX_PASSWORD", ""),
        queue=get.integer("INFLUX_QUEUE", defaults.queue, 1, 10_000_000),
        deadline=get.number("INFLUX_DEADLINE", defaults.deadline, 0, 60),
    )


def _tokens(get: _Reader) -> TokenSettings:
    defaults = TokenSettings()
    issuer = get.text("TOKEN_ISSUER")
    url = get.text("TOKEN_JWKS_URL") or (f"{issuer.rstrip('/')}/.well-known/jwks.json" if issuer else "")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise SettingsError(f"the environment's TOKEN_JWKS_URL must be http://... or https://..., not {url!r}")
    audience = get.text("TOKEN_AUDIENCE")
    if issuer and not audience:
        # A token for another system of the same issuer must not open this one.
        raise SettingsError("the environment sets TOKEN_ISSUER and lacks TOKEN_AUDIENCE")
    return TokenSettings(
        issuer=issuer,
        audience=audience,
        jwks_url=url,
        jwks_ca=get.text("TOKEN_JWKS_CA"),
        refresh=get.number("TOKEN_JWKS_REFRESH", defaults.refresh, 1, 86400),
        issuer_secret=get.text("ISSUER_SECRET"),
    )


def find_domain(name: str) -> str:
    """The package of the domain that DOMAIN_MODULE names; raises SettingsError."""
    package = f"reference_app.domains.{name}"
    if not name.isidentifier() or find_spec(package) is None:
        raise SettingsError(f"the environment's DOMAIN_MODULE names {name!r}, and there is no such domain")
    return package


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str:
        """A variable, or the file that <name>_FILE names: how a secret is mounted."""
        path = self._environment.get(f"{name}_FILE")
        if not path:
            return self._environment.get(name, "").strip()
        if self._environment.get(name):
            raise SettingsError(f"the environment sets both {name} and {name}_FILE: set one of them")
        try:
            return Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise SettingsError(
                f"the environment's {name}_FILE names {path}, which cannot be read: {reason}"
            ) from error

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self._environment.get(name, "")
        try:
            value = float(text) if text else default
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise SettingsError(f"the environment's {name} must be a number from {low:g} to {high:g}, not {text!r}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.number(name, default, low, high)
        if value != int(value):
            raise SettingsError(f"the environment's {name} must be a whole number, not {value:g}")
        return int(value)

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = (self._environment.get(name) or default).upper()
        if value not in allowed:
            raise SettingsError(f"the environment's {name} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    def names(self, name: str, default: set[str]) -> frozenset[str]:
        text = self._environment.get(name)
        if text is None:
            return frozenset(default)
        found = frozenset(part.strip() for part in text.split(",") if part.strip())
        if wrong := found - {"database", "influxdb", "redis"}:
            known = "there are database, influxdb, redis"
            raise SettingsError(f"the environment's {name} names {', '.join(sorted(wrong))}; {known}")
        return found
