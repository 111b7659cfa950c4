"""`williw cancel` and `williw retry`."""

from dataclasses import dataclass
from typing import Annotated, Self

import anyio
import msgspec
from cyclopts import Parameter

from messages.failures import Permanent
from messages.ids import JobId
from messages.jobs import CancelJob, ModelRequested, Timeout
from messages.models import MetadataReady
from messages.names import is_path
from messages.state import JobState
from messages.subjects import JOB_CANCEL, JOB_ENDED, METADATA_READY, MODEL_REQUESTED
from services.console.commands.jobs import known, state_object
from services.console.commands.request import wait_for_end
from services.console.failures import EXIT_DONE, EXIT_FAILED, Usage
from services.console.options import Asking, Reach
from services.console.output import say, say_json
from services.console.reaching import reached
from services.console.wanted import job_named
from services.console.watch import Watch
from services.runtime.bus import Bus

_CANCEL_TIMEOUT_S = 10.0


def cancel(job: str, /, *, reason: str = "cancelled by request", reach: Asking = None) -> int:
    """End a job at whatever stage it is, and wait until its end is said; work on it stops then.

    Example: williw cancel job-0123456789ab

    Parameters
    ----------
    job
        The job's id.
    reason
        Why; the job's ending says so.
    """
    return anyio.run(_cancel, job_named(job), reason, reach or Reach(), backend="asyncio")


async def _cancel(job_id: JobId, reason: str, reach: Reach) -> int:
    async with reached(reach) as bus:
        state = await known(bus, job_id)
        if state.ended:
            raise Permanent(f"job {job_id} has ended already: {state.status}")
        await bus.send(CancelJob(job_id=job_id, reason=reason), JOB_CANCEL)
        with anyio.move_on_after(_CANCEL_TIMEOUT_S):
            await bus.facts.wait(JOB_ENDED, job_id=job_id, generation=state.generation)
        state = await known(bus, job_id)
    if reach.json:
        say_json(state_object(state))
    elif state.ended:
        say(f"{job_id} {state.status}")
    else:
        say(f"{job_id} will be cancelled when a requester runs; it has not answered yet")
    return EXIT_DONE if state.status == "cancelled" else EXIT_FAILED


def retry(
    job: str,
    /,
    *,
    timeout_s: float | None = None,
    wait: Annotated[bool, Parameter(negative="")] = False,
    reach: Asking = None,
) -> int:
    """Try an ended job again, as its next generation; what stands on disk is used again.

    A branch of the Hub stays at the commit it meant before; ask anew for what it means now.

    Example: williw retry job-0123456789ab --wait

    Parameters
    ----------
    job
        The job's id.
    timeout_s
        Give it up after so many seconds from now, 0 for never; by default after as many as the
        request said, counted from now.
    wait
        Show the job until it has ended; exit code 1 unless it completed.
    """
    job_id, deadline = job_named(job), None if timeout_s is None else Deadline.of(timeout_s)
    return anyio.run(_retry, job_id, deadline, wait, reach or Reach(), backend="asyncio")


@dataclass(frozen=True)
class Deadline:
    """What a request's `timeout_s` is to be: None for no deadline."""

    timeout_s: float | None

    @classmethod
    def of(cls, timeout_s: float) -> Self:
        """That of the command line, where 0 is none; Usage where no request may have it."""
        try:
            return cls(msgspec.convert(timeout_s, Timeout) if timeout_s else None)
        except msgspec.ValidationError as error:
            raise Usage(f"--timeout-s cannot be {timeout_s:g}: {error}") from None

    def given(self, again: ModelRequested | MetadataReady) -> ModelRequested:
        """A job's new beginning with this deadline; Permanent where it can have none."""
        if not isinstance(again, ModelRequested):
            raise Permanent(
                f"job {again.job_id} came with metadata of its own, and such jobs have no deadline",
                advice="leave --timeout-s out, and `williw cancel` it when it has had its time",
            )
        request = msgspec.structs.replace(again.request, timeout_s=self.timeout_s)
        return msgspec.structs.replace(again, request=request)


async def _retry(job_id: JobId, deadline: Deadline | None, wait: bool, reach: Reach) -> int:
    async with reached(reach) as bus:
        again = await next_generation(bus, await known(bus, job_id))
        if deadline is not None:
            again = deadline.given(again)
        await bus.facts.say(again)
        if reach.json:
            fields = {"job_id": job_id, "at": await bus.facts.now()}
            say_json({"type": type(again).__name__, **fields, "generation": again.generation})
        else:
            say(f"{job_id} goes on as generation {again.generation}")
        if not wait:
            return EXIT_DONE
        return await wait_for_end(bus, Watch(job_id), reach, again.generation)


async def next_generation(bus: Bus, state: JobState) -> ModelRequested | MetadataReady:
    """The fact that starts an ended job again; Permanent where it runs, or had no beginning.

    What `main` was resolved to before is asked for again, so that what stands is used again. A job
    that came with metadata of its own starts again from those.
    """
    if not state.ended:
        raise Permanent(
            f"job {state.job_id} has not ended: it is {state.status}",
            advice="cancel it first, or wait",
        )
    generation = state.generation + 1
    requested = await bus.facts.last(MODEL_REQUESTED, job_id=state.job_id)
    if requested is None:
        ready = await bus.facts.last(METADATA_READY, job_id=state.job_id)
        if ready is None:
            raise Permanent(
                f"of job {state.job_id} neither a request nor metadata is kept: nothing to repeat",
                advice="ask for the model again",
            )
        return msgspec.structs.replace(ready.fact, generation=generation)
    request = requested.fact.request
    if state.revision and not is_path(request.model_name):
        request = msgspec.structs.replace(request, revision=state.revision)
    return ModelRequested(
        origin=requested.fact.origin,
        job_id=state.job_id,
        generation=generation,
        request=request,
        retry_of=state.generation,
    )
