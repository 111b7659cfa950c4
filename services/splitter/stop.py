"""Ending a cut that nobody needs any longer: its threads cannot be cancelled, so they are told."""

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from services.runtime import progress

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Hears the bytes done and in all, after each chunk, from any thread."""


class Stopped(Exception):
    """Raised in the threads of a cut that was cancelled."""


async def on_threads(work: Callable[[Report], T]) -> T:
    """What `work` gives, from a thread. It reports each chunk, from any thread of its own.

    Where this is cancelled the next report raises Stopped, and the cancellation follows.
    """
    told, done, troubles = Event(), list[T](), list[Exception]()

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            done.append(await anyio.to_thread.run_sync(work, partial(_report, told)))
        except Exception as error:  # noqa: BLE001  # carried past the group, which would wrap it
            troubles.append(error)
        group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()
    if troubles:
        raise troubles[0]
    return done[0]


def _report(told: Event, done: int, total: int) -> None:
    if told.is_set():
        raise Stopped
    progress.report(done, total)
