"""The downloader against a Hub that behaves, and one that does not."""

import os
from pathlib import Path

import anyio
import msgspec
import pytest

from config.settings import Downloader as DownloaderSettings
from config.settings import NodeSection, Settings
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from services.downloader.service import Downloader
from services.hub.failures import (
    GatedModel,
    HubUnavailable,
    NoSuchModel,
    NoSuchRevision,
    NotEnoughDisk,
    TokenRefused,
    UnusableModel,
    WrongDigest,
)
from services.hub.transfer import Patience
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

WEIGHTS = bytes(range(256)) * 4096 * 3
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}" * 100,
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[::-1],
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"pickle",
    "original/consolidated.safetensors": b"original",
    "README.md": b"read me",
}
WANTED = (
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
)
HASTY = Patience(tries=2, first_wait_s=0.01, longest_wait_s=1.0, silence_s=0.5)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        node=NodeSection(node_id="origin-1", home=str(tmp_path / "home")),
        downloader=DownloaderSettings(keep_free_bytes=0),
    )


def asked(model_name: str, revision: str = "main", *, pickle: bool = False) -> ModelRequested:
    request = ModelRequest(model_name=model_name, revision=revision, pickle=pickle)
    return ModelRequested(origin=NodeId("origin-1"), job_id=JobId("job-1"), request=request)


async def downloaded(
    settings: Settings, model_name: str, revision: str = "main", *, pickle: bool = False
) -> ModelDownloaded:
    downloader = Downloader(settings, HASTY)
    (fact,) = await downloader.download(asked(model_name, revision, pickle=pickle))
    return fact


def held(fact: ModelDownloaded) -> dict[str, bytes]:
    directory = Path(fact.model_path)
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def visible(settings: Settings) -> list[str]:
    return [path.name for path in (settings.origin_dir / "models").glob("org--model@*")]


async def test_a_model_arrives_whole_with_only_the_files_it_needs(
    hub: LoopbackHub, settings: Settings
) -> None:
    commit = hub.add("org/model", FILES)
    fact = await downloaded(settings, "org/model")
    assert fact.revision == commit
    assert fact.files_downloaded == WANTED
    assert fact.total_size_bytes == sum(len(FILES[name]) for name in WANTED)
    assert fact.total_size_mb == fact.total_size_bytes / 1024 / 1024
    assert Path(fact.model_path).name == f"org--model@{commit[:22]}"
    assert held(fact) == {name: FILES[name] for name in WANTED}


