"""Asks an ASGI application directly, without a server: for unit tests of the reference application."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass
class Answer:
    """An HTTP answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    chunks: Iterable[bytes] = (),
    headers: dict[str, str] | None = None,
    pause: float = 0.0,
) -> Answer:
    """One request; the body comes in chunks, with a pause before each."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    waiting = iter(chunks)
    messages: list[dict[str, Any]] = []
    finished = False

    async def receive() -> dict[str, Any]:
        nonlocal finished
        if finished:
            await asyncio.sleep(3600)
        if pause:
            await asyncio.sleep(pause)
        try:
            return {"type": "http.request", "body": next(waiting), "more_body": True}
        except StopIteration:
            finished = True
            return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start = messages[0]
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return Answer(start["status"], {key.decode(): value.decode() for key, value in start["headers"]}, body)
