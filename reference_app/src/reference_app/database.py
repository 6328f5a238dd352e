"""PostgreSQL: one pool of connections, transactions that are tried again over a failover, and 503 while it is away.

The connection's details stay with libpq, which reads PGHOST, PGUSER, PGPASSWORD, PGSSLMODE and the rest itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from reference_app import metrics
from reference_app.problems import Problem
from reference_app.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_AFTER = 5
# A primary that has become a replica, one that shuts down or starts up, and transactions that lost a race.
_READ_ONLY = "25006"
_PASSING = frozenset((_READ_ONLY, "57P01", "57P02", "57P03", "40001", "40P01", "53300"))
_NO_TABLE = "42P01"


def make_engine(settings: Settings) -> Engine:
    """The engine; it connects on first use."""
    engine = create_engine(
        "postgresql+psycopg://",
        pool_size=settings.database_pool,
        max_overflow=0,
        pool_timeout=2,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": 2,
            "application_name": f"{settings.domain}/{settings.replica}"[:63],
            # After a failover the address may still lead to the old primary for a moment.
            "target_session_attrs": "read-write",
            # A node that vanished sends no reset: without these a request would hang for minutes.
            "tcp_user_timeout": 4000,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        },
    )

    @event.listens_for(engine, "connect")
    def limit_statements(connection: Any, _record: Any) -> None:
        # A lock held by a migration must end in an answer, not in a pile of waiting requests.
        connection.execute("SET statement_timeout = '5s'")
        connection.commit()

    return engine


class Database:
    """Runs functions within transactions, in threads of its own."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self._deadline = settings.database_deadline
        self._engine = engine or make_engine(settings)
        self._threads = ThreadPoolExecutor(settings.database_pool, "database")
        self.away_since: float | None = None

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction of its own; it may run more than once, so it must be repeatable.

        Raises Problem 503 with Retry-After when PostgreSQL stays away beyond the deadline.
        """
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(self.call, work))

    def call(self, work: Callable[[Connection], T]) -> T:
        """What `run` does, for code that is in a thread already."""
        # While it is known to be away each request tries once: waiting threads would only pile up.
        give_up = time.monotonic() + (0 if self.away_since else self._deadline)
        pause = 0.05
        while True:
            try:
                with self._engine.begin() as connection:
                    result = work(connection)
            except PoolTimeout as error:
                raise Problem(503, "database_busy", "every connection to PostgreSQL is in use", 1) from error
            except (DBAPIError, OSError) as error:
                reason = self._judge(error)
                if time.monotonic() + pause > give_up:
                    self.away_since = self.away_since or time.monotonic()
                    log.warning("PostgreSQL is away: %s", reason)
                    raise Problem(
                        503, "database_away", "PostgreSQL cannot be reached: try again shortly", RETRY_AFTER
                    ) from error
                metrics.database_retries.labels(reason).inc()
                time.sleep(pause)
                pause = min(pause * 2, 0.5)
            else:
                self.away_since = None
                return result

    def _judge(self, error: Exception) -> str:
        """Why a transaction failed, when another try may succeed; raises what no other try would heal."""
        state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
        if state == _NO_TABLE:
            raise Problem(
                503, "database_not_migrated", "the database lacks a table: its migration has not run yet", RETRY_AFTER
            ) from error
        lost = isinstance(error, OSError | InterfaceError) or (
            isinstance(error, DBAPIError) and (error.connection_invalidated or state.startswith("08"))
        )
        if state == "57014":
            raise Problem(503, "database_slow", "PostgreSQL took longer than 5 s", RETRY_AFTER) from error
        if not (lost or state in _PASSING or (isinstance(error, OperationalError) and not state)):
            raise error
        if state == _READ_ONLY:
            # All of the pool leads to the old primary.
            self._engine.dispose()
        return state or "connection"

    def probe(self, statement: str) -> None:
        """Raises when the database does not answer `statement`; one try, for the readiness check."""
        with self._engine.connect() as connection:
            connection.execute(text(statement))

    async def check(self, statement: str) -> str:
        """Empty when the database answers, else what is wrong."""
        try:
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, self.probe, statement), 4)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            cause = getattr(error, "orig", None) or error
            state = getattr(cause, "sqlstate", None)
            if state == _NO_TABLE:
                return "the migration has not run yet"
            # libpq's own words name host, user and database, never the password.
            return str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
        self.away_since = None
        return ""

    def close(self) -> None:
        """Waits for running transactions, then closes the pool."""
        self._threads.shutdown(wait=True)
        self._engine.dispose()
