"""`williw cancel`, `retry` and `dead` as commands, on a bus whose services run in this process."""

import json
from collections.abc import Iterable
from subprocess import CompletedProcess
from typing import Any

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.base import Fact
from messages.documents import digest_of
from messages.failures import Permanent
from messages.ids import JobId
from messages.jobs import JobCancelled, JobFailed, ModelRequest, ModelRequested
from messages.models import MetadataReady
from messages.subjects import JOB_ENDED, METADATA_READY, MODEL_REQUESTED
from messages.wire import encode
from services.requester.service import build
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.graveyard import Graveyard, NoSuchLetter
from tests.bus_fixture import running
from tests.integration.console.household import williw
from tests.integration.runtime.acting import (
    JOB,
    NODE,
    REQUESTED,
    dead_letters,
    downloaded,
    downloader,
    ended,
)

COMMIT = "c" * 40
FAILED = JobFailed(origin=NODE, job_id=JOB, stage="planner", reason="no node has room")


async def told(settings: Settings, *words: str, code: int = 0) -> tuple[Any, str]:
    """What a command answers in JSON, and its complaints."""

    def call() -> CompletedProcess[str]:
        return williw(*words, "--json", "--nats-url", settings.bus.url)

    done = await anyio.to_thread.run_sync(call)
    assert done.returncode == code, done.stdout + done.stderr
    return (json.loads(done.stdout.splitlines()[-1]) if done.stdout else None), done.stderr


async def test_a_running_job_is_cancelled_with_its_reason_and_another_goes_on(
    bus: Bus, settings: Settings
) -> None:
    other = msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))
    await bus.facts.say(REQUESTED)
    await bus.facts.say(other)
    async with running(bus, settings, build(settings, bus)):
        answer, _ = await told(settings, "cancel", JOB, "--reason", "no need")
        assert (answer["status"], answer["reason"]) == ("cancelled", "no need")
        _, complaint = await told(settings, "cancel", JOB, code=1)
        assert "has ended already: cancelled" in complaint
    assert isinstance((await ended(bus)).fact, JobCancelled)
    assert await bus.facts.last(JOB_ENDED, job_id="job-2") is None


async def test_a_job_that_runs_is_not_tried_again(bus: Bus, settings: Settings) -> None:
    await bus.facts.say(REQUESTED)
    _, complaint = await told(settings, "retry", JOB, code=1)
    assert "has not ended" in complaint


@pytest.mark.parametrize("name", ["org/name", "/models/x"])
async def test_a_retry_keeps_the_commit_that_a_branch_meant(
    bus: Bus, settings: Settings, name: str
) -> None:
    request = ModelRequest(model_name=name)
    first = msgspec.structs.replace(REQUESTED, request=request)
    found = msgspec.structs.replace(downloaded(first), revision=COMMIT)
    for fact in (first, found, FAILED):
        await bus.facts.say(fact)
    answer, _ = await told(settings, "retry", JOB)
    assert (answer["type"], answer["generation"]) == ("ModelRequested", 2)
    said = await bus.facts.last(MODEL_REQUESTED, job_id=JOB)
    assert said is not None
    kept = COMMIT if name == "org/name" else "main"
    assert said.fact.request == msgspec.structs.replace(request, revision=kept)
    assert said.fact.retry_of == 1


