"""Why a plan was refused, with the figures that say what would change it."""

from collections.abc import Mapping

from messages.failures import Permanent
from messages.ids import NodeId

_MOST_NAMED = 8


def offering(count: int) -> str:
    """So many nodes as a subject and its verb."""
    return "1 node offers" if count == 1 else f"{count} nodes offer"


def _named(rejected: Mapping[NodeId, tuple[str, ...]]) -> str:
    """The first eight nodes with their reasons, and how many there are besides."""
    first = sorted(rejected.items())[:_MOST_NAMED]
    each = [f"{node}: {', '.join(why)}" for node, why in first]
    more = len(rejected) - len(first)
    return "; ".join([*each, *([f"and {more} more"] if more else [])])


class BadMetadata(Permanent):
    """The metadata contradicts itself or holds a figure that cannot be; `field` says where."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"metadata {field}: {problem}",
            advice="profile the model again with `williw profile MODEL_DIR`",
        )
        self.field = field


class BadNodes(Permanent):
    """The list of nodes cannot be planned for."""


class NoNodes(Permanent):
    """No node passes selection; `rejected` maps each one to its reasons."""

    def __init__(self, rejected: dict[NodeId, tuple[str, ...]]) -> None:
        none = f"none of {len(rejected)} nodes can take part: {_named(rejected)}"
        super().__init__(
            none if rejected else "no live nodes",
            advice="start a node with `williw run distributor`, or free one that was rejected",
        )
        self.rejected = rejected


class ImpossibleWish(Permanent):
    """A wish contradicts the model, the nodes or another wish."""


class Infeasible(Permanent):
    """No plan exists within the nodes' capacity.

    `constraint` names what binds (`memory`, `disk` or `compute`); `missing` more bytes (or GFLOP)
    on `node_id` would be enough for a pipeline, where one node alone can make it so; tensors placed
    one by one need so many at least.
    """

    def __init__(
        self,
        reason: str,
        *,
        constraint: str,
        node_id: NodeId | None = None,
        missing: int = 0,
        advice: str = "",
    ) -> None:
        super().__init__(reason, advice=advice)
        self.constraint = constraint
        self.node_id = node_id
        self.missing = missing

    def beside(self, rejected: Mapping[NodeId, tuple[str, ...]]) -> "Infeasible":
        """The same refusal, which also names the nodes that selection had left out, and why."""
        if not rejected:
            return self
        return Infeasible(
            f"{self.reason}; left out: {_named(rejected)}",
            constraint=self.constraint,
            node_id=self.node_id,
            missing=self.missing,
            advice=self.advice,
        )


class Undecided(Permanent):
    """No plan was found, and it was not proven that there is none: the search ended before."""

    def __init__(self, nodes: int, units: int) -> None:
        super().__init__(
            f"no plan was found for {units} blocks on {nodes} nodes, nor proof that there is none",
            advice="exclude nodes that are not needed, give more memory, or pin part of the blocks",
        )


class InvalidPlan(Permanent):
    """A plan that does not keep its own promises: a defect of the planner, never of the input."""
