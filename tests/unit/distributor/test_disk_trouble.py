"""A disk that fails under a chunk is this node's own trouble, not its source's."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.distributor.failures import DiskTrouble
from services.distributor.receive import Reception, _Sink


class _Broken:
    directory = Path("/models")

    def write(self, *_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_an_input_output_error_on_the_write_does_not_pass_for_the_connections() -> None:
    reception = cast("Reception", SimpleNamespace(arrival=_Broken()))
    arriving: Any = SimpleNamespace(board=SimpleNamespace(file=None))
    with pytest.raises(DiskTrouble, match="Input/output error"):
        _Sink(reception, arriving, "b")(0, memoryview(b"x"))
