"""Runs the application and stops it gently: unready first, then WebSockets, then what is still being answered."""

from __future__ import annotations

import asyncio
import logging
import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI

from reference_app.health import Health
from reference_app.settings import Settings
from reference_app.websocket import Hub

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Uvicorn's server, with a pause between becoming unready and closing the door.

    A Service forgets a pod a moment after the pod was told to stop; connections that come in between are served.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host="0.0.0.0",  # noqa: S104 - a pod's address is not known beforehand
                port=settings.port,
                loop="uvloop",
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=65536,
                ws_ping_interval=15,
                ws_ping_timeout=15,
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                server_header=False,
                # Longer than the proxy's keep-alive, so that only the proxy ever closes an idle connection.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=settings.stop_within,
            )
        )
        self._health: Health = app.state.health
        self._hub: Hub = app.state.hub
        self._pause = settings.drain
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal starts the drain, a second one ends at once."""
        self._health.draining = True
        if self._told:
            self.should_exit = self.force_exit = True
        self._told = True
        log.info("told to stop by %s", signal.Signals(sig).name)

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn's loop, ten times a second."""
        if self._told and not self.should_exit:
            await self._drain()
            self.should_exit = True
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        waited = 0.0
        while waited < self._pause and not self.force_exit:
            await asyncio.sleep(0.1)
            waited += 0.1
        await self._hub.drain(5.0)
