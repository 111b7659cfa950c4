"""A node's part as files: the manifest that every byte is verified against, and its delivery."""

from typing import Annotated

import msgspec
from msgspec import Meta

from messages.base import Fact
from messages.documents import Document
from messages.ids import Count, NodeId, NonNegative, PlanId, PositiveCount, Sha256

# A file of a stage lies in its directory and nowhere else: no separators, no dot files, no `..`.
FileName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,199})?$(?!\n)"),
]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class StageFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a stage: its length, its BLAKE3 digest, and the digest of each of its chunks.

    Chunk k is bytes [k × chunk_bytes, min((k + 1) × chunk_bytes, size_bytes)). `shared` marks a
    file that is the same in every stage of the plan (configuration, tokenizer).
    """

    name: FileName
    size_bytes: Count
    blake3: Digest
    chunk_bytes: PositiveCount
    chunks: tuple[Digest, ...]
    shared: bool = False


class StageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Every file of one node's stage directory; `digest` in `StageReady` is this document's."""

    plan_id: PlanId
    model_name: str
    revision: str
    directory: FileName
    node_id: NodeId
    stage: Count
    stages: Count
    files: tuple[StageFile, ...]
    size_bytes: Count


class StageReady(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of one node's stage, by reference; its sha256 names the stage everywhere."""

    node_id: NodeId
    stage: Count
    size_bytes: Count
    manifest: Document


class ShardsReady(Fact, frozen=True, kw_only=True):
    """The origin can serve every stage of the plan."""

    plan_id: PlanId
    stages: tuple[StageReady, ...]


class ReceivedBytes(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of a stage came from one source: a node id, `hub`, or `held` (not moved)."""

    source: str
    size_bytes: Count


class ShardDelivered(Fact, frozen=True, kw_only=True):
    """One node holds its part, every chunk verified, visible under `stage_dir` on that node."""

    node_id: NodeId
    plan_id: PlanId
    stage: Count
    stage_dir: str
    stage_sha256: Sha256
    size_bytes: Count
    shard_size_mb: NonNegative
    total_params: Count
    received: tuple[ReceivedBytes, ...] = ()
    resumed_bytes: Count = 0
    wall_s: NonNegative = 0.0
    distrusted: tuple[str, ...] = ()
