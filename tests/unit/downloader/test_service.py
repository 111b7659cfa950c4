"""The downloader's answer for a model that is a directory of the origin."""

from pathlib import Path

import pytest

from config.settings import Downloader as DownloaderSettings
from config.settings import NodeSection, Settings
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from services.downloader.local import NotAllowed
from services.downloader.service import Downloader
from services.hub.failures import UnusableModel


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "mini"
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(bytes(3 << 20))
    (directory / "config.json").write_text("{}")
    return directory


def downloader(tmp_path: Path, *roots: Path) -> Downloader:
    section = DownloaderSettings(local_roots=tuple(map(str, roots)), keep_free_bytes=0)
    node = NodeSection(node_id="origin-1", home=str(tmp_path / "home"))
    return Downloader(Settings(node=node, downloader=section))


def asked(model_name: str) -> ModelRequested:
    return ModelRequested(
        origin=NodeId("origin-1"),
        job_id=JobId("job-1"),
        request=ModelRequest(model_name=model_name),
    )


async def test_a_directory_is_reported_in_place_the_same_each_time(
    tmp_path: Path, model: Path
) -> None:
    local = downloader(tmp_path, tmp_path / "models")
    (fact,) = await local.download(asked(str(model)))
    assert fact.model_path == str(model)
    assert fact.files_downloaded == ("config.json", "model.safetensors")
    assert fact.total_size_bytes == (3 << 20) + 2
    assert fact.total_size_mb == pytest.approx(3.0, abs=0.001)
    assert await local.download(asked(str(model))) == (fact,)
    assert not (tmp_path / "home").exists()


async def test_no_directory_is_used_unless_settings_allow_it(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NotAllowed):
        await downloader(tmp_path).download(asked(str(model)))


async def test_pickles_of_a_directory_need_consent_too(tmp_path: Path, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(UnusableModel) as refused:
        await downloader(tmp_path, model).download(asked(str(model)))
    assert '"pickle": true' in refused.value.advice
