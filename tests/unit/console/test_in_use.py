"""What the facts say of the stages that an origin must keep."""

import math

from messages.base import Fact
from messages.documents import Document
from messages.ids import JobId, NodeId, PlanId
from messages.jobs import JobCancelled, ModelRequest
from messages.plans import SplitPlanned
from messages.shards import ShardsReady, StageReady
from messages.state import Said
from services.console.in_use import MARGIN_S, InUse, of_facts

BODY = Document.of_small(b'"stage"')


def said(fact: Fact, at: float) -> Said[Fact]:
    return Said(fact=fact, sequence=1, at=at)


def planned(job: str, at: float, generation: int = 1) -> Said[Fact]:
    fact = SplitPlanned(
        origin=NodeId("o"),
        job_id=JobId(job),
        generation=generation,
        request=ModelRequest(model_name="m"),
        plan_id=PlanId("p"),
        model_name="m",
        revision="",
        strategy="pipeline",
        node_ids=(),
        bottleneck_s=0.0,
        plan=BODY,
        metadata=BODY,
    )
    return said(fact, at)


def ready(job: str, generation: int = 1) -> Said[Fact]:
    stage = StageReady(node_id=NodeId("n"), stage=0, size_bytes=1, manifest=BODY)
    fact = ShardsReady(
        origin=NodeId("o"),
        job_id=JobId(job),
        generation=generation,
        plan_id=PlanId("p"),
        stages=(stage,),
    )
    return said(fact, 0.0)


def ended(job: str, generation: int = 1) -> Said[Fact]:
    fact = JobCancelled(origin=NodeId("o"), job_id=JobId(job), generation=generation, reason="")
    return said(fact, 0.0)


NOTHING = InUse(frozenset(), math.inf)


def test_an_ended_job_uses_nothing() -> None:
    assert of_facts([]) == NOTHING
    assert of_facts([planned("a", 500.0), ready("a"), ended("a")]) == NOTHING
    assert of_facts([planned("a", 500.0), ended("a", generation=2)]) == NOTHING


def test_a_running_job_uses_its_stages() -> None:
    assert of_facts([planned("a", 500.0), ready("a")]) == InUse(frozenset([BODY.sha256]), math.inf)


def test_a_job_whose_stages_are_being_cut_may_use_whatever_was_used_since_its_plan() -> None:
    facts = [planned("a", 900.0), planned("b", 500.0), planned("c", 100.0), ready("c")]
    found = of_facts(facts)
    assert found == InUse(frozenset([BODY.sha256]), 500.0 - MARGIN_S)


def test_a_newer_generation_runs_though_the_older_ended() -> None:
    facts = [planned("a", 1.0), ready("a"), ended("a"), planned("a", 500.0, 2)]
    assert of_facts(facts) == InUse(frozenset(), 500.0 - MARGIN_S)
    assert of_facts([*facts, ready("a", 2)]).stages == {BODY.sha256}
