"""What an origin's shelf can do without: least recently used first, never one in use."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from messages.wire import Undecodable
from services.checkpoint.shelf import OriginShelf, manifest_of

RECENT_S = 60.0
"""A stage used so lately may be that of a plan which is being cut."""


@dataclass(frozen=True)
class Taken:
    """A stage that was taken away."""

    model_name: str
    directory: Path
    size_bytes: int


def prune_shelf(
    shelf: OriginShelf, quota_bytes: int = 0, *, keep: Collection[str], since: float
) -> tuple[Taken, ...]:
    """Take stages away until the rest is within `quota_bytes`; what was taken.

    Never one whose digest is in `keep`, nor one used after `since` (Unix seconds) or a minute ago.
    Whoever wants one again has it cut again: the model is read once more.
    """
    used_at = {sha256: shelf.used_at(sha256) for sha256 in shelf}
    sizes = {sha256: shelf.size_bytes(sha256) for sha256 in used_at}
    excess = sum(sizes.values()) - quota_bytes
    before = min(since, time.time() - RECENT_S)
    taken: list[Taken] = []
    for sha256 in sorted(used_at, key=used_at.__getitem__):
        if excess <= 0:
            break
        if sha256 in keep or shelf.used_at(sha256) >= before:
            continue
        gone = Taken(_model_of(shelf, sha256), shelf.root / sha256, sizes[sha256])
        shelf.remove(sha256)
        taken.append(gone)
        excess -= gone.size_bytes
    return tuple(taken)


def _model_of(shelf: OriginShelf, sha256: str) -> str:
    try:
        return manifest_of(shelf.manifest(sha256) or b"").model_name
    except Undecodable:
        return "?"
