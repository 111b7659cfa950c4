"""The HTTP face for probes and figures: /livez, /readyz, /metrics.

Ready means that messages are taken: the bus is connected, each consumer bound. Alive means that the
event loop turns. A bus that is away makes nobody less alive: restarting would not bring it back.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import anyio
import structlog

from config.settings import Health as HealthSettings
from messages.failures import Permanent
from services.runtime import figures

log = structlog.get_logger()
TICK_S = 0.5
STALE_S = 10.0


class Watched(Protocol):
    """What health is asked of."""

    def lacking(self) -> str:
        """What keeps it from taking messages; empty when nothing does."""

    @property
    def connected(self) -> bool:
        """Whether the bus is connected."""


class PortTaken(Permanent):
    """The probes' address cannot be bound."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(
            f"health cannot listen on {host}:{port}: {why}",
            advice="set port in [health] to a free one, 0 for any, -1 for none",
        )


class Pulse:
    """When the loop last turned, by the monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = clock()

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            self._beat = self._clock()
            await anyio.sleep(TICK_S)

    @property
    def stopped_s(self) -> float:
        """Seconds since the last beat beyond what is usual; 0 while the loop turns."""
        late_s = self._clock() - self._beat
        return late_s if late_s > STALE_S else 0.0


def serving(
    settings: HealthSettings, watched: Watched
) -> AbstractAsyncContextManager[tuple[str, int] | None]:
    """Serve for the length of the block; yields the address, None where it is off.

    PortTaken where the address cannot be bound.
    """
    return _off() if settings.port < 0 else _on(settings, watched)


@asynccontextmanager
async def _off() -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def _on(settings: HealthSettings, watched: Watched) -> AsyncIterator[tuple[str, int]]:
    from aiohttp import web  # services that serve no health need no HTTP server

    pulse = Pulse()
    runner = web.AppRunner(_application(watched, pulse), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            raise PortTaken(settings.host, settings.port, error.strerror or str(error)) from None
        host, port = runner.addresses[0][:2]
        log.info("health", url=f"http://{host}:{port}/readyz")
        async with anyio.create_task_group() as group:
            group.start_soon(pulse.run)
            yield host, port
            group.cancel_scope.cancel()
    finally:
        await runner.cleanup()


def _application(watched: Watched, pulse: Pulse) -> Any:
    from aiohttp import web

    async def livez(_request: web.Request) -> web.Response:
        stopped_s = pulse.stopped_s
        text = f"the loop stood still for {stopped_s:.0f} s\n" if stopped_s else "alive\n"
        return web.Response(text=text, status=503 if stopped_s else 200)

    async def readyz(_request: web.Request) -> web.Response:
        lacking = watched.lacking()
        return web.Response(text=f"{lacking or 'ready'}\n", status=503 if lacking else 200)

    async def metrics(_request: web.Request) -> web.Response:
        from services.runtime import exposition

        body = exposition.exposed(figures.PROCESS, connected=watched.connected)
        return web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app
