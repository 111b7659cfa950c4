"""How a finished job is told: the contract of the last JSON line, and tables for people."""

from pathlib import Path
from typing import Any

from messages.plans import SplitPlan
from messages.shards import ShardDelivered
from services.checkpoint.stage import VerifyReport, verify
from services.console.output import plain, say, say_json, size, table
from services.console.telling import as_object
from services.console.watch import Watch, stage_seconds
from services.distributor.store import place_beside
from services.runtime.bus import Bus


def verified(watch: Watch) -> VerifyReport:
    """Every digest of every stage directory, read now, and that together they hold the model.

    Read where the job's own stage stands: a model's link may show another job's since.
    """
    return verify([_place(Path(fact.stage_dir), fact.stage_sha256) for fact in watch.deliveries()])


def _place(link: Path, sha256: str) -> Path:
    place = place_beside(link, sha256)
    return place if place.is_dir() else link


async def tell(bus: Bus, watch: Watch, report: VerifyReport | None, *, as_json: bool) -> None:
    """Print the job's plan and end: as the last JSON line, or as tables."""
    plan = None
    if watch.state is not None and watch.state.plan is not None:
        plan = await bus.documents.load(watch.state.plan, SplitPlan)
    if as_json:
        say_json(final_object(watch, plan, report))
        return
    if plan is not None:
        show_plan(plan)
    show_end(watch, report)


def final_object(
    watch: Watch, plan: SplitPlan | None, report: VerifyReport | None
) -> dict[str, Any]:
    """The job's final state: its ending, plan, nodes and the seconds of each stage."""
    ending = watch.ending()
    told = {} if ending is None else as_object(ending)
    told |= {
        "plan": None if plan is None else plain(plan),
        "nodes": [node_object(fact) for fact in watch.deliveries()],
        "stages": stage_seconds(watch.state.at) if watch.state else {},
    }
    if report is not None:
        told["verified"] = report.ok and report.coverage == "whole"
        told["problems"] = list(report.problems)
    return told


def node_object(fact: ShardDelivered) -> dict[str, Any]:
    """One node's part: where, how large, and how many bytes came from where."""
    sources: dict[str, int] = {}
    for received in fact.received:
        sources[received.source] = sources.get(received.source, 0) + received.size_bytes
    return {
        "node_id": fact.node_id,
        "stage_dir": fact.stage_dir,
        "bytes": fact.size_bytes,
        "from": sources,
        "stage": fact.stage,
        "stage_sha256": fact.stage_sha256,
        "resumed_bytes": fact.resumed_bytes,
        "shard_size_mb": fact.shard_size_mb,
        "total_params": fact.total_params,
        "wall_s": fact.wall_s,
    }


def show_plan(plan: SplitPlan) -> None:
    """The plan as a table."""
    rows = [
        (
            part.node_id,
            f"{part.stage + 1}" if plan.replicas < 2 else f"{part.replica + 1}.{part.stage + 1}",
            f"{part.start_block}-{part.end_block - 1}" if part.end_block else "-",
            len(part.layer_names),
            f"{part.compute_required:.2f}",
            size(part.memory_bytes),
            f"{part.stage_s * 1000:.2f}",
        )
        for part in plan.assignments
    ]
    columns = ("node", "stage", "blocks", "tensors", "GFLOP", "memory", "ms a pass")
    table(columns, rows, title=f"plan {plan.plan_id}: {plan.model_name}, {plan.strategy}")
    gap = f", {plan.gap:.2%} above the bound ({plan.proof})" if plan.proof else ""
    say(f"slowest stage {plan.bottleneck_s * 1000:.2f} ms{gap}")
    for rejection in plan.rejected:
        say(f"not used: {rejection.node_id} ({', '.join(rejection.reasons)})")


def show_end(watch: Watch, report: VerifyReport | None) -> None:
    """Each node's stage directory and whether it was verified; or why the job failed."""
    state = watch.state
    if state is None:
        return
    if state.status != "completed":
        say(f"job {watch.job_id} {state.status} at {state.stage or 'request'}: {state.reason}")
        if state.advice:
            say(f"  {state.advice}")
        return
    # Lines, not a table: a path must stay whole to be copied.
    for fact in watch.deliveries():
        mark = "" if report is None else f"  {_verdict(fact, report)}"
        say(f"{fact.node_id}  {fact.stage_dir}")
        say(f"    {size(fact.size_bytes)} ({_sources(fact)}){mark}")
    if report is not None:
        _show_report(watch, report)


def _show_report(watch: Watch, report: VerifyReport) -> None:
    """What reading every digest again showed, and what to do where it was not well."""
    for problem in report.problems:
        say(f"problem: {problem}")
    if report.ok:
        say(f"verified: every digest read again; together the stages hold {_covered(report)}")
        return
    bad = [f.node_id for f in watch.deliveries() if _verdict(f, report) != "verified"]
    if bad:
        say(f"NOT verified: {', '.join(bad)} changed on the disk after it was delivered")
        say("  the same command again fetches the bad chunks anew; if it recurs, look at the disk")
    else:
        say("NOT verified: each stage is whole, and together they are not the model")
        say("  williw planned or cut them wrongly: please report it with what was printed")


def _verdict(fact: ShardDelivered, report: VerifyReport) -> str:
    place = _place(Path(fact.stage_dir), fact.stage_sha256)
    return "NOT verified" if str(place) in report.bad else "verified"


def _covered(report: VerifyReport) -> str:
    return "the whole model" if report.coverage == "whole" else "PART of the model"


def _sources(fact: ShardDelivered) -> str:
    return ", ".join(f"{r.source} {size(r.size_bytes)}" for r in fact.received if r.size_bytes)
