"""Whether a job is over for a fact of it: ended in its generation, or planned anew since."""

import structlog

from messages.base import Fact
from messages.subjects import JOB_ENDED, SPLIT_PLANNED
from messages.wire import Undecodable
from services.runtime.factlog import FactLog

log = structlog.get_logger()


def ended(fact: Fact) -> str:
    """The subject on which the end of the fact's generation of its job is said."""
    return JOB_ENDED.where(origin=fact.origin, job_id=fact.job_id, generation=fact.generation)


async def is_over(facts: FactLog, fact: Fact, *, by_leader: bool = False) -> bool:
    """Whether the fact's job has ended or was planned anew; Passing where the bus does not answer.

    `by_leader` is for a node's key: it may not have the server publish what is stored, which is
    how one question takes both.
    """
    if by_leader:
        return await facts.holds(ended(fact)) or await is_planned_anew(facts, fact)
    # A plan made anew is the next generation, and a retry begins only what has ended.
    found = await facts.one_of(
        ended(fact),
        SPLIT_PLANNED.where(origin=fact.origin, job_id=fact.job_id, generation=fact.generation + 1),
    )
    if found is None or found[0] == ended(fact):
        return found is not None
    return await is_planned_anew(facts, fact) or await facts.holds(ended(fact))


async def is_planned_anew(facts: FactLog, fact: Fact) -> bool:
    """Whether the leader has a newer plan that can be read; unlike an ending, one must be."""
    job = {"origin": fact.origin, "job_id": fact.job_id}
    try:
        return await facts.last(SPLIT_PLANNED, **job, generation=fact.generation + 1) is not None
    except Undecodable as error:
        log.warning("passing over an unreadable fact", error=error.reason)
        return False
