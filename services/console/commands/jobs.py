"""`williw jobs`, `status`, `plan`: what the bus remembers of jobs."""

from typing import Any

from messages.failures import Permanent
from messages.ids import JobId
from messages.plans import SplitPlan
from messages.state import JobState, apply
from services.console.failures import EXIT_DONE
from services.console.options import Asking, Reach
from services.console.output import clock, plain, say, say_json, table
from services.console.reaching import ask
from services.console.waiting import job_state
from services.console.wanted import job_named
from services.console.watch import stage_seconds
from services.runtime.bus import Bus


class UnknownJob(Permanent):
    """No fact of this job is on the bus."""

    def __init__(self, job_id: JobId) -> None:
        super().__init__(f"no job {job_id} is known", advice="`williw jobs` lists those that are")


def jobs(*, reach: Asking = None) -> int:
    """List the jobs the bus remembers, the newest last.

    Example: williw jobs --json
    """
    reach = reach or Reach()
    states = ask(reach, _all_states)
    if reach.json:
        say_json([state_object(state) for state in states])
        return EXIT_DONE
    rows = [
        (
            state.job_id,
            state.status,
            state.model_name,
            ", ".join(state.node_ids),
            clock(state.at.get("requested", 0.0)),
            state.reason[:80],
        )
        for state in states
    ]
    table(("job", "status", "model", "nodes", "requested", "reason"), rows)
    return EXIT_DONE


def status(job: str, /, *, reach: Asking = None) -> int:
    """Show where a job stands: the fold of its facts.

    Example: williw status job-0123456789ab

    Parameters
    ----------
    job
        The job's id.
    """
    reach = reach or Reach()
    job_id = job_named(job)
    state = ask(reach, lambda bus: known(bus, job_id))
    if reach.json:
        say_json(state_object(state))
        return EXIT_DONE
    say(f"{state.job_id}  {state.status}  {state.model_name}@{state.revision or '?'}")
    table(("stage", "seconds"), [(k, f"{v:.2f}") for k, v in stage_seconds(state.at).items()])
    if state.node_ids:
        told = {node: f"not here: {why}" for node, why in state.undelivered.items()}
        told |= state.delivered
        rows = [(node, told.get(node, "not yet")) for node in state.node_ids]
        table(("node", "stage directory"), rows)
    if state.reason:
        say(f"{state.status}{f' at {state.stage}' if state.stage else ''}: {state.reason}")
    if state.advice:
        say(f"  {state.advice}")
    return EXIT_DONE


def plan(job: str, /, *, reach: Asking = None) -> int:
    """Print a job's newest plan as JSON.

    Example: williw plan job-0123456789ab > plan.json

    Parameters
    ----------
    job
        The job's id.
    """
    job_id = job_named(job)
    found = ask(reach or Reach(), lambda bus: plan_of(bus, job_id))
    say_json(found, pretty=not (reach and reach.json))
    return EXIT_DONE


async def known(bus: Bus, job_id: JobId) -> JobState:
    """The job's state; UnknownJob where the bus holds no fact of it."""
    state = (await job_state(bus, job_id)).state
    if state is None:
        raise UnknownJob(job_id)
    return state


async def plan_of(bus: Bus, job_id: JobId) -> SplitPlan:
    """The job's newest plan; Permanent where it has none."""
    state = await known(bus, job_id)
    if state.plan is None:
        why = f" ({state.reason})" if state.reason else ""
        raise Permanent(
            f"job {job_id} has no plan: it is {state.status}{why}",
            advice="ask again when `williw status` says planned",
        )
    return await bus.documents.load(state.plan, SplitPlan)


def state_object(state: JobState) -> dict[str, Any]:
    """A job's state with `type` and the seconds of its stages; the plan itself is left out."""
    fields = plain(state)
    fields.pop("plan", None)
    return {"type": "JobState", **fields, "stages": stage_seconds(state.at)}


async def _all_states(bus: Bus) -> list[JobState]:
    states: dict[JobId, JobState] = {}
    for said in await bus.facts.all_jobs():
        job_id = said.fact.job_id
        states[job_id] = apply(states.get(job_id), said)
    return list(states.values())
