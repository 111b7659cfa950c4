"""Who may be connected to the data server: so many at a time, none of them silent for long.

Who comes when all seats are taken gets that of whoever has sat longest without a request. A node's
idle connection that is closed so is made again by its next request; whoever sends headers slowly,
or never shakes hands, loses its place to those who ask. Only where everybody is being answered is
the newcomer turned away.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
import structlog
from aiohttp import web

log = structlog.get_logger()
QUIET_S = 10.0
"""Without a whole request for so long, a connection is closed."""
_BACKLOG = 128
_AGAIN_S = 0.1


@dataclass(eq=False)
class _Greeting:
    """A connection that is being taken up: with TLS, until hands are shaken."""

    guest: web.RequestHandler
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def under_way(self) -> bool:
        return self.guest.transport is None and not self.scope.cancel_called


@dataclass
class Door:
    """At most `most` connections at once, of those that `server` talks to."""

    server: web.Server
    most: int
    tls: ssl.SSLContext | None = None
    _greetings: list[_Greeting] = field(default_factory=list)
    _asking: set[asyncio.BaseProtocol] = field(default_factory=set)

    @asynccontextmanager
    async def open(self, host: str, port: int) -> AsyncIterator[int]:
        """Let in who connects, for the length of the block; gives the port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family, backlog=_BACKLOG) as listener:
            listener.setblocking(False)
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep, listener)
                yield listener.getsockname()[1]
                group.cancel_scope.cancel()

    @contextmanager
    def asking(self, guest: asyncio.BaseProtocol) -> Iterator[None]:
        """For the length of the block this guest has a request in hand, and keeps its seat."""
        self._asking.add(guest)
        try:
            yield
        finally:
            self._asking.discard(guest)

    async def _keep(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as group:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # too many files are open, or it is gone already
                    log.warning("no connection taken up", error=str(error))
                    await anyio.sleep(_AGAIN_S)
                    continue
                if self._has_seat():
                    group.start_soon(self._greet, connection)
                else:
                    connection.close()

    def _has_seat(self) -> bool:
        """Whether one more may come in, after whoever does nothing made place."""
        seated = [guest for guest in self.server.connections if guest.transport is not None]
        greetings = [one for one in self._greetings if one.under_way]
        if len(seated) + len(greetings) < self.most:
            return True
        idle = next((guest for guest in seated if guest not in self._asking), None)
        if idle is not None:
            idle.force_close()
        elif greetings:
            greetings[0].scope.cancel()
        return idle is not None or bool(greetings)

    async def _greet(self, connection: socket.socket) -> None:
        greeting = _Greeting(self.server())
        self._greetings.append(greeting)
        try:
            with greeting.scope:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: greeting.guest,
                    connection,
                    ssl=self.tls,
                    ssl_handshake_timeout=QUIET_S if self.tls else None,
                )
        except OSError as error:  # of TLS too
            log.debug("not taken up", error=str(error))
            connection.close()
        finally:
            self._greetings.remove(greeting)
