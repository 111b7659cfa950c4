"""Progress of the work in hand: reported from any thread, published a few times a second."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from messages.ids import Generation, JobId, NodeId
from messages.progress import Progress, Unit


@dataclass
class Gauge:
    """The newest figures of one handler; writing them is a few assignments, whatever reads them."""

    stage: str
    node_id: NodeId
    job_id: JobId
    generation: Generation
    done: float = 0.0
    total: float = 0.0
    unit: Unit = "bytes"
    changed: bool = False
    _started: float = field(default_factory=time.monotonic)

    def take(self) -> Progress | None:
        """The message to publish, or None when nothing changed since the last."""
        if not self.changed:
            return None
        self.changed = False
        elapsed_s = max(time.monotonic() - self._started, 1e-6)
        return Progress(
            stage=self.stage,
            node_id=self.node_id,
            job_id=self.job_id,
            generation=self.generation,
            done=self.done,
            total=self.total,
            unit=self.unit,
            rate=self.done / elapsed_s,
        )


current: ContextVar[Gauge | None] = ContextVar("progress_gauge", default=None)


def report(done: float, total: float, unit: Unit = "bytes") -> None:
    """Say how far the work in hand is; outside an actor it does nothing.

    It never runs backwards: within one unit and total, a smaller `done` is ignored.
    """
    gauge = current.get()
    if gauge is None:
        return
    if (unit, total) == (gauge.unit, gauge.total) and done <= gauge.done:
        return
    gauge.done, gauge.total, gauge.unit, gauge.changed = min(done, total), total, unit, True
