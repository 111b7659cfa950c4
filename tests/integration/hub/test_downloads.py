"""The downloader against a Hub that behaves: what arrives, and from where."""

import os
from pathlib import Path

import anyio

from config.settings import Settings
from tests.integration.hub.downloading import FILES, WANTED, downloaded, held
from tests.loopback_hub.server import LoopbackHub


async def test_a_model_arrives_whole_with_only_the_files_it_needs(
    hub: LoopbackHub, origin: Settings
) -> None:
    commit = hub.add("org/model", FILES)
    fact = await downloaded(origin, "org/model")
    assert fact.revision == commit
    assert fact.files_downloaded == WANTED
    assert fact.total_size_bytes == sum(len(FILES[name]) for name in WANTED)
    assert fact.total_size_mb == fact.total_size_bytes / 1024 / 1024
    assert Path(fact.model_path).name == f"org--model@{commit[:22]}"
    assert held(fact) == {name: FILES[name] for name in WANTED}


async def test_a_second_download_asks_once_which_commit_it_is_and_moves_nothing(
    hub: LoopbackHub, origin: Settings
) -> None:
    hub.add("org/model", FILES)
    first = await downloaded(origin, "org/model")
    hub.requests.clear()
    assert await downloaded(origin, "org/model") == first
    assert len(hub.requests) == 1
    assert hub.file_bytes == 0


async def test_a_whole_commit_id_that_is_here_needs_no_network_at_all(
    hub: LoopbackHub, origin: Settings
) -> None:
    commit = hub.add("org/model", FILES)
    first = await downloaded(origin, "org/model")
    hub.requests.clear()
    again = await downloaded(origin, "org/model", commit)
    assert again.model_path == first.model_path
    assert again.files_downloaded == first.files_downloaded
    assert hub.requests == []


async def test_the_hubs_own_cache_is_used_in_place(hub: LoopbackHub, origin: Settings) -> None:
    commit = hub.add("org/model", FILES)
    from huggingface_hub import snapshot_download

    cache = Path(os.environ["HF_HOME"]) / "hub"
    there = await anyio.to_thread.run_sync(
        lambda: snapshot_download("org/model", endpoint=hub.url, cache_dir=cache)
    )
    hub.requests.clear()
    fact = await downloaded(origin, "org/model")
    assert fact.model_path == there
    assert fact.files_downloaded == WANTED
    assert [seen.path for seen in hub.requests] == ["/api/models/org/model/revision/main"]
    hub.requests.clear()
    assert (await downloaded(origin, "org/model", commit)).model_path == there
    assert hub.requests == []


async def test_a_hub_cache_that_lacks_a_file_is_not_used(
    hub: LoopbackHub, origin: Settings
) -> None:
    hub.add("org/model", FILES)
    from huggingface_hub import hf_hub_download

    cache = Path(os.environ["HF_HOME"]) / "hub"
    await anyio.to_thread.run_sync(
        lambda: hf_hub_download("org/model", "config.json", endpoint=hub.url, cache_dir=cache)
    )
    fact = await downloaded(origin, "org/model")
    assert Path(fact.model_path).is_relative_to(origin.home)


async def test_a_file_of_the_hubs_cache_that_is_not_its_blob_is_not_believed(
    hub: LoopbackHub, origin: Settings
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
    fact = await downloaded(origin, "org/model")
    assert fact.model_path != there
    assert held(fact) == {name: FILES[name] for name in WANTED}
