"""What this process logs, and what it does not."""

import logging

import pytest

from config.logging import setup
from config.settings import Logging


def test_asyncio_says_nothing_of_what_has_no_effect_and_everything_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup(Logging())
    told = logging.getLogger("asyncio")
    told.warning("returning true from eof_received() has no effect when using ssl")
    told.warning("something %s", "else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
