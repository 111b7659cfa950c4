"""A range of a file on the Hub is that range or an error, and no error tells the token."""

import pytest

from services.hub.failures import HubUnavailable, NoSuchFile, NoSuchModel
from services.hub.ranges import Ranges
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

BODY = bytes(range(256)) * 4000
PATHS = ("model.safetensors", "config.json")


@pytest.fixture
def commit(hub: LoopbackHub) -> str:
    return hub.add("org/m", dict.fromkeys(PATHS, BODY))


async def read(commit: str, path: str, start: int, size_bytes: int) -> bytes:
    body = bytearray()

    async def take(piece: bytes) -> None:
        body.extend(piece)

    async with Ranges("org/m", commit) as ranges:
        await ranges.read(path, start, size_bytes, take)
    return bytes(body)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("start", "size_bytes"), [(0, 1), (1000, 300_000), (len(BODY) - 7, 7)])
async def test_a_range_is_those_bytes_and_no_more_travels(
    hub: LoopbackHub, commit: str, path: str, start: int, size_bytes: int
) -> None:
    assert await read(commit, path, start, size_bytes) == BODY[start : start + size_bytes]
    assert hub.file_bytes == size_bytes


@pytest.mark.parametrize(
    "fault",
    [
        Fault(match="GET /cdn", no_ranges=True),
        Fault(match="GET /cdn", drop_after_bytes=1000),
        Fault(match="GET /cdn", truncate_to=1000),
        Fault(match="GET /cdn", status=503),
    ],
    ids=["no ranges", "dropped", "truncated", "503"],
)
async def test_anything_else_is_no_range(hub: LoopbackHub, commit: str, fault: Fault) -> None:
    hub.fail(fault)
    with pytest.raises(HubUnavailable):
        await read(commit, PATHS[0], 5000, 100_000)
    assert await read(commit, PATHS[0], 5000, 10) == BODY[5000:5010]


async def test_what_is_not_there_is_refused(hub: LoopbackHub, commit: str) -> None:
    with pytest.raises(NoSuchFile):
        await read(commit, "other.json", 0, 1)


async def test_the_token_opens_a_private_model_and_stands_in_no_error(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("org/m", {PATHS[0]: BODY}, private=True, reader_token="hf_reader")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert await read(commit, PATHS[0], 0, 9) == BODY[:9]
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(NoSuchModel) as refused:
        await read(commit, PATHS[0], 0, 9)
    assert "hf_" not in f"{refused.value!r} {refused.value}"
