"""Pickled weights, with consent: converted once, and never run."""

from pathlib import Path

import pytest

from config.settings import Downloader as DownloaderSettings
from config.settings import NodeSection, Settings
from messages.failures import Permanent
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from services.checkpoint.headers import read_header
from services.downloader.service import Downloader
from tests.loopback_hub.server import LoopbackHub

torch = pytest.importorskip("torch")
SAID = ModelRequested(
    origin=NodeId("origin-1"),
    job_id=JobId("job-1"),
    request=ModelRequest(model_name="org/old", pickle=True),
)


def downloader(tmp_path: Path) -> Downloader:
    return Downloader(
        Settings(
            node=NodeSection(node_id="origin-1", home=str(tmp_path / "home")),
            downloader=DownloaderSettings(keep_free_bytes=0),
        )
    )


def pickled(tmp_path: Path, content: object) -> bytes:
    file = tmp_path / "weights.bin"
    torch.save(content, file)
    return file.read_bytes()


class Exploit:
    """An object whose unpickling creates the file `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.slow
async def test_with_consent_pickles_become_safetensors_once(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    body = pickled(tmp_path, {"a.weight": torch.ones(2, 3), "b.bias": torch.zeros(4)})
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": body, "vocab.txt": b"a"})
    (fact,) = await downloader(tmp_path).download(SAID)
    assert fact.files_downloaded == ("config.json", "model.safetensors", "vocab.txt")
    header = read_header(Path(fact.model_path) / "model.safetensors")
    assert {name: entry.shape for name, entry in header.tensors.items()} == {
        "a.weight": (2, 3),
        "b.bias": (4,),
    }
    hub.requests.clear()
    assert await downloader(tmp_path).download(SAID) == (fact,)
    assert hub.file_bytes == 0


@pytest.mark.slow
async def test_a_pickle_that_holds_more_than_tensors_is_refused_and_not_run(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    body = pickled(tmp_path, {"a": torch.ones(1), "b": Exploit(mark)})
    hub.add("org/old", {"config.json": b"{}", "pytorch_model.bin": body})
    with pytest.raises(Permanent, match="cannot be converted") as refused:
        await downloader(tmp_path).download(SAID)
    assert refused.value.advice
    assert not mark.exists()
    models = tmp_path / "home" / "origin" / "models"
    assert [path.name for path in models.glob("*+safetensors")] == []
