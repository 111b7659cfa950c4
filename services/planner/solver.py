"""HiGHS, quiet and repeatable: one thread, no clock, and nothing on standard output."""

import functools
import os
import sys
from typing import Any

import highspy


def quiet() -> Any:
    """A solver whose work depends on its input alone."""
    _greet()
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("log_to_console", False)
    highs.setOptionValue("threads", 1)
    return highs


@functools.cache
def _greet() -> None:
    """The first solver of a process prints its name before it can be silenced: to standard error.

    Standard output may be a plan in JSON.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        return
    try:
        os.dup2(2, 1)
        highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
