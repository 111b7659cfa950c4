"""`williw request`: ask for a model, and wait for it if wished."""

from typing import Annotated

import anyio
from cyclopts import Parameter
from msgspec import UNSET

from messages.jobs import ModelRequest
from messages.subjects import MODEL_REQUEST
from messages.wishes import Relay, Strategy, Wishes
from services.console import result
from services.console.failures import EXIT_DONE, EXIT_FAILED
from services.console.options import Asking, Reach
from services.console.output import say, say_json
from services.console.reaching import reached
from services.console.views import shown
from services.console.waiting import follow_job
from services.console.wanted import model_named, request_for
from services.console.watch import Watch
from services.console.whole import Whole
from services.runtime.bus import Bus


def request(
    model: str,
    /,
    *,
    revision: str = "main",
    batch_size: Whole = 1,
    sequence_length: Whole = 512,
    strategy: Strategy | None = None,
    relay: Relay | None = None,
    timeout_s: float | None = None,
    wait: Annotated[bool, Parameter(negative="")] = False,
    reach: Asking = None,
) -> int:
    """Ask for a model to be split over the live nodes; prints the job's id.

    Example: williw request org/name --wait

    Parameters
    ----------
    model
        A Hub id, or the path of a directory on the origin.
    revision
        Branch, tag or commit of the Hub.
    batch_size
        Batch that costs and memory are counted for.
    sequence_length
        Sequence length that costs and memory are counted for.
    strategy
        How to split; the planner's settings by default.
    relay
        How the parts travel; the planner's settings by default.
    timeout_s
        Give the job up after so many seconds.
    wait
        Show the job until it has ended; exit code 1 unless it completed.
    """
    wanted = request_for(
        model_named(model),
        revision=revision,
        batch_size=batch_size,
        sequence_length=sequence_length,
        strategy=strategy,
        timeout_s=timeout_s,
        wishes=Wishes(relay=relay or UNSET),
    )
    return anyio.run(_request, wanted, wait, reach or Reach(), backend="asyncio")


async def _request(wanted: ModelRequest, wait: bool, reach: Reach) -> int:
    if wanted.job_id is None:
        raise ValueError("the command gives each request an id")
    async with reached(reach) as bus:
        stored = await bus.send(wanted, MODEL_REQUEST, message_id=f"request-{wanted.job_id}")
        if reach.json:
            at = await bus.facts.stored_at(stored)
            say_json({"type": "ModelRequest", "job_id": wanted.job_id, "at": at})
        else:
            say(wanted.job_id)
        return await wait_for_end(bus, Watch(wanted.job_id), reach) if wait else EXIT_DONE


async def wait_for_end(bus: Bus, watch: Watch, reach: Reach, generation: int = 1) -> int:
    """Show a job until this generation of it has ended, then its result; the exit code."""
    with shown(watch, as_json=reach.json) as view:
        await follow_job(
            bus, watch, generation=generation, on_fact=view.fact, on_progress=view.progress
        )
    await result.tell(bus, watch, None, as_json=reach.json)
    return EXIT_DONE if watch.completed else EXIT_FAILED
