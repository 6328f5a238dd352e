"""Takes a request's body in: bounded in size, in time, and in how much memory all uploads use together."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from reference_app.problems import Problem
from reference_app.settings import MEBIBYTE, Settings

# What a client that sends too much may still send, so that it reads our answer and not a reset connection.
_DRAIN_BYTES, _DRAIN_SECONDS = 256 * MEBIBYTE, 20.0
ANY = "application/octet-stream"


@dataclass(frozen=True)
class Upload:
    """A body: its bytes, the media type that the client declared (`application/octet-stream`: none), its SHA-256."""

    data: bytes
    declared: str
    digest: str


class Uploads:
    """Admits uploads as long as they fit into the memory set aside for them; others wait, then get 503."""

    def __init__(
        self, settings: Settings, media_types: tuple[str, ...], field: str, largest: int | None = None
    ) -> None:
        self._limit, self._idle = min(largest or settings.upload_limit, settings.upload_limit), settings.upload_idle
        self._free = max(settings.upload_budget, self._limit)
        self._changed = asyncio.Condition()
        self._media_types, self._field = media_types, field

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """The upload, whose memory stays reserved within the block.

        Raises Problem 400 or 422 for a bad body, 408 when it stalls, 413 when it is too large, 415 for another type,
        503 when too many uploads are under way.
        """
        declared, options = parse_options_header(request.headers.get("content-type", ""))
        declared_type = declared.decode("latin-1").lower()
        length = self._length(request)
        if length > self._limit:
            await self._drain(request)
            raise self._too_large()
        if declared_type != "multipart/form-data" and declared_type not in (*self._media_types, ANY):
            await self._drain(request)
            raise Problem(
                415,
                "content_type",
                f"the content type is {declared_type[:100] or 'missing'}; send {', '.join(self._media_types)}, or "
                f"multipart/form-data with a field {self._field}",
            )
        reserved = length or self._limit
        await self._reserve(reserved)
        try:
            if declared_type == "multipart/form-data":
                yield await self._multipart(request, options.get(b"boundary", b""))
            else:
                yield await self._plain(request, declared_type)
        finally:
            async with self._changed:
                self._free += reserved
                self._changed.notify_all()

    def _length(self, request: Request) -> int:
        try:
            return max(0, int(request.headers.get("content-length", "0")))
        except ValueError:
            raise Problem(400, "content_length", "the Content-Length header is no number") from None

    def _too_large(self) -> Problem:
        limit = f"{self._limit // MEBIBYTE} MB" if self._limit >= MEBIBYTE else f"{self._limit >> 10} kB"
        return Problem(413, f"{self._field}_too_large", f"the upload is larger than {limit}: send a smaller one")

    async def _reserve(self, size: int) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._free >= size), 10)
            except TimeoutError:
                raise Problem(503, "busy", "too many uploads are under way: try again shortly", 2) from None
            self._free -= size

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """The body's chunks; raises when one is late or there are too many."""
        stream, received = request.stream().__aiter__(), 0
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    chunk = await stream.__anext__()
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Problem(408, "upload_stalled", f"the upload stalled for {self._idle:g} s") from None
            received += len(chunk)
            if received > self._limit:
                await self._drain(request, stream)
                raise self._too_large()
            yield chunk

    async def _drain(self, request: Request, stream: AsyncIterator[bytes] | None = None) -> None:
        """Reads and forgets the rest, within limits."""
        rest = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for chunk in stream or request.stream():
                    rest -= len(chunk)
                    if rest < 0:
                        return
        except TimeoutError:
            return

    async def _plain(self, request: Request, declared: str) -> Upload:
        body, digest = bytearray(), hashlib.sha256()
        async for chunk in self._chunks(request):
            body += chunk
            digest.update(chunk)
        return Upload(bytes(body), declared, digest.hexdigest())

    async def _multipart(self, request: Request, boundary: bytes) -> Upload:
        if not boundary:
            raise Problem(400, "multipart", "the multipart body has no boundary")
        part = _Part(self._field)
        parser = MultipartParser(boundary, part.callbacks())  # type: ignore[arg-type]
        try:
            async for chunk in self._chunks(request):
                parser.write(chunk)
            parser.finalize()
        except MultipartParseError:
            raise Problem(400, "multipart", "the multipart body is malformed") from None
        if not part.found:
            raise Problem(400, "multipart", f"the multipart body has no field {self._field}")
        if not part.complete:
            raise Problem(400, "multipart", "the multipart body ends early")
        declared = part.media_type or ANY
        if declared not in (*self._media_types, ANY):
            raise Problem(
                415, "content_type", f"the field {self._field} is {declared[:100]}; send {', '.join(self._media_types)}"
            )
        return Upload(bytes(part.body), declared, hashlib.sha256(part.body).hexdigest())


class _Part:
    """Collects the one part with the wanted name; all others are read over."""

    def __init__(self, field: str) -> None:
        self._field = field.encode()
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._wanted = False
        self.found = self.complete = False
        self.media_type = ""
        self.body = bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers_done,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._headers, self._wanted = {}, False

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_done(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") == self._field and not self.found:
            self._wanted = self.found = True
            self.media_type = parse_options_header(self._headers.get(b"content-type", b""))[0].decode("latin-1").lower()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.body += data[start:end]

    def _end(self) -> None:
        self.complete = self.complete or self._wanted
