"""The actor on a real server: one message in, facts out, whatever happens in between."""

from collections.abc import Awaitable, Callable, Iterable

import anyio
import msgspec
import pytest
from nats.aio.msg import Msg

from config.settings import Settings
from messages.base import Fact
from messages.dead import DeadLetter
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.jobs import JobCancelled, JobEnded, JobFailed, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.progress import Progress
from messages.state import Said
from messages.subjects import JOB_ENDED, MODEL_DOWNLOADED, MODEL_REQUEST, MODEL_REQUESTED
from messages.wire import decode, encode
from services.console.embedded import EmbeddedNats
from services.runtime import names, progress
from services.runtime.attendance import Attendance
from services.runtime.bus import Bus, open_bus
from services.runtime.service import NotYet, Route, Service
from tests.bus_fixture import running, until

NODE, JOB = NodeId("node_001"), JobId("job-1")
REQUESTED = ModelRequested(origin=NODE, job_id=JOB, request=ModelRequest(model_name="org/name"))
Handler = Callable[[ModelRequested], Awaitable[Iterable[Fact]]]


def downloaded(requested: ModelRequested, path: str = "/models/x") -> ModelDownloaded:
    return ModelDownloaded(
        origin=requested.origin,
        job_id=requested.job_id,
        generation=requested.generation,
        request=requested.request,
        revision="r",
        model_path=path,
        files_downloaded=(),
        total_size_bytes=0,
        total_size_mb=0,
    )


def downloader(handle: Handler, slots: int = 1, *, patient: bool = False) -> Service:
    route = Route(MODEL_REQUESTED, handle, where={"origin": NODE}, slots=slots, patient=patient)
    return Service("downloader", routes=(route,))


async def ended(bus: Bus, job_id: JobId = JOB) -> Said[JobEnded]:
    with anyio.fail_after(30):
        return await bus.facts.wait(JOB_ENDED, job_id=job_id)


async def dead_letters(bus: Bus) -> list[DeadLetter]:
    js = bus.client.jetstream()
    info = await js.stream_info(names.DEAD_STREAM)
    bodies = [await js.get_msg(names.DEAD_STREAM, n + 1) for n in range(info.state.messages)]
    return [decode(body.data or b"", DeadLetter) for body in bodies]


async def acknowledged(bus: Bus, service: str = "downloader") -> None:
    """Wait until the service's consumer has nothing left to do."""
    js = bus.client.jetstream()
    with anyio.fail_after(30):
        while True:
            info = await js.consumer_info(names.FACTS_STREAM, f"{service}-model_requested-{NODE}")
            if not info.num_pending and not info.num_ack_pending:
                return
            await anyio.sleep(0.05)


