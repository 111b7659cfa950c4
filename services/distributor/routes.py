"""Whom a node asks for each file, in order of preference; pure."""

from collections.abc import Mapping, Sequence

from messages.ids import NodeId
from messages.plans import MegaphonePlan


def route(
    node: NodeId,
    origin: NodeId,
    fetch_from: Sequence[NodeId],
    relay: MegaphonePlan,
    holders: Sequence[NodeId],
) -> tuple[NodeId, ...]:
    """The sources of one file for `node`: whom the plan says first, then who else will have it.

    The node asks whom its assignment names (`fetch_from`). In a mixed plan those come after the
    nearest of the earlier nodes that have the file too (`holders`): what several need is handed on.
    The origin comes before those that nobody chose.
    """
    order = {step.node_id: step.step for step in relay.chain}
    others = [holder for holder in holders if holder != node]
    before = sorted(
        (h for h in others if order.get(h, 0) < order.get(node, 0)), key=lambda h: -order.get(h, 0)
    )
    nearest = before[:1] if relay.topology == "mixed" else []
    wanted = (*nearest, *fetch_from, origin, *before, *others)
    return tuple(dict.fromkeys(source for source in wanted if source != node))


def behind(node: NodeId, relay: MegaphonePlan) -> frozenset[NodeId]:
    """The nodes that receive through this one: its next nodes, theirs, and so on."""
    following = {step.node_id: step.next_nodes for step in relay.chain}
    found: set[NodeId] = set()
    ahead = list(following.get(node, ()))
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += following.get(one, ())
    return frozenset(found)


def files_by_route(
    files: Sequence[str],
    node: NodeId,
    origin: NodeId,
    fetch_from: Sequence[NodeId],
    relay: MegaphonePlan,
    plan_files: Mapping[NodeId, Sequence[str]],
) -> dict[tuple[NodeId, ...], tuple[str, ...]]:
    """The digests of `files`, grouped by their route; `plan_files` says which node needs which."""
    groups: dict[tuple[NodeId, ...], list[str]] = {}
    for digest in dict.fromkeys(files):
        holders = [holder for holder, held in plan_files.items() if digest in held]
        sources = route(node, origin, fetch_from, relay, holders)
        groups.setdefault(sources, []).append(digest)
    return {sources: tuple(digests) for sources, digests in groups.items()}
