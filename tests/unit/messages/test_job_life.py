"""The whole life of a job, whatever facts come, how often and in which order: one ending each try.

The machine is the server and the services: a fact is said once on its subject, an ended generation
is only left by a newer one. Views read what was said, late, twice and out of order.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from messages.base import Fact
from messages.documents import Document
from messages.ids import JobId, NodeId, PlanId, Sha256
from messages.jobs import JobCancelled, JobCompleted, JobFailed, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.plans import NodeAssigned, SplitPlanned
from messages.shards import ShardDelivered, ShardFailed, ShardsReady
from messages.state import JobState, Said, apply
from messages.subjects import JOB_ENDED, fact_subject

JOB, ORIGIN = JobId("job-1"), NodeId("origin")
NODES = (NodeId("a"), NodeId("b"))
REQUEST = ModelRequest(model_name="org/name")
PLAN = PlanId("plan-1")
BODY = Document.of_small(b"{}")
ENDINGS = {JobCompleted: "completed", JobFailed: "failed", JobCancelled: "cancelled"}


def planned(ids: dict[str, object]) -> list[Fact]:
    """What a planner says of one generation."""
    common = {**ids, "plan_id": PLAN}
    split = SplitPlanned(
        request=REQUEST,
        model_name="org/name",
        revision="r",
        strategy="pipeline",
        node_ids=NODES,
        bottleneck_s=1.0,
        plan=BODY,
        metadata=BODY,
        **common,  # type: ignore[arg-type]
    )
    assigned = [
        NodeAssigned(
            node_id=node,
            request=REQUEST,
            model_name="org/name",
            revision="r",
            stage=stage,
            stages=len(NODES),
            start_block=stage,
            end_block=stage + 1,
            tensor_count=1,
            memory_bytes=1,
            **common,  # type: ignore[arg-type]
        )
        for stage, node in enumerate(NODES)
    ]
    return [split, *assigned]


def delivered(ids: dict[str, object]) -> list[Fact]:
    """What the nodes say of one generation."""
    return [
        ShardDelivered(
            node_id=node,
            plan_id=PLAN,
            stage=0,
            stage_dir=f"/m/{ids['generation']}/{node}",
            stage_sha256=Sha256("0" * 64),
            size_bytes=1,
            shard_size_mb=1,
            total_params=1,
            **ids,  # type: ignore[arg-type]
        )
        for node in NODES
    ]


def undelivered(ids: dict[str, object]) -> list[Fact]:
    """What the nodes say instead where they cannot have their parts."""
    return [
        ShardFailed(node_id=node, stage="distributor", reason="full", **ids)  # type: ignore[arg-type]
        for node in NODES
    ]


def work(generation: int) -> list[Fact]:
    """Everything that may be said of a generation before its end."""
    ids: dict[str, object] = {"origin": ORIGIN, "job_id": JOB, "generation": generation}
    downloaded = ModelDownloaded(
        request=REQUEST,
        revision="r",
        model_path="/x",
        files_downloaded=(),
        total_size_bytes=1,
        total_size_mb=1,
        **ids,  # type: ignore[arg-type]
    )
    requested = ModelRequested(request=REQUEST, **ids)  # type: ignore[arg-type]
    ready = ShardsReady(plan_id=PLAN, stages=(), **ids)  # type: ignore[arg-type]
    return [requested, downloaded, *planned(ids), ready, *delivered(ids), *undelivered(ids)]


def ending(kind: type[Fact], generation: int) -> Fact:
    """One of the three ways to end."""
    ids: dict[str, object] = {"origin": ORIGIN, "job_id": JOB, "generation": generation}
    fields: dict[type[Fact], dict[str, object]] = {
        JobCompleted: {"plan_id": PLAN},
        JobFailed: {"stage": "planner", "reason": f"failed {generation}"},
        JobCancelled: {"reason": f"cancelled {generation}"},
    }
    return kind(**ids, **fields[kind])  # type: ignore[arg-type]


class JobLife(RuleBasedStateMachine):
    """Services say facts, the server keeps the first on each subject, a view folds what it hears.

    `log` is what the server holds, `heard` which of it the view has had; the model beside the
    view is no more than the newest generation heard and the ending heard of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[str, Said[Fact]] = {}
        self.heard: set[str] = set()
        self.view: JobState | None = None
        self.generation = 1
        self.newest = 0
        self.endings: dict[int, str] = {}

    def say(self, fact: Fact) -> str:
        """Written once: the second saying of a subject finds the first."""
        subject = fact_subject(fact).once(fact)
        number = len(self.log) + 1
        self.log.setdefault(subject, Said(fact=fact, sequence=number, at=100.0 + number))
        return subject

    def hear(self, subject: str) -> None:
        """The view folds one stored fact, and may only move as the promise allows."""
        said, before = self.log[subject], self.view
        after = self.view = apply(before, said)
        self.heard.add(subject)
        told = said.fact.generation
        if before is not None and told < before.generation:
            assert after == before
        if before is not None and before.ended and told <= before.generation:
            assert after.status == before.status
        self.newest = max(self.newest, told)
        if type(said.fact) in ENDINGS:
            self.endings[told] = ENDINGS[type(said.fact)]

    def ended(self, generation: int) -> bool:
        """Whether the server holds an end of it."""
        subject = JOB_ENDED.where(origin=ORIGIN, job_id=JOB, generation=generation)
        return subject in self.log

    @initialize()
    def requested(self) -> None:
        """A job begins with its request."""
        self.hear(self.say(work(1)[0]))

    @rule(data=st.data(), now=st.booleans())
    def a_stage_says_something(self, data: st.DataObject, now: bool) -> None:
        """Of any generation, also one that has ended: services are told of it only later."""
        generation = data.draw(st.integers(1, self.generation))
        subject = self.say(data.draw(st.sampled_from(work(generation))))
        if now:
            self.hear(subject)

    @rule(data=st.data(), kind=st.sampled_from(sorted(ENDINGS, key=lambda k: k.__name__)))
    def somebody_ends_it(self, data: st.DataObject, kind: type[Fact]) -> None:
        """Complete, fail and cancel race for one subject: the first is the ending."""
        generation = data.draw(st.integers(1, self.generation))
        before = self.ended(generation)
        held = dict(self.log)
        subject = self.say(ending(kind, generation))
        if before:
            assert self.log == held
        self.hear(subject)

    @precondition(lambda self: self.ended(self.generation) and self.generation < 4)
    @rule()
    def it_is_tried_again(self) -> None:
        """Only an ended generation is followed by the next."""
        self.generation += 1
        self.hear(self.say(work(self.generation)[0]))

    @rule(data=st.data())
    def something_comes_late_or_again(self, data: st.DataObject) -> None:
        """Any stored fact may be delivered at any time."""
        self.hear(data.draw(st.sampled_from(sorted(self.log))))

    @invariant()
    def the_view_is_that_of_the_newest_generation_heard(self) -> None:
        """Ended exactly where an ending of that generation was heard, and in that way."""
        if self.view is None:
            return
        assert self.view.generation == self.newest
        assert self.view.ended == (self.newest in self.endings)
        if self.view.ended:
            assert self.view.status == self.endings[self.newest]
        for stage_dir in self.view.delivered.values():
            assert stage_dir.startswith(f"/m/{self.newest}/")
        assert not self.view.delivered.keys() & self.view.undelivered.keys()

    @invariant()
    def a_generation_has_one_ending(self) -> None:
        """Three kinds of fact, one subject."""
        ends = [said.fact.generation for said in self.log.values() if type(said.fact) in ENDINGS]
        assert len(ends) == len(set(ends))

    def teardown(self) -> None:
        """Whoever reads the whole log in its order sees what this view saw of it."""
        fresh: JobState | None = None
        for subject, said in self.log.items():
            if subject in self.heard:
                fresh = apply(fresh, said)
        assert fresh == self.view


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
