"""One planning case, made ready for the strategies; and what a strategy hands back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from messages.ids import NodeId
from messages.metadata import Block, ModelMetadata
from messages.nodes import Node
from messages.plans import Assignment, SplitPlan
from messages.wishes import Relay, Strategy, Wishes
from services.planner import metadata as meta
from services.planner.selection import Policy, Selection, offered_bytes, select
from services.planner.unkept import refuse_unkept


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
    def relay(self) -> Relay:
        """How the parts travel as wished for, else as the settings say."""
        return self.wishes.relay or self.policy.relay

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
    running: SplitPlan | None = None,
) -> Case:
    """The case, with metadata and wishes checked and nodes selected; raises as `plan_split`.

    The nodes of a plan that is `running` keep their place in it: however busy its work keeps them
    they may take part, with what they were planned with at least, and their part fits on their
    disk, which may be full because it lies there.
    """
    meta.check(metadata)
    refuse_unkept(wishes, wishes.strategy or policy.strategy)
    blocks = meta.blocks_of(metadata)
    tie = meta.tie_of(metadata, blocks)
    held = held_bytes(running, blocks, tie) if running is not None else {}
    if running is not None:
        power = {one.node_id: one.compute_power for one in running.selected_nodes}
        nodes = [_as_planned(node, held, power) for node in nodes]
    selection = select(nodes, wishes, policy, held)
    return Case(
        metadata=metadata,
        blocks=blocks,
        tie=tie,
        nodes=tuple(sorted(nodes, key=lambda node: node.node_id)),
        selection=selection,
        offered={n.node_id: offered_bytes(n, wishes, policy) for n in selection.nodes},
        wishes=wishes,
        policy=policy,
        origin=origin,
    )


def held_bytes(plan: SplitPlan, blocks: Sequence[Block], tie: meta.Tie) -> dict[NodeId, int]:
    """The weights that each node of the plan has on its disk, or will have."""
    return {a.node_id: weights_of(a, blocks, tie) for a in plan.assignments}


def weights_of(a: Assignment, blocks: Sequence[Block], tie: meta.Tie) -> int:
    """The bytes of weights in a stage; all it holds, where it has no range of blocks."""
    if not a.end_block:
        return a.memory_bytes
    copies = tie.copies if a.end_block == len(blocks) else ()
    tied = sum(copy.size_bytes for copy in copies if copy.block < a.start_block)
    return sum(block.weight_bytes for block in blocks[a.start_block : a.end_block]) + tied


def _as_planned(node: Node, held: Mapping[NodeId, int], power: Mapping[NodeId, float]) -> Node:
    """The node without what the running plan itself takes of its disk and its compute."""
    gflops = max(node.compute_gflops, power.get(node.node_id, 0.0))
    disk = node.disk_bytes
    if disk is not None:
        disk = max(disk, held.get(node.node_id, 0))
    return msgspec.structs.replace(node, compute_gflops=gflops, disk_bytes=disk)
