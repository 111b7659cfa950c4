"""What can go wrong between two nodes, and what it says about the one asked."""

from pathlib import Path

from messages.failures import Passing, Permanent


class SourceTrouble(Exception):
    """A source did not give what it was asked for; `source` is its node id."""

    def __init__(self, source: str, what: str) -> None:
        super().__init__(f"{source} {what}")
        self.source = source


class Unreachable(SourceTrouble):
    """No connection, or one that broke: it may be down, it is not suspected."""


class NotYet(SourceTrouble):
    """It says that it does not have the chunk yet."""


class Absent(SourceTrouble):
    """It says that it does not have the file, or that we may not have it."""


class Silent(SourceTrouble):
    """It is connected and gives nothing: named as slow in the fact, asked again much later."""


class Distrusted(SourceTrouble):
    """It altered or truncated a chunk, or showed a wrong certificate: never asked again."""


class NotEnoughDisk(Permanent):
    """A stage does not fit: `needed_bytes`, `free_bytes`, `path`."""

    def __init__(self, needed_bytes: int, free_bytes: int, path: Path) -> None:
        super().__init__(
            f"the stage needs {needed_bytes} bytes more, and {path} has {free_bytes} to give",
            advice="free some with `williw node prune`, raise quota_bytes, or leave the node out",
        )
        self.needed_bytes, self.free_bytes, self.path = needed_bytes, free_bytes, path


class DiskFull(Permanent):
    """The disk filled up under an arriving stage; what is verified stays, for the next try.

    `needed_bytes` were still to come, the file system of `path` has `free_bytes`.
    """

    def __init__(self, needed_bytes: int, free_bytes: int, path: Path) -> None:
        super().__init__(
            f"the disk filled up while the stage arrived: it needs {needed_bytes} bytes more, "
            f"and {path} has {free_bytes} free",
            advice="free some, with `williw node prune` or by hand; what arrived is kept",
        )
        self.needed_bytes, self.free_bytes, self.path = needed_bytes, free_bytes, path


class DiskTrouble(Permanent):
    """This node's own disk refused to take a chunk (an I/O error, a read-only file system)."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"this node could not write below {path}: {error.strerror or error}",
            advice="look at this node's disk and its log, or leave the node out",
        )
        self.path, self.errno = path, error.errno


class NoSource(Passing):
    """Nobody who should have the bytes gave any for a while; asked again later."""
