"""What is done with a plan: relay, explanation, picture, latency, and planning anew."""

import xml.dom.minidom
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.explain import explain
from services.planner.failures import Infeasible
from services.planner.megaphone import chain_time, relay_plan, star_time
from services.planner.picture import svg, text
from services.planner.plan import plan_split
from services.planner.replan import SLOWER_AT_MOST, replan
from services.planner.watching import Absences

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]
ONE = Wishes(headroom=0.0, replicas=1)
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
SIZES = {"x": 100, "y": 100, "z": 100}
PARTS = {A: ("x",), B: ("y",), C: ("z",)}

NOBODY: frozenset[NodeId] = frozenset()


class TestRelay:
    """A chain in pipeline order, unless another shape is predicted to be done sooner."""

    def test_different_parts_over_equal_links_go_as_a_chain_from_the_origin(self) -> None:
        plan, seconds = relay_plan(PARTS, SIZES, dict.fromkeys((A, B, C), 8e-6), B, "auto")
        assert [step.node_id for step in plan.chain] == ["b", "a", "c"]
        assert plan.topology == "chain"
        assert plan.chain[0].next_nodes == ("a",)
        assert seconds == pytest.approx(200)

    def test_a_slow_node_is_not_asked_to_hand_on(self) -> None:
        mbps = {A: 8e-6, B: 8e-8, C: 8e-6}
        plan, seconds = relay_plan(PARTS, SIZES, mbps, A, "chain")
        assert [step.node_id for step in plan.chain] == ["a", "c", "b"]
        assert seconds == pytest.approx(10_000)

    def test_copies_go_down_the_chain_once_and_out_of_a_star_each_time(self) -> None:
        rate = dict.fromkeys((A, B, C), 1.0)
        same = dict.fromkeys((A, B, C), ("x",))
        assert chain_time([A, B, C], A, same, SIZES, rate) == 100
        assert star_time([A, B, C], A, same, SIZES, rate) == 200

    def test_a_star_is_taken_as_requested(self) -> None:
        plan, _ = relay_plan(PARTS, SIZES, {}, A, "star")
        assert plan.topology == "star"
        assert set(plan.chain[0].next_nodes) == {"b", "c"}
        assert "requested" in plan.reason


def test_an_explanation_tells_what_binds_and_what_more_would_bring(
    model: Models, nodes: Nodes
) -> None:
    metadata = model(*[(10.0, 100)] * 8)
    given_nodes = nodes((24_000, 400), (25_200, 500), (80, 400))
    plan = plan_split(metadata, given_nodes, ONE, Planner())
    strong = Node(node_id=NodeId("new"), compute_gflops=1e5, memory_bytes=800)
    told = explain(
        plan, metadata, given_nodes, ONE, Planner(), add=(strong,), without=(NodeId("n2"),)
    )
    binds = {s.node_id: s.binds for s in told.stages}
    assert "compute" in binds.values()
    assert told.asked is not None
    assert told.asked.faster is not None
    assert told.asked.faster > 1
    assert any(more.change.startswith("one more like") for more in told.one_more)
    written = text(told)
    assert all(node.node_id in written for node in given_nodes)
    xml.dom.minidom.parseString(svg(plan))


def test_what_cannot_be_planned_is_an_answer_too(model: Models, nodes: Nodes) -> None:
    metadata = model(*[(10.0, 100)] * 8)
    two = nodes((10, 400), (10, 400))
    plan = plan_split(metadata, two, ONE, Planner())
    told = explain(plan, metadata, two, ONE, Planner(), without=(NodeId("n0"),))
    assert told.asked is not None
    assert "memory binds" in told.asked.refused
    assert told.next_best is None


def test_latency_over_many_small_nodes_says_how_far_from_the_bound_it_may_be(
    model: Models, nodes: Nodes
) -> None:
    """No ten of these hold the model: every node but two is needed."""
    twenty = nodes(*[(100.0 + 10 * k, 100) for k in range(20)])
    wishes = Wishes(headroom=0.0, objective="latency")
    plan = plan_split(model(*[(10.0, 50)] * 36), twenty, wishes, Planner())
    fastest_s = sum(2 * 10.0 / (100.0 + 10 * k) for k in range(2, 20))
    assert plan.lower_bound_s == pytest.approx(fastest_s)
    assert fastest_s <= plan.latency_s < 1.2 * fastest_s
    assert plan.gap == pytest.approx(plan.latency_s / plan.lower_bound_s - 1, abs=1e-9)


