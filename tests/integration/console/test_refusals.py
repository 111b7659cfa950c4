"""Under permissions a command that its key may not give says so at once, and which key it takes."""

import json
from pathlib import Path

import anyio
import pytest

from messages.dead import DeadLetter
from messages.documents import digest_of
from messages.ids import JobId, NodeId
from messages.jobs import JobFailed, ModelRequest, ModelRequested
from messages.models import MetadataReady
from messages.subjects import fact_subject
from messages.wire import encode
from services.console import app
from services.runtime import provision
from services.runtime.bus import open_bus
from tests.integration.deploy.conftest import ORIGIN, LockedNats, services_with_settings
from tests.integration.deploy.conftest import locked as locked

# The second came with metadata of its own.
JOB, BROUGHT = JobId("job-1"), JobId("job-2")


@pytest.fixture
def house(locked: LockedNats, monkeypatch: pytest.MonkeyPatch) -> LockedNats:
    """A locked bus that remembers a failed job and a dead letter; nobody serves there."""

    async def prepare() -> None:
        settings = locked.settings("operator")
        async with open_bus(settings, "operator") as bus:
            await provision.provision_storage(bus, settings)
            for service, own in services_with_settings(locked.url):
                await provision.provision_consumers(bus, own, [service])
            origin, request = NodeId(ORIGIN), ModelRequest(model_name="org/name")
            requested = ModelRequested(origin=origin, job_id=JOB, request=request)
            ready = MetadataReady(
                origin=origin,
                job_id=BROUGHT,
                request=request,
                repo="org/metadata",
                file="org_name_metadata.json",
                url="https://huggingface.co/org/metadata",
                sha256=digest_of(b"{}"),
                size_bytes=2,
            )
            for fact in (requested, ready):
                await bus.facts.say(fact)
                failed = JobFailed(origin=origin, job_id=fact.job_id, stage="plan", reason="no")
                await bus.facts.say(failed)
            letter = DeadLetter(
                service="downloader",
                subject=fact_subject(requested).of(requested),
                payload=encode(requested),
                error="gone",
                attempts=1,
                stream_sequence=1,
            )
            for body in (b"{}", encode(letter)):
                await bus.client.jetstream().publish("williw.dead.planner.job-1", body)

    anyio.run(prepare)
    monkeypatch.setenv("WILLIW_NATS_URL", locked.url)
    monkeypatch.setenv("WILLIW_HOME", str(locked.folder / "home"))
    monkeypatch.setenv("NODE_ID", ORIGIN)
    return locked


def show(house: LockedNats, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILLIW_BUS_NKEY_FILE", str(house.folder / "keys" / f"{user}.nk"))


@pytest.mark.parametrize(
    ("user", "words", "missing"),
    [
        ("client", ["retry", JOB], "operator.nk"),
        ("client", ["retry", BROUGHT], "operator.nk"),
        ("client", ["dead", "list"], "operator.nk"),
        ("client", ["dead", "show", "1"], "operator.nk"),
        ("client", ["dead", "retry", "1"], "operator.nk"),
        ("client", ["dead", "drop", "1"], "operator.nk"),
        ("client", ["dead", "retry", "--all"], "operator.nk"),
        ("client", ["provision"], "operator.nk"),
        ("tap", ["retry", JOB], "operator.nk"),
        ("tap", ["request", "org/name"], "client.nk"),
        (f"{ORIGIN}/planner", ["jobs"], "tap.nk"),
    ],
)
def test_what_a_key_may_not_do_is_refused_with_the_key_that_may(
    house: LockedNats,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: str,
    words: list[str],
    missing: str,
) -> None:
    show(house, user, monkeypatch)
    assert app.run(words) == 1
    told = capsys.readouterr().err
    assert f"the bus does not let {Path(user).name}.nk" in told
    assert f"this takes {missing}" in told
    assert "timeout" not in told.lower()


@pytest.mark.parametrize("user", ["tap", "client", "operator"])
def test_who_only_looks_is_refused_nothing(
    house: LockedNats,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: str,
) -> None:
    show(house, user, monkeypatch)
    for words, code in ((["jobs"], 0), (["status", JOB], 0), (["tap", JOB], 1), (["nodes"], 0)):
        assert app.run([*words, "--json"]) == code, words
        printed = capsys.readouterr()
        assert printed.err == ""
        assert "job-1" in printed.out or words == ["nodes"]


def test_the_operator_tries_again_and_removes(
    house: LockedNats, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show(house, "operator", monkeypatch)
    assert app.run(["retry", BROUGHT]) == 0
    assert app.run(["dead", "retry", "2"]) == 0
    assert app.run(["dead", "drop", "1"]) == 0
    assert "job-1 goes on as generation 2" in capsys.readouterr().out
    assert app.run(["dead", "list", "--json"]) == 0
    left = capsys.readouterr()
    assert (left.out.strip(), left.err) == ("[]", "")


def test_the_doctor_says_that_the_key_may_not_examine(
    house: LockedNats, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    show(house, "client", monkeypatch)
    app.run(["doctor", "--json"])
    found = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert found["permissions"]["outcome"] == "warning"
    assert "operator.nk" in found["permissions"]["mend"]


@pytest.mark.parametrize(
    ("user", "words", "told"),
    [
        (f"{ORIGIN}/planner", ["requester", "planner"], "is no key for requester, planner in one"),
        (f"{ORIGIN}/planner", ["requester"], f"is not the key of requester on {ORIGIN}"),
        ("node_002/distributor", ["distributor"], f"is not the key of distributor on {ORIGIN}"),
        (f"{ORIGIN}/planner", ["--provision", "planner"], "may make no streams and consumers"),
    ],
)
def test_a_service_with_a_key_that_is_not_its_own_does_not_start(
    house: LockedNats,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: str,
    words: list[str],
    told: str,
) -> None:
    show(house, user, monkeypatch)
    assert app.run(["run", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", [["jobs"], ["doctor"], ["run", "planner"]])
def test_a_key_that_is_not_there_is_no_bus_that_does_not_answer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.setenv("WILLIW_NATS_URL", "nats://127.0.0.1:1")
    # What a pod sees where the Secret has no key of its machine's name.
    (tmp_path / "key").mkdir()
    monkeypatch.setenv("WILLIW_BUS_NKEY_FILE", str(tmp_path / "key"))
    assert app.run(words) == 2
    assert f"the key {tmp_path}/key cannot be read: Is a directory" in capsys.readouterr().err
