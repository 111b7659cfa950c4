"""Taking one route's messages, no more at once than it has slots."""

from collections import deque
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from nats.aio.msg import Msg
from nats.errors import NotJSMessageError

from config.settings import Settings
from services.runtime import names
from services.runtime.attendance import hand_back
from services.runtime.binding import Binding
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.delivery import Worker
from services.runtime.pulling import Pull
from services.runtime.service import Route

log = structlog.get_logger()
_PAUSE_S = 0.5
# With few of its slots free a busy route waits for more, to ask for several at once.
_GATHER_S = 0.008
# How often to see that the consumer is still there: a request for messages does not always tell.
_LOOK_S = 10.0


class Consumer:
    """The loop of one route; ends when `stop` is set and every handler has finished."""

    def __init__(self, service: str, route: Route[Any], bus: Bus, settings: Settings) -> None:
        self._binding = Binding(service, route, bus, settings)
        self.name = self._binding.name
        self._bus = bus
        self._slots = self._free = route.slots
        self._worker = Worker(service, route, bus, settings)
        self._pull = Pull(bus.client, names.FACTS_STREAM, self.name, self._take, self._refused)
        self._tasks: TaskGroup | None = None
        # Requests that a server took for over may all be served at last: no slot is given twice.
        self._waiting: deque[Msg] = deque()
        self._changed = anyio.Event()
        self._doubtful = anyio.Event()
        self._pause_s = 0.0
        self._stopping = False
        self.bound = False
        self.finished = anyio.Event()

    @property
    def in_flight(self) -> int:
        """How many messages are being handled now."""
        return self._worker.in_flight

    async def run(self, stop: anyio.Event) -> None:
        """Consume until `stop`; handlers still at work are waited for (cancel to end them)."""
        await self._pull.open()
        self.bound = True
        try:
            async with anyio.create_task_group() as watching:
                watching.start_soon(self._watch)
                watching.start_soon(self._worker.attend)
                async with anyio.create_task_group() as self._tasks:
                    await self._consume(stop)
                self._tasks = None
                watching.cancel_scope.cancel()
        finally:
            self.bound = False
            self.finished.set()

    async def _consume(self, stop: anyio.Event) -> None:
        try:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._until, stop)
                while not stop.is_set():
                    await self._pull_more()
                waiting.cancel_scope.cancel()
        finally:
            self._stopping = True
            while self._waiting:
                self._take(self._waiting.popleft())
            with anyio.move_on_after(1, shield=True):
                await self._close()

    async def _pull_more(self) -> None:
        """Ask where there is room and nothing is due, then wait until either may have changed."""
        if self._free > 0 and not self._pull.due and self._bus.client.is_connected:
            await self._ask()
        # Without an answer the request is over at last; a client without a connection tells nobody
        # when it has one again.
        with anyio.move_on_after(self._pull.left_s or _PAUSE_S):
            await self._changed.wait()
        self._changed = anyio.Event()

    async def _until(self, stop: anyio.Event) -> None:
        await stop.wait()
        self._changed.set()

    async def _ask(self) -> None:
        await anyio.sleep(self._pause_s or _GATHER_S * (4 * self._free < 3 * self._slots))
        self._pause_s = 0.0
        try:
            await self._pull.ask(self._free)
        except BUS_TROUBLE as error:
            log.warning("no messages", consumer=self.name, error=str(error))

    def _take(self, msg: Msg) -> None:
        if not self._delivered(msg) or self._tasks is None:
            return
        if self._stopping:
            self._tasks.start_soon(self._back, msg)
            return
        if self._free <= 0:
            self._waiting.append(msg)
            return
        self._free -= 1
        self._tasks.start_soon(self._one, msg)
        self._look_for_room()

    def _refused(self, why: str) -> None:
        if why:
            log.warning("no messages", consumer=self.name, error=why)
            self._doubtful.set()
            self._pause_s = _PAUSE_S
        self._changed.set()

    async def _one(self, msg: Msg) -> None:
        try:
            await self._worker.take(msg)
        finally:
            self._free += 1
            if self._waiting:
                self._take(self._waiting.popleft())
            self._look_for_room()

    def _look_for_room(self) -> None:
        if self._free > 0 and not self._pull.due:
            self._changed.set()

    async def _back(self, msg: Msg) -> None:
        with anyio.move_on_after(1, shield=True):
            await hand_back(msg)

    async def _watch(self) -> None:
        """See to the consumer now and then, and whenever a request was refused."""
        while True:
            there = await self._binding.look()
            if there is not None:
                self.bound = there
            self._doubtful = anyio.Event()
            with anyio.move_on_after(_LOOK_S):
                await self._doubtful.wait()

    def _delivered(self, msg: Msg) -> bool:
        """Whether the consumer delivered it; anything else was sent to our inbox by somebody."""
        try:
            return bool(msg.metadata.sequence.stream)
        except (NotJSMessageError, ValueError, IndexError):
            log.warning("dropped: no delivery of the stream's", consumer=self.name)
            return False

    async def _close(self) -> None:
        try:
            await self._pull.close()
        except BUS_TROUBLE as error:
            log.debug("unsubscribing failed", error=type(error).__name__)
