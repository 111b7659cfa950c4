"""Which unused nodes stand by, so that the loss of a used one is cheap."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from messages.ids import NodeId
from messages.nodes import Node
from messages.plans import Assignment, Backup

LEAST_BACKUPS = 2
_MOST_BACKUPS = 8


def backups_of(
    assignments: Sequence[Assignment], spare: Sequence[Node], offered: Mapping[NodeId, int]
) -> tuple[Backup, ...]:
    """At least two spare nodes where there are any, each with the stages it could hold.

    First come those that could hold most stages, among equals the fastest; one more for every
    eight nodes in use, eight at most.
    """
    wanted = min(_MOST_BACKUPS, max(LEAST_BACKUPS, len(assignments) // 8))
    ranked = sorted(assignments, key=lambda a: a.memory_bytes)
    needs = [a.memory_bytes for a in ranked]
    holders = [a.node_id for a in ranked]
    covered = {node.node_id: bisect_right(needs, offered[node.node_id]) for node in spare}
    best = sorted(spare, key=lambda n: (-covered[n.node_id], -n.compute_gflops, n.node_id))
    return tuple(
        Backup(node_id=node.node_id, covers=tuple(holders[: covered[node.node_id]]))
        for node in best[:wanted]
    )
