"""How busy the processor is between one look and the next, whoever looks."""

import os
from collections.abc import Callable
from typing import Any

import psutil

_LEAST_S = 0.5


class ProcessorLoad:
    """psutil's own figure is since the same thread's last look, and heartbeats change threads.

    A look that comes too soon after another says what that one said: a share of a few clock ticks
    is noise.
    """

    def __init__(
        self, read: Callable[[], Any] = psutil.cpu_times, cores: int = os.cpu_count() or 1
    ) -> None:
        self._read = read
        self._least_s = _LEAST_S * cores
        self._last: tuple[float, float] | None = None
        self._percent = 0.0

    def percent(self) -> float:
        """Of all processors' time since the last look, from 0 to 100; 0 at first."""
        busy_s, all_s = _busy_and_all(self._read())
        if self._last is None:
            self._last = busy_s, all_s
        since_s = all_s - self._last[1]
        if since_s >= self._least_s:
            share = (busy_s - self._last[0]) / since_s
            self._last = busy_s, all_s
            self._percent = round(min(100.0, max(0.0, 100 * share)), 1)
        return self._percent


def _busy_and_all(times: Any) -> tuple[float, float]:
    """Seconds of work and of everything; a guest's are within its host's."""
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return every - times.idle - getattr(times, "iowait", 0.0), every
