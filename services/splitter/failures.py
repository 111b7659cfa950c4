"""Why nothing was cut: no model, no room, or something else where a stage should go."""

from pathlib import Path

from messages.failures import Permanent


class NoModelHere(Permanent):
    """The plan is for a model that this origin's disk does not hold."""


class NotEnoughDisk(Permanent):
    """The stages do not fit: `needed_bytes`, `free_bytes`, `path`."""

    def __init__(self, needed_bytes: int, free_bytes: int, path: Path, advice: str) -> None:
        super().__init__(
            f"writing the stages takes {needed_bytes} bytes, and {path} has {free_bytes} free",
            advice=advice,
        )
        self.needed_bytes, self.free_bytes, self.path = needed_bytes, free_bytes, path


class Occupied(Permanent):
    """What stands where a stage should go is no stage, and is not taken away."""
