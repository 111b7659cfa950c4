"""Pickled weights become safetensors, once for each revision, for whoever asked for that."""

import shutil
from pathlib import Path

import anyio

from services.checkpoint import pickles
from services.downloader.local import Found
from services.hub.selection import INDEX


async def convert(found: Found, into: Path) -> None:
    """Make `into` the same model with safetensors weights, in a child that imports torch.

    Only tensors are read (`weights_only`); a pickle that holds anything else is refused.
    """
    await pickles.convert([found.directory / file.path for file in found.choice.weights], into)
    await anyio.to_thread.run_sync(_copy_companions, found, into)


def _copy_companions(found: Found, into: Path) -> None:
    for file in found.choice.companions:
        if not file.path.endswith(INDEX):
            target = into / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.directory / file.path, target)
