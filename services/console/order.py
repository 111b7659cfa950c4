"""What is asked of a `williw up`."""

from dataclasses import dataclass

from msgspec import UNSET

from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.nodes import Node
from messages.wishes import Relay, Wishes
from services.console.wanted import new_job_id, request_for


@dataclass(frozen=True)
class Order:
    """What was asked of `williw up`; no `model_name` means: just be up. `began` is Unix seconds."""

    nodes: tuple[Node, ...]
    model_name: str
    strategy: str | None
    relay: Relay | None
    batch_size: int
    sequence_length: int
    exit_when_done: bool
    as_json: bool
    began: float

    def check(self) -> None:
        """Usage where the request could not be sent."""
        if self.model_name:
            self.request(new_job_id())

    def request(self, job_id: JobId) -> ModelRequest:
        """The request, to the first node as origin.

        One chain: the local nodes share a machine, so a second copy on them would serve nobody.
        """
        return request_for(
            self.model_name,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            strategy=self.strategy,
            job_id=job_id,
            node_id=NodeId(self.nodes[0].node_id),
            wishes=Wishes(replicas=1, relay=self.relay or UNSET),
        )
