"""The reference application without servers, for its unit tests: its routes, on stores that are not there."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reference_app.models import ModelStore
from reference_app.problems import Problem
from reference_app.web import create_app

from reference_app import services, settings
from tests.support.asgi import Answer, ask


class FakeDatabase:
    """Remembers that something was to be stored; or is away."""

    def __init__(self) -> None:
        self.away = False
        self.calls = 0

    async def run(self, work: Callable[[Any], Any]) -> Any:
        if self.away:
            raise Problem(503, "database_away", "PostgreSQL cannot be reached: try again shortly", 5)
        self.calls += 1

    async def check(self, _statement: str) -> str:
        return "connection refused" if self.away else ""

    def close(self) -> None:
        pass


class Site:
    """One process of a domain that plays `roles`."""

    def __init__(
        self,
        folder: Path,
        domain: str = "medical_inventory",
        roles: frozenset[str] = frozenset(("api",)),
        **changes: Any,
    ) -> None:
        self.settings = dataclasses.replace(
            settings.Settings(domain=domain, replica="api-1", model_path=folder, upload_idle=0.3), **changes
        )
        self.parts = services.make(self.settings, ())
        self.parts.domain = services.load_domain(domain)
        if self.parts.domain.reader:
            self.parts.models = ModelStore(folder, self.parts.domain.reader)
        self.database = FakeDatabase()
        self.parts.database = self.database  # type: ignore[assignment]
        self.app = create_app(self.parts, roles)

    def ask(self, method: str, path: str, *chunks: bytes, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        return asyncio.run(ask(self.app, method, path, chunks, headers, **more))
