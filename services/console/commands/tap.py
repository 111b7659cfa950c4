"""`williw tap`: what is said on the bus, as it is said."""

import signal
from contextlib import aclosing

import anyio

from messages.ids import JobId
from messages.state import JobState, apply
from services.console.failures import EXIT_DONE, EXIT_FAILED
from services.console.options import Asking, Reach
from services.console.output import note
from services.console.reaching import reached
from services.console.views import JsonView, LineView, View
from services.console.waiting import facts, follow_job
from services.console.wanted import job_named
from services.console.watch import Watch
from services.runtime.bus import Bus


def tap(job: str = "", /, *, reach: Asking = None) -> int:
    """Show facts and progress live: of one job to its end, else of all that run.

    Example: williw tap --json | jq .type

    Parameters
    ----------
    job
        Only this job; ends when it has ended, with exit code 1 unless it completed.
    """
    return anyio.run(_tap, job, reach or Reach(), backend="asyncio")


async def _tap(job: str, reach: Reach) -> int:
    codes: list[int] = []
    view: View = JsonView() if reach.json else LineView()
    async with reached(reach) as bus, anyio.create_task_group() as group:
        group.start_soon(_until_signalled, group.cancel_scope)
        codes.append(await (_one(bus, job, view) if job else _all(bus, view)))
        group.cancel_scope.cancel()
    return codes[0] if codes else EXIT_DONE


async def _one(bus: Bus, job: str, view: View) -> int:
    watch = Watch(job_named(job))
    if not await bus.facts.job(watch.job_id):
        note(f"waiting for {watch.job_id}: nothing is known of it yet")
    await follow_job(bus, watch, on_fact=view.fact, on_progress=view.progress)
    return EXIT_DONE if watch.completed else EXIT_FAILED


async def _all(bus: Bus, view: View) -> int:
    """Jobs that still run from their beginning, then whatever is said from now on."""
    await bus.hear_progress(view.progress)
    stored = await bus.facts.all_jobs()
    states: dict[JobId, JobState] = {}
    for said in stored:
        states[said.fact.job_id] = apply(states.get(said.fact.job_id), said)
    for said in stored:
        if not states[said.fact.job_id].ended:
            view.fact(said)
    start = stored[-1].sequence + 1 if stored else 1
    note("listening: whatever is said from now on is shown, until Ctrl-C")
    async with aclosing(facts(bus, start=start)) as said_one_by_one:
        async for said in said_one_by_one:
            view.fact(said)
    return EXIT_DONE


async def _until_signalled(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
