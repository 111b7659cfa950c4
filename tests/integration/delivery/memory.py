"""How much memory each process of a delivery held, by the kernel's own count."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from messages.ids import NodeId
from messages.jobs import JobCompleted, JobFailed
from messages.plans import SplitPlan
from tests.integration.delivery.processes import processes, provisioned
from tests.integration.delivery.rig import ORIGIN, Rig


@dataclass(frozen=True)
class Held:
    """MiB of a process before anything was delivered, and the most until it was."""

    idle: float
    peak: float

    @property
    def above(self) -> float:
        """MiB that delivering took."""
        return self.peak - self.idle


async def delivered_by(
    rig: Rig, plan: SplitPlan, node_ids: Sequence[NodeId]
) -> tuple[JobCompleted | JobFailed, dict[str, Held]]:
    """Deliver a plan with every node (and the origin's splitter) as a process of its own.

    The job's end, and what each process held, by service and node.
    """
    await provisioned(rig, *node_ids)
    with processes(rig) as running:
        watched = [("distributor", node_id) for node_id in node_ids] + [("splitter", ORIGIN)]
        for service, node_id in watched:
            running.start(service, node_id)
        for node_id in node_ids:
            while await rig.bus.registry.node(node_id) is None:  # noqa: ASYNC110  # they are others
                await anyio.sleep(0.05)
        pids = {f"{service} of {node}": running.pid(service, node) for service, node in watched}
        idle = {name: _forget_peak(pid) for name, pid in pids.items()}
        await rig.plan(plan)
        ended = await rig.ending(timeout_s=280)
        return ended, {n: Held(idle[n], _status(pid, "VmHWM")) for n, pid in pids.items()}


def _forget_peak(pid: int) -> float:
    """Set the peak back to what is resident now, which is returned (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status(pid, "VmRSS")


def _status(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
