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
# A file of the model, as its publisher named it: in the directory itself, or one folder below.
SourceName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@=, -]*(/[A-Za-z0-9_][A-Za-z0-9_.+@=, -]*)?$(?!\n)"),
]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class StageTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a stage file: bytes [`start`, `start` + `size_bytes`) of that file.

    They are bytes [`source_start`, …) of file `source` of the model. `dtype` is safetensors' name.
    """

    name: str
    dtype: str
    shape: tuple[Count, ...]
    start: Count
    size_bytes: Count
    source: SourceName
    source_start: Count


class StageFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a stage: its length, the BLAKE3 digest of each chunk, and a digest that names it.

    Chunk k is bytes [k × chunk_bytes, min((k + 1) × chunk_bytes, size_bytes)). `digest` is BLAKE3
    of the length (8 bytes, little endian) and the chunks' digests in order: the same content cut
    the same way has the same name on every node. `source` names the model's file that this one is
    byte for byte; a safetensors file has `tensors`, after a header of `data_start` bytes.
    """

    name: FileName
    size_bytes: Count
    digest: Digest
    chunk_bytes: PositiveCount
    chunks: tuple[Digest, ...]
    source: SourceName | None = None
    data_start: Count = 0
    tensors: tuple[StageTensor, ...] = ()


class StageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Every file of one node's stage directory; this document's SHA-256 names the stage."""

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
    """The manifest of one node's stage, by reference; its sha256 names the stage everywhere.

    `description` is the stage's williw.stage.json without its list of files, which the manifest
    has: with both, no byte of it need come from another node.
    """

    node_id: NodeId
    stage: Count
    size_bytes: Count
    manifest: Document
    description: Document | None = None


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may fetch what of a plan: the SHA-256 of each node's token, and its files by digest.

    A token is 256 random bits, so its digest may be read by anybody and lets nobody in.
    """

    tokens: dict[NodeId, Sha256]
    files: dict[NodeId, tuple[Digest, ...]]


class ShardsReady(Fact, frozen=True, kw_only=True):
    """The origin can serve every stage of the plan; `access` holds or references an `Access`."""

    plan_id: PlanId
    stages: tuple[StageReady, ...]
    access: Document | None = None


class ReceivedBytes(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of a stage came from one source: a node id, `hub`, or `held` (not moved)."""

    source: str
    size_bytes: Count


class ShardDelivered(Fact, frozen=True, kw_only=True):
    """One node holds its part, every chunk verified, visible under `stage_dir` on that node.

    `distrusted` gave wrong bytes or showed a wrong certificate; `slow` were waited for in vain:
    connected and silent, or "not yet" for too long.
    """

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
    slow: tuple[str, ...] = ()


class ShardFailed(Fact, frozen=True, kw_only=True):
    """One node will not have its part: at which stage it failed, why, and what to do about it.

    Said where `ShardDelivered` would be, so of both only the first. The origin ends the job with
    it: a node may speak for itself, not for a job.
    """

    node_id: NodeId
    stage: str
    reason: str
    advice: str = ""
