"""The one planning function: metadata, nodes and wishes in, a checked plan out. Pure.

The bus, the command and the tests call it alike. No clock, no randomness, no I/O.
"""

from collections.abc import Sequence

import msgspec

from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import SplitPlan
from messages.wishes import Wishes
from services.planner import contiguous, loose
from services.planner.assemble import assemble
from services.planner.case import Case, Placed, case_of
from services.planner.failures import Infeasible
from services.planner.selection import Policy
from services.planner.validate import check_plan


def plan_split(
    metadata: ModelMetadata,
    nodes: Sequence[Node],
    wishes: Wishes,
    policy: Policy,
    *,
    origin: NodeId | None = None,
    generation: int = 1,
    model_url: str = "",
    revision: str | None = None,
    metadata_sha256: str = "",
) -> SplitPlan:
    """The best plan for this model on these nodes, checked; the same inputs give the same plan.

    Raises subclasses of Permanent: BadMetadata, BadNodes, NoNodes, ImpossibleWish, Infeasible (with
    the binding constraint and the least change). `generated_at` stays None: there is no clock here.
    """
    case = case_of(metadata, nodes, wishes, policy, origin)
    plan = msgspec.structs.replace(
        assemble(case, place(case)),
        generation=generation,
        model_url=model_url,
        revision=metadata.revision if revision is None else revision,
        metadata_sha256=metadata_sha256,
    )
    check_plan(plan, case)
    return plan


def place(case: Case) -> Placed:
    """The stages that the case's strategy chooses; a refusal names the nodes left out as well."""
    try:
        return _placed(case)
    except Infeasible as refusal:
        raise refusal.beside(case.selection.rejected) from None


def _placed(case: Case) -> Placed:
    if case.strategy == "pipeline":
        return contiguous.place(case)
    if case.strategy == "greedy":
        return loose.place_greedy(case)
    return loose.place_balanced(case)
