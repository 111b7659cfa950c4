"""A job's state is the fold of its facts: one pure function that every view of a job uses."""

from typing import Generic, Literal, TypeVar

import msgspec

from messages.base import Fact
from messages.documents import Document
from messages.ids import Generation, JobId, NodeId
from messages.jobs import JobCancelled, JobCompleted, JobFailed, ModelRequested
from messages.models import MetadataReady, ModelDownloaded, ModelProfiled
from messages.plans import NodeAssigned, SplitPlanned
from messages.shards import ShardDelivered, ShardFailed, ShardsReady

F = TypeVar("F", bound=Fact)
Status = Literal[
    "requested", "downloaded", "profiled", "ready", "planned", "cut",
    "completed", "failed", "cancelled",
]  # fmt: skip
_ORDER: dict[type[Fact], Status] = {
    ModelRequested: "requested",
    ModelDownloaded: "downloaded",
    ModelProfiled: "profiled",
    MetadataReady: "ready",
    SplitPlanned: "planned",
    ShardsReady: "cut",
    JobCompleted: "completed",
    JobFailed: "failed",
    JobCancelled: "cancelled",
}
_ENDS: tuple[Status, ...] = ("completed", "failed", "cancelled")
_RANK = {status: rank for rank, status in enumerate(_ORDER.values())}


class Said(msgspec.Struct, Generic[F], frozen=True, kw_only=True):
    """A fact with the server's sequence and time (Unix seconds) of its storing."""

    fact: F
    sequence: int
    at: float


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands. `at` maps each status reached to its time.

    `delivered` maps a node to its stage's directory, `undelivered` to why it will not have one.
    """

    job_id: JobId
    origin: NodeId
    generation: Generation
    status: Status
    model_name: str = ""
    revision: str = ""
    at: dict[str, float] = msgspec.field(default_factory=dict)
    plan: Document | None = None
    node_ids: tuple[NodeId, ...] = ()
    assigned: tuple[NodeId, ...] = ()
    delivered: dict[NodeId, str] = msgspec.field(default_factory=dict)
    undelivered: dict[NodeId, str] = msgspec.field(default_factory=dict)
    stage: str = ""
    reason: str = ""
    advice: str = ""

    @property
    def ended(self) -> bool:
        """Whether the job has had its one ending."""
        return self.status in _ENDS


def apply(state: JobState | None, said: Said[Fact]) -> JobState:
    """The state after `said`; the order of arrival and repetitions make no difference.

    A fact of a newer generation starts the state anew, one of an older generation changes nothing.
    """
    fact = said.fact
    if state is None or fact.generation > state.generation:
        state = JobState(
            job_id=fact.job_id,
            origin=fact.origin,
            generation=fact.generation,
            status="requested",
        )
    elif fact.generation < state.generation:
        return state
    status = _ORDER.get(type(fact))
    if status is not None:
        times = {**state.at, status: min(said.at, state.at.get(status, said.at))}
        further = status if _RANK[status] > _RANK[state.status] else state.status
        state = msgspec.structs.replace(state, status=further, at=times)
    return msgspec.structs.replace(state, **_learned(state, fact))


def _learned(state: JobState, fact: Fact) -> dict[str, object]:
    """The fields that this one fact tells."""
    match fact:
        case ModelRequested() | ModelProfiled() | MetadataReady():
            return {"model_name": fact.request.model_name}
        case ModelDownloaded():
            return {"model_name": fact.request.model_name, "revision": fact.revision}
        case SplitPlanned():
            return {
                "plan": fact.plan,
                "model_name": fact.model_name,
                "revision": fact.revision,
                "node_ids": fact.node_ids,
            }
        case NodeAssigned():
            return {"assigned": tuple(sorted({*state.assigned, fact.node_id}))}
        case ShardDelivered():
            delivered = {**state.delivered, fact.node_id: fact.stage_dir}
            return {"delivered": dict(sorted(delivered.items()))}
        case ShardFailed():
            undelivered = {**state.undelivered, fact.node_id: fact.reason}
            return {"undelivered": dict(sorted(undelivered.items()))}
        case JobFailed():
            return {"stage": fact.stage, "reason": fact.reason, "advice": fact.advice}
        case JobCancelled():
            return {"reason": fact.reason}
        case _:
            return {}
