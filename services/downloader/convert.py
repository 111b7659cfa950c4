"""Pickled weights become safetensors, once for each revision, for whoever asked for that."""

import shutil
from pathlib import Path

from services.downloader.local import Found
from services.hub.selection import INDEX


def convert(found: Found, into: Path) -> None:
    """Make `into` the same model with safetensors weights; blocks, and imports torch.

    Only tensors are read (`weights_only`); a pickle that holds anything else is refused.
    """
    from services.checkpoint import pickles

    weights = [found.directory / file.path for file in found.choice.weights]
    pickles.convert(weights, into)
    for file in found.choice.companions:
        if not file.path.endswith(INDEX):
            target = into / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.directory / file.path, target)
