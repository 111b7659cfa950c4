"""A plan: which node computes which blocks, in what order the parts travel, and how good it is."""

from typing import Literal

import msgspec

from messages.base import Fact
from messages.documents import Document
from messages.ids import Count, Generation, NodeId, NonNegative, PlanId, Positive
from messages.jobs import ModelRequest
from messages.wishes import Objective, Strategy


class NodeShare(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One node's part: `total_compute` in GFLOP; utilisation = need / (power × budget seconds)."""

    layer_names: tuple[str, ...]
    total_compute: NonNegative
    compute_utilization: NonNegative


class SelectedNode(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node the plan uses and the GFLOPS it was planned with."""

    node_id: NodeId
    compute_power: Positive


class RelayStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node's place in the relay: it receives at `step` and serves `next_nodes` onward."""

    node_id: NodeId
    step: Count
    layer_names: tuple[str, ...]
    next_nodes: tuple[NodeId, ...]


class MegaphonePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The relay that brings the parts out: chained and verified at each hop.

    `topology` and `reason` say which shape was chosen for the bytes of this plan, and why.
    """

    start_node: NodeId
    chain: tuple[RelayStep, ...]
    topology: Literal["chain", "star", "mixed"] = "chain"
    reason: str = ""


class Assignment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Stage `stage` of copy `replica`: blocks [`start_block`, `end_block`) on `node_id`."""

    node_id: NodeId
    stage: Count
    replica: Count = 0
    start_block: Count
    end_block: Count
    layer_names: tuple[str, ...]
    compute_required: NonNegative
    memory_bytes: Count
    stage_s: NonNegative


class Backup(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node that could take over a stage: the one whose loss would cost most, fitting here."""

    node_id: NodeId
    covers: tuple[NodeId, ...] = ()


class Rejection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node the plan does not use, and every reason why."""

    node_id: NodeId
    reasons: tuple[str, ...]


class SplitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan file. Times are seconds of one forward pass at the metadata's batch and sequence.

    `plan_id` is a digest of metadata, nodes and wishes: the same inputs give the same plan.
    `gap` is bottleneck_s / lower_bound_s − 1 (latency_s where that is the objective) and `proof`
    names the argument behind the bound. `throughput_per_s` counts forward passes of all replicas.
    A plan made because nodes were lost names the plan it `replaces` and the bytes that move.
    """

    plan_id: PlanId
    model_name: str
    model_url: str
    selected_nodes: tuple[SelectedNode, ...]
    split_plan: dict[NodeId, NodeShare]
    megaphone_plan: MegaphonePlan
    generated_at: str | None = None
    strategy: Strategy = "pipeline"
    objective: Objective = "throughput"
    generation: Generation = 1
    revision: str = ""
    metadata_sha256: str = ""
    assignments: tuple[Assignment, ...] = ()
    backups: tuple[Backup, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    replicas: Count = 1
    bottleneck_s: NonNegative = 0.0
    latency_s: NonNegative = 0.0
    decode_bottleneck_s: NonNegative = 0.0
    decode_latency_s: NonNegative = 0.0
    lower_bound_s: NonNegative = 0.0
    gap: NonNegative = 0.0
    proof: str = ""
    hops_per_token: Count = 0
    throughput_per_s: NonNegative = 0.0
    decode_tokens_per_s: NonNegative = 0.0
    transfer_s: NonNegative | None = None
    warnings: tuple[str, ...] = ()
    replaces: PlanId | None = None
    moved_bytes: Count | None = None


class SplitPlanned(Fact, frozen=True, kw_only=True):
    """The plan of this generation, once and for all; `plan` holds or references a `SplitPlan`."""

    request: ModelRequest
    plan_id: PlanId
    model_name: str
    revision: str
    strategy: Strategy
    node_ids: tuple[NodeId, ...]
    bottleneck_s: NonNegative
    plan: Document
    metadata: Document
    plan_only: bool = False


class NodeAssigned(Fact, frozen=True, kw_only=True):
    """One node's part of the plan."""

    node_id: NodeId
    request: ModelRequest
    plan_id: PlanId
    model_name: str
    revision: str
    stage: Count
    stages: Count
    replica: Count = 0
    start_block: Count
    end_block: Count
    tensor_count: Count
    memory_bytes: Count
    fetch_from: tuple[NodeId, ...] = ()
