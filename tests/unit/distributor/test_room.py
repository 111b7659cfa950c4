"""What a node holds for chunks on their way is bounded, over all that it does at once."""

import functools
import os
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from messages.ids import NodeId, PlanId
from messages.shards import StageFile, StageManifest
from services.checkpoint.chunks import digest_of_chunk, name_of_content
from services.distributor.arrival import Arrival
from services.distributor.passing import Passed, Through, Upstream
from services.distributor.receive import Reception
from services.distributor.room import Room
from services.distributor.sources import Sources
from services.distributor.transfer import Sink

CHUNK = 4096


def file_of(body: bytes, name: str = "a.bin") -> StageFile:
    chunks = tuple(digest_of_chunk(body[k : k + CHUNK]) for k in range(0, len(body), CHUNK))
    return StageFile(
        name=name,
        size_bytes=len(body),
        digest=name_of_content(len(body), chunks),
        chunk_bytes=CHUNK,
        chunks=chunks,
    )


class Giving:
    """A source that has everything, and counts how many buffers it is asked to fill at once."""

    def __init__(self, body: bytes) -> None:
        self.node_id, self.body = "giver", body
        self.now = self.most = 0

    def line(self) -> "Giving":
        return self

    async def bring(
        self, file: StageFile, first: int, count: int, buffer: memoryview, sink: Sink
    ) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(0.001)

        def fill() -> None:
            for index in range(first, first + count):
                data = self.body[index * CHUNK : (index + 1) * CHUNK]
                buffer[: len(data)] = data
                sink(index, buffer[: len(data)])

        await anyio.to_thread.run_sync(fill)
        self.now -= 1
        return count

    def close(self) -> None:
        """Nothing is open."""

    async def resolve(self, _node_id: str) -> "Giving":
        return self


async def test_what_does_not_fit_waits_its_turn_and_one_buffer_always_fits() -> None:
    room, order = Room(10), []

    async def use(size_bytes: int) -> None:
        async with room.buffer(size_bytes) as buffer:
            assert len(buffer) == size_bytes
            assert room.taken_bytes <= max(10, size_bytes)
            order.append(size_bytes)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for size_bytes in (6, 4, 25, 3, 9):
                group.start_soon(use, size_bytes)
    assert order == [6, 4, 25, 3, 9]
    assert room.taken_bytes == 0


async def test_who_gives_up_waiting_leaves_the_room_to_the_next() -> None:
    room = Room(10)
    await room.take(10)
    with anyio.move_on_after(0.01):
        await room.take(5)
    room.give_back(10)
    with anyio.fail_after(30):
        await room.take(10)
    assert room.taken_bytes == 10


async def test_deliveries_at_once_share_one_room(tmp_path: Path) -> None:
    body = os.urandom(40 * CHUNK + 5)
    file, room, giver = file_of(body), Room(3 * CHUNK), Giving(body)
    manifest = StageManifest(
        plan_id=PlanId("p"),
        model_name="m",
        revision="",
        directory="m",
        node_id=NodeId("a"),
        stage=0,
        stages=1,
        files=(file,),
        size_bytes=file.size_bytes,
    )
    routes: dict[tuple[str, ...], list[str]] = {("giver",): [file.digest]}
    arrivals = [Arrival(manifest, tmp_path / str(k), tmp_path / "final") for k in range(4)]
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for arrival in arrivals:
                arrival.directory.mkdir()
                arrival.open()
                reception = Reception(arrival, Sources(giver.resolve), 4, room)
                group.start_soon(functools.partial(reception.fetch, routes))
    for arrival in arrivals:
        arrival.close()
        assert (arrival.directory / file.name).read_bytes() == body
    assert giver.most == 3
    assert room.taken_bytes == 0


async def test_a_chunk_that_is_passed_on_has_its_room_until_it_was_sent() -> None:
    body = os.urandom(4 * CHUNK)
    file, giver = file_of(body), Giving(body)
    upstream = Upstream(("giver",), Sources(giver.resolve), Room(2 * CHUNK))
    asked = [Through(file, upstream) for _ in range(3)]
    with anyio.fail_after(60):
        assert [await one.ready(k, 1, 20.0) for k, one in enumerate(asked[:2])] == [1, 1]
        assert await asked[2].ready(2, 1, 0.02) == 0
        asked[2].close()
        assert asked[0].extents(0, CHUNK) == [body[:CHUNK]]
        asked[0].close()
        assert await asked[2].ready(2, 1, 20.0) == 1
    assert upstream.room.taken_bytes == 2 * CHUNK


def test_files_passed_on_are_forgotten_oldest_first() -> None:
    files = [file_of(os.urandom(3 * CHUNK), f"{k}.bin") for k in range(5)]
    passed = Passed(most_digests=6)
    for file in files[:3]:
        passed.add([file, file])
    assert [passed.get(file.digest) is not None for file in files] == [
        False,
        True,
        True,
        *[False] * 2,
    ]
    passed.add(files[2:])
    assert all(passed.get(file.digest) for file in files[3:])


@pytest.mark.parametrize("chunk_bytes", [1, 64])
async def test_chunks_larger_than_the_room_come_one_by_one(chunk_bytes: int) -> None:
    room = Room(32)
    with anyio.fail_after(30):
        for _ in range(3):
            async with room.buffer(chunk_bytes) as buffer:
                assert len(buffer) == chunk_bytes
