"""What this process has done, as plain numbers: adding costs an addition, /metrics reads them.

Labels are services, routes, outcomes and kinds of fact, never a job's or a model's name: those are
without end, and each would be a time series for ever.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

# Upper bounds in seconds, from a planner's milliseconds to an hour of download.
BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0)


@dataclass
class Durations:
    """A histogram: how many fell between bounds (the last: above all of them), and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """`(upper bound, how many were at most that)`, as Prometheus wants its buckets."""
        found, total = [], 0
        for bound, count in zip((*BOUNDS_S, float("inf")), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else str(bound), total))
        return found


class Handled(Protocol):
    """A delivery in hand; whoever ends it says how."""

    outcome: str

    @property
    def deliveries(self) -> int:
        """How often the message was delivered, this time included."""


@dataclass
class Figures:
    """The counts of a process, by the labels they are shown with."""

    handled: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    redelivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_flight: Counter[tuple[str, str]] = field(default_factory=Counter)
    handler_s: dict[tuple[str, str], Durations] = field(default_factory=dict)
    dead_letters: Counter[str] = field(default_factory=Counter)
    facts_said: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0

    @contextmanager
    def handling(self, service: str, route: str, delivery: Handled) -> Iterator[None]:
        """Count the delivery handled within the block, its time and its outcome."""
        key = (service, route)
        began = time.monotonic()
        self.in_flight[key] += 1
        if delivery.deliveries > 1:
            self.redelivered[key] += 1
        try:
            yield
        finally:
            self.in_flight[key] -= 1
            self.handled[service, route, delivery.outcome] += 1
            self.handler_s.setdefault(key, Durations()).add(time.monotonic() - began)


PROCESS = Figures()
