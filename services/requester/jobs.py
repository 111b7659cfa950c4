"""The life of a job at the door: accepted, cancelled, out of time."""

from collections.abc import Iterable
from dataclasses import dataclass

import anyio
import structlog

from messages.base import Fact
from messages.ids import JobId, NodeId
from messages.jobs import CancelJob, JobCancelled, JobFailed, ModelRequest, ModelRequested
from messages.state import JobState, apply
from messages.subjects import MODEL_REQUESTED
from services.requester.origin import NoOrigin, choose_origin
from services.runtime.bus import Bus
from services.runtime.service import NotYet

log = structlog.get_logger()
_UNKNOWN_JOB_WAIT_S = 5.0
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Jobs:
    """Handlers of the requester's routes."""

    bus: Bus
    node_id: NodeId
    is_origin: bool

    async def accept(self, request: ModelRequest) -> Iterable[Fact]:
        """`ModelRequested`; NoOrigin while none is alive, unless this job was accepted before.

        Of a job that was, by whatever origin, the server refuses a second one.
        """
        job_id = request.job_id
        if job_id is None:
            raise ValueError("the runtime gives every request a job id before it is handled")
        try:
            origin = await self.origin_for(request)
        except NoOrigin:
            if await self.bus.facts.last(MODEL_REQUESTED, job_id=job_id, generation=1):
                return ()
            raise
        return (ModelRequested(origin=origin, job_id=job_id, request=request),)

    async def origin_for(self, request: ModelRequest) -> NodeId:
        """Where the model of this request would be held."""
        live = () if self._is_own(request) else await self.bus.registry.nodes()
        return choose_origin(request, self.node_id, self.is_origin, live)

    async def cancel(self, command: CancelJob) -> Iterable[Fact]:
        """`JobCancelled` for the job's newest generation; nothing for a job nobody knows."""
        state = await self.state(command.job_id)
        if state is None:
            # A request and its cancelling may have been sent in one breath.
            with anyio.move_on_after(_UNKNOWN_JOB_WAIT_S):
                await self.bus.facts.wait(MODEL_REQUESTED, job_id=command.job_id)
            state = await self.state(command.job_id)
        if state is None or state.ended:
            log.info("nothing to cancel", known=state is not None)
            return ()
        return (
            JobCancelled(
                origin=state.origin,
                job_id=state.job_id,
                generation=state.generation,
                reason=command.reason,
            ),
        )

    async def expire(self, requested: ModelRequested) -> Iterable[Fact]:
        """`JobFailed` once the request's `timeout_s` has passed by the server's clock.

        A plan made anew after a loss is a further generation of the same request: the deadline
        ends the newest. A retry is a request, and has a deadline, of its own.
        """
        timeout_s = requested.request.timeout_s
        if timeout_s is None:
            return ()
        newest = await self.bus.facts.last(MODEL_REQUESTED, job_id=requested.job_id)
        state = await self.state(requested.job_id)
        if newest is None or state is None or newest.fact.generation < requested.generation:
            raise NotYet(_LOOK_AGAIN_S)  # a replica that lags behind answered
        if newest.fact.generation > requested.generation or state.ended:
            return ()
        left_s = newest.at + timeout_s - await self.bus.facts.now()
        if left_s > 0:
            raise NotYet(left_s)
        return (
            JobFailed(
                origin=requested.origin,
                job_id=requested.job_id,
                generation=state.generation,
                stage="deadline",
                reason=f"not done within the {timeout_s:g} s that the request gave it",
                advice=f"`williw retry {requested.job_id} --timeout-s SECONDS` goes on from what "
                "stands with a longer deadline (0 for none)",
            ),
        )

    async def state(self, job_id: JobId) -> JobState | None:
        """The fold of a job's facts; None for a job with none."""
        state: JobState | None = None
        for said in await self.bus.facts.job(job_id):
            state = apply(state, said)
        return state

    def _is_own(self, request: ModelRequest) -> bool:
        return request.node_id == self.node_id or (request.node_id is None and self.is_origin)