async def test_a_second_download_asks_once_which_commit_it_is_and_moves_nothing(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", FILES)
    first = await downloaded(settings, "org/model")
    hub.requests.clear()
    assert await downloaded(settings, "org/model") == first
    assert len(hub.requests) == 1
    assert hub.file_bytes == 0


async def test_a_whole_commit_id_that_is_here_needs_no_network_at_all(
    hub: LoopbackHub, settings: Settings
) -> None:
    commit = hub.add("org/model", FILES)
    first = await downloaded(settings, "org/model")
    hub.requests.clear()
    again = await downloaded(settings, "org/model", commit)
    assert again.model_path == first.model_path
    assert again.files_downloaded == first.files_downloaded
    assert hub.requests == []


async def test_the_hubs_own_cache_is_used_in_place(hub: LoopbackHub, settings: Settings) -> None:
    commit = hub.add("org/model", FILES)
    from huggingface_hub import snapshot_download

    cache = Path(os.environ["HF_HOME"]) / "hub"
    there = await anyio.to_thread.run_sync(
        lambda: snapshot_download("org/model", endpoint=hub.url, cache_dir=cache)
    )
    hub.requests.clear()
    fact = await downloaded(settings, "org/model")
    assert fact.model_path == there
    assert fact.files_downloaded == WANTED
    assert [seen.path for seen in hub.requests] == ["/api/models/org/model/revision/main"]
    hub.requests.clear()
    assert (await downloaded(settings, "org/model", commit)).model_path == there
    assert hub.requests == []


async def test_a_hub_cache_that_lacks_a_file_is_not_used(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", FILES)
    from huggingface_hub import hf_hub_download

    cache = Path(os.environ["HF_HOME"]) / "hub"
    await anyio.to_thread.run_sync(
        lambda: hf_hub_download("org/model", "config.json", endpoint=hub.url, cache_dir=cache)
    )
    fact = await downloaded(settings, "org/model")
    assert Path(fact.model_path).is_relative_to(settings.home)


async def test_a_file_of_the_hubs_cache_that_is_not_its_blob_is_not_believed(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", FILES)
    from huggingface_hub import snapshot_download

    cache = Path(os.environ["HF_HOME"]) / "hub"
    there = await anyio.to_thread.run_sync(
        lambda: snapshot_download("org/model", endpoint=hub.url, cache_dir=cache)
    )
    replaced = anyio.Path(there) / "config.json"
    await replaced.unlink()
    await replaced.write_bytes(b"x" * len(FILES["config.json"]))
    fact = await downloaded(settings, "org/model")
    assert fact.model_path != there
    assert held(fact) == {name: FILES[name] for name in WANTED}


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
    settings: Settings,
    how: dict[str, bool],
    name: str,
    revision: str,
    failure: type[Permanent],
    advice: str,
) -> None:
    hub.add("org/model", FILES, gated=how.get("gated", False), private=how.get("private", False))
    with pytest.raises(failure) as refused:
        await downloaded(settings, name, revision)
    assert advice in refused.value.advice
    assert name in refused.value.reason


async def test_a_gated_model_opens_for_the_token_that_may_read_it(
    hub: LoopbackHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES, gated=True, reader_token="hf_readerreaderreader")
    monkeypatch.setenv("HF_TOKEN", "hf_someoneelsestoken")
    with pytest.raises(GatedModel) as refused:
        await downloaded(settings, "org/model")
    assert "hf_someoneelsestoken" not in refused.value.reason + refused.value.advice
    monkeypatch.setenv("HF_TOKEN", "hf_readerreaderreader")
    assert (await downloaded(settings, "org/model")).files_downloaded == WANTED


async def test_a_token_the_hub_does_not_know_is_named_as_the_trouble(
    hub: LoopbackHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_nosuchtokennosuch")
    hub.fail(Fault("revision/main", status=401))
    with pytest.raises(TokenRefused) as refused:
        await downloaded(settings, "org/model")
    assert "hf_nosuchtokennosuch" not in str(refused.value) + refused.value.advice


async def test_too_small_a_disk_is_said_before_a_byte_moves(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", FILES)
    greedy = msgspec.structs.replace(
        settings, downloader=DownloaderSettings(keep_free_bytes=1 << 60)
    )
    with pytest.raises(NotEnoughDisk) as refused:
        await downloaded(greedy, "org/model")
    assert refused.value.needed_bytes == sum(len(FILES[name]) for name in WANTED)
    assert 0 < refused.value.free_bytes < 1 << 60
    assert hub.file_bytes == 0


PASSING = [
    Fault("revision/main", status=429, times=9, retry_after_s=7),
    Fault("revision/main", status=500, times=9),
    Fault("resolve/.*/model-00001", status=503, times=99),
    Fault("/cdn/.*/model-00001", status=429, times=99, retry_after_s=3600),
    Fault("/cdn/.*/model-00001", stall_s=5, times=99),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.match} {fault.status}")
async def test_trouble_of_the_hub_is_passing(
    hub: LoopbackHub, settings: Settings, fault: Fault
) -> None:
    hub.add("org/model", FILES)
    hub.fail(fault)
    with pytest.raises(Passing) as trouble:
        await downloaded(settings, "org/model")
    assert isinstance(trouble.value, HubUnavailable)
    if "revision" in fault.match and fault.retry_after_s:
        assert trouble.value.after_s == 7
    hub.faults.clear()
    assert (await downloaded(settings, "org/model")).files_downloaded == WANTED


MENDED = [
    Fault("/cdn/.*/model-00001", drop_after_bytes=1 << 20),
    Fault("/cdn/.*/model-00001", truncate_to=12345),
    Fault("/cdn/.*/model-00001", corrupt=True),
    Fault("/cdn/.*/model-00001", status=429, retry_after_s=0),
    Fault("resolve/.*/config.json", corrupt=True),
    Fault("resolve/.*/config.json", drop_after_bytes=3),
]


@pytest.mark.parametrize("fault", MENDED, ids=str)
async def test_a_transfer_that_goes_wrong_once_is_mended_on_the_spot(
    hub: LoopbackHub, settings: Settings, fault: Fault
) -> None:
    hub.add("org/model", FILES)
    hub.fail(fault)
    fact = await downloaded(settings, "org/model")
    assert held(fact) == {name: FILES[name] for name in WANTED}
    assert fault.times == 0


async def test_a_file_whose_bytes_are_wrong_twice_is_refused_and_never_visible(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", FILES)
    hub.fail(Fault("/cdn/.*/model-00002", corrupt=True, times=99))
    with pytest.raises(WrongDigest) as refused:
        await downloaded(settings, "org/model")
    assert refused.value.path == "model-00002-of-00002.safetensors"
    assert refused.value.expected != refused.value.found
    assert visible(settings) == []


async def test_a_server_without_ranges_sends_the_file_again_from_its_start(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", FILES)
    hub.fail(Fault("/cdn/.*/model-00001", drop_after_bytes=1 << 20))
    hub.fail(Fault("/cdn/.*/model-00001", no_ranges=True, times=99))
    fact = await downloaded(settings, "org/model")
    assert held(fact) == {name: FILES[name] for name in WANTED}


async def test_names_that_leave_the_directory_are_refused(
    hub: LoopbackHub, settings: Settings
) -> None:
    hub.add("org/model", {**FILES, "../../outside.json": b"{}"})
    with pytest.raises(Permanent, match="could leave"):
        await downloaded(settings, "org/model")
    assert hub.file_bytes == 0


async def test_pickles_are_refused_without_consent(hub: LoopbackHub, settings: Settings) -> None:
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(UnusableModel) as refused:
        await downloaded(settings, "org/old")
    assert '"pickle": true' in refused.value.advice
    assert hub.file_bytes == 0