@pytest.mark.parametrize(
    ("words", "timeout_s"), [((), 0.5), (("--timeout-s", "90"), 90.0), (("--timeout-s", "0"), None)]
)
async def test_a_retry_keeps_the_requests_deadline_unless_it_is_given_another_or_none(
    bus: Bus, settings: Settings, words: tuple[str, ...], timeout_s: float | None
) -> None:
    request = ModelRequest(model_name="org/name", timeout_s=0.5)
    await bus.facts.say(msgspec.structs.replace(REQUESTED, request=request))
    await bus.facts.say(FAILED)
    await told(settings, "retry", JOB, *words)
    said = await bus.facts.last(MODEL_REQUESTED, job_id=JOB, generation=2)
    assert said is not None
    assert said.fact.request == msgspec.structs.replace(request, timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", ["-1", "nan", "1e10"])
async def test_a_retry_with_a_deadline_that_no_request_may_have_is_refused(
    bus: Bus, settings: Settings, timeout_s: str
) -> None:
    await bus.facts.say(REQUESTED)
    await bus.facts.say(FAILED)
    _, complaint = await told(settings, "retry", JOB, f"--timeout-s={timeout_s}", code=2)
    assert "--timeout-s cannot be" in complaint
    assert await bus.facts.last(MODEL_REQUESTED, job_id=JOB, generation=2) is None


async def test_a_job_with_its_own_metadata_starts_again_from_those(
    bus: Bus, settings: Settings
) -> None:
    ready = MetadataReady(
        origin=NODE,
        job_id=JOB,
        request=ModelRequest(model_name="org/name"),
        repo=names.DOCUMENTS_BUCKET,
        file="x",
        url="nats://object/x",
        sha256=digest_of(b"x"),
        size_bytes=1,
        plan_only=True,
    )
    await bus.facts.say(ready)
    await bus.facts.say(FAILED)
    _, complaint = await told(settings, "retry", JOB, "--timeout-s", "9", code=1)
    assert "such jobs have no deadline" in complaint
    answer, _ = await told(settings, "retry", JOB)
    assert (answer["type"], answer["generation"]) == ("MetadataReady", 2)
    said = await bus.facts.last(METADATA_READY, job_id=JOB)
    assert said is not None
    assert said.fact == msgspec.structs.replace(ready, generation=2)


async def test_an_end_without_a_beginning_is_refused_with_the_reason(
    bus: Bus, settings: Settings
) -> None:
    await bus.facts.say(FAILED)
    _, complaint = await told(settings, "retry", JOB, code=1)
    assert "neither a request nor metadata is kept" in complaint


async def test_a_letter_whose_message_outgrew_it_is_shown_and_sent_again_from_the_stream(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        raise ValueError("a bug")

    js = bus.client.jetstream()
    padded = {**json.loads(encode(REQUESTED)), "of_tomorrow": "x" * 900_000}
    body = json.dumps(padded).encode()
    async with running(bus, settings, downloader(handle)):
        await js.publish(MODEL_REQUESTED.of(REQUESTED), body)
        assert isinstance((await ended(bus)).fact, JobFailed)
    (letter,) = await dead_letters(bus)
    assert letter.payload == b""
    assert (await told(settings, "dead", "show", "1"))[0]["message"] == padded
    await told(settings, "dead", "retry", "1")
    said = await bus.facts.last(MODEL_REQUESTED, job_id=JOB)
    assert said is not None
    assert said.fact.generation == 2


async def test_a_letter_whose_message_is_gone_from_the_stream_says_so_and_stays(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        raise Permanent("never called")

    js = bus.client.jetstream()
    async with running(bus, settings, downloader(handle)):
        ack = await js.publish(MODEL_REQUESTED.of(REQUESTED), b"x" * 900_000)
        await ended(bus)
    await js.delete_msg(names.FACTS_STREAM, ack.seq)
    assert "no longer" in (await told(settings, "dead", "show", "1"))[0]["lost"]
    _, complaint = await told(settings, "dead", "retry", "1", code=1)
    assert "holds it no longer" in complaint
    assert len(await dead_letters(bus)) == 1


async def test_a_number_that_no_letter_can_have_is_no_letter(bus: Bus, settings: Settings) -> None:
    for number in (0, -1, 7, 2**63, 2**64 - 1, 2**64, 10**23):
        for act in (Graveyard(bus.client).letter, Graveyard(bus.client).drop):
            with pytest.raises(NoSuchLetter):
                await act(number)
    _, complaint = await told(settings, "dead", "show", "9" * 23, code=1)
    assert f"there is no dead letter {'9' * 23}" in complaint


async def test_a_letter_named_twice_is_dropped_once(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        await bus.client.publish("williw.model.request", b"?")
        await bus.client.flush()
        with anyio.fail_after(20):
            while not await dead_letters(bus):  # noqa: ASYNC110
                await anyio.sleep(0.05)
    answer, complaint = await told(settings, "dead", "drop", "1", "1")
    assert (answer["number"], answer["did"], complaint) == (1, "removed", "")


async def test_the_status_of_a_cancelled_job_says_why_and_names_no_stage(
    bus: Bus, settings: Settings
) -> None:
    await bus.facts.say(REQUESTED)
    await bus.facts.say(JobCancelled(origin=NODE, job_id=JOB, reason="no need"))
    done = await anyio.to_thread.run_sync(
        lambda: williw("status", JOB, "--nats-url", settings.bus.url)
    )
    assert done.stdout.splitlines()[-1] == "cancelled: no need"
