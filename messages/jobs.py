"""A job from its request to its one ending, and the commands a user gives."""

from typing import Annotated

import msgspec
from msgspec import Meta

from messages.base import Fact, Message
from messages.ids import Count, Generation, JobId, NodeId, PlanId
from messages.wishes import Strategy, Wishes

# A Hub id (`name` or `org/name`) or the absolute path of a directory on the origin. What a path may
# be is for the origin's settings to say; dot segments and control characters are never a name.
ModelName = Annotated[
    str,
    Meta(
        max_length=512,
        pattern=r"^(?!.*(^|/)\.{1,2}(/|$))"
        r"([A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?|/[^\x00-\x1f\x7f]+)$(?!\n)",
    ),
]
Revision = Annotated[str, Meta(pattern=r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_./-]{0,254}$(?!\n)")]
BatchSize = Annotated[int, Meta(ge=1, le=65_536)]
SequenceLength = Annotated[int, Meta(ge=1, le=2**24)]
# Far more than the facts of a job are kept for, and a number that every clock can count to.
Timeout = Annotated[float, Meta(gt=0, le=366 * 86_400)]


class ModelRequest(Message, frozen=True, kw_only=True):
    """Please bring this model to the nodes; `model_name` is enough.

    A `job_id` makes the request idempotent. `node_id` chooses the origin, else the requester does.
    `pickle` consents to converting `.bin`/`.pth` weights, read with weights_only, to safetensors.
    """

    model_name: ModelName
    revision: Revision = "main"
    batch_size: BatchSize = 1
    sequence_length: SequenceLength = 512
    job_id: JobId | None = None
    node_id: NodeId | None = None
    timeout_s: Timeout | None = None
    pickle: bool = False
    strategy: Strategy | None = None
    wishes: Wishes = Wishes()

    @property
    def policy(self) -> Wishes:
        """The wishes, with the strategy that was asked for beside the model's name."""
        if self.strategy is None:
            return self.wishes
        return msgspec.structs.replace(self.wishes, strategy=self.strategy)


class CancelJob(Message, frozen=True, kw_only=True):
    """Please stop this job, at whatever stage it is."""

    job_id: JobId
    reason: str = "cancelled by request"


class ModelRequested(Fact, frozen=True, kw_only=True):
    """The request was accepted as a job of this origin."""

    request: ModelRequest
    retry_of: Generation | None = None


class DeliveredStage(Message, frozen=True, kw_only=True):
    """Where one node's verified part stands and which sources its bytes came from."""

    node_id: NodeId
    stage_dir: str
    size_bytes: Count


class JobCompleted(Fact, frozen=True, kw_only=True):
    """Every node of the plan holds its part, verified; a job that only planned has no nodes."""

    plan_id: PlanId
    nodes: tuple[DeliveredStage, ...] = ()


class JobFailed(Fact, frozen=True, kw_only=True):
    """The job ended without its result: at which stage, why, and what to do about it."""

    stage: str
    reason: str
    advice: str = ""
    node_id: NodeId | None = None


class JobCancelled(Fact, frozen=True, kw_only=True):
    """The job was stopped by a command."""

    reason: str = ""


JobEnded = JobCompleted | JobFailed | JobCancelled
