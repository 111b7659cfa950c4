"""A job's state is the fold of its facts, whatever their order and however often they come."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from messages.base import Fact
from messages.documents import Document
from messages.ids import JobId, NodeId, PlanId, Sha256
from messages.jobs import JobCancelled, JobCompleted, JobFailed, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.plans import SplitPlanned
from messages.shards import ShardDelivered, ShardFailed, ShardsReady
from messages.state import JobState, Said, apply

JOB, ORIGIN = JobId("j"), NodeId("o")
REQUEST = ModelRequest(model_name="org/name")


def _facts(generation: int) -> list[Fact]:
    ids = {"origin": ORIGIN, "job_id": JOB, "generation": generation}
    plan = PlanId(f"plan-{generation}")
    planned = SplitPlanned(
        request=REQUEST,
        plan_id=plan,
        model_name="org/name",
        revision="r",
        strategy="pipeline",
        node_ids=(NodeId("a"), NodeId("b")),
        bottleneck_s=1.0,
        plan=Document.of_small(b"{}"),
        metadata=Document.of_small(b"{}"),
        **ids,  # type: ignore[arg-type]
    )
    delivered = [
        ShardDelivered(
            node_id=NodeId(node),
            plan_id=plan,
            stage=0,
            stage_dir=f"/m/{node}",
            stage_sha256=Sha256("0" * 64),
            size_bytes=1,
            shard_size_mb=1,
            total_params=1,
            **ids,  # type: ignore[arg-type]
        )
        for node in "ab"
    ]
    downloaded = ModelDownloaded(
        request=REQUEST,
        revision="r",
        model_path="/x",
        files_downloaded=(),
        total_size_bytes=1,
        total_size_mb=1,
        **ids,  # type: ignore[arg-type]
    )
    return [
        ModelRequested(request=REQUEST, **ids),  # type: ignore[arg-type]
        downloaded,
        planned,
        ShardsReady(plan_id=plan, stages=(), **ids),  # type: ignore[arg-type]
        *delivered,
        ShardFailed(node_id=NodeId("c"), stage="distributor", reason="full", **ids),  # type: ignore[arg-type]
        JobCompleted(plan_id=plan, **ids),  # type: ignore[arg-type]
    ]


FIRST = [Said(fact=fact, sequence=n, at=100.0 + n) for n, fact in enumerate(_facts(1))]
SECOND = [Said(fact=fact, sequence=50 + n, at=200.0 + n) for n, fact in enumerate(_facts(2))]


def folded(facts: list[Said[Fact]]) -> JobState:
    state: JobState | None = None
    for said in facts:
        state = apply(state, said)
    assert state is not None
    return state


def test_a_job_goes_from_requested_to_completed() -> None:
    statuses = [folded(FIRST[: n + 1]).status for n in range(len(FIRST))]
    assert [status for status, _ in itertools.groupby(statuses)] == [
        "requested",
        "downloaded",
        "planned",
        "cut",
        "completed",
    ]
    state = folded(FIRST)
    assert state.ended
    assert state.delivered == {"a": "/m/a", "b": "/m/b"}
    assert state.undelivered == {"c": "full"}
    assert state.at["completed"] - state.at["requested"] == len(FIRST) - 1


@given(st.data())
def test_order_and_repetition_make_no_difference(data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(FIRST + SECOND), min_size=1))
    shuffled = data.draw(st.permutations(kept))
    assert folded(kept + kept) == folded(list(shuffled))


def test_a_newer_generation_begins_anew_and_an_older_one_changes_nothing() -> None:
    state = folded(FIRST + SECOND[:1])
    assert (state.generation, state.status, state.delivered) == (2, "requested", {})
    assert apply(state, FIRST[-1]) == state


def test_a_failure_tells_its_stage_reason_and_advice() -> None:
    failed = JobFailed(origin=ORIGIN, job_id=JOB, stage="split", reason="full", advice="free")
    state = folded([*FIRST[:3], Said(fact=failed, sequence=9, at=1.0)])
    assert (state.status, state.stage, state.reason, state.advice) == (
        "failed",
        "split",
        "full",
        "free",
    )
    cancelled = JobCancelled(origin=ORIGIN, job_id=JOB, reason="no more")
    assert folded([Said(fact=cancelled, sequence=1, at=1.0)]).reason == "no more"
