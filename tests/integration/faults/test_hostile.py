"""Whatever is sent to a service is answered, and the house stands: dead letter, fact or refusal."""

import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from config.settings import Settings
from messages.api import Refusal
from messages.dead import DeadLetter
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import JobCompleted, JobFailed, ModelRequest, ModelRequested
from messages.subjects import (
    API_NODES,
    DEAD_LETTERS,
    MODEL_PROFILED,
    MODEL_REQUEST,
    MODEL_REQUESTED,
    Subject,
)
from messages.wire import decode, encode
from services.distributor.service import build as build_distributor
from services.runtime import provision
from services.runtime.bus import Bus, open_bus
from services.runtime.service import Endpoint, Service
from tests.bus_fixture import running, until
from tests.integration.faults.hostile import hostile, unreadable_questions
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import NODES, ORIGIN_BUILDS, House
from tests.loopback_hub.server import LoopbackHub

ANSWER_S = 60.0
ORIGIN = NODES[0]
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


@pytest.fixture
async def bus(settings: Settings, hub: LoopbackHub) -> AsyncIterator[Bus]:
    """A provisioned bus of the test's own; the Hub that services ask is an empty one."""
    del hub
    async with open_bus(settings, "test") as opened:
        await provision.provision_storage(opened, settings)
        yield opened


@dataclass
class Standing:
    """A house that runs, everything it serves, and the dead letters that were heard."""

    house: House
    services: list[Service]
    letters: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    subjects: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def hearers(self) -> dict[str, set[str]]:
        """Each pattern that is heard, with the services that hear it."""
        found: dict[str, set[str]] = defaultdict(set)
        for service in self.services:
            for route in service.routes:
                found[route.subject.pattern].add(service.name)
        return found

    @property
    def heard(self) -> list[Subject[Any]]:
        """Every subject of a route, once."""
        every = {route.subject.pattern: route.subject for s in self.services for route in s.routes}
        return list(every.values())

    async def listen(self) -> None:
        """Hear every dead letter from now on."""

        async def one(message: Any) -> None:
            letter = decode(message.data, DeadLetter)
            self.letters[letter.stream_sequence].add(letter.service)
            self.subjects[letter.subject].add(letter.service)

        await self.house.bus.client.subscribe(DEAD_LETTERS, cb=one)


@asynccontextmanager
async def a_standing_house(bus: Bus, settings: Settings, root: Path) -> AsyncIterator[Standing]:
    """One origin with all services in this process. A task of it that dies raises out of this."""
    roots = {"downloader": {"local_roots": (str(root / "models"),)}}
    house = House(bus, settings, root / "nodes", roots)
    builds = (*ORIGIN_BUILDS, build_distributor)
    standing = Standing(house, [build(house.of(ORIGIN), bus) for build in builds])
    await standing.listen()
    async with house.open(NODES[:1]):
        yield standing
        await still_works(house, root)


async def still_works(house: House, tmp_path: Path) -> None:
    """A good job comes to its good end."""
    model = write_model(tmp_path / "models" / "tiny")
    ended = await house.bring(str(model))
    assert isinstance(ended, JobCompleted), ended


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
