"""The edge to other nodes: chunks of a file over HTTP, each verified before anybody hears of it.

Blocking sockets in worker threads: received into one fixed buffer a thread, hashed there, so that
several connections hash on several cores. TLS by the context given.
"""

import http.client
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from messages.ids import JobId, NodeId
from messages.shards import StageFile
from services.checkpoint.chunks import chunk_range, digest_of_chunk
from services.distributor.failures import (
    Absent,
    Distrusted,
    NotYet,
    Silent,
    SourceTrouble,
    Unreachable,
)

JOB_HEADER = "Williw-Job"
FOR_HEADER = "Williw-For"
CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 8.0
"""A source that is connected and says nothing for so long withholds: an honest one says 503."""

_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)\Z")
Sink = Callable[[int, memoryview], None]


class Line(Protocol):
    """A way to one source, used by one task at a time."""

    async def bring(
        self, file: StageFile, first: int, count: int, buffer: memoryview, sink: Sink
    ) -> int:
        """What `Link.fetch` does, without blocking the event loop."""

    def close(self) -> None:
        """Let go of it, from any thread."""


class Giver(Protocol):
    """Whoever may give chunks: a node, or the Hub."""

    @property
    def node_id(self) -> str:
        """What it is called in facts."""

    def line(self) -> Line:
        """A new way to it."""


@dataclass(frozen=True)
class Source:
    """A node's data server, and what it must be shown; the token is never printed."""

    node_id: str
    url: str
    job_id: JobId
    for_node: NodeId
    token: str = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    silence_s: float = SILENCE_S

    def line(self) -> "Link":
        """A new connection, made when it is first used."""
        return Link(self)


class Link:
    """One connection to one source, kept alive; used by one thread at a time."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._connection: http.client.HTTPConnection | None = None

    async def bring(
        self, file: StageFile, first: int, count: int, buffer: memoryview, sink: Sink
    ) -> int:
        """`fetch` in a thread."""
        return await on_thread(self, partial(self.fetch, file, first, count, buffer, sink))

    def fetch(self, file: StageFile, first: int, count: int, buffer: memoryview, sink: Sink) -> int:
        """Hand chunks [first, first + count) to `sink`, each verified; how many came.

        The source may give fewer, those that it has in a row. `buffer` holds at least one chunk,
        and is used again for the next. Raises Unreachable, NotYet, Absent, Silent, Distrusted.
        """
        start = first * file.chunk_bytes
        end = min((first + count) * file.chunk_bytes, file.size_bytes)
        try:
            response = self._ask(file.digest, start, end)
            given = self._chunks_given(response, file, start, end)
            for index in range(first, first + given):
                _, length = chunk_range(index, file.size_bytes, file.chunk_bytes)
                self._read(response, buffer[:length], file, index)
                sink(index, buffer[:length])
            response.read()
        except TimeoutError:
            self.close()
            raise Silent(
                self.source.node_id, f"withheld {file.name} from chunk {first} on"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(self.source.node_id, f"broke off: {error!r}") from None
        except (NotYet, Absent):
            raise
        except BaseException:
            self.close()
            raise
        return given

    def close(self) -> None:
        """Close the connection, from any thread: a read that waits for it ends."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _ask(self, digest: str, start: int, end: int) -> http.client.HTTPResponse:
        headers = {
            "Authorization": f"Bearer {self.source.token}",
            JOB_HEADER: self.source.job_id,
            FOR_HEADER: self.source.for_node,
            "Range": f"bytes={start}-{end - 1}",
        }
        kept = self._connection
        connection = kept or self._connected()
        try:
            connection.request("GET", f"/v1/files/{digest}", headers=headers)
            return connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            if kept is None:
                raise
            self.close()  # an idle connection that the other side closed: once more
            connection = self._connected()
            connection.request("GET", f"/v1/files/{digest}", headers=headers)
            return connection.getresponse()

    def _connected(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.source.url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_TIMEOUT_S, context=self.source.tls
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise Distrusted(self.source.node_id, f"shows a wrong certificate: {error}") from None
        except OSError as error:
            raise Unreachable(self.source.node_id, f"cannot be reached: {error!r}") from None
        connection.sock.settimeout(self.source.silence_s)
        self._connection = connection
        return connection

    def _chunks_given(
        self, response: http.client.HTTPResponse, file: StageFile, start: int, end: int
    ) -> int:
        if response.status == 503:
            response.read()
            raise NotYet(self.source.node_id, f"does not have {file.name} yet")
        if response.status in (401, 403, 404):
            response.read()
            raise Absent(self.source.node_id, f"answered {response.status} for {file.name}")
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        if response.status != 206 or not found:
            self.close()
            raise Absent(self.source.node_id, f"answered {response.status} for {file.name}")
        low, high = int(found[1]), int(found[2]) + 1
        whole = high == file.size_bytes or high % file.chunk_bytes == 0
        if low != start or not start < high <= end or not whole:
            raise Distrusted(self.source.node_id, f"gave other bytes of {file.name} than asked for")
        return -(-(high - low) // file.chunk_bytes)

    def _read(
        self, response: http.client.HTTPResponse, view: memoryview, file: StageFile, index: int
    ) -> None:
        filled = 0
        while filled < len(view):
            got = response.readinto(view[filled:])
            if got == 0 and response.length == 0:
                raise Distrusted(self.source.node_id, f"truncated chunk {index} of {file.name}")
            if got == 0:
                raise Unreachable(self.source.node_id, f"broke off in chunk {index} of {file.name}")
            filled += got
        if digest_of_chunk(view) != file.chunks[index]:
            raise Distrusted(self.source.node_id, f"altered chunk {index} of {file.name}")


async def on_thread(link: Link, work: Callable[[], int]) -> int:
    """Run blocking work on a link. A thread cannot be cancelled, so the connection is closed."""
    troubles: list[SourceTrouble] = []
    done: list[int] = []

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if not (done or troubles):
                link.close()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                limiter = anyio.CapacityLimiter(1)  # how many run is the caller's affair
                done.append(await anyio.to_thread.run_sync(work, limiter=limiter))
            except SourceTrouble as trouble:
                troubles.append(trouble)
            group.cancel_scope.cancel()
    finally:
        if not done:
            link.close()  # it may have connected after it was closed
    if troubles:
        raise troubles[0]
    return done[0]
