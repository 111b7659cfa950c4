"""Whom a node asks follows the plan, falls back to the origin, then to anybody who holds it."""

from messages.ids import NodeId
from messages.plans import MegaphonePlan, RelayStep
from services.distributor.routes import behind, files_by_route, route

O, A, B, C = (NodeId(name) for name in ("origin", "a", "b", "c"))  # noqa: E741


def relay(topology: str) -> MegaphonePlan:
    steps = tuple(
        RelayStep(node_id=node, step=k, layer_names=(), next_nodes=())
        for k, node in enumerate((A, B, C))
    )
    return MegaphonePlan(start_node=O, chain=steps, topology=topology)  # type: ignore[arg-type]


def test_a_chain_asks_the_predecessor_first_and_the_origin_next() -> None:
    assert route(C, O, (B, O), relay("chain"), ()) == (B, O)
    assert route(C, O, (B, O), relay("chain"), (A, C)) == (B, O, A)


def test_a_star_asks_the_origin() -> None:
    assert route(C, O, (O,), relay("star"), (A, C)) == (O, A)


def test_a_mixed_plan_relays_what_several_need_and_brings_the_rest_straight() -> None:
    assert route(C, O, (O, B), relay("mixed"), (A, C)) == (A, O, B)
    assert route(C, O, (O, B), relay("mixed"), (C,)) == (O, B)
    assert route(A, O, (O,), relay("mixed"), (A, C)) == (O, C)


def test_a_mixed_plan_too_asks_whom_the_assignment_names() -> None:
    assert route(C, O, (B,), relay("mixed"), (C,)) == (B, O)
    assert route(C, O, (B,), relay("mixed"), (A, C)) == (A, B, O)


def test_files_of_one_route_travel_together() -> None:
    plan_files = {A: ("tied", "tok"), B: ("tok", "own-b"), C: ("tied", "tok", "own-c")}
    assert files_by_route(plan_files[C], C, O, (O, B), relay("mixed"), plan_files) == {
        (A, O, B): ("tied",),
        (B, O, A): ("tok",),
        (O, B): ("own-c",),
    }


def test_behind_a_node_are_those_whom_its_next_nodes_lead_to() -> None:
    following = {A: (B,), B: (C, A), C: ()}
    steps = tuple(
        RelayStep(node_id=node, step=k, layer_names=(), next_nodes=ahead)
        for k, (node, ahead) in enumerate(following.items())
    )
    chain = MegaphonePlan(start_node=A, chain=steps)
    assert behind(C, chain) == frozenset()
    assert behind(B, chain) >= {C}
    assert behind(O, chain) == frozenset()
    assert behind(A, relay("star")) == frozenset()
