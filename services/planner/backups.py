"""Which unused nodes stand by, so that the loss of a used one is cheap."""

from collections.abc import Mapping, Sequence

from messages.ids import NodeId
from messages.nodes import Node
from messages.plans import Assignment, Backup

LEAST_BACKUPS = 2


def backups_of(
    assignments: Sequence[Assignment], spare: Sequence[Node], offered: Mapping[NodeId, int]
) -> tuple[Backup, ...]:
    """At least two spare nodes where there are any, each with the stages it could hold.

    Chosen greedily: next comes the node that covers most stages nobody covers yet, and among
    equals the fastest; one more for every eight nodes in use.
    """
    wanted = max(LEAST_BACKUPS, len(assignments) // 8)
    covers = {
        node.node_id: tuple(
            a.node_id for a in assignments if a.memory_bytes <= offered[node.node_id]
        )
        for node in spare
    }
    left = sorted(spare, key=lambda n: (-n.compute_gflops, n.node_id))
    covered: set[NodeId] = set()
    chosen: list[Backup] = []
    while left and len(chosen) < wanted:
        best = max(left, key=lambda n: len({*covers[n.node_id]} - covered))
        left.remove(best)
        covered.update(covers[best.node_id])
        chosen.append(Backup(node_id=best.node_id, covers=covers[best.node_id]))
    return tuple(chosen)
