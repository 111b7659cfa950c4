"""Strangers at a node's data server: they take no more than a few seats, and none for long."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from messages.ids import JobId, NodeId, PlanId, Sha256
from messages.shards import Access, ShardsReady, StageFile
from services.checkpoint.chunks import digests_of_file, name_of_content
from services.distributor import server as data_server
from services.distributor.access import Gate
from services.distributor.content import Content, Extent, WholeFile
from services.distributor.pace import Pace
from services.distributor.server import DataServer
from services.distributor.transfer import Link, Source
from tests.bus_fixture import until

CHUNK = 1 << 20
JOB, NODE, TOKEN = JobId("job1"), NodeId("b"), "secret"
SEATS = 8
HALF = b"GET /v1/files/"


@dataclass
class Served:
    """One file at one node, and whom the node lets read it."""

    file: StageFile
    content: Content
    server: DataServer | None = None
    port: int = 0
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    async def shards(self, job_id: JobId) -> ShardsReady:
        return ShardsReady(origin=NodeId("o"), job_id=job_id, plan_id=PlanId("p"), stages=())

    async def access(self, _ready: ShardsReady) -> Access:
        token = Sha256(hashlib.sha256(TOKEN.encode()).hexdigest())
        return Access(tokens={NODE: token}, files={NODE: (self.file.digest,)})

    async def find(self, _digest: str, _job: str, _node: str) -> tuple[Content, int]:
        return self.content, CHUNK

    async def connect(self, sent: bytes = b"") -> asyncio.StreamReader:
        """A stranger's connection that sends these bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.streams.append(writer)
        writer.write(sent)
        return reader

    def request(self, asked: str, *further: str) -> bytes:
        """A node's whole request for a range."""
        lines = (
            f"GET /v1/files/{self.file.digest} HTTP/1.1",
            "Host: node",
            f"Authorization: Bearer {TOKEN}",
            f"Williw-Job: {JOB}",
            f"Range: {asked}",
            *further,
        )
        return "\r\n".join((*lines, "", "")).encode()

    async def fetched(self, link: Link) -> int:
        """How many chunks a node gets that asks for one."""
        buffer = memoryview(bytearray(CHUNK))
        return await link.bring(self.file, 0, 1, buffer, lambda _index, _data: None)

    def asking(self) -> int:
        """How many requests the node has in hand."""
        assert self.server is not None
        assert self.server._door is not None
        return len(self.server._door._asking)

    def link(self) -> Link:
        """A node's own connection."""
        return Link(Source("o", f"http://127.0.0.1:{self.port}", JOB, NODE, TOKEN))


@asynccontextmanager
async def serving(tmp_path: Path, content: Content | None = None) -> AsyncIterator[Served]:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(16 * CHUNK))
    chunks = digests_of_file(path, CHUNK)
    size = path.stat().st_size
    digest = name_of_content(size, chunks)
    file = StageFile(
        name="f", size_bytes=size, digest=digest, chunk_bytes=CHUNK, chunks=chunks, tensors=()
    )
    served = Served(file, content or WholeFile(path, size))
    served.server = DataServer(Gate(served), served.find, Pace(0), max_connections=SEATS)
    async with served.server.listening("127.0.0.1", 0) as served.port:
        try:
            yield served
        finally:
            for writer in served.streams:
                writer.transport.abort()


async def closed(reader: asyncio.StreamReader) -> None:
    """Return once the server has closed this connection."""
    with contextlib.suppress(OSError):
        while await reader.read(1 << 20):
            pass


async def status(reader: asyncio.StreamReader) -> int:
    """The status of the next answer."""
    return int((await reader.readline()).split()[1])


async def test_half_sent_requests_take_no_more_seats_than_there_are_and_give_them_up(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        readers = [await served.connect(HALF) for _ in range(60)]
        with anyio.fail_after(5):
            for reader in readers[: 60 - SEATS]:
                await closed(reader)
        link = served.link()
        for _ in range(3):  # its idle connection is closed under it, and made again
            assert await served.fetched(link) == 1
            readers += [await served.connect(HALF) for _ in range(2 * SEATS)]
        link.close()
        with anyio.fail_after(5):
            for reader in readers[:-SEATS]:
                await closed(reader)
        assert not any(reader.at_eof() for reader in readers[1 - SEATS :])


async def test_who_is_silent_or_sends_headers_slowly_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_server, "QUIET_S", 0.3)
    async with serving(tmp_path) as served:
        silent, slow = await served.connect(), await served.connect(HALF)
        idle = await served.connect(served.request("bytes=1-2"))
        assert await status(idle) == 416
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(drip, served.streams[1])
                for reader in (silent, slow, idle):
                    await closed(reader)
                group.cancel_scope.cancel()


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte of a header now and then."""
    while True:
        writer.write(b"a")
        await anyio.sleep(0.05)


async def test_a_reader_that_takes_nothing_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_server, "SLOW_S", 0.3)
    async with serving(tmp_path) as served:
        reader = await served.connect(served.request(f"bytes=0-{16 * CHUNK - 1}"))
        with anyio.fail_after(5):
            assert await status(reader) == 206
            await until(lambda: not served.asking())  # the kernel holds some MiB, but not 16
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(16 * CHUNK)


@pytest.mark.parametrize("headers", [[f"X: {'a' * 4096}"], [f"X-{k}: a" for k in range(64)]])
async def test_headers_that_are_too_long_or_too_many_are_refused(
    tmp_path: Path, headers: list[str]
) -> None:
    async with serving(tmp_path) as served:
        reader = await served.connect(served.request("bytes=0-9", *headers))
        with anyio.fail_after(5):
            assert await status(reader) == 400
            await closed(reader)
        link = served.link()
        assert await served.fetched(link) == 1
        link.close()


async def test_a_range_that_the_file_has_not_is_refused(tmp_path: Path) -> None:
    size = 16 * CHUNK
    bad = [
        "bytes=1-2", "bytes=9-0", f"bytes=0-{size}", f"bytes={size}-{size}", "bytes=0-", "bytes=-5",
        "bytes=0-9,20-29", "chunks=0-9", f"bytes=0-{'9' * 30}", "",
    ]  # fmt: skip
    async with serving(tmp_path) as served:
        reader = await served.connect(b"".join(map(served.request, [*bad, "bytes=0-0"])))
        with anyio.fail_after(5):
            told = [await answered(reader) for _ in [*bad, ""]]
    assert told == [416] * len(bad) + [206]


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = head.partition("content-length: ")[2].partition("\r\n")[0]
    await reader.readexactly(int(length or 0))
    return int(head.split()[1])


class Slow:
    """A file of which no chunk is here until `here` is set."""

    size_bytes = 16 * CHUNK

    def __init__(self) -> None:
        self.asked, self.here = 0, anyio.Event()

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        self.asked += 1
        await self.here.wait()
        return 1

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        return [bytes(size_bytes)]

    def close(self) -> None:
        """Nothing is held for an answer."""


async def test_who_is_being_answered_keeps_the_seat_and_a_newcomer_is_turned_away(
    tmp_path: Path,
) -> None:
    slow = Slow()
    async with serving(tmp_path, slow) as served:
        readers = [await served.connect(served.request("bytes=0-9")) for _ in range(SEATS)]
        with anyio.fail_after(5):
            while slow.asked < SEATS:  # noqa: ASYNC110  # the server's own count
                await anyio.sleep(0.01)
            for _ in range(3):
                await closed(await served.connect(HALF))
            slow.here.set()
            assert [await status(reader) for reader in readers] == [206] * SEATS
