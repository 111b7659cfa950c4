"""What a requester may wish of a plan, beyond the model's name."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from messages.ids import Count, NodeId, PositiveCount

Strategy = Literal["pipeline", "greedy", "balanced"]
Objective = Literal["throughput", "latency"]
Relay = Literal["auto", "chain", "star"]


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks `start_block` (included) to `end_block` (excluded) must be computed by `node_id`."""

    node_id: NodeId
    start_block: Count
    end_block: PositiveCount


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The planner's policy for one job; None and empty mean "as the planner's settings say".

    A `relay` that is not wished for is not written: an older planner knows no None there.
    """

    strategy: Strategy | None = None
    objective: Objective = "throughput"
    replicas: Annotated[int, Meta(ge=1, le=4096)] | None = None
    headroom: Annotated[float, Meta(ge=0, lt=1)] | None = None
    relay: Relay | msgspec.UnsetType | None = msgspec.UNSET
    pins: tuple[Pin, ...] = ()
    require: tuple[NodeId, ...] = ()
    exclude: tuple[NodeId, ...] = ()
    order: tuple[NodeId, ...] = ()
