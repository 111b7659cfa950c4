"""One planning case, made ready for the strategies; and what a strategy hands back."""

from collections.abc import Sequence
from dataclasses import dataclass

from messages.ids import NodeId
from messages.metadata import Block, ModelMetadata
from messages.nodes import Node
from messages.plans import Assignment
from messages.wishes import Strategy, Wishes
from services.planner import metadata as meta
from services.planner.selection import Policy, Selection, offered_bytes, select


@dataclass(frozen=True)
class Case:
    """Checked metadata, all nodes, the eligible ones and the bytes each of them offers."""

    metadata: ModelMetadata
    blocks: tuple[Block, ...]
    tie: meta.Tie
    nodes: tuple[Node, ...]
    selection: Selection
    offered: dict[NodeId, int]
    wishes: Wishes
    policy: Policy
    origin: NodeId | None

    @property
    def strategy(self) -> Strategy:
        """The strategy wished for, else the settings'."""
        return self.wishes.strategy or self.policy.strategy

    @property
    def headroom(self) -> float:
        """The share of a node's memory that the plan leaves free."""
        return self.policy.headroom if self.wishes.headroom is None else self.wishes.headroom


@dataclass(frozen=True)
class Placed:
    """Stages in pipeline order of each replica, the bound on the objective, and its argument."""

    assignments: tuple[Assignment, ...]
    lower_bound_s: float
    proof: str
    hops: int
    warnings: tuple[str, ...] = ()


def case_of(
    metadata: ModelMetadata,
    nodes: Sequence[Node],
    wishes: Wishes,
    policy: Policy,
    origin: NodeId | None = None,
) -> Case:
    """The case, with metadata and wishes checked and nodes selected; raises as `plan_split`."""
    meta.check(metadata)
    selection = select(nodes, wishes, policy)
    blocks = meta.blocks_of(metadata)
    return Case(
        metadata=metadata,
        blocks=blocks,
        tie=meta.tie_of(metadata, blocks),
        nodes=tuple(sorted(nodes, key=lambda node: node.node_id)),
        selection=selection,
        offered={n.node_id: offered_bytes(n, wishes, policy) for n in selection.nodes},
        wishes=wishes,
        policy=policy,
        origin=origin,
    )