async def test_what_a_handler_returns_is_said_and_its_message_acknowledged(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(10):
            said = await bus.facts.wait(MODEL_DOWNLOADED, origin=NODE, job_id=JOB)
        assert said.fact == downloaded(REQUESTED)
        await acknowledged(bus)


async def test_a_refusal_ends_the_job_with_its_reason_and_advice(
    bus: Bus, settings: Settings
) -> None:
    async def handle(_: ModelRequested) -> Iterable[Fact]:
        raise Permanent("no such model hf_abcdefghijklmnop", advice="check the name")

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        fact = (await ended(bus)).fact
    assert isinstance(fact, JobFailed)
    assert (fact.stage, fact.reason, fact.advice, fact.node_id) == (
        "downloader",
        "no such model ***",
        "check the name",
        NODE,
    )


async def test_passing_trouble_is_tried_again_and_then_no_more_is_heard_of_it(
    bus: Bus, settings: Settings
) -> None:
    tries: list[ModelRequested] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(requested)
        if len(tries) < 3:
            raise Passing("the Hub answers 503")
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert len(tries) == 3
    assert await dead_letters(bus) == []


async def test_who_asks_for_patience_is_not_asked_again_before(
    bus: Bus, settings: Settings
) -> None:
    tries: list[float] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(anyio.current_time())
        if len(tries) == 1:
            raise Passing("the Hub answers 429", after_s=1.5)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    assert tries[1] - tries[0] >= 1.4


@pytest.mark.parametrize("error", [Passing("down"), ValueError("a bug")])
async def test_trouble_that_does_not_pass_fails_the_job_and_leaves_a_dead_letter(
    bus: Bus, settings: Settings, error: Exception
) -> None:
    tries: list[ModelRequested] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(requested)
        raise error

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        fact = (await ended(bus)).fact
        await acknowledged(bus)
    assert len(tries) == settings.bus.max_deliver
    assert isinstance(fact, JobFailed)
    assert str(error) in fact.reason
    (letter,) = await dead_letters(bus)
    assert (letter.service, letter.attempts) == ("downloader", settings.bus.max_deliver)
    assert decode(letter.payload, ModelRequested) == REQUESTED


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"origin":"node_001","job_id":"job-1","request":{"model_name":"../etc"}}',
        encode(msgspec.structs.replace(REQUESTED, origin=NodeId("node_002"))),
        encode(msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))),
    ],
)
async def test_a_message_that_is_not_what_it_should_be_is_buried_and_its_job_told(
    bus: Bus, settings: Settings, body: bytes
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.client.jetstream().publish(f"williw.model.requested.{NODE}.job-1.1", body)
        fact = (await ended(bus)).fact
        await acknowledged(bus)
    assert isinstance(fact, JobFailed)
    assert (fact.origin, fact.job_id) == (NODE, JOB)
    (letter,) = await dead_letters(bus)
    assert letter.payload == body
    assert await bus.facts.count(MODEL_DOWNLOADED) == 0


async def test_a_slow_handler_keeps_its_lease(bus: Bus, settings: Settings) -> None:
    began: list[float] = []
    release = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        began.append(anyio.current_time())
        await release.wait()
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle, slots=4)):
        await bus.facts.say(REQUESTED)
        await until(lambda: bool(began))
        # Past two leases a message that was not kept would have come again.
        await until(lambda: anyio.current_time() > began[0] + 2 * settings.bus.lease_s + 1)
        release.set()
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert len(began) == 1


async def test_deliveries_that_meet_the_work_in_hand_are_not_tries(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_: Attendance) -> None:
        """Renewals that go nowhere, as to a server that is cut off."""

    came = 0
    tries: list[ModelRequested] = []
    renew = Attendance.renew

    def counted(self: Attendance, msg: Msg) -> None:
        nonlocal came
        came += 1
        renew(self, msg)

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(requested)
        if len(tries) == 1:
            await until(lambda: came > settings.bus.max_deliver)
            raise Passing("the bus did not answer")
        return (downloaded(requested),)

    monkeypatch.setattr(Attendance, "_hold", lost)
    monkeypatch.setattr(Attendance, "renew", counted)
    short = msgspec.structs.replace(settings, bus=msgspec.structs.replace(settings.bus, lease_s=1))
    async with running(bus, short, downloader(handle, slots=2)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(40):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert len(tries) == 2
    assert await dead_letters(bus) == []


async def test_cancelling_a_job_stops_its_handler_within_two_seconds_and_no_other(
    bus: Bus, settings: Settings
) -> None:
    at_work: set[str] = set()
    stopped: dict[str, float] = {}

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        at_work.add(requested.job_id)
        try:
            await anyio.sleep_forever()
        finally:
            stopped[requested.job_id] = anyio.current_time()
        return ()

    other = msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))
    async with running(bus, settings, downloader(handle, slots=2)) as actor:
        await bus.facts.say(REQUESTED)
        await bus.facts.say(other)
        await until(lambda: at_work == {"job-1", "job-2"})
        said_at = anyio.current_time()
        await bus.facts.say(JobCancelled(origin=NODE, job_id=JOB))
        await until(lambda: "job-1" in stopped)
        assert stopped["job-1"] - said_at < 2
        assert "job-2" not in stopped
        await bus.facts.say(JobCancelled(origin=NODE, job_id=other.job_id))
        await until(lambda: actor.consumers[0].in_flight == 0)
        await acknowledged(bus)


async def test_work_of_an_older_generation_is_dropped(bus: Bus, settings: Settings) -> None:
    handled: list[int] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.generation)
        return (downloaded(requested),)

    await bus.facts.say(REQUESTED)
    await bus.facts.say(JobFailed(origin=NODE, job_id=JOB, stage="x", reason="y"))
    await bus.facts.say(msgspec.structs.replace(REQUESTED, generation=2))
    async with running(bus, settings, downloader(handle)):
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB, generation=2)
        await acknowledged(bus)
    assert handled == [2]


