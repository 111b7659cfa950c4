"""What keeps a delivery ours while a handler works: its lease, its progress, its point."""

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from nats.aio.msg import Msg

from messages.base import Fact, Message
from messages.failures import Passing
from messages.subjects import JOB_ENDED
from services.runtime import over, progress
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.service import Route

log = structlog.get_logger()
TICK_S = 0.2
_EVERY_END = JOB_ENDED.where()
_LOOK_EVERY_TICKS = 5
# The server takes a delay that it cannot count in nanoseconds for none. Who wants longer says so
# again, and a day of such asking costs a message 24 deliveries.
LONGEST_DELAY_S = 3600.0
# Outcomes after which the server delivers the message once more.
COMES_AGAIN = frozenset({"not_yet", "tried_again", "handed_back", "cancelled"})


@dataclass(eq=False)
class _Work:
    """A handler at work; cancelling its scope ends it and nothing else.

    `fact` is what a look at its job is about, None where nothing makes the work needless.
    """

    fact: Fact | None
    gauge: progress.Gauge
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ticks: int = 0
    looking: bool = False


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
        self._lease_ticks = max(1, math.floor(lease_s / 3 / TICK_S))
        self._work: _Work | None = None

    @property
    def sequence(self) -> int:
        """The message's place in the stream."""
        return int(self.msg.metadata.sequence.stream)

    @property
    def deliveries(self) -> int:
        """How often the server delivered the message, this time included."""
        return int(self.msg.metadata.num_delivered or 1)

    @property
    def stored_at(self) -> float:
        """When the message was stored, in Unix seconds by the server's clock."""
        return float(self.msg.metadata.timestamp.timestamp())

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
        work = self._work = _Work(self._of_a_job(message), gauge)
        reset = progress.current.set(gauge)
        try:
            with work.scope:
                return tuple(await handle(message))
            return ()
        finally:
            progress.current.reset(reset)
            self._work = None
            await self._show(gauge)

    async def attend(self, group: TaskGroup) -> None:
        """A tick of the clock: progress shown, the lease held, now and then a look at the job."""
        work = self._work
        if work is None:
            return
        work.ticks += 1
        await self._show(work.gauge)
        if work.ticks % self._lease_ticks == 0:
            await self._hold()
        if work.fact is None or work.looking:
            return
        if work.ticks % _LOOK_EVERY_TICKS == 0 or self._is_heard(work.fact):
            work.looking = True
            group.start_soon(self._look, work, work.fact)

    async def is_needless(self, message: Message) -> bool:
        """Whether an ending or a newer plan makes this work needless; a patient route decides.

        The log is asked where one may be: at a first delivery an ending would have been heard, and
        a newer plan is looked for while the work goes on.
        """
        fact = self._of_a_job(message)
        if fact is None:
            return False
        ears = self._bus.facts.ears
        unheard = self.deliveries == 1 and not self._is_heard(fact)
        if unheard and ears.covers(_EVERY_END, self.stored_at):
            return False
        while True:
            try:
                return await self._is_over(fact)
            except Passing:
                await anyio.sleep(TICK_S * _LOOK_EVERY_TICKS)

    async def done(self, outcome: str = "done") -> None:
        """Acknowledge, without waiting for the server to know: where it never does, the message
        comes again, and what its work says was said already.
        """
        self.outcome = outcome
        try:
            await self.msg.ack()
        except BUS_TROUBLE as error:
            log.warning("not acknowledged", error=type(error).__name__)

    async def give_back(self, delay_s: float, outcome: str = "handed_back") -> None:
        """Hand the message back, to come again after `delay_s`, an hour at most."""
        self.outcome = outcome
        await hand_back(self.msg, delay_s)

    def _of_a_job(self, message: Message) -> Fact | None:
        """The fact whose job may be over; none of a command, nor where a patient route decides."""
        return message if isinstance(message, Fact) and not self._route.patient else None

    async def _look(self, work: _Work, fact: Fact) -> None:
        """End work that is needless."""
        try:
            if await self._is_over(fact):
                log.info("stopped: the job ended or was planned anew")
                work.scope.cancel()
        except Passing as error:
            log.debug("waiting for the bus", error=str(error))
        except Exception as error:  # no look ends a service
            log.error("cannot see whether the job is over", exc_info=error)
        finally:
            work.looking = False

    async def _is_over(self, fact: Fact) -> bool:
        return await over.is_over(self._bus.facts, fact, by_leader=self._route.at_node)

    def _is_heard(self, fact: Fact) -> bool:
        return self._bus.facts.ears.heard(_EVERY_END, over.ended(fact))

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


async def hand_back(msg: Msg, delay_s: float = 0.0) -> None:
    """Have the server deliver a message again, after `delay_s`, an hour at most."""
    try:
        await msg.nak(delay=max(0.0, min(LONGEST_DELAY_S, delay_s)) or None)
    except BUS_TROUBLE as error:
        log.warning("not handed back; it comes again when its lease ends", error=str(error))
