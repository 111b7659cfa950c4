"""Waiting until a directory's last change is old enough to be seen by its times."""

import time
from pathlib import Path

from services.checkpoint.stamps import stamp_of


def settled(directory: Path) -> str:
    """The directory's stamp, as soon as there is one: a tenth of a second after the last change."""
    until = time.monotonic() + 10
    while (stamp := stamp_of(directory)) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return stamp
