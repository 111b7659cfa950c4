"""A planning case of the command line, and a plan told with its explanation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import Settings
from messages.failures import Permanent
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import SplitPlan
from messages.wishes import Wishes
from services.console.failures import Usage
from services.console.output import note, plain, say, say_json


@dataclass(frozen=True)
class Case:
    """What is planned for. `add` and `without` are what-ifs upon `nodes`."""

    metadata: ModelMetadata
    nodes: tuple[Node, ...]
    wishes: Wishes
    settings: Settings
    add: tuple[Node, ...] = ()
    without: tuple[NodeId, ...] = ()
    origin: NodeId | None = None

    def changed_nodes(self) -> tuple[Node, ...]:
        """The nodes with those added and without those taken away; Usage for an unknown one."""
        known = {node.node_id for node in self.nodes}
        for node_id in self.without:
            if node_id not in known:
                raise Usage(f"--without {node_id}: no such node is listed")
        gone = {*self.without, *(node.node_id for node in self.add)}
        return (*(n for n in self.nodes if n.node_id not in gone), *self.add)

    def plan(self, nodes: tuple[Node, ...]) -> SplitPlan:
        """The best plan for these nodes; raises what the planner refuses."""
        from services.planner.plan import plan_split

        return plan_split(
            self.metadata, nodes, self.wishes, self.settings.planner, origin=self.origin
        )

    def explained(self, plan: SplitPlan, nodes: tuple[Node, ...], *, what_if: bool) -> Any:
        """Why `plan`, made for `nodes`, is as it is; with `what_if`, what the changes would do."""
        from services.planner.explain import explain

        return explain(
            plan,
            self.metadata,
            nodes,
            self.wishes,
            self.settings.planner,
            origin=self.origin,
            add=self.add if what_if else (),
            without=self.without if what_if else (),
        )

    def compared(self, plan: SplitPlan) -> dict[str, Any]:
        """The plan for the nodes as they are listed, beside `plan` for the changed ones."""
        from services.planner.goal import times_as_good

        try:
            listed = self.plan(self.nodes)
        except Permanent as refusal:
            return {"refused": refusal.reason}
        return {
            "bottleneck_s": listed.bottleneck_s,
            "latency_s": listed.latency_s,
            "throughput_per_s": listed.throughput_per_s,
            "faster": times_as_good(plan, listed),
        }


def tell(
    plan: SplitPlan, explanation: Any, listed: dict[str, Any] | None, *, as_json: bool
) -> None:
    """The plan with its explanation: as one JSON object, or as text."""
    if as_json:
        told = plain(plan) | {"explanation": plain(explanation)}
        say_json(told if listed is None else told | {"as_listed": listed})
        return
    from services.planner.picture import text

    say(text(explanation))
    if listed is None:
        return
    if "refused" in listed:
        say(f"\nwith the nodes as listed: impossible: {listed['refused']}")
    else:
        faster = "" if listed["faster"] is None else f"; changed, {listed['faster']:.3f} times that"
        goal = "latency" if explanation.objective == "latency" else "bottleneck"
        say(f"\nwith the nodes as listed: {goal} {listed[f'{goal}_s']:.4g} s{faster}")


def draw(plan: SplitPlan, picture: Path | None) -> None:
    """Write the SVG of blocks over nodes, where one is wished for."""
    if picture is None:
        return
    from services.planner.picture import svg

    try:
        picture.write_text(svg(plan))
    except OSError as error:
        raise Usage(f"{picture}: {error.strerror}") from None
    note(f"picture: {picture}")
