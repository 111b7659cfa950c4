"""The edge to those who fetch: chunks of files by the digest of their content, over HTTP.

    GET /v1/files/<digest>    Range: bytes=a-b    Authorization: Bearer …    Williw-Job: …

Nothing of a path comes from the wire. An answer (206) holds the chunks in a row that are ready, at
least one; 503 says "not yet". Bytes go by sendfile from the page cache to the socket, unless TLS.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import anyio
import structlog
from aiohttp import web

from services.checkpoint.chunks import chunk_count
from services.distributor.access import Gate
from services.distributor.content import Content, Extent
from services.distributor.door import QUIET_S, Door
from services.distributor.pace import Pace
from services.distributor.transfer import FOR_HEADER, JOB_HEADER

log = structlog.get_logger()
WAIT_S = 2.0
"""How long a chunk that is not here yet is waited for before the answer is "not yet"."""
MOST_CHUNKS = 64
SLOW_S = 30.0
"""A reader that does not take a slice in so long is cut off."""
_RANGE = re.compile(r"^bytes=(\d{1,18})-(\d{1,18})\Z")
_BEARER = re.compile(r"^Bearer ([\x21-\x7e]{1,256})\Z")
_MAX_LINE = 2048
_MAX_HEADERS = 32
_CLEANUP_S = 3.0

Find = Callable[[str, str, str], Awaitable[tuple[Content, int] | None]]
"""By digest, job and the node it is for: the content and its chunk size, or None."""


@dataclass
class DataServer:
    """Serves what `find` finds to those whom `gate` admits."""

    gate: Gate
    find: Find
    pace: Pace
    max_connections: int = 64
    sent_bytes: int = 0
    _door: Door | None = None
    _turns: dict[object, "_Turn"] = field(default_factory=dict)

    @asynccontextmanager
    async def listening(
        self, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[int]:
        """Serve for the length of the block; gives the port."""
        application = web.Application()
        application.router.add_get(r"/v1/files/{digest:[0-9a-f]{64}}", self._get)
        runner = web.AppRunner(
            application,
            access_log=None,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
            keepalive_timeout=QUIET_S,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        assert runner.server is not None  # noqa: S101  # it is set up
        self._door = Door(runner.server, self.max_connections, tls)
        try:
            async with self._door.open(host, port) as taken:
                yield taken
        finally:
            with anyio.move_on_after(_CLEANUP_S, shield=True):
                await runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        assert self._door is not None  # noqa: S101  # who asks came in by it
        with self._door.asking(request.protocol):
            return await self._answer(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        digest, job_id = request.match_info["digest"], request.headers.get(JOB_HEADER, "")
        bearer = _BEARER.match(request.headers.get("Authorization", ""))
        asked = _RANGE.match(request.headers.get("Range", ""))
        node = await self.gate.admits(job_id, bearer[1], digest) if bearer else None
        if node is None:
            return web.Response(status=403)
        found = await self.find(digest, job_id, request.headers.get(FOR_HEADER, ""))
        if found is None:
            return web.Response(status=404)
        content, chunk_bytes = found
        try:
            return await self._part(request, content, chunk_bytes, asked)
        finally:
            content.close()

    async def _part(
        self,
        request: web.Request,
        content: Content,
        chunk_bytes: int,
        asked: re.Match[str] | None,
    ) -> web.StreamResponse:
        if not asked or int(asked[1]) % chunk_bytes or not _within(asked, content):
            return web.Response(status=416)
        first = int(asked[1]) // chunk_bytes
        wanted = min(chunk_count(int(asked[2]) + 1, chunk_bytes) - first, MOST_CHUNKS)
        count = await content.ready(first, wanted, WAIT_S)
        if count == 0:
            return web.Response(status=503, headers={"Retry-After": "0"})
        start = first * chunk_bytes
        end = min((first + count) * chunk_bytes, int(asked[2]) + 1)
        return await self._send(request, content, start, end)

    async def _send(
        self, request: web.Request, content: Content, start: int, end: int
    ) -> web.StreamResponse:
        with ExitStack() as stack:
            try:
                parts = _opened(content, start, end, stack)
            except OSError:  # the stage became whole, or was pruned, this very moment
                return web.Response(status=503, headers={"Retry-After": "0"})
            response = web.StreamResponse(status=206)
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size_bytes}"
            response.content_type = "application/octet-stream"
            response.content_length = end - start
            try:
                async with self._turn_of(request):
                    await response.prepare(request)
                    for part in parts:
                        await self._send_part(request, response, part)
                    await response.write_eof()
            except (OSError, RuntimeError) as error:  # asyncio's sendfile raises both
                log.debug("reader gone", error=str(error))
                if request.transport is not None:
                    request.transport.abort()
        return response

    @asynccontextmanager
    async def _turn_of(self, request: web.Request) -> AsyncIterator[None]:
        """One answer at a time for each reader, in the order asked.

        What is asked ahead waits here instead of sharing the link, so that chunks arrive in order:
        a relay behind could not use them otherwise.
        """
        reader = (request.remote, request.headers.get(FOR_HEADER), request.headers.get(JOB_HEADER))
        turn = self._turns.setdefault(reader, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(reader, None)

    async def _send_part(
        self, request: web.Request, response: web.StreamResponse, part: "_Open | bytes"
    ) -> None:
        if isinstance(part, bytes):
            await self.pace.take(len(part))
            async with asyncio.timeout(SLOW_S):
                await response.write(part)
            self.sent_bytes += len(part)
            return
        loop, transport = asyncio.get_running_loop(), request.transport
        for done in range(0, part.extent.size_bytes, self.pace.slice_bytes):
            length = min(self.pace.slice_bytes, part.extent.size_bytes - done)
            await self.pace.take(length)
            if transport is None:
                raise ConnectionResetError
            async with asyncio.timeout(SLOW_S):
                sent = await loop.sendfile(transport, part.file, part.extent.offset + done, length)
            self.sent_bytes += sent
            if sent < length:  # the file shrank: the reader sees the connection break
                transport.abort()
                raise ConnectionResetError


@dataclass
class _Turn:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: int = 0


@dataclass(frozen=True)
class _Open:
    extent: Extent
    file: BinaryIO


def _opened(content: Content, start: int, end: int, stack: ExitStack) -> list[_Open | bytes]:
    """The extents with their files open, so that a rename on the way does no harm."""
    return [
        extent
        if isinstance(extent, bytes)
        else _Open(extent, stack.enter_context(extent.path.open("rb")))
        for extent in content.extents(start, end - start)
    ]


def _within(asked: re.Match[str], content: Content) -> bool:
    return int(asked[1]) <= int(asked[2]) < content.size_bytes
