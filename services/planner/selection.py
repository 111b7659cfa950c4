"""Which nodes may take part: thresholds on what they report, and the wishes that name them."""

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

import config.settings
from messages.ids import NodeId
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.failures import BadNodes, ImpossibleWish, NoNodes
from services.planner.line import UNLIMITED, Offer

Policy = config.settings.Planner
_MOST_GFLOPS = 1e15
_LEAST_GFLOPS = 1e-6
_figures = operator.attrgetter(
    "gpu_percent", "cpu_percent", "memory_percent", "battery_percent", "bandwidth_mbps"
)
_UNREPORTED = (None,) * 5


@dataclass(frozen=True)
class Selection:
    """Eligible nodes by id, and every reason why each other node is not.

    `warnings` name excluded nodes that are not there: the wish is kept, or it is a typing error.
    """

    nodes: tuple[Node, ...]
    rejected: dict[NodeId, tuple[str, ...]]
    warnings: tuple[str, ...] = ()


def select(
    nodes: Sequence[Node], wishes: Wishes, policy: Policy, keep: Collection[NodeId] = ()
) -> Selection:
    """The nodes that may take part, sorted by id.

    No threshold applies to those of `keep`: a running plan's own work is what makes them busy.
    Raises BadNodes for an id given twice, ImpossibleWish where a wish names an unknown or rejected
    node, NoNodes where none is left.
    """
    by_id = {node.node_id: node for node in nodes}
    if len(by_id) != len(nodes):
        twice = sorted({n.node_id for n in nodes if sum(m.node_id == n.node_id for m in nodes) > 1})
        raise BadNodes(f"node ids given more than once: {', '.join(twice)}")
    for node in nodes:
        if node.compute_gflops > _MOST_GFLOPS:
            raise BadNodes(f"{node.node_id} says {node.compute_gflops:g} GFLOPS: more than can be")
    named = {*wishes.require, *wishes.order, *(pin.node_id for pin in wishes.pins)}
    for name in sorted(named - by_id.keys()):
        raise ImpossibleWish(f"the wish names {name}, which is no live node")
    reasons = [(n.node_id, reasons_against(n, wishes, policy, keep)) for n in nodes]
    rejected = {node_id: why for node_id, why in sorted(reasons) if why}
    for name in sorted({*wishes.require, *(pin.node_id for pin in wishes.pins)} & rejected.keys()):
        raise ImpossibleWish(
            f"{name} is wished for but cannot take part: {', '.join(rejected[name])}"
        )
    if len(rejected) == len(nodes):
        raise NoNodes(rejected)
    eligible = sorted(by_id.keys() - rejected.keys())
    absent = sorted(set(wishes.exclude) - by_id.keys())
    return Selection(
        tuple(by_id[node_id] for node_id in eligible),
        rejected,
        tuple(f"{name} is excluded, and no live node" for name in absent),
    )


def reasons_against(
    node: Node, wishes: Wishes, policy: Policy, keep: Collection[NodeId] = ()
) -> tuple[str, ...]:
    """Every reason why the node is not used; a figure it does not report is no reason."""
    unjudged = node.node_id in keep or _figures(node) == _UNREPORTED
    reasons = [] if unjudged else _beyond_thresholds(node, policy)
    if node.node_id in wishes.exclude:
        reasons.append("excluded by request")
    if wishes.order and node.node_id not in wishes.order:
        reasons.append("not in the requested order")
    if node.compute_gflops < _LEAST_GFLOPS:
        reasons.append(f"compute {node.compute_gflops:g} GFLOPS below {_LEAST_GFLOPS:g} GFLOPS")
    if offered_bytes(node, wishes, policy) == 0:
        reasons.append("offers no memory")
    return tuple(reasons)


def _beyond_thresholds(node: Node, policy: Policy) -> list[str]:
    return [
        f"{name} {value:g}{unit} {'above' if above else 'below'} {limit:g}{unit}"
        for name, value, limit, unit, above in (
            ("gpu", node.gpu_percent, policy.max_gpu_percent, " %", True),
            ("cpu", node.cpu_percent, policy.max_cpu_percent, " %", True),
            ("memory", node.memory_percent, policy.max_memory_percent, " %", True),
            ("battery", node.battery_percent, policy.min_battery_percent, " %", False),
            ("bandwidth", node.bandwidth_mbps, policy.min_bandwidth_mbps, " Mbps", False),
        )
        if value is not None and (value > limit if above else value < limit)
    ]


def idle(node: Node, node_id: NodeId) -> Node:
    """Another node of this kind that nothing keeps busy."""
    load = dict.fromkeys(("gpu_percent", "cpu_percent", "memory_percent", "battery_percent"))
    return msgspec.structs.replace(node, node_id=node_id, **load)


def offered_bytes(node: Node, wishes: Wishes, policy: Policy) -> int:
    """The memory a plan may use: memory_bytes × (1 − headroom), rounded down."""
    headroom = policy.headroom if wishes.headroom is None else wishes.headroom
    return node.memory_bytes if headroom == 0 else int(node.memory_bytes * (1.0 - headroom))


def offers_of(
    nodes: Sequence[Node], scale: float, offered: Callable[[Node], int]
) -> tuple[Offer, ...]:
    """The nodes as the solvers see them, strongest first; a link that is not reported is free."""
    offers = [
        Offer(
            node.node_id,
            node.compute_gflops * scale,
            offered(node),
            UNLIMITED if node.disk_bytes is None else node.disk_bytes,
            hop_s=node.latency_s or 0.0,
            byte_s=8e-6 / node.bandwidth_mbps if node.bandwidth_mbps else 0.0,
        )
        for node in nodes
    ]
    return tuple(sorted(offers, key=lambda o: (-o.rate, -o.memory, o.node_id)))
