"""Redis: the cache of results and the channel on which every replica hears of every result.

Redis may be away at any time. The service then answers without a cache, and does not wait for it on each request:
after a failure it is left alone for a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from reference_app import metrics
from reference_app.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
FAILURES = (RedisError, OSError, asyncio.TimeoutError)
_PAUSE = 1.0


def connect(settings: Settings, **options: Any) -> Redis:
    """A client that gives up quickly."""
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        password=settings.redis_password or None,
        socket_connect_timeout=settings.redis_timeout,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1),
        client_name=settings.replica.replace(" ", "-"),
        **{"socket_timeout": settings.redis_timeout} | options,
    )


class Streams:
    """Cache and channel; without REDIS_HOST both do nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect(settings) if settings.redis_host else None
        self._left_alone_until = 0.0
        self._subscriber: Redis | None = None

    @property
    def configured(self) -> bool:
        """Whether there is a Redis at all."""
        return self._redis is not None

    async def attempt(self, operation: str, work: Callable[[Redis], Awaitable[T]]) -> T | None:
        """Runs `work`; None when Redis is away, which is counted and otherwise ignored."""
        if self._redis is None or time.monotonic() < self._left_alone_until:
            return None
        try:
            return await work(self._redis)
        except FAILURES as error:
            self._left_alone_until = time.monotonic() + _PAUSE
            metrics.redis_errors.labels(operation).inc()
            log.warning("Redis failed at %s: %s", operation, type(error).__name__)
            return None

    async def cached(self, key: str) -> bytes | None:
        """A cached result."""
        found = await self.attempt("cache", lambda redis: redis.get(self._settings.key("cache", key)))
        metrics.cache.labels("hit" if found else "miss").inc()
        return found if isinstance(found, bytes) else None

    async def publish(self, message: bytes, cache: dict[str, bytes] | None = None) -> None:
        """Tells every replica, and caches, in one round trip."""

        async def work(redis: Redis) -> bool:
            pipeline = redis.pipeline(transaction=False)
            pipeline.publish(self._settings.key("results"), message)
            for key, value in (cache or {}).items():
                pipeline.set(self._settings.key("cache", key), value, ex=self._settings.cache_seconds)
            await pipeline.execute()
            return True

        await self.attempt("publish", work)

    async def messages(self) -> AsyncIterator[bytes | None]:
        """Every message published from now on, for ever; None when the connection came back and some may be missing."""
        gap = False
        while True:
            self._subscriber = connect(self._settings, socket_timeout=None, health_check_interval=5)
            try:
                async with self._subscriber.pubsub() as channel:
                    await channel.subscribe(self._settings.key("results"))
                    while True:
                        message = await channel.get_message(timeout=2)
                        if message is None:
                            # A peer that vanished sends no reset; an unanswered ping raises at a later look.
                            await asyncio.wait_for(channel.check_health(), 2)
                        elif message["type"] == "subscribe":
                            if gap:
                                yield None
                            gap = True
                        elif message["type"] == "message":
                            yield message["data"]
            except FAILURES as error:
                gap = True
                metrics.redis_errors.labels("subscribe").inc()
                log.warning("the subscription to Redis was lost: %s", type(error).__name__)
                await asyncio.sleep(0.5)
            finally:
                await self._subscriber.aclose()

    async def check(self) -> str:
        """Empty when Redis answers, else what is wrong."""
        if self._redis is None:
            return "REDIS_HOST is not set"
        try:
            await asyncio.wait_for(self._redis.ping(), 2)
        except FAILURES as error:
            return (str(error) or type(error).__name__).splitlines()[0][:200]
        self._left_alone_until = 0.0
        return ""

    async def close(self) -> None:
        """Closes the connections."""
        if self._redis is not None:
            await self._redis.aclose()
