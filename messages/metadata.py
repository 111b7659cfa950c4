"""The metadata file: what every tensor of a checkpoint costs to compute and to hold.

The first eight keys and those of a layer are the format williw was created with and never change
their meaning; docs/metadata.md gives every formula.
"""

from typing import Literal

import msgspec

from messages.ids import Count, NodeId, NonNegative
from messages.jobs import BatchSize, SequenceLength

SCHEMA_VERSION = 1
LayerType = Literal[
    "embedding", "attention", "mlp", "expert", "router", "norm", "head", "conv", "state", "other"
]


class Layer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tensor of the checkpoint, by its own name.

    `compute_required` is GFLOP of one forward pass at the metadata's batch and sequence,
    `dtype` is torch's name (`torch.bfloat16`), `cost_source` the rule that gave the number.
    `assigned_with` names the packed tensor that these scales or zero points must accompany.
    """

    name: str
    shape: tuple[Count, ...]
    num_params: Count
    compute_required: NonNegative
    layer_type: LayerType
    dtype: str
    size_bytes: Count = 0
    decode_compute: NonNegative = 0.0
    cost_source: str = "shape"
    assigned_with: str | None = None


class Block(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a pipeline may not cut: consecutive tensors that one node computes together.

    Blocks are in execution order. `compute_required` is GFLOP, `decode_compute` GFLOP for one
    token, `kv_bytes` the key-value cache at the metadata's batch and sequence,
    `kv_bytes_per_token` what one more token adds below any window, `activation_bytes` the peak
    while the block runs. `together_with` names a block that must share its node.
    """

    name: str
    tensors: tuple[str, ...]
    compute_required: NonNegative
    decode_compute: NonNegative = 0.0
    weight_bytes: Count
    kv_bytes: Count = 0
    kv_bytes_per_token: Count = 0
    activation_bytes: Count = 0
    together_with: str | None = None
    output_bytes: Count = 0


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a planner needs to know of a model; a what-if may leave `layers` empty."""

    model_name: str
    model_type: str = "unknown"
    batch_size: BatchSize = 1
    sequence_length: SequenceLength = 512
    layers: tuple[Layer, ...] = ()
    total_compute: NonNegative = 0.0
    total_layers: Count = 0
    node_id: NodeId | None = None
    generated_at: str | None = None
    schema: int = SCHEMA_VERSION
    revision: str = ""
    compute_unit: Literal["GFLOP"] = "GFLOP"
    total_params: Count = 0
    total_size_bytes: Count = 0
    blocks: tuple[Block, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()
