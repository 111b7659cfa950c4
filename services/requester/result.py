"""A finished job told in the steps of the seed's client: request, download, …, split."""

from collections.abc import Iterable
from typing import Any

import msgspec

from messages.base import Fact
from messages.ids import NodeId
from messages.jobs import JobCancelled, JobFailed, ModelRequested
from messages.models import MetadataReady, ModelDownloaded, ModelProfiled
from messages.plans import SplitPlan, SplitPlanned
from messages.shards import ShardDelivered


def workflow_result(
    facts: Iterable[Fact], plan: SplitPlan | None, *, model_name: str, node_id: NodeId | None
) -> dict[str, Any]:
    """`{"success", "model_name", "node_id", "steps", "error"?}` of a job's facts.

    `split` is the part of `node_id`, or of the first node of the chain where that is not in the
    plan. Sizes are mebibytes, as the seed's client counted its `_mb`.
    """
    steps: dict[str, Any] = {}
    error = ""
    delivered: dict[NodeId, ShardDelivered] = {}
    for fact in facts:
        match fact:
            case ShardDelivered():
                delivered[fact.node_id] = fact
            case JobFailed():
                error = f"{fact.stage}: {fact.reason}" + (
                    f" ({fact.advice})" if fact.advice else ""
                )
            case JobCancelled():
                error = f"cancelled: {fact.reason}"
            case _:
                steps.update(_step(fact))
    if plan is not None:
        steps["split_plan"] = _plan_step(plan)
        shown = node_id if node_id in plan.split_plan else plan.megaphone_plan.start_node
        if shown in delivered:
            steps["split"] = _split_step(plan, delivered[shown])
    result: dict[str, Any] = {
        "success": not error and "split" in steps,
        "model_name": model_name,
        "node_id": node_id,
        "steps": steps,
    }
    return result | ({"error": error} if error else {})


def _step(fact: Fact) -> dict[str, Any]:
    match fact:
        case ModelRequested():
            return {"request": {"success": True, "job_id": fact.job_id, "origin": fact.origin}}
        case ModelDownloaded():
            download = {
                "model_path": fact.model_path,
                "files_downloaded": list(fact.files_downloaded),
                "total_size_mb": fact.total_size_mb,
                "revision": fact.revision,
            }
            return {"download": download}
        case ModelProfiled():
            return {"metadata": {"metadata_file": fact.metadata_file, "sha256": fact.sha256}}
        case MetadataReady():
            upload = {
                "repo": fact.repo,
                "filename": fact.file,
                "url": fact.url,
                "commit": fact.commit,
            }
            return {"upload": upload}
        case SplitPlanned():
            process = {
                "success": True,
                "plan_id": fact.plan_id,
                "strategy": fact.strategy,
                "bottleneck_s": fact.bottleneck_s,
            }
            return {"process": process}
        case _:
            return {}


def _plan_step(plan: SplitPlan) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plan))
    kept = ("model_name", "split_plan", "megaphone_plan", "selected_nodes")
    return {key: built[key] for key in kept}


def _split_step(plan: SplitPlan, delivered: ShardDelivered) -> dict[str, Any]:
    share = plan.split_plan[delivered.node_id]
    return {
        "node_id": delivered.node_id,
        "shard_path": delivered.stage_dir,
        "layer_names": list(share.layer_names),
        "total_params": delivered.total_params,
        "shard_size_mb": delivered.shard_size_mb,
        "compute_utilization": share.compute_utilization,
    }
