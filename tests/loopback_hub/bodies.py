"""Sending files the way the Hub does, with ranges, and the ways in which that goes wrong."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from tests.loopback_hub.faults import Fault
from tests.loopback_hub.repos import StoredFile
from tests.loopback_hub.state import Seen

_PIECE_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


async def send_file(
    request: web.Request,
    file: StoredFile,
    headers: dict[str, str],
    fault: Fault,
    bytes_per_s: float,
    seen: Seen,
) -> web.StreamResponse:
    """Answer with `file` or its range; `seen` counts the bytes of body as they go out."""
    start, end = _range(request, file.size_bytes, fault)
    if start > end or start >= file.size_bytes > 0:
        seen.status = 416
        return web.Response(status=416, headers={"Content-Range": f"bytes */{file.size_bytes}"})
    partial = "Range" in request.headers and not fault.no_ranges
    length = end - start if fault.truncate_to is None else min(fault.truncate_to, end - start)
    response = web.StreamResponse(status=206 if partial else 200, headers=headers)
    response.content_length = length
    if partial:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
    seen.status = response.status
    await response.prepare(request)
    if fault.stall_s:
        await asyncio.sleep(fault.stall_s)
    if request.method == "HEAD":
        return response
    with suppress(ConnectionResetError):  # clients are killed and cancelled here
        async for sent in _send(response, file, start, start + length, fault):
            seen.body_bytes += sent
            if fault.drop_after_bytes == seen.body_bytes:
                drop(request)
                break
            if bytes_per_s:
                await asyncio.sleep(sent / bytes_per_s)
    return response


async def _send(
    response: web.StreamResponse, file: StoredFile, start: int, end: int, fault: Fault
) -> AsyncIterator[int]:
    stop = end if fault.drop_after_bytes is None else min(end, start + fault.drop_after_bytes)
    for at in range(start, stop, _PIECE_BYTES):
        piece = file.read(at, min(at + _PIECE_BYTES, stop))
        if fault.corrupt and at == start:
            piece = bytes([piece[0] ^ 0xFF]) + piece[1:]
        await response.write(piece)
        yield len(piece)


def drop(request: web.Request) -> None:
    """Close the connection without a further word."""
    if request.transport is not None:
        request.transport.close()


def _range(request: web.Request, size_bytes: int, fault: Fault) -> tuple[int, int]:
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None or fault.no_ranges:
        return 0, size_bytes
    end = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
    return int(found[1]), end
