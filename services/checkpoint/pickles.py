"""Pickled weights (.bin, .pth) rewritten as safetensors by a child that reads only tensors.

A pickle can run code when it is read. This happens on request alone, with torch's weights_only
unpickler on mapped files, in a process without the environment's secrets that the file's author
would have to escape from besides.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from services.checkpoint.failures import BadCheckpoint

_CHILD = Path(__file__).with_name("pickle_child.py")
_TIMEOUT_S = 3600.0
_KEPT = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


class BadPickle(BadCheckpoint):
    """A pickle that holds more than tensors, or that cannot be read."""


async def convert(weights: Sequence[Path], into: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Write the tensors of `weights` into directory `into` as safetensors files with an index.

    One file for each pickle, `model-0000k-of-0000n.safetensors`, or `model.safetensors` for one.
    Tensors that share storage are written out each. Raises BadPickle. Cancelling kills the child.
    """
    await anyio.Path(into).mkdir(parents=True, exist_ok=True)
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    command = [sys.executable, "-I", str(_CHILD), str(into), *(str(path) for path in weights)]
    with anyio.move_on_after(timeout_s) as within:
        done = await anyio.run_process(
            command, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    if within.cancelled_caught:
        raise BadPickle(
            f"converting {weights[0].name} took longer than {timeout_s:.0f} s",
            advice="convert the model elsewhere, and request the result",
        )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadPickle(
            f"{weights[0].parent.name} cannot be converted: {said[-1][:300] if said else 'killed'}",
            advice="use a revision or a repository that has its weights as safetensors",
        )
