"""HiGHS, quiet and repeatable: one thread, no clock, and nothing printed."""

from typing import Any

import highspy


class _Quiet(highspy.Highs):  # type: ignore[misc]
    """A solver silenced before it prints its name, which it does once its callbacks are on."""

    def enableCallbacks(self) -> None:  # noqa: N802
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()


def quiet() -> Any:
    """A solver whose work depends on its input alone."""
    highs = _Quiet()
    highs.setOptionValue("log_to_console", False)
    highs.setOptionValue("threads", 1)
    return highs
