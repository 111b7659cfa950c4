"""One message's life: decoded, handled under a lease, its facts said, only then acknowledged."""

import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import anyio
import structlog
from nats.aio.msg import Msg

from config.logging import masked
from config.settings import Settings
from messages.base import Fact, Message
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.jobs import JobFailed
from messages.shards import ShardFailed
from services.runtime import factlog, figures, incoming, progress
from services.runtime.attendance import COMES_AGAIN, LONGEST_DELAY_S, TICK_S, Attendance
from services.runtime.bus import Bus
from services.runtime.deadletters import bury, failure_of_unreadable
from services.runtime.service import NotYet, Route

log = structlog.get_logger()
_SAID_AT_ONCE = 64
_SAY_AGAIN_S = (0.1, 0.5, 1.0, 2.0)
# An error may quote what it read: the failure of a job must always fit a message.
_REASON_LENGTH = 4000


class Worker:
    """Takes the messages of one route, one call of `take` each; `in_flight` counts them."""

    def __init__(self, service: str, route: Route[Any], bus: Bus, settings: Settings) -> None:
        self._service = service
        self._route = route
        self._bus = bus
        self._settings = settings
        self._node_id = NodeId(settings.node.node_id)
        self._stage = route.stage or service
        self._held: dict[int, Attendance] = {}
        # Deliveries that found their message in hand here, by its sequence: the server counts
        # them, but nobody began anew.
        self._met: Counter[int] = Counter()

    @property
    def in_flight(self) -> int:
        """How many messages are being handled now."""
        return len(self._held)

    async def attend(self) -> None:
        """Keep what is in hand, a few times a second, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                await anyio.sleep(TICK_S)
                for attendance in tuple(self._held.values()):
                    await attendance.attend(group)

    async def take(self, msg: Msg) -> None:
        """Handle one delivery to its end. Only cancellation is raised, the message handed back."""
        sequence = msg.metadata.sequence.stream
        log.debug(
            "delivered",
            subject=msg.subject,
            number=msg.metadata.num_delivered,
            in_hand=sequence in self._held,
        )
        # Its lease ran out while we still work on it: one work is enough.
        if sequence in self._held:
            self._met[sequence] += 1
            self._held[sequence].renew(msg)
            return
        attendance = self._held[sequence] = Attendance(
            msg,
            self._settings.bus.lease_s,
            self._bus,
            self._route,
            met=self._met[sequence],
        )
        reset = factlog.trace_parent.set(incoming.trace_of(msg))
        reset_since = factlog.in_hand_since.set(attendance.stored_at)
        try:
            with figures.PROCESS.handling(self._service, self._route.subject.name, attendance):
                await self._live(attendance)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(1, shield=True):
                await attendance.give_back(0)
            raise
        except Exception as error:  # no message ends a service
            log.critical("left to come again when its lease ends", exc_info=error)
        finally:
            factlog.trace_parent.reset(reset)
            factlog.in_hand_since.reset(reset_since)
            del self._held[sequence]
            if attendance.outcome not in COMES_AGAIN or not self._met[sequence]:
                del self._met[sequence]

    async def _live(self, attendance: Attendance) -> None:
        msg = attendance.msg
        if incoming.sent_on(msg.headers):
            log.warning("dropped: a stored message that a reader had sent on", subject=msg.subject)
            await attendance.done("sent_on")
            return
        try:
            await self._begin(attendance)
        except Permanent as error:
            # Not even its failure can be said: where it belongs stands what nobody can read.
            log.error("cannot be said", subject=msg.subject, error=error.reason)
            await self._persist(bury(self._bus, self._service, msg, masked(error.reason)))
            await attendance.done("unsayable")
        except Exception as error:  # a failed answer costs a delivery, no more
            log.error("not answered", subject=msg.subject, exc_info=error)
            await self._unanswered(attendance, error)

    async def _unanswered(self, attendance: Attendance, error: Exception) -> None:
        """After a bug in the answering itself: the message comes again, at last it is buried."""
        if attendance.attempts <= self._settings.bus.max_deliver or self._route.patient:
            await attendance.give_back(self._delay_s(attendance), "tried_again")
            return
        why = f"the answer to it failed: {type(error).__name__}"
        await self._persist(bury(self._bus, self._service, attendance.msg, why))
        await attendance.done("unsayable")

    async def _begin(self, attendance: Attendance) -> None:
        msg = attendance.msg
        try:
            message = incoming.read(msg, self._route)
        except Permanent as error:
            await self._persist(bury(self._bus, self._service, msg, error.reason))
            failed = failure_of_unreadable(msg.subject, self._route.subject, self._stage, error)
            await self._say([failed] if failed else [])
            await attendance.done("unreadable")
            return
        job_id = getattr(message, "job_id", None)
        with structlog.contextvars.bound_contextvars(
            job_id=job_id, stage=self._stage, node_id=self._node_id
        ):
            if await attendance.is_needless(message):
                await attendance.done("over")
            elif attendance.attempts > self._settings.bus.max_deliver and not self._route.patient:
                await self._give_up(attendance, message, "the service ended each time it tried")
            else:
                await self._work(attendance, message)

    async def _work(self, attendance: Attendance, message: Message) -> None:
        gauge = progress.Gauge(
            stage=self._stage,
            node_id=self._node_id,
            job_id=getattr(message, "job_id", None) or JobId("none"),
            generation=getattr(message, "generation", 1),
        )
        try:
            await self._say(await attendance.handled(self._route.handle, message, gauge))
        except Permanent as error:
            log.info("refused", reason=error.reason)
            await self._say([self._failure(message, error.reason, error.advice)])
            await attendance.done("refused")
        except NotYet as later:
            await attendance.give_back(later.delay_s, "not_yet")
        except Exception as error:  # noqa: BLE001  # the one place that keeps a bug from ending a service
            await self._try_again(attendance, message, error)
        else:
            await attendance.done()

    async def _try_again(self, attendance: Attendance, message: Message, error: Exception) -> None:
        attempt = attendance.attempts
        reason = masked(str(error)) or type(error).__name__
        if not isinstance(error, Passing):
            reason = f"{type(error).__name__}: {reason}"
        unexpected = None if isinstance(error, Passing) else error
        if attempt >= self._settings.bus.max_deliver and not self._route.patient:
            log.error("giving up", error=reason, attempt=attempt, exc_info=unexpected)
            await self._give_up(attendance, message, reason)
            return
        delay_s = self._delay_s(attendance)
        if isinstance(error, Passing):
            delay_s = max(delay_s, min(error.after_s, LONGEST_DELAY_S))
        log.warning(
            "trying again", error=reason, attempt=attempt, delay_s=delay_s, exc_info=unexpected
        )
        await attendance.give_back(delay_s, "tried_again")

    def _delay_s(self, attendance: Attendance) -> float:
        delays, attempt = self._settings.bus.retry_delays_s, attendance.attempts
        return delays[min(attempt, len(delays)) - 1] * _jitter(attendance.sequence, attempt)

    async def _give_up(self, attendance: Attendance, message: Message, reason: str) -> None:
        await self._persist(bury(self._bus, self._service, attendance.msg, reason))
        tries = min(attendance.attempts, self._settings.bus.max_deliver)
        advice = "see `williw dead list`; `williw dead retry` sends it again"
        await self._say([self._failure(message, f"{reason} (tried {tries} times)", advice)])
        await attendance.done("given_up")

    def _failure(self, message: Message, reason: str, advice: str) -> Fact:
        failed: type[JobFailed] | type[ShardFailed] = JobFailed
        if self._route.at_node:
            failed = ShardFailed
        return failed(
            origin=getattr(message, "origin", None) or self._node_id,
            job_id=getattr(message, "job_id", None) or JobId("none"),
            generation=getattr(message, "generation", 1),
            stage=self._stage,
            reason=masked(reason)[:_REASON_LENGTH],
            advice=masked(advice)[:_REASON_LENGTH],
            node_id=self._node_id,
        )

    async def _say(self, facts: Iterable[Fact]) -> None:
        """Say them, many at once: each is stored once, whatever becomes of the others."""
        several = tuple(facts)
        if len(several) == 1:
            await self._say_one(several[0])
            return
        refused: list[Permanent] = []

        async def one(fact: Fact) -> None:
            try:
                await self._say_one(fact)
            except Permanent as error:  # carried past the group, which would wrap it
                refused.append(error)

        for start in range(0, len(several), _SAID_AT_ONCE):
            async with anyio.create_task_group() as group:
                for fact in several[start : start + _SAID_AT_ONCE]:
                    group.start_soon(one, fact)
        if refused:
            raise refused[0]

    async def _say_one(self, fact: Fact) -> None:
        await self._persist(partial(self._bus.facts.say, fact))
        log.info("said", fact=type(fact).__name__)

    async def _persist(self, publish: Callable[[], Awaitable[object]]) -> None:
        """Publish until the server has it: what is said once may be tried any number of times."""
        for attempt in range(1_000_000):
            try:
                await publish()
            except Passing as error:
                log.warning("the bus does not take it yet", error=str(error))
                await anyio.sleep(_SAY_AGAIN_S[min(attempt, len(_SAY_AGAIN_S) - 1)])
            else:
                return


def _jitter(sequence: int, attempt: int) -> float:
    """A factor of 0.8 to 1.2 that differs between messages, so that retries do not come in step."""
    return 0.8 + 0.4 * (zlib.crc32(f"{sequence}.{attempt}".encode()) % 1000) / 1000
