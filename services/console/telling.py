"""One line for each thing that happens on the bus: as JSON, and for people. Pure."""

from typing import Any

import msgspec

from messages.base import Fact
from messages.jobs import JobCancelled, JobCompleted, JobFailed, ModelRequested
from messages.models import MetadataReady, ModelDownloaded, ModelProfiled
from messages.plans import NodeAssigned, SplitPlanned
from messages.progress import Progress
from messages.shards import ShardDelivered, ShardFailed, ShardsReady
from messages.state import Said
from services.console.output import plain, size
from services.console.watch import share_done, stage_of


def as_object(said: Said[Fact]) -> dict[str, Any]:
    """The fact with its `type`, `job_id` and `at` (Unix seconds) first."""
    fields = plain(said.fact)
    return {"type": fields.pop("type"), "job_id": fields.pop("job_id"), "at": said.at, **fields}


def progress_as_object(progress: Progress, at: float) -> dict[str, Any]:
    """Progress in the same form; `at` is the listener's clock."""
    fields = plain(progress)
    return {"type": fields.pop("type"), "job_id": fields.pop("job_id"), "at": at, **fields}


def sentence(fact: Fact) -> str:
    """The fact for people, on one line."""
    match fact:
        case ModelRequested():
            return f"requested   {fact.request.model_name} at {fact.origin}"
        case ModelDownloaded():
            files = len(fact.files_downloaded)
            return f"downloaded  {files} files, {size(fact.total_size_bytes)}"
        case ModelProfiled():
            return f"profiled    {fact.total_layers} tensors, {fact.total_compute:,.2f} GFLOP"
        case MetadataReady():
            return f"uploaded    {fact.url}"
        case SplitPlanned():
            return f"planned     {fact.strategy} over {', '.join(fact.node_ids)}" + _seconds(fact)
        case NodeAssigned():
            return _assigned(fact)
        case ShardsReady():
            return f"cut         {len(fact.stages)} stages, {size(_cut_bytes(fact))}"
        case ShardDelivered():
            return f"delivered   {fact.node_id}: {size(fact.size_bytes)} in {fact.stage_dir}"
        case ShardFailed():
            return f"undelivered {fact.node_id}: {fact.reason}"
        case _:
            return _ending(fact)


def progress_sentence(progress: Progress) -> str:
    """Progress for people, on one line."""
    done, total = progress.done, progress.total
    figures = (
        f"{size(done)} of {size(total)}"
        if progress.unit == "bytes"
        else f"{done:g} of {total:g} {progress.unit}"
    )
    stage = stage_of(progress.stage)
    return f"{stage:<10}  {progress.node_id}: {share_done(progress):4.0%}  {figures}"


def _ending(fact: Fact) -> str:
    match fact:
        case JobCompleted():
            return f"completed   {len(fact.nodes)} nodes"
        case JobFailed():
            advice = f" ({fact.advice})" if fact.advice else ""
            return f"failed      at {fact.stage}: {fact.reason}{advice}"
        case JobCancelled():
            return f"cancelled   {fact.reason}"
        case _:
            return str(msgspec.to_builtins(fact).get("type", type(fact).__name__))


def _assigned(fact: NodeAssigned) -> str:
    blocks = f"blocks {fact.start_block}-{fact.end_block - 1}"
    return f"assigned    {fact.node_id}: stage {fact.stage + 1} of {fact.stages}, {blocks}"


def _seconds(fact: SplitPlanned) -> str:
    return f", {fact.bottleneck_s * 1000:.2f} ms a stage" if fact.bottleneck_s else ""


def _cut_bytes(fact: ShardsReady) -> int:
    return sum(stage.size_bytes for stage in fact.stages)
