"""What the downloader refuses, and what it says to do."""

import msgspec
import pytest

from config.settings import Downloader as DownloaderSettings
from config.settings import Settings
from messages.failures import Permanent
from services.hub.failures import (
    GatedModel,
    NoSuchModel,
    NoSuchRevision,
    NotEnoughDisk,
    TokenRefused,
    UnusableModel,
)
from tests.integration.hub.downloading import FILES, WANTED, downloaded
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

REFUSED = [
    ({"gated": True}, "org/model", "main", GatedModel, "HF_TOKEN"),
    ({}, "org/other", "main", NoSuchModel, "spelling"),
    ({"private": True}, "org/model", "main", NoSuchModel, "HF_TOKEN"),
    ({}, "org/model", "no-such-branch", NoSuchRevision, "branch, tag or commit"),
    ({}, "org/model", "a" * 40, NoSuchRevision, "branch, tag or commit"),
]


@pytest.mark.parametrize(("how", "name", "revision", "failure", "advice"), REFUSED)
async def test_what_the_hub_refuses_says_what_to_do(
    hub: LoopbackHub,
    origin: Settings,
    how: dict[str, bool],
    name: str,
    revision: str,
    failure: type[Permanent],
    advice: str,
) -> None:
    hub.add("org/model", FILES, gated=how.get("gated", False), private=how.get("private", False))
    with pytest.raises(failure) as refused:
        await downloaded(origin, name, revision)
    assert advice in refused.value.advice
    assert name in refused.value.reason


async def test_a_gated_model_opens_for_the_token_that_may_read_it(
    hub: LoopbackHub, origin: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES, gated=True, reader_token="hf_readerreaderreader")
    monkeypatch.setenv("HF_TOKEN", "hf_someoneelsestoken")
    with pytest.raises(GatedModel) as refused:
        await downloaded(origin, "org/model")
    assert "hf_someoneelsestoken" not in refused.value.reason + refused.value.advice
    monkeypatch.setenv("HF_TOKEN", "hf_readerreaderreader")
    assert (await downloaded(origin, "org/model")).files_downloaded == WANTED


async def test_a_token_the_hub_does_not_know_is_named_as_the_trouble(
    hub: LoopbackHub, origin: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_nosuchtokennosuch")
    hub.fail(Fault("revision/main", status=401))
    with pytest.raises(TokenRefused) as refused:
        await downloaded(origin, "org/model")
    assert "hf_nosuchtokennosuch" not in str(refused.value) + refused.value.advice


async def test_too_small_a_disk_is_said_before_a_byte_moves(
    hub: LoopbackHub, origin: Settings
) -> None:
    hub.add("org/model", FILES)
    greedy = msgspec.structs.replace(origin, downloader=DownloaderSettings(keep_free_bytes=1 << 60))
    with pytest.raises(NotEnoughDisk) as refused:
        await downloaded(greedy, "org/model")
    assert refused.value.needed_bytes == sum(len(FILES[name]) for name in WANTED)
    assert 0 < refused.value.free_bytes < 1 << 60
    assert hub.file_bytes == 0


async def test_names_that_leave_the_directory_are_refused(
    hub: LoopbackHub, origin: Settings
) -> None:
    hub.add("org/model", {**FILES, "../../outside.json": b"{}"})
    with pytest.raises(Permanent, match="could leave"):
        await downloaded(origin, "org/model")
    assert hub.file_bytes == 0


async def test_pickles_are_refused_without_consent(hub: LoopbackHub, origin: Settings) -> None:
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(UnusableModel) as refused:
        await downloaded(origin, "org/old")
    assert '"pickle": true' in refused.value.advice
    assert hub.file_bytes == 0