async def test_a_server_killed_while_a_handler_works_costs_nothing(
    bus: Bus, settings: Settings, nats_server: EmbeddedNats
) -> None:
    began = anyio.Event()
    release = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        began.set()
        await release.wait()
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        await began.wait()
        nats_server.kill()
        release.set()
        nats_server.start()
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert await bus.facts.count(MODEL_DOWNLOADED) == 1


async def test_two_copies_of_a_service_share_one_consumer_and_say_each_fact_once(
    bus: Bus, settings: Settings
) -> None:
    by: dict[str, list[str]] = {"a": [], "b": []}

    def copy(name: str) -> Service:
        async def handle(requested: ModelRequested) -> Iterable[Fact]:
            by[name].append(requested.job_id)
            await anyio.sleep(0.01)
            return (downloaded(requested, name),)

        return downloader(handle)

    async with (
        open_bus(settings, "second") as second,
        running(bus, settings, copy("a")),
        running(second, settings, copy("b")),
    ):
        for number in range(20):
            await bus.facts.say(msgspec.structs.replace(REQUESTED, job_id=JobId(f"job-{number}")))
        await acknowledged(bus)
    assert sorted(by["a"] + by["b"]) == sorted(f"job-{n}" for n in range(20))
    assert by["a"]
    assert by["b"]
    assert await bus.facts.count(MODEL_DOWNLOADED) == 20


async def test_stopping_lets_handlers_finish_and_hands_back_those_that_do_not(
    bus: Bus, settings: Settings
) -> None:
    began = anyio.Event()

    async def slow(_: ModelRequested) -> Iterable[Fact]:
        began.set()
        await anyio.sleep_forever()
        return ()

    async def quick(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    impatient = msgspec.structs.replace(
        settings, bus=msgspec.structs.replace(settings.bus, grace_s=0.2, lease_s=60.0)
    )
    async with running(bus, impatient, downloader(slow)):
        await bus.facts.say(REQUESTED)
        await began.wait()
    async with running(bus, impatient, downloader(quick)):
        with anyio.fail_after(10):  # far sooner than its lease of a minute ends
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)


async def test_a_patient_route_is_asked_again_when_it_said(bus: Bus, settings: Settings) -> None:
    tries: list[float] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(anyio.current_time())
        if len(tries) <= settings.bus.max_deliver + 1:
            raise NotYet(0.05)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle, patient=True)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    assert len(tries) == settings.bus.max_deliver + 2
    assert await dead_letters(bus) == []


async def test_progress_reported_from_a_thread_is_published(bus: Bus, settings: Settings) -> None:
    heard: list[Progress] = []
    release = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        await anyio.to_thread.run_sync(progress.report, 30, 100)
        await anyio.to_thread.run_sync(progress.report, 10, 100)
        await release.wait()
        progress.report(100, 100)
        return (downloaded(requested),)

    await bus.hear_progress(heard.append, JOB)
    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        await until(lambda: len(heard) >= 1)
        release.set()
        await until(lambda: len(heard) >= 2)
    assert [(p.done, p.total, p.stage, p.node_id) for p in heard] == [
        (30, 100, "downloader", NODE),
        (100, 100, "downloader", NODE),
    ]


async def test_a_request_without_an_id_gets_one_from_its_place_in_the_log(
    bus: Bus, settings: Settings
) -> None:
    seen: list[JobId | None] = []

    async def handle(request: ModelRequest) -> Iterable[Fact]:
        seen.append(request.job_id)
        if len(seen) < 2:
            raise Passing("once more")
        return ()

    service = Service("requester", routes=(Route(MODEL_REQUEST, handle),))
    async with running(bus, settings, service):
        await bus.client.publish("williw.model.request", b'{"model_name":"org/name"}')
        await until(lambda: len(seen) == 2)
    assert seen[0] is not None
    assert seen[0] == seen[1]


async def test_a_trace_is_carried_from_fact_to_fact(bus: Bus, settings: Settings) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    js = bus.client.jetstream()
    async with running(bus, settings, downloader(handle)):
        await js.publish(
            MODEL_REQUESTED.of(REQUESTED), encode(REQUESTED), headers={"traceparent": trace}
        )
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    raw = await js.get_last_msg(names.FACTS_STREAM, MODEL_DOWNLOADED.of(downloaded(REQUESTED)))
    assert (raw.headers or {})["traceparent"] == trace
