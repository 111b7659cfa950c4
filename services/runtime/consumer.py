"""Pulling one route's messages, no more at once than it has slots."""

from typing import Any

import anyio
import structlog
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext

from config.settings import Settings
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.delivery import Worker
from services.runtime.service import Route

log = structlog.get_logger()
# A fetch in flight when the server dies is deaf until it times out, and one that is cancelled
# leaves a pull behind that swallows the next message for a whole lease: so it is short, and is
# never cancelled.
_FETCH_S = 1.0
_PAUSE_S = 0.5


class Consumer:
    """The loop of one route; ends when `stop` is set and every handler has finished."""

    def __init__(self, service: str, route: Route[Any], bus: Bus, settings: Settings) -> None:
        self.name = names.consumer_name(service, route)
        self._slots = anyio.Semaphore(route.slots)
        self._bus = bus
        self._worker = Worker(service, route, bus, settings)
        self.bound = False
        self.finished = anyio.Event()

    @property
    def in_flight(self) -> int:
        """How many messages are being handled now."""
        return self._worker.in_flight

    async def run(self, stop: anyio.Event) -> None:
        """Consume until `stop`; handlers still at work are waited for (cancel to end them)."""
        subscription = await self._bus.client.jetstream().pull_subscribe_bind(
            durable=self.name, stream=names.FACTS_STREAM
        )
        self.bound = True
        try:
            async with anyio.create_task_group() as group:
                while not stop.is_set():
                    await self._slots.acquire()
                    msg = await self._fetch(subscription)
                    if msg is None:
                        self._slots.release()
                    else:
                        group.start_soon(self._one, msg)
        finally:
            self.bound = False
            self.finished.set()
            with anyio.move_on_after(1, shield=True):
                await _unsubscribe(subscription)

    async def _one(self, msg: Msg) -> None:
        try:
            await self._worker.take(msg)
        finally:
            self._slots.release()

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> Msg | None:
        try:
            found = await subscription.fetch(1, timeout=_FETCH_S)
        except TimeoutError:
            return None
        except BUS_TROUBLE as error:
            if "timeout" not in type(error).__name__.lower():
                log.warning("no messages", consumer=self.name, error=str(error))
                await anyio.sleep(_PAUSE_S)
            return None
        return found[0] if found else None


async def _unsubscribe(subscription: JetStreamContext.PullSubscription) -> None:
    try:
        await subscription.unsubscribe()
    except BUS_TROUBLE as error:
        log.debug("unsubscribing failed", error=type(error).__name__)
