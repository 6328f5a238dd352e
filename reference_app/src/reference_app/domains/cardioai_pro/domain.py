"""Cardio.AI.Pro's part of the application: what the other parts ask of a domain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter

from reference_app.problems import Problem
from reference_app.services import Domain, Done, Periodic, Services, Task

_LOOK = 5.0


class CardioAiPro(Domain):
    """The domain. SciPy is imported by what analyses only: the page is served, and beat runs, without it."""

    name = "cardioai_pro"
    prefix = "/api"
    tasks = True
    ready_statement = "SELECT 1 FROM analyses LIMIT 0"
    pages = Path(__file__).parent / "static"
    periodic = MappingProxyType(
        {
            # Redis may lose what was queued; recordings are in PostgreSQL, so nothing is lost with it.
            "requeue_lost": Periodic(30.0, lambda _services, worker: worker.requeue_lost()),
            "daily_statistics": Periodic(60.0, lambda services, _worker: _count(services)),
        }
    )

    def routes(self, services: Services) -> APIRouter:
        """Analyses, their signals, statistics and samples, below /api."""
        from reference_app.domains.cardioai_pro import interface

        return interface.routes(services)

    def perform(self, services: Services, task: Task) -> Done:
        """Analyses the recording that was stored with the task."""
        from reference_app.domains.cardioai_pro import interface

        return interface.perform(services, task)

    async def watch(self, services: Services) -> None:
        """Readies the analysis, so that the first ECG waits no longer than others; keeps the queue's length."""
        from reference_app import tasks
        from reference_app.domains.cardioai_pro import measures

        await asyncio.to_thread(_ready)
        while True:
            try:
                measures.queue_length.set(await services.require_database().run(tasks.waiting))
            except Problem:
                # The database is away, which other metrics say.
                measures.queue_length.set(float("nan"))
            await asyncio.sleep(_LOOK)


def _ready() -> None:
    from reference_app.domains.cardioai_pro import generator, rhythm

    rhythm.analyse(generator.draw(0).recording)


def _count(services: Services) -> None:
    """Statistics of today and yesterday: a day's last analyses may be stored after its end."""
    from datetime import UTC, datetime, timedelta

    from reference_app.domains.cardioai_pro import store

    first = (datetime.now(UTC) - timedelta(days=1)).date()
    services.require_database().call(lambda connection: store.count_day(connection, first))


DOMAIN = CardioAiPro()
