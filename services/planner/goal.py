"""What a plan was made best in, and how much better another one is by that."""

from messages.plans import SplitPlan
from messages.wishes import Objective


def objective_of(plan: SplitPlan) -> Objective:
    """What the plan was made best in: tensors placed one by one are never placed for latency."""
    return plan.objective if plan.strategy == "pipeline" else "throughput"


def goal_of(plan: SplitPlan) -> str:
    """The figure that the plan makes smallest, in words."""
    if objective_of(plan) == "latency":
        return f"latency {plan.latency_s:.4g} s"
    return f"bottleneck {plan.bottleneck_s:.4g} s"


def times_as_good(other: SplitPlan, plan: SplitPlan) -> float | None:
    """How many times as good `other` is by the objective of `plan`; None where that is no number.

    Its throughput over the plan's, or the plan's latency over its own.
    """
    if objective_of(plan) == "latency":
        return plan.latency_s / other.latency_s if other.latency_s else None
    return other.throughput_per_s / plan.throughput_per_s if plan.throughput_per_s else None
