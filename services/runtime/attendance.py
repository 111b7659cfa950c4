"""What keeps a delivery ours while a handler works: its lease, its progress, its point."""

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import structlog
from nats.aio.msg import Msg

from messages.base import Fact, Message
from messages.failures import Passing
from messages.subjects import JOB_ENDED, SPLIT_PLANNED
from messages.wire import Undecodable
from services.runtime import progress
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.service import Route

log = structlog.get_logger()
_TICK_S = 0.2
_LOOK_EVERY_TICKS = 5
# The server takes a delay that it cannot count in nanoseconds for none. Who wants longer says so
# again, and a day of such asking costs a message 24 deliveries.
LONGEST_DELAY_S = 3600.0
# Outcomes after which the server delivers the message once more.
COMES_AGAIN = frozenset({"not_yet", "tried_again", "handed_back", "cancelled"})


class Attendance:
    """One delivery in hand. After a lost lease `renew` gives it the newer delivery to answer.

    `attempts` is how often work on the message was begun, this time included: the deliveries up to
    this one, less the `met` that found their message in hand.
    """

    def __init__(
        self, msg: Msg, lease_s: float, bus: Bus, route: Route[Any], *, met: int = 0
    ) -> None:
        self.msg = msg
        self.attempts = max(1, int(msg.metadata.num_delivered or 1) - met)
        self._route = route
        self.outcome = "cancelled"
        self._bus = bus
        self._lease_ticks = max(1, math.floor(lease_s / 3 / _TICK_S))

    @property
    def sequence(self) -> int:
        """The message's place in the stream."""
        return int(self.msg.metadata.sequence.stream)

    @property
    def deliveries(self) -> int:
        """How often the server delivered the message, this time included."""
        return int(self.msg.metadata.num_delivered or 1)

    def renew(self, msg: Msg) -> None:
        """Answer to this delivery from now on: the older one's acknowledgement no longer counts."""
        self.msg = msg

    async def handled(
        self,
        handle: Callable[[Any], Awaitable[Iterable[Fact]]],
        message: Message,
        gauge: progress.Gauge,
    ) -> Iterable[Fact]:
        """What the handler says; nothing when the job ended or was planned anew meanwhile.

        Whatever the handler raises is raised here.
        """
        outcome: list[Iterable[Fact]] = []
        trouble: list[Exception] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self._attend, message, gauge, group.cancel_scope)
            reset = progress.current.set(gauge)
            try:
                outcome.append(tuple(await handle(message)))
            except Exception as error:  # noqa: BLE001  # carried past the group, which would wrap it
                trouble.append(error)
            finally:
                progress.current.reset(reset)
            group.cancel_scope.cancel()
        await self._show(gauge)
        if trouble:
            raise trouble[0]
        return outcome[0] if outcome else ()

    async def is_needless(self, message: Message) -> bool:
        """Whether an ending or a newer plan makes this work needless; a patient route decides."""
        return isinstance(message, Fact) and not self._route.patient and await self.is_over(message)

    async def is_over(self, fact: Fact) -> bool:
        """Whether the fact's job has ended or was planned anew. Waits for the bus to answer."""
        while True:
            try:
                return await self._is_over(fact)
            except Passing:
                await anyio.sleep(_TICK_S * _LOOK_EVERY_TICKS)

    async def _is_over(self, fact: Fact) -> bool:
        # A plan made anew is the next generation, and a retry begins only what has ended.
        job = {"origin": fact.origin, "job_id": fact.job_id}
        ended = JOB_ENDED.where(**job, generation=fact.generation)
        anew = SPLIT_PLANNED.where(**job, generation=fact.generation + 1)
        if self._route.at_node:
            # A node's key may not have the server publish what is stored, which one question takes.
            return await self._bus.facts.holds(ended) or await self._is_planned(fact)
        found = await self._bus.facts.one_of(ended, anew)
        if found is None or found[0] == ended:
            return found is not None
        return await self._is_planned(fact) or await self._bus.facts.holds(ended)

    async def _is_planned(self, fact: Fact) -> bool:
        """Whether a newer plan can be read. Unlike an ending, one that cannot be is none."""
        job = {"origin": fact.origin, "job_id": fact.job_id}
        try:
            generation = fact.generation + 1
            return (
                await self._bus.facts.last(SPLIT_PLANNED, **job, generation=generation) is not None
            )
        except Undecodable as error:
            log.warning("passing over an unreadable fact", error=error.reason)
            return False

    async def done(self, outcome: str = "done") -> None:
        """Acknowledge and wait for the server to know. A lost answer means the work is redone,
        and what it says was said already.
        """
        self.outcome = outcome
        try:
            await self.msg.ack_sync(timeout=5)
        except BUS_TROUBLE as error:
            log.warning("not acknowledged", error=type(error).__name__)

    async def give_back(self, delay_s: float, outcome: str = "handed_back") -> None:
        """Hand the message back, to come again after `delay_s`, an hour at most."""
        self.outcome = outcome
        try:
            await self.msg.nak(delay=max(0.0, min(LONGEST_DELAY_S, delay_s)) or None)
        except BUS_TROUBLE as error:
            log.warning("not handed back; it comes again when its lease ends", error=str(error))

    async def _attend(
        self, message: Message, gauge: progress.Gauge, scope: anyio.CancelScope
    ) -> None:
        tick = 0
        while True:
            await anyio.sleep(_TICK_S)
            tick += 1
            await self._show(gauge)
            if tick % self._lease_ticks == 0:
                await self._hold()
            if tick % _LOOK_EVERY_TICKS:
                continue
            if await self.is_needless(message):
                log.info("stopped: the job ended or was planned anew")
                scope.cancel()

    async def _show(self, gauge: progress.Gauge) -> None:
        shown = gauge.take()
        if shown is None:
            return
        try:
            await self._bus.show(shown)
        except BUS_TROUBLE:
            log.debug("progress dropped")

    async def _hold(self) -> None:
        try:
            await self.msg.in_progress()
        except BUS_TROUBLE as error:
            log.warning("lease not renewed", error=type(error).__name__)
