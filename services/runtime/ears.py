"""What this process has heard said of late: a hint to ask the log, which alone says what is stored.

A plain subscription costs a message where a question costs two and a wait. It may miss what is said
while the connection is away, and hears what the stream refuses: so what was heard is asked about,
and that nothing was heard counts only for the time that it listened.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from nats.aio.client import Client

from services.runtime import stored
from services.runtime.connection import BUS_TROUBLE

_KEPT = 10_000
_RING_ANYWAY_S = 2.0
_SOON_S = 0.005
# What was at work when something was said may say more of it a moment later.
_MARGIN_S = 5.0


class Bell:
    """Awaiting it returns when a subject was published to, or after a while anyway."""

    def __init__(self) -> None:
        self._rung = anyio.Event()
        self._pause_s = _RING_ANYWAY_S

    def ring(self) -> None:
        """Wake who waits, or who will wait next."""
        self._rung.set()

    async def wait(self, *, found: bool = False) -> None:
        """Until it rings, two seconds at most; soon again, unless the last ring led to a find.

        What is published is heard before it is stored: who looks at once may be too early.
        """
        with anyio.move_on_after(_RING_ANYWAY_S if found else self._pause_s):
            await self._rung.wait()
        rung, self._rung = self._rung.is_set(), anyio.Event()
        self._pause_s = _SOON_S if rung else min(2 * self._pause_s, _RING_ANYWAY_S)


@dataclass
class _Filter:
    """Every subject heard on one filter since a moment of this process's clock, and when."""

    since: float
    reconnects: int
    heard: OrderedDict[str, float] = field(default_factory=OrderedDict)


class Ears:
    """Filters listened to for the life of a connection, and bells for a while."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._filters: dict[str, _Filter] = {}
        self._bells: dict[str, set[Bell]] = {}
        self._ahead_s: float | None = None

    def set_clock(self, server_unix_s: float, asked_at: float) -> None:
        """The server's time was this, at this moment of our clock or later.

        Dated by the question, so that an answer that took its time makes nothing seem heard.
        """
        self._ahead_s = server_unix_s - asked_at

    async def listen(self, chosen: str) -> None:
        """Hear what is said on this filter from now on; a second time changes nothing."""
        if chosen in self._filters:
            return
        kept = self._filters[chosen] = _Filter(float("inf"), self._reconnects)

        async def hear(message: Any) -> None:
            kept.heard[message.subject] = time.monotonic()
            if len(kept.heard) > _KEPT:
                kept.since = max(kept.since, kept.heard.popitem(last=False)[1])
            for bell in (*self._bells.get(message.subject, ()), *self._bells.get(chosen, ())):
                bell.ring()

        await self._client.subscribe(chosen, cb=hear)
        with contextlib.suppress(*BUS_TROUBLE):  # heard from a later moment on, then
            await self._client.flush()
            kept.since = time.monotonic()

    def heard(self, chosen: str, subject: str) -> bool:
        """Whether this subject was heard on a filter that is listened to."""
        kept = self._filters.get(chosen)
        return kept is not None and subject in kept.heard

    def covers(self, chosen: str, stored_at: float) -> bool:
        """Whether all that was said on the filter from a little before `stored_at` on was heard.

        `stored_at` is in Unix seconds by the server's clock.
        """
        since = self._since(chosen)
        return self._ahead_s is not None and since + self._ahead_s + _MARGIN_S < stored_at

    @asynccontextmanager
    async def bell(self, chosen: str, within: str = "") -> AsyncIterator[Bell]:
        """A bell for a filter; free for one that is listened to, or for one subject `within` it.

        It has rung where that subject was heard before.
        """
        bell = Bell()
        if chosen in self._filters or (within in self._filters and "*" not in chosen):
            bells = self._bells.setdefault(chosen, set())
            bells.add(bell)
            if self.heard(within, chosen):
                bell.ring()
            try:
                yield bell
            finally:
                bells.discard(bell)
                if not bells:
                    self._bells.pop(chosen, None)
            return

        async def ring(_message: object) -> None:
            bell.ring()

        subscription = await self._client.subscribe(chosen, cb=ring)
        try:
            yield bell
        finally:
            await stored.unsubscribed(subscription)

    @property
    def _reconnects(self) -> int:
        return int(self._client.stats["reconnects"])

    def _since(self, chosen: str) -> float:
        """Since when the filter was listened to without a break; never, where it is not now."""
        kept = self._filters.get(chosen)
        if kept is None or not self._client.is_connected:
            return float("inf")
        if kept.since == float("inf") or kept.reconnects != self._reconnects:
            kept.reconnects, kept.since = self._reconnects, time.monotonic()
        return kept.since
