"""Where an origin keeps the models it fetched: whole ones under their names, others in `.partial`.

A directory `<org>--<name>@<commit>` is complete and verified, or it does not exist. What is on its
way lies in `.partial/` under the same name, locked by the process that fetches it, and is found
there by the next one when that process dies.
"""

import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from messages.names import directory_name
from services.checkpoint.appearing import sync_directory
from services.hub.failures import NotEnoughDisk

FORGOTTEN_S = 7 * 86_400.0
"""Parts that nobody has touched for so long are swept: their job was cancelled or given up."""
_LOOK_AGAIN_S = 0.2


class Shelf:
    """The model directories below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.partial = root / ".partial"

    def place(self, model_name: str, revision: str, *, converted: bool = False) -> Path:
        """Where this model stands when it is whole; one converted to safetensors stands apart."""
        suffix = "+safetensors" if converted else ""
        return self.root / f"{directory_name(model_name)}@{revision[:22]}{suffix}"

    @asynccontextmanager
    async def claimed(self, place: Path) -> AsyncIterator[Path]:
        """The directory in which to make `place`, ours alone; waits while another process has it.

        Whoever waited must look again whether `place` is there.
        """
        making = self.partial / place.name
        descriptor = await anyio.to_thread.run_sync(_locked, making)
        while descriptor < 0:  # the other may be another process: there is no event to wait for
            await anyio.sleep(_LOOK_AGAIN_S)
            descriptor = await anyio.to_thread.run_sync(_locked, making)
        try:
            yield making
        finally:
            os.close(descriptor)

    def publish(self, making: Path, place: Path) -> None:
        """Make the directory visible under its own name, in one rename that lasts."""
        for folder in {making, *(path.parent for path in making.rglob("*"))}:
            sync_directory(folder)
        making.rename(place)
        sync_directory(place.parent)

    def discard(self, making: Path) -> None:
        """Remove what was being made; for whoever holds its claim."""
        shutil.rmtree(making)

    def check_space(self, model_name: str, making: Path, total_bytes: int, keep_bytes: int) -> None:
        """NotEnoughDisk where what is missing of `total_bytes` would not leave `keep_bytes`."""
        trouble = self.no_space(model_name, making, total_bytes, keep_bytes)
        if trouble.needed_bytes > max(0, trouble.free_bytes - keep_bytes):
            raise trouble

    def no_space(
        self, model_name: str, making: Path, total_bytes: int, keep_bytes: int
    ) -> NotEnoughDisk:
        """The error that says how the disk stands, whether or not it is enough."""
        held = sum(path.stat().st_size for path in making.rglob("*") if path.is_file())
        return NotEnoughDisk(
            model_name,
            str(self.root),
            needed_bytes=max(0, total_bytes - held),
            free_bytes=shutil.disk_usage(making).free,
            keep_bytes=keep_bytes,
        )

    def sweep(self, now_s: float | None = None) -> list[str]:
        """Remove the parts that were forgotten; returns their names."""
        before = (time.time() if now_s is None else now_s) - FORGOTTEN_S
        swept = []
        for making in self.partial.glob("*@*"):
            newest = max(path.stat().st_mtime for path in (making, *making.rglob("*")))
            if newest > before:
                continue
            descriptor = _locked(making)
            if descriptor >= 0:
                shutil.rmtree(making)
                os.close(descriptor)
                swept.append(making.name)
        return swept


def _locked(directory: Path) -> int:
    """A descriptor that holds the directory's lock, released when the process ends; -1 if taken.

    The directory may have been published or swept between opening and locking it: then the lock
    is on nothing, and the caller tries again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if directory.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return -1
