"""Metadata on the Hub: committed once, whatever becomes of the answers."""

import hashlib
from pathlib import Path

import anyio
import pytest

from messages.documents import Document, digest_of
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.models import ModelProfiled
from services.hub.failures import (
    HubUnavailable,
    NoSuchFile,
    NoSuchModel,
    NoToken,
    TokenRefused,
)
from services.hub.metadata_store import read_metadata, store_metadata
from services.uploader.service import Uploader
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

REPO = "team/metadata"
FILE = "org_name_metadata.json"
BODY = b'{"model_name": "org/name"}'


@pytest.fixture
def writing_hub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """A Hub on which this process may write."""
    monkeypatch.setenv("HF_TOKEN", hub.write_token)
    return hub


def commits(hub: LoopbackHub) -> int:
    return len(hub.asked(f"POST /api/models/{REPO}/commit"))


async def test_the_repository_is_made_and_the_file_committed_and_read_back(
    writing_hub: LoopbackHub,
) -> None:
    stored = await store_metadata(REPO, FILE, BODY, message="Metadata of org/name")
    repo = writing_hub.repos[REPO]
    assert repo.private
    assert stored.commit == repo.refs["main"]
    assert stored.url == f"{writing_hub.url}/{REPO}/blob/{stored.commit}/{FILE}"
    assert await read_metadata(REPO, FILE, stored.commit) == BODY
    assert len(repo.commits) == 2  # the first is the Hub's own


async def test_the_same_bytes_are_not_committed_again(writing_hub: LoopbackHub) -> None:
    first = await store_metadata(REPO, FILE, BODY, message="m")
    assert await store_metadata(REPO, FILE, BODY, message="m") == first
    assert commits(writing_hub) == 1


async def test_other_bytes_are_a_new_commit_and_the_old_one_stays_readable(
    writing_hub: LoopbackHub,
) -> None:
    first = await store_metadata(REPO, FILE, BODY, message="m")
    second = await store_metadata(REPO, FILE, b"{}", message="m")
    assert second.commit != first.commit
    assert await read_metadata(REPO, FILE, first.commit) == BODY
    assert await read_metadata(REPO, FILE, second.commit) == b"{}"


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(writing_hub: LoopbackHub) -> None:
    writing_hub.fail(Fault(f"POST /api/models/{REPO}/commit", lose_answer=True))
    stored = await store_metadata(REPO, FILE, BODY, message="m")
    assert len(writing_hub.repos[REPO].commits) == 2
    assert stored.commit == writing_hub.repos[REPO].refs["main"]


async def test_two_uploaders_of_the_same_bytes_make_one_commit(writing_hub: LoopbackHub) -> None:
    writing_hub.add(REPO, {"other.json": b"1"})
    writing_hub.fail(Fault(f"POST /api/models/{REPO}/commit", times=2, delay_s=0.5))
    found = []

    async def upload() -> None:
        found.append(await store_metadata(REPO, FILE, BODY, message="m"))

    async with anyio.create_task_group() as group:
        group.start_soon(upload)
        group.start_soon(upload)
    assert len(writing_hub.repos[REPO].commits) == 2
    assert found[0] == found[1]


async def test_a_commit_of_somebody_else_in_between_is_built_upon(
    writing_hub: LoopbackHub,
) -> None:
    writing_hub.add(REPO, {"other.json": b"1"})
    writing_hub.fail(Fault(f"POST /api/models/{REPO}/commit", status=412))
    stored = await store_metadata(REPO, FILE, BODY, message="m")
    assert set(writing_hub.repos[REPO].commits[stored.commit]) == {"other.json", FILE}


# The library's own upload of large files uses a parameter that its HTTP client wants renamed.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
async def test_a_large_file_goes_by_lfs_and_comes_back(writing_hub: LoopbackHub) -> None:
    body = b"[" + b"1," * (6 << 20) + b"1]"
    stored = await store_metadata(REPO, FILE, body, message="m")
    assert await read_metadata(REPO, FILE, stored.commit) == body
    assert await store_metadata(REPO, FILE, body, message="m") == stored


async def test_without_a_token_nothing_is_written_and_the_advice_names_both_ways(
    hub: LoopbackHub,
) -> None:
    with pytest.raises(NoToken) as refused:
        await store_metadata(REPO, FILE, BODY, message="m")
    assert "HF_TOKEN" in refused.value.advice
    assert "METADATA_REPO" in refused.value.advice
    assert hub.requests == []


async def test_a_token_that_may_not_write_is_refused_for_good(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, {"other.json": b"1"})
    monkeypatch.setenv("HF_TOKEN", "hf_mayonlyread")
    with pytest.raises(TokenRefused) as refused:
        await store_metadata(REPO, FILE, BODY, message="m")
    assert "hf_mayonlyread" not in refused.value.reason + refused.value.advice


async def test_a_hub_that_is_down_is_passing(writing_hub: LoopbackHub) -> None:
    writing_hub.fail(Fault("GET /api/models", status=503, times=99))
    with pytest.raises(HubUnavailable):
        await store_metadata(REPO, FILE, BODY, message="m")


async def test_metadata_that_is_not_there_says_what_is_missing(writing_hub: LoopbackHub) -> None:
    commit = writing_hub.add(REPO, {"other.json": b"1"})
    with pytest.raises(NoSuchFile, match="org_name_metadata"):
        await read_metadata(REPO, FILE, commit)
    with pytest.raises(NoSuchModel):
        await read_metadata("team/none", FILE, commit)


class Nowhere:
    """A document store that must not be used."""

    async def store(self, body: bytes, name: str) -> Document:
        raise AssertionError(f"{name} belongs on the Hub")


async def test_the_uploader_says_where_on_the_hub_the_metadata_is(
    writing_hub: LoopbackHub, tmp_path: Path
) -> None:
    file = anyio.Path(tmp_path) / "metadata.json"
    await file.write_bytes(BODY)
    said = ModelProfiled(
        origin=NodeId("origin-1"),
        job_id=JobId("job-1"),
        request=ModelRequest(model_name="org/name"),
        revision="c0ffee",
        metadata_file=str(file),
        sha256=digest_of(BODY),
        size_bytes=len(BODY),
        total_compute=1.0,
        total_layers=1,
    )
    (ready,) = await Uploader(REPO, Nowhere()).upload(said)
    assert (ready.repo, ready.file) == (REPO, FILE)
    assert ready.commit == writing_hub.repos[REPO].refs["main"]
    body = await read_metadata(ready.repo, ready.file, ready.commit)
    assert hashlib.sha256(body).hexdigest() == ready.sha256
    assert ready.revision == "c0ffee"
