"""The questions that `williw.api.*` answers."""

import secrets
from dataclasses import dataclass

import anyio
import msgspec

from messages.api import (
    CancelAccepted,
    JobQuery,
    NodesAnswer,
    NodesQuery,
    PlanAnswer,
    ProcessRequest,
    RequestAccepted,
    StatusAnswer,
)
from messages.documents import digest_of
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.jobs import CancelJob, JobFailed, ModelRequest
from messages.metadata import ModelMetadata
from messages.models import MetadataReady
from messages.plans import SplitPlan
from messages.state import JobState
from messages.subjects import JOB_CANCEL, JOB_ENDED, MODEL_REQUEST, SPLIT_PLANNED
from messages.wire import decode, encode
from services.hub.metadata_store import read_metadata
from services.requester.jobs import Jobs
from services.runtime.bus import Bus


class UnknownJob(Permanent):
    """No fact of this job is on the bus."""

    def __init__(self, job_id: JobId) -> None:
        super().__init__(f"no job {job_id} is known", advice="`williw jobs` lists those that are")


@dataclass(frozen=True)
class Answers:
    """Handlers of the requester's endpoints."""

    bus: Bus
    jobs: Jobs
    process_timeout_s: float

    async def request(self, request: ModelRequest) -> RequestAccepted:
        """The job's id, once the request is stored; NoOrigin (refused) where nobody can take it."""
        job_id = request.job_id or new_job_id()
        origin = await self.jobs.origin_for(request)
        request = msgspec.structs.replace(request, job_id=job_id, node_id=origin)
        await self.bus.send(request, MODEL_REQUEST, message_id=f"request-{job_id}")
        return RequestAccepted(job_id=job_id, origin=origin)

    async def status(self, query: JobQuery) -> StatusAnswer:
        """The job's state."""
        return StatusAnswer(job=await self._known(query.job_id))

    async def plan(self, query: JobQuery) -> PlanAnswer:
        """The job's newest plan."""
        state = await self._known(query.job_id)
        if state.plan is None:
            raise Permanent(
                f"job {query.job_id} has no plan: it is {state.status}"
                + (f" ({state.reason})" if state.reason else ""),
                advice="ask again when `williw status` says planned",
            )
        plan = await self.bus.documents.load(state.plan, SplitPlan)
        return PlanAnswer(job_id=query.job_id, plan=plan)

    async def cancel(self, command: CancelJob) -> CancelAccepted:
        """Stored as a command; refused where the job is unknown or has ended."""
        state = await self._known(command.job_id)
        if state.ended:
            raise Permanent(f"job {command.job_id} has ended already: {state.status}")
        await self.bus.send(command, JOB_CANCEL)
        return CancelAccepted(job_id=command.job_id)

    async def nodes(self, _query: NodesQuery) -> NodesAnswer:
        """The live nodes."""
        return NodesAnswer(nodes=await self.bus.registry.nodes())

    async def process(self, question: ProcessRequest) -> PlanAnswer:
        """The plan for metadata that a node made itself; refused with the reason it failed."""
        body = await self._metadata_body(question)
        metadata = decode(body, ModelMetadata)
        origin = question.node_id or metadata.node_id or self.jobs.node_id
        job_id = question.job_id or new_job_id()
        await self.bus.facts.say(await self._ready(question, metadata, body, origin, job_id))
        with anyio.move_on_after(self.process_timeout_s):
            return PlanAnswer(job_id=job_id, plan=await self._planned(origin, job_id))
        raise Passing(
            f"no plan within {self.process_timeout_s:g} s; job {job_id} goes on, ask "
            "williw.api.plan for it later"
        )

    async def _metadata_body(self, question: ProcessRequest) -> bytes:
        if question.metadata is not None:
            return encode(question.metadata)
        if question.repo and question.file:
            return await read_metadata(question.repo, question.file, question.commit)
        raise Permanent(
            "neither metadata nor where to read it was given",
            advice="send `metadata`, or `repo` and `file` (and `commit`) on the Hub",
        )

    async def _ready(
        self,
        question: ProcessRequest,
        metadata: ModelMetadata,
        body: bytes,
        origin: NodeId,
        job_id: JobId,
    ) -> MetadataReady:
        name = f"{metadata.model_name.strip('/').replace('/', '_')}_metadata.json"
        stored = await self.bus.documents.store(body, name)
        return MetadataReady(
            origin=origin,
            job_id=job_id,
            request=ModelRequest(
                model_name=metadata.model_name,
                batch_size=metadata.batch_size,
                sequence_length=metadata.sequence_length,
                job_id=job_id,
                wishes=question.wishes,
            ),
            repo=stored.bucket,
            file=stored.name,
            url=f"nats://object/{stored.bucket}/{stored.name}",
            revision=metadata.revision,
            sha256=digest_of(body),
            size_bytes=len(body),
            available_nodes=question.available_nodes,
            plan_only=question.plan_only,
        )

    async def _planned(self, origin: NodeId, job_id: JobId) -> SplitPlan:
        """The plan, as soon as it is said; Permanent with the reason where the job failed first."""
        found: list[SplitPlan] = []
        failed: list[JobFailed] = []
        async with anyio.create_task_group() as group:

            async def wait_plan() -> None:
                said = await self.bus.facts.wait(SPLIT_PLANNED, origin=origin, job_id=job_id)
                found.append(await self.bus.documents.load(said.fact.plan, SplitPlan))
                group.cancel_scope.cancel()

            async def wait_end() -> None:
                said = await self.bus.facts.wait(JOB_ENDED, origin=origin, job_id=job_id)
                if isinstance(said.fact, JobFailed):
                    failed.append(said.fact)
                    group.cancel_scope.cancel()

            group.start_soon(wait_plan)
            group.start_soon(wait_end)
        if failed:
            raise Permanent(failed[0].reason, advice=failed[0].advice)
        return found[0]

    async def _known(self, job_id: JobId) -> JobState:
        state = await self.jobs.state(job_id)
        if state is None:
            raise UnknownJob(job_id)
        return state


def new_job_id() -> JobId:
    """A fresh id for a request that came with none."""
    return JobId(f"job-{secrets.token_hex(6)}")
