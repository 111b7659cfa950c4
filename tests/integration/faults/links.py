"""TCP proxies on loopback that can be cut, as a network is: bytes stand still, nobody is told."""

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from typing import Self

_START_S = 10.0


class Links:
    """Proxies by name, in a thread of their own, from `with` to the end of its block."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Event] = {}
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def add(self, name: str, target_port: int) -> int:
        """A port of 127.0.0.1 from which what comes goes on to `target_port`."""
        made = self._serving(name, target_port)
        return asyncio.run_coroutine_threadsafe(made, self._loop).result(_START_S)

    def cut(self, names: Iterable[str]) -> None:
        """Let nothing more through, either way."""
        for name in names:
            self._loop.call_soon_threadsafe(self._open[name].clear)

    def mend(self) -> None:
        """Let everything through, what stood still first."""
        for gate in self._open.values():
            self._loop.call_soon_threadsafe(gate.set)

    def named(self, part: str) -> list[str]:
        """The links that begin or end at `part`; their names are FROM-TO."""
        return [name for name in self._open if part in name.split("-")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._loop.close()

    async def _serving(self, name: str, target_port: int) -> int:
        gate = self._open[name] = asyncio.Event()
        gate.set()

        async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            with contextlib.suppress(OSError):
                there, thither = await asyncio.open_connection("127.0.0.1", target_port)
                self._writers.add(thither)
                ways = (_pumped(reader, thither, gate), _pumped(there, writer, gate))
                await asyncio.gather(*ways)
            writer.close()

        server = await asyncio.start_server(joined, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        """Abort every connection until nobody is left who makes or serves one.

        A task that is cancelled as it takes a connection leaves its socket open.
        """
        for server in self._servers:
            server.close()
        for gate in self._open.values():
            gate.set()
        async with asyncio.timeout(_START_S):
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for writer in tuple(self._writers):
                    writer.transport.abort()
                await asyncio.wait(tasks, timeout=0.05)
        await asyncio.sleep(0.1)  # what was aborted is closed by the loop's next turns


async def _pumped(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    try:
        while body := await reader.read(1 << 16):
            await gate.wait()
            writer.write(body)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()
