"""Streams every result to every WebSocket client of this replica, wherever the result was made."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from reference_app import metrics
from reference_app.services import Services

log = logging.getLogger(__name__)

# What a client may lag behind before it is sent away: results are small, and a client that reads is never this late.
_QUEUE = 256
GOING_AWAY, TRY_AGAIN = 1001, 1013


class Client:
    """One connected client and the messages it has not been sent yet."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(_QUEUE)
        self.close_code, self.close_reason = GOING_AWAY, "the replica is stopping: connect again"

    def offer(self, message: str) -> None:
        """Queues a message; a client whose queue is full is sent away."""
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            metrics.messages.labels("dropped").inc()
            self.leave(TRY_AGAIN, "too slow: connect again")

    def leave(self, code: int = GOING_AWAY, reason: str = "the replica is stopping: connect again") -> None:
        """Closes the connection after what is queued (or, when nothing more fits, at once)."""
        self.close_code, self.close_reason = code, reason
        if self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
        self.queue.put_nowait(None)


class Hub:
    """The clients of this replica, and the one subscription they share."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._clients: set[Client] = set()
        self.stopping = False

    async def listen(self) -> None:
        """Hands on every message; runs until cancelled."""
        async for message in self._services.streams.messages():
            text = json.dumps({"type": "gap"}) if message is None else message.decode()
            for client in tuple(self._clients):
                client.offer(text)

    async def drain(self, within: float) -> None:
        """Asks all clients to connect elsewhere, spread over a part of the time, and waits until they have gone."""
        self.stopping = True
        clients = tuple(self._clients)
        for client in clients:
            client.leave()
            await asyncio.sleep(min(0.01, within / 2 / len(clients)))
        end = time.monotonic() + within
        while self._clients and time.monotonic() < end:
            await asyncio.sleep(0.02)

    def routes(self) -> APIRouter:
        """The endpoint /ws."""
        router = APIRouter()

        @router.websocket("/ws")
        async def stream(socket: WebSocket) -> None:
            await self._serve(socket)

        return router

    async def _serve(self, socket: WebSocket) -> None:
        if self.stopping:
            await socket.close(GOING_AWAY)
            return
        await socket.accept(headers=[(b"x-replica", self._services.settings.replica.encode())])
        client = Client(socket)
        client.offer(
            json.dumps(
                {"type": "hello", "replica": self._services.settings.replica, "domain": self._services.settings.domain}
            )
        )
        self._clients.add(client)
        metrics.clients.set(len(self._clients))
        reader = asyncio.create_task(self._read(client))
        try:
            await self._write(client)
        except (WebSocketDisconnect, RuntimeError, OSError):
            log.debug("a WebSocket client went away")
        finally:
            reader.cancel()
            self._clients.discard(client)
            metrics.clients.set(len(self._clients))

    async def _read(self, client: Client) -> None:
        """Answers pings, and notices that the client has gone."""
        try:
            while True:
                message = await client.socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if message.get("text") == "ping":
                    client.offer(json.dumps({"type": "pong", "replica": self._services.settings.replica}))
        except (WebSocketDisconnect, RuntimeError):
            pass
        client.leave()

    async def _write(self, client: Client) -> None:
        while (message := await client.queue.get()) is not None:
            await asyncio.wait_for(client.socket.send_text(message), 20)
            metrics.messages.labels("sent").inc()
        with suppress(RuntimeError):
            await client.socket.close(client.close_code, client.close_reason)
