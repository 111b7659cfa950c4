"""Pulling one route's messages, no more at once than it has slots."""

from typing import Any

import anyio
import structlog
from nats.aio.msg import Msg
from nats.errors import NotJSMessageError
from nats.js.client import JetStreamContext

from config.settings import Settings
from services.runtime.binding import Binding
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
# How often to see that the consumer is still there: a fetch does not always tell.
_LOOK_S = 10.0


class Consumer:
    """The loop of one route; ends when `stop` is set and every handler has finished."""

    def __init__(self, service: str, route: Route[Any], bus: Bus, settings: Settings) -> None:
        self._binding = Binding(service, route, bus, settings)
        self.name = self._binding.name
        self._slots = anyio.Semaphore(route.slots)
        self._worker = Worker(service, route, bus, settings)
        self._doubtful = anyio.Event()
        self.bound = False
        self.finished = anyio.Event()

    @property
    def in_flight(self) -> int:
        """How many messages are being handled now."""
        return self._worker.in_flight

    async def run(self, stop: anyio.Event) -> None:
        """Consume until `stop`; handlers still at work are waited for (cancel to end them)."""
        subscription = await self._binding.subscription()
        self.bound = True
        try:
            async with anyio.create_task_group() as watching:
                watching.start_soon(self._watch)
                await self._consume(subscription, stop)
                watching.cancel_scope.cancel()
        finally:
            self.bound = False
            self.finished.set()
            with anyio.move_on_after(1, shield=True):
                await _unsubscribe(subscription)

    async def _consume(
        self, subscription: JetStreamContext.PullSubscription, stop: anyio.Event
    ) -> None:
        async with anyio.create_task_group() as group:
            while not stop.is_set():
                await self._slots.acquire()
                msg = await self._fetch(subscription)
                if msg is None:
                    self._slots.release()
                else:
                    group.start_soon(self._one, msg)

    async def _watch(self) -> None:
        """See to the consumer now and then, and whenever a fetch was refused."""
        while True:
            there = await self._binding.look()
            if there is not None:
                self.bound = there
            self._doubtful = anyio.Event()
            with anyio.move_on_after(_LOOK_S):
                await self._doubtful.wait()

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
                self._doubtful.set()
                await anyio.sleep(_PAUSE_S)
            return None
        return found[0] if found and self._delivered(found[0]) else None

    def _delivered(self, msg: Msg) -> bool:
        """Whether the consumer delivered it; anything else was sent to our inbox by somebody."""
        try:
            return bool(msg.metadata.sequence.stream)
        except (NotJSMessageError, ValueError, IndexError):
            log.warning("dropped: no delivery of the stream's", consumer=self.name)
            return False


async def _unsubscribe(subscription: JetStreamContext.PullSubscription) -> None:
    try:
        await subscription.unsubscribe()
    except BUS_TROUBLE as error:
        log.debug("unsubscribing failed", error=type(error).__name__)
