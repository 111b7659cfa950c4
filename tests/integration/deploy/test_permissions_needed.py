"""No user of the bus may more than something of williw's takes: a server's trace is the witness."""

from collections.abc import Mapping
from pathlib import Path

import anyio
import msgspec
import pytest

from messages.api import JobQuery, NodesQuery, PreviewRequest, ProcessRequest
from messages.base import Fact
from messages.ids import JobId, NodeId
from messages.jobs import CancelJob, JobCompleted, ModelRequest, ModelRequested
from messages.metadata import ModelMetadata
from messages.models import MetadataReady
from messages.subjects import (
    API_CANCEL,
    API_NODES,
    API_PLAN,
    API_PREVIEW,
    API_PROCESS,
    API_PROFILE,
    API_STATUS,
    JOB_CANCEL,
    JOB_ENDED,
    MODEL_REQUEST,
    fact_subject,
)
from services.console import app
from services.profiler import service as profiler
from services.requester.client import NodeClient
from services.runtime import documents, keys, names, permissions
from services.runtime.bus import Bus, open_bus
from services.runtime.graveyard import Graveyard
from services.runtime.permissions import Permissions
from tests.bus_fixture import until
from tests.integration.deploy import audit
from tests.integration.deploy.conftest import (
    NODE,
    ORIGIN,
    LockedNats,
    services_with_settings,
    serving,
)
from tests.integration.deploy.locked_house import everybody, shown
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import House

# What no job, probe or command here brings about, and what needs it.
EXEMPT = {
    f"publish $JS.API.STREAM.PURGE.OBJ_{names.DOCUMENTS_BUCKET}": "a document cut off in writing",
}
UNREADABLE = b"of another world"
LOOKING = ("jobs", "status", "plan", "explain", "tap")


def test_every_permission_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Every document is one too large for a message.
    monkeypatch.setattr(documents, "INLINE_LIMIT_BYTES", 64)
    model = write_model(tmp_path / "models" / "tiny")
    log = tmp_path / "nats.log"
    with serving(tmp_path, "-V", "--max_traced_msg_len", "400") as locked:
        environ(locked, monkeypatch)
        job_id = anyio.run(everything, locked, tmp_path / "nodes", model, log, monkeypatch)
        for user in ("client", "tap"):
            monkeypatch.setenv("WILLIW_BUS_NKEY_FILE", str(locked.folder / f"keys/{user}.nk"))
            for command in LOOKING:
                assert app.run([command, *(() if command == "jobs" else (job_id,))]) == 0, command
            assert app.run(["nodes"]) == 0
            app.run(["doctor"])
        monkeypatch.setenv("WILLIW_BUS_NKEY_FILE", str(locked.folder / "keys/client.nk"))
        assert app.run(["request", str(model), "--json"]) == 0
        capsys.readouterr()
        may = users(locked)
        did = {user: audit.used(log)[public(locked, user)] for user in may}
    # What a node's distributor does, an origin's does for the jobs of other origins.
    theirs = did[f"{NODE}/distributor"].publish
    did[f"{ORIGIN}/distributor"].publish |= {subject.replace(NODE, ORIGIN) for subject in theirs}
    found = {user: set(audit.needless(may[user], did[user])) - EXEMPT.keys() for user in may}
    assert {user: sorted(entries) for user, entries in found.items() if entries} == {}
    more = Permissions((*may["tap"].publish, "williw.more"), may["tap"].subscribe)
    assert audit.needless(more, did["tap"]) == ["publish williw.more"]


def environ(locked: LockedNats, monkeypatch: pytest.MonkeyPatch) -> None:
    """What programs and commands take their settings from."""
    monkeypatch.setenv("WILLIW_NATS_URL", locked.url)
    monkeypatch.setenv("WILLIW_HOME", str(locked.folder / "home"))
    monkeypatch.setenv("NODE_ID", ORIGIN)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("WILLIW_BUS_NKEY_FILE", str(locked.folder / "keys/client.nk"))


def users(locked: LockedNats) -> Mapping[str, Permissions]:
    """Everybody but the operator, who may everything."""
    services = {
        f"{own.node.node_id}/{service.name}": permissions.of_service(service, own.node.node_id)
        for service, own in services_with_settings(locked.url)
    }
    return {**services, "client": permissions.of_client(), "tap": permissions.of_tap()}


def public(locked: LockedNats, user: str) -> str:
    """A user's public key."""
    return keys.seed(locked.folder / f"keys/{user}.nk")


