"""Waiting for a job's facts and progress, and giving each to a listener."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import anyio

from messages.base import Fact
from messages.ids import JobId
from messages.progress import Progress
from messages.state import Said
from services.console.watch import Watch
from services.runtime.bus import Bus
from services.runtime.factlog import job_filter


async def follow_job(
    bus: Bus,
    watch: Watch,
    *,
    generation: int = 1,
    on_fact: Callable[[Said[Fact]], None] = lambda _said: None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> None:
    """Follow a job until this generation of it has ended, however long that takes.

    Cancel to give up.
    """

    def hear(progress: Progress) -> None:
        watch.hear(progress)
        on_progress(progress)

    await bus.hear_progress(hear, watch.job_id)
    async with aclosing(facts(bus, job_filter(watch.job_id))) as said_one_by_one:
        async for said in said_one_by_one:
            watch.learn(said)
            if said.fact.generation >= generation:
                on_fact(said)
            if watch.ended and watch.generation >= generation:
                return


def facts(bus: Bus, chosen: str = "williw.>", start: int = 1) -> AsyncGenerator[Said[Fact], None]:
    """The facts of a filter, stored and to come, as a generator that can be closed."""
    return cast("AsyncGenerator[Said[Fact], None]", bus.facts.follow(chosen, start))


async def nodes_announced(bus: Bus, node_ids: set[str], timeout_s: float) -> set[str]:
    """Those of `node_ids` that have not announced themselves within the time."""
    missing = set(node_ids)
    with anyio.move_on_after(timeout_s):
        while missing:
            missing = node_ids - {str(entry.node.node_id) for entry in await bus.registry.nodes()}
            if missing:
                await anyio.sleep(0.1)
    return missing


async def job_state(bus: Bus, job_id: JobId) -> Watch:
    """What the bus remembers of a job now; its state is None for a job nobody knows."""
    watch = Watch(job_id)
    for said in await bus.facts.job(job_id):
        watch.learn(said)
    return watch
