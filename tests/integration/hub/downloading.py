"""A model on the loopback Hub, and the downloader that fetches it."""

from pathlib import Path

from config.settings import Settings
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from services.downloader.service import Downloader
from services.hub.transfer import Patience

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