def test_latency_prefers_few_fast_nodes_and_free_hops(model: Models, nodes: Nodes) -> None:
    metadata = model(*[(10.0, 100)] * 8)
    fast_and_small = nodes((100, 500), (90, 500), (10, 900))
    wishes = Wishes(headroom=0.0, objective="latency")
    plan = plan_split(metadata, fast_and_small, wishes, Planner())
    assert {a.node_id: a.end_block - a.start_block for a in plan.assignments} == {"n0": 5, "n1": 3}
    assert plan.latency_s == pytest.approx(50 / 100 + 30 / 90)
    assert plan.gap == 0
    far = [msgspec.structs.replace(n, latency_s=60.0) for n in fast_and_small]
    alone = plan_split(metadata, far, wishes, Planner())
    assert [a.node_id for a in alone.assignments] == ["n2"]


@given(
    figures=st.lists(st.tuples(st.floats(1, 50), st.integers(200, 900)), min_size=3, max_size=7),
    works=st.lists(st.integers(1, 20), min_size=6, max_size=14),
    lost=st.integers(0, 6),
)
@settings(max_examples=60, deadline=None)
def test_a_new_plan_is_nearly_the_best_and_counts_what_moves(
    model: Models,
    nodes: Nodes,
    figures: list[tuple[float, int]],
    works: list[int],
    lost: int,
) -> None:
    metadata, all_nodes = model(*[(float(w), 100) for w in works]), nodes(*figures)
    try:
        old = plan_split(metadata, all_nodes, ONE, Planner())
        gone = old.assignments[lost % len(old.assignments)]
        live = [n for n in all_nodes if n.node_id != gone.node_id]
        best = plan_split(metadata, live, ONE, Planner())
    except (Infeasible, IndexError):
        return
    new = replan(old, metadata, live, ONE, Planner(), generation=2)
    assert new.generation == 2
    assert new.replaces == old.plan_id
    assert new.plan_id != old.plan_id
    assert gone.node_id not in new.split_plan
    assert new.bottleneck_s <= best.bottleneck_s * SLOWER_AT_MOST * (1 + 1e-9)
    unavoidable = 100 * (gone.end_block - gone.start_block)
    assert new.moved_bytes is not None
    assert new.moved_bytes >= unavoidable


def test_a_spare_node_takes_the_lost_ones_place_and_nothing_else_moves(
    model: Models, nodes: Nodes
) -> None:
    metadata = model(*[(10.0, 100)] * 9)
    four = nodes((10, 300), (10, 300), (10, 300), (10, 300))
    old = plan_split(metadata, four, ONE, Planner())
    assert len(old.assignments) == 3
    assert [b.node_id for b in old.backups] == [old.rejected[0].node_id]
    gone = old.assignments[1].node_id
    new = replan(old, metadata, [n for n in four if n.node_id != gone], ONE, Planner())
    assert new.moved_bytes == 300


class TestAbsences:
    """A node is lost when it was seen and is then missed for the whole window."""

    def test_a_node_that_returns_within_the_window_is_not_lost(self) -> None:
        absences = Absences(after_s=10)
        assert absences.look(frozenset({A, B}), NOBODY, 0) == set()
        assert absences.look(frozenset({A}), NOBODY, 1) == set()
        assert absences.look(frozenset({A, B}), NOBODY, 9) == set()
        assert absences.look(frozenset({A}), NOBODY, 12) == set()
        assert absences.look(frozenset({A}), NOBODY, 22) == {B}

    def test_a_node_that_was_never_seen_is_not_missed(self) -> None:
        assert Absences(after_s=0).look(frozenset({A}), NOBODY, 5) == set()

    def test_a_node_that_a_plan_counts_on_is_missed_though_it_was_never_seen(self) -> None:
        absences = Absences(after_s=10)
        assert absences.look(frozenset({A}), frozenset({A, B}), 0) == set()
        assert absences.look(frozenset({A}), frozenset({A, B}), 10) == {B}
