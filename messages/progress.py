"""Progress of long work: core NATS only, never stored, never the truth."""

from typing import Literal

from messages.base import Message
from messages.ids import Generation, JobId, NodeId, NonNegative

Unit = Literal["bytes", "tensors", "files", "chunks"]


class Progress(Message, frozen=True, kw_only=True):
    """`done` of `total` units so far; `rate` is units a second. It may be lost."""

    stage: str
    node_id: NodeId
    job_id: JobId
    generation: Generation = 1
    done: NonNegative
    total: NonNegative
    unit: Unit = "bytes"
    rate: NonNegative = 0.0
