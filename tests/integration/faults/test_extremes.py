"""A job in which one number is as extreme as its type lets ends as any other, and harms nobody."""

from collections import Counter
from pathlib import Path

import anyio
import msgspec

import config.logging
import config.settings
from config.settings import Settings
from messages.base import Fact, Message
from messages.ids import JobId
from messages.jobs import CancelJob, JobCompleted, JobEnded, ModelRequest
from messages.models import MetadataReady, ModelDownloaded
from messages.shards import ShardDelivered, ShardFailed
from messages.subjects import COMMANDS, FACTS, JOB_CANCEL, JOB_ENDED, MODEL_REQUEST
from messages.wire import decode
from services.runtime.bus import Bus
from services.runtime.graveyard import Graveyard
from tests.integration.faults.extremes import extremes
from tests.integration.faults.house import wall_s
from tests.integration.faults.promise import messages_by_subject
from tests.integration.faults.standing import ANSWER_S, ORIGIN, a_standing_house
from tests.integration.faults.standing import bus as bus  # a fixture
from tests.integration.faults.table import Record, row
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import House

GOLDEN = Path(__file__).parents[2] / "golden" / "messages"
BASE = JobId("job-base")
# What an infeasible job waits for nodes that never come; one after the other they would be minutes.
IMPATIENT = {"planner": {"wait_for_nodes_s": 0.1}}


async def variants(house: House, model: Path) -> list[tuple[str, Message]]:
    """Every extreme of every command and fact, each otherwise one of a job that completed."""
    request = ModelRequest(model_name=str(model), job_id=BASE)
    await house.bus.send(request, MODEL_REQUEST)
    ended = await house.end(BASE, ANSWER_S)
    assert isinstance(ended, JobCompleted), ended
    said = {type(message): message for message in (request, *await house.facts(BASE))}
    found: list[tuple[str, Message]] = []
    for kind in [kind for subject in (*FACTS, *COMMANDS) for kind in subject.types]:
        whole = await with_every_field(house, kind)
        found += extremes(said.get(kind, whole), whole)
    return found


async def with_every_field(house: House, kind: type[Message]) -> Message:
    """A message that lacks nothing, of this house's one node."""
    body = (GOLDEN / f"{kind.__name__}.json").read_bytes()
    message: Message = decode(body.replace(b"node_002", ORIGIN.encode()), kind)
    if not isinstance(message, MetadataReady):
        return message
    nodes = tuple(entry.node for entry in await house.bus.registry.nodes())
    return msgspec.structs.replace(message, available_nodes=nodes)


async def begin(house: House, job_id: JobId, varied: Message, model: Path) -> None:
    """A job in which one thing is said already, and is the extreme one."""
    varied = msgspec.structs.replace(varied, job_id=job_id)
    if isinstance(varied, ModelRequest):
        await house.bus.send(varied, MODEL_REQUEST)
        return
    assert isinstance(varied, Fact)
    if isinstance(varied, ShardDelivered | ShardFailed):
        # Nobody listens to a node that has no part in a plan.
        planned, _ = await house.plan(BASE)
        ids = {"job_id": job_id, "generation": varied.generation}
        await house.bus.facts.say(msgspec.structs.replace(planned, **ids))
    if isinstance(varied, MetadataReady):
        # Whoever cuts its plan wants the model to be here, and may be faster than its download.
        (here,) = [fact for fact in await house.facts(BASE) if isinstance(fact, ModelDownloaded)]
        ids = {"job_id": job_id, "generation": varied.generation}
        await house.bus.facts.say(msgspec.structs.replace(here, **ids))
    await house.bus.facts.say(varied)
    request = ModelRequest(model_name=str(model), job_id=job_id)
    await house.bus.send(request, MODEL_REQUEST)


async def over(house: House, job_id: JobId, generation: int) -> JobEnded:
    """The end of that generation; one whose beginning nobody said is ended by a command."""
    ended = await house.end(job_id, ANSWER_S)
    if ended.generation == generation or generation == 1:
        return ended
    await house.bus.send(CancelJob(job_id=job_id), JOB_CANCEL)
    with anyio.fail_after(ANSWER_S):
        said = await house.bus.facts.wait(JOB_ENDED, job_id=job_id, generation=generation)
    return said.fact


async def test_every_number_at_both_its_ends_leaves_a_job_that_ends_once(
    bus: Bus, settings: Settings, tmp_path: Path, record_property: Record
) -> None:
    # Without it tracebacks are drawn with everything in reach, and the loop stands for seconds.
    config.logging.setup(config.settings.Logging(format="json"), terminal=False)
    began, endings = wall_s(), Counter[str]()
    model = write_model(tmp_path / "models" / "tiny")
    async with a_standing_house(bus, settings, tmp_path, IMPATIENT) as standing:
        house, jobs = standing.house, {}
        for k, (place, varied) in enumerate(await variants(house, model)):
            jobs[JobId(f"job-{k}")] = (place, getattr(varied, "generation", 1))
            await begin(house, JobId(f"job-{k}"), varied, model)
        assert len(jobs) > 100
        for job_id, (place, generation) in jobs.items():
            try:
                endings[type(await over(house, job_id, generation)).__name__] += 1
            except TimeoutError:
                raise AssertionError(f"{place}: {await house.facts(job_id)}") from None
        # A command may be sent again; nothing else is in the stream twice.
        counts = await messages_by_subject(bus, "williw.*.*.*.>")
        assert set(counts.values()) == {1}, counts
        buried = {one.letter.subject for one in await Graveyard(bus.client).letters() if one.letter}
        assert all(subject.split(".")[4] in jobs for subject in buried)
        assert endings["JobCompleted"] > len(jobs) / 2, endings
    note = ", ".join(f"{count} {name}" for name, count in sorted(endings.items()))
    row(record_property, "numbers as extreme as their types", JobCompleted, wall_s() - began, note)