async def everything(
    locked: LockedNats, root: Path, model: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> JobId:
    """Jobs, questions, cancelling and messages nobody can read; a finished job."""
    roots = {"downloader": {"local_roots": (str(model.parent),)}}
    refused: list[str] = []
    async with everybody(locked, root, refused, roots) as (house, client):
        facts = await jobs(house, client, str(model))
        metadata = await metadata_of(house.bus, facts)

        async def profiled(*_: object, **__: object) -> ModelMetadata:
            return metadata

        # As if the Hub had the model.
        monkeypatch.setattr(profiler, "profile_hub", profiled)
        await questions(client.bus, facts[0].job_id, metadata)
        await cancelling(house.bus, client.bus, log)
        await work_that_is_over(house.bus, facts)
        await unreadable(house.bus, facts)
        tap = shown(house.settings, locked, "tap")
        heard = refused.append
        async with open_bus(tap, "williw-console", on_closed=heard, apart=True) as looking:
            await looking.ask(API_STATUS, JobQuery(job_id=facts[0].job_id))
            await looking.ask(API_PLAN, JobQuery(job_id=facts[0].job_id))
            await looking.ask(API_NODES, NodesQuery())
        assert refused == []
    return facts[0].job_id


async def jobs(house: House, client: House, model: str) -> list[Fact]:
    """A program's job with a deadline, and one by the bare command; the latter's facts.

    That one's node had its token before, as where a splitter does its work again.
    """
    result = await NodeClient().execute_complete_workflow_async(model, timeout_s=60)
    assert "error" not in result, result
    job_id = JobId("job-2")
    await house.bus.grants.grant(NodeId(NODE), job_id)
    await client.bus.send(ModelRequest(model_name=model, job_id=job_id), MODEL_REQUEST)
    assert isinstance(await client.end(job_id), JobCompleted)
    return await house.facts(job_id)


async def metadata_of(bus: Bus, facts: list[Fact]) -> ModelMetadata:
    (ready,) = (fact for fact in facts if isinstance(fact, MetadataReady))
    assert ready.sha256
    store = await bus.client.jetstream().object_store(names.DOCUMENTS_BUCKET)
    body = (await store.get(ready.file)).data or b""
    return msgspec.json.decode(body, type=ModelMetadata)


async def questions(bus: Bus, job_id: JobId, metadata: ModelMetadata) -> None:
    """Every endpoint but those that start and cancel jobs."""
    assert (await bus.ask(API_STATUS, JobQuery(job_id=job_id))).job.status == "completed"
    await bus.ask(API_PLAN, JobQuery(job_id=job_id))
    assert len((await bus.ask(API_NODES, NodesQuery())).nodes) == 2
    await bus.ask(API_PREVIEW, PreviewRequest(request=ModelRequest(model_name="org/name")), 30)
    await bus.ask(API_PROFILE, ModelRequest(model_name="org/name"), 30)
    await bus.ask(API_PROCESS, ProcessRequest(metadata=metadata, node_id=NodeId(ORIGIN)), 30)


async def cancelling(operator: Bus, client: Bus, log: Path) -> None:
    """By the endpoint, and by a command that comes before the job is known of."""
    known, late = (
        ModelRequested(
            origin=NodeId("node_009"), job_id=JobId(job), request=ModelRequest(model_name="a/b")
        )
        for job in ("job-known", "job-late")
    )
    await operator.facts.say(known)
    await client.ask(API_CANCEL, CancelJob(job_id=known.job_id))
    await client.send(CancelJob(job_id=late.job_id), JOB_CANCEL)
    await until(lambda: "[SUB williw.model.requested.*.job-late." in log.read_text())
    await operator.facts.say(late)
    with anyio.fail_after(30):
        for job in (known, late):
            await operator.facts.wait(JOB_ENDED, job_id=job.job_id)


async def work_that_is_over(bus: Bus, facts: list[Fact]) -> None:
    """Every fact of a job whose ending nobody can read: that it ended is counted, not read."""
    js = bus.client.jetstream()
    ended = JOB_ENDED.where(origin=ORIGIN, job_id="job-over", generation=1)
    await js.publish(ended, UNREADABLE)
    for fact in facts:
        if not isinstance(fact, JobCompleted):
            await bus.facts.say(msgspec.structs.replace(fact, job_id=JobId("job-over")))
    with anyio.fail_after(30):
        while await _at_work(bus):  # noqa: ASYNC110  # the server's own figures
            await anyio.sleep(0.05)


async def _at_work(bus: Bus) -> bool:
    """Whether a route has a message to deal with; deadlines have theirs until they pass."""
    found = await bus.client.jetstream().consumers_info(names.FACTS_STREAM)
    busy = {str(one.name) for one in found if one.num_pending or one.num_ack_pending}
    return any(not name.endswith("-deadline") for name in busy)


async def unreadable(bus: Bus, facts: list[Fact]) -> None:
    """What nobody can read, on each subject: dead letters, and endings where it names a job.

    The job has ended, so that each ending is refused, and the one that stands read.
    """
    job_id = JobId("job-unreadable")
    for fact in facts:
        if isinstance(fact, JobCompleted):
            await bus.facts.say(msgspec.structs.replace(fact, job_id=job_id))
    subjects = {MODEL_REQUEST.where(), JOB_CANCEL.where(job_id=job_id)}
    for fact in facts:
        if not isinstance(fact, JobCompleted):
            subjects.add(fact_subject(fact).of(msgspec.structs.replace(fact, job_id=job_id)))
    for subject in subjects:
        await bus.client.jetstream().publish(subject, UNREADABLE)
    wanted = {
        (service.name, subject)
        for service, _ in services_with_settings("nats://nowhere")
        for route in service.routes
        for subject in subjects
        if permissions.covers(route.filter, subject)
    }
    assert {service for service, _ in wanted} == {s.name for s, _ in services_with_settings("")}
    with anyio.fail_after(30):
        while await _buried(bus) != wanted:  # noqa: ASYNC110  # the server's stream
            await anyio.sleep(0.1)


async def _buried(bus: Bus) -> set[tuple[str, str]]:
    """The dead letters' services and subjects."""
    letters = await Graveyard(bus.client).letters()
    return {(one.letter.service, one.letter.subject) for one in letters if one.letter}
