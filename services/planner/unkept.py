"""Wishes that a strategy or an objective cannot keep: refused with the reason, never dropped."""

from messages.wishes import Strategy, Wishes
from services.planner.failures import ImpossibleWish


def refuse_unkept(wishes: Wishes, strategy: Strategy) -> None:
    """ImpossibleWish where the wishes ask for what this strategy does not do."""
    several = wishes.replicas is not None and wishes.replicas > 1
    if strategy != "pipeline":
        asked = {
            "the objective latency": wishes.objective == "latency",
            "several replicas": several,
            "pins": bool(wishes.pins),
            "required nodes": bool(wishes.require),
            "a fixed order": bool(wishes.order),
        }
        unkept = [name for name, is_asked in asked.items() if is_asked]
        if unkept:
            raise ImpossibleWish(
                f"{strategy} places tensors one by one and cannot keep {', '.join(unkept)}",
                advice="use the pipeline strategy, or leave these wishes out",
            )
    if several and wishes.objective == "latency":
        raise ImpossibleWish(
            f"latency is that of one chain, which {wishes.replicas} replicas do not shorten",
            advice="ask for one replica, or for the objective throughput",
        )
