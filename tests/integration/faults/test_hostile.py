"""Whatever is sent to a service is answered, and the house stands: dead letter, fact or refusal."""

import socket
from pathlib import Path
from typing import Any

import anyio

from config.settings import Settings
from messages.api import Refusal
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import JobFailed, ModelRequest, ModelRequested
from messages.subjects import (
    API_NODES,
    MODEL_PROFILED,
    MODEL_REQUEST,
    MODEL_REQUESTED,
)
from messages.wire import decode, encode
from services.runtime.bus import Bus
from services.runtime.service import Endpoint, Service
from tests.bus_fixture import running, until
from tests.integration.faults.hostile import hostile, unreadable_questions
from tests.integration.faults.standing import ANSWER_S, ORIGIN, a_standing_house
from tests.integration.faults.standing import bus as bus  # a fixture

ODD_HEADERS = (
    b"X-Odd: \xff\xfe",
    "X-Ünicode: é".encode(),
    b"traceparent: ../..\\",
    b": no name",
    b"Nats-Nothing:",
    b"A" * 2000 + b": b",
)
MODEL_NAMES = (
    "//",
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "/tmp/$(reboot)",
    "/\u202etxt",
    "/a\\..\\b",
    "/" + "x" * 511,
    "/" + "é" * 400,
    "no/such-model",
)


async def test_every_route_answers_every_unreadable_body_with_a_dead_letter_and_ends_its_job(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with a_standing_house(bus, settings, tmp_path) as standing:
        house, due, jobs = standing.house, {}, []
        js = house.bus.client.jetstream()
        for number, subject in enumerate(standing.heard):
            fixed: dict[str, object] = {"origin": ORIGIN, "node_id": ORIGIN, "generation": 1}
            for k, body in enumerate(hostile(subject, {**fixed, "job_id": "job"})):
                ids = {**fixed, "job_id": f"job-{number}-{k}"}
                chosen = {token: ids[token] for token in subject.tokens}
                ack = await js.publish(subject.where(**chosen), body)
                due[ack.seq] = standing.hearers[subject.pattern]
                if {"origin", "job_id", "generation"} <= set(subject.tokens):
                    jobs.append(JobId(str(ids["job_id"])))
        await until(lambda: all(who <= standing.letters[seq] for seq, who in due.items()), ANSWER_S)
        assert len(due) > 20 * len(standing.heard)
        for job_id in jobs:
            ended = await house.end(job_id, ANSWER_S)
            assert isinstance(ended, JobFailed), ended


async def test_impossible_generations_and_ids_other_than_the_subjects_are_dead_letters(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with a_standing_house(bus, settings, tmp_path) as standing:
        js = standing.house.bus.client.jetstream()
        due: dict[int, set[str]] = {}
        for subject in standing.heard:
            for generation in ("0", "007", "-1", "x", "4294967296", "9" * 30):
                if "generation" not in subject.tokens:
                    continue
                ids = {"origin": ORIGIN, "node_id": ORIGIN, "job_id": f"job-g{generation[:12]}"}
                chosen = {token: ids.get(token, "1") for token in subject.tokens}
                where = ".".join(subject.where(**chosen).split(".")[:-1])
                body = b'{"type": "%s"}' % subject.types[0].__name__.encode()
                ack = await js.publish(f"{where}.{generation}", body)
                due[ack.seq] = standing.hearers[subject.pattern]
        lying = ModelRequested(
            origin=NodeId(ORIGIN), job_id=JobId("job-a"), request=ModelRequest(model_name="a/b")
        )
        for origin, job_id in ((ORIGIN, "job-b"), ("node_009", "job-a")):
            where = MODEL_REQUESTED.where(origin=origin, job_id=job_id, generation=1)
            heard = {"requester"} | ({"downloader"} if origin == ORIGIN else set())
            due[(await js.publish(where, encode(lying))).seq] = heard
        await until(lambda: all(who <= standing.letters[seq] for seq, who in due.items()), ANSWER_S)


async def test_headers_that_no_client_writes_do_no_harm(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with a_standing_house(bus, settings, tmp_path) as standing:
        subjects = [
            MODEL_PROFILED.where(origin=ORIGIN, job_id=f"job-h{k}", generation=1)
            for k in range(len(ODD_HEADERS))
        ]
        host, _, port = settings.bus.url.removeprefix("nats://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b'CONNECT {"verbose": false, "headers": true}\r\n')
            for subject, line in zip(subjects, ODD_HEADERS, strict=True):
                head = b"NATS/1.0\r\n" + line + b"\r\n\r\n"
                sizes = f"{len(head)} {len(head) + 1}"
                raw.sendall(f"HPUB {subject} {sizes}\r\n".encode() + head + b"{\r\n")
            raw.sendall(b"PING\r\n")
            await until(lambda: all(standing.subjects[subject] for subject in subjects), ANSWER_S)


async def test_every_endpoint_refuses_what_it_cannot_read_with_a_reason(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with a_standing_house(bus, settings, tmp_path) as standing:
        endpoints = [endpoint.api for s in standing.services for endpoint in s.endpoints]
        assert len(endpoints) >= 8
        for api in endpoints:
            for body in unreadable_questions(api):
                answer = await standing.house.bus.client.request(api.subject, body, timeout=30)
                assert answer.headers is not None, (api.subject, body[:80])
                assert answer.headers["Nats-Service-Error-Code"] == "400", (api.subject, body[:80])
                assert decode(answer.data, Refusal).reason


async def test_requests_for_what_no_model_is_end_as_failed_jobs(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with a_standing_house(bus, settings, tmp_path) as standing:
        js = standing.house.bus.client.jetstream()
        for k, name in enumerate(MODEL_NAMES):
            request = ModelRequest(model_name=name, job_id=JobId(f"job-n{k}"))
            await js.publish(MODEL_REQUEST.of(request), encode(request))
        for k, name in enumerate(MODEL_NAMES):
            assert isinstance(await standing.house.end(JobId(f"job-n{k}"), ANSWER_S), JobFailed), (
                name
            )


async def test_trouble_without_words_is_a_refusal_too(bus: Bus, settings: Settings) -> None:
    async def answer(_question: object) -> Any:
        raise Passing

    service = Service("requester", endpoints=(Endpoint(API_NODES, answer),))
    async with running(bus, settings, service):
        for _ in range(2):
            with anyio.fail_after(ANSWER_S):
                told = await bus.client.request(API_NODES.subject, b"{}", timeout=30)
            assert told.headers is not None
            assert told.headers["Nats-Service-Error-Code"] == "503"
