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
from messages.wishes import Relay, Wishes
from services.planner.assignments import sources
from services.planner.explain import explain
from services.planner.failures import Infeasible
from services.planner.megaphone import (
    chain_traffic,
    mixed_traffic,
    relay_plan,
    star_traffic,
)
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
    """What one node needs comes straight, what several need is handed on."""

    def test_different_parts_come_straight_with_the_fastest_links_first(self) -> None:
        mbps = {A: 8e-6, B: 8e-6, C: 16e-6}
        plan, seconds = relay_plan(PARTS, SIZES, mbps, B, "auto")
        assert plan.topology == "mixed"
        assert [step.node_id for step in plan.chain] == ["b", "c", "a"]
        assert seconds == pytest.approx(200)
        told = "chain 200 s and 0.0003 MB in all; mixed 200 s and 0.0002 MB in all; star 200 s"
        assert told in plan.reason

    def test_copies_of_all_go_as_a_chain(self) -> None:
        same = dict.fromkeys((A, B, C), ("x", "y"))
        plan, seconds = relay_plan(same, SIZES, dict.fromkeys((A, B, C), 8e-6), A, "auto")
        assert plan.topology == "chain"
        assert [step.next_nodes for step in plan.chain] == [("b",), ("c",), ()]
        assert seconds == pytest.approx(200)

    def test_one_receiver_is_a_chain(self) -> None:
        plan, _ = relay_plan({A: ("x",), B: ("y",)}, SIZES, {}, A, "auto")
        assert plan.topology == "chain"
        assert "1000 Mbps" in plan.reason

    def test_a_slow_node_is_not_asked_to_hand_on(self) -> None:
        mbps = {A: 8e-6, B: 8e-8, C: 8e-6}
        plan, seconds = relay_plan(PARTS, SIZES, mbps, A, "chain")
        assert [step.node_id for step in plan.chain] == ["a", "c", "b"]
        assert plan.topology == "chain"
        assert seconds == pytest.approx(10_000)

    def test_copies_go_down_the_chain_once_and_out_of_a_star_each_time(self) -> None:
        rate = dict.fromkeys((A, B, C), 1.0)
        same = dict.fromkeys((A, B, C), ("x",))
        assert chain_traffic([A, B, C], A, same, SIZES, rate) == (100, 200)
        assert mixed_traffic([A, B, C], A, same, SIZES, rate) == (100, 200)
        assert star_traffic([A, B, C], A, same, SIZES, rate) == (200, 200)

    def test_a_star_is_taken_as_requested(self) -> None:
        plan, _ = relay_plan(PARTS, SIZES, {}, A, "star")
        assert plan.topology == "star"
        assert set(plan.chain[0].next_nodes) == {"b", "c"}
        assert "requested" in plan.reason

    def test_where_the_origin_is_not_known_every_node_receives(self) -> None:
        mbps = dict.fromkeys((A, B, C), 8e-6)
        same = dict.fromkeys((A, B, C), ("x",))
        elsewhere, seconds = relay_plan(same, SIZES, mbps, NodeId("o"), "auto")
        plan, unknown_s = relay_plan(same, SIZES, mbps, None, "auto")
        assert (plan.chain, unknown_s) == (elsewhere.chain, seconds)
        assert plan.start_node == "a"
        assert seconds == pytest.approx(100)
        star, _ = relay_plan(PARTS, SIZES, mbps, None, "star")
        assert {step.next_nodes for step in star.chain} == {()}

    @given(
        parts=st.lists(st.sets(st.sampled_from("uvwxyz")), min_size=1, max_size=6),
        mbps=st.lists(st.floats(0.1, 1e4), min_size=6, max_size=6),
        order=st.permutations(range(6)),
        known=st.booleans(),
    )
    def test_auto_is_never_later_than_a_chain_or_a_star_and_carries_no_more_when_as_late(
        self, parts: list[set[str]], mbps: list[float], order: list[int], known: bool
    ) -> None:
        held = {NodeId(f"n{k}"): tuple(sorted(part)) for k, part in enumerate(parts)}
        given_mbps = {NodeId(f"n{k}"): one for k, one in enumerate(mbps)}
        sizes = {name: 10**k for k, name in enumerate("uvwxyz")}
        origin = NodeId("n0") if known else None
        _, auto_s = relay_plan(held, sizes, given_mbps, origin, "auto")
        for asked in ("chain", "star"):
            _, seconds = relay_plan(held, sizes, given_mbps, origin, asked)
            assert auto_s <= seconds * (1 + 1e-9)
        start = origin or NodeId("elsewhere")
        rate = {n: one * 125_000 for n, one in given_mbps.items()} | (
            {} if origin else {start: 7e6}
        )
        chained = sorted(held, key=lambda n: (n != start, order[int(n[1:])]))
        fastest = sorted(held, key=lambda n: (n != start, -rate[n]))
        chain = chain_traffic(chained, start, held, sizes, rate)
        star = star_traffic(chained, start, held, sizes, rate)
        mixed = mixed_traffic(fastest, start, held, sizes, rate)
        assert mixed.seconds <= min(chain.seconds, star.seconds) * (1 + 1e-9)
        assert mixed.carried_bytes == star.carried_bytes <= chain.carried_bytes


def test_in_a_mixed_plan_the_one_before_in_the_relay_is_asked_after_the_origin(
    model: Models, nodes: Nodes
) -> None:
    given_nodes = nodes((10, 400), (10, 400), (10, 400))
    asked = {}
    relays: tuple[Relay, ...] = ("auto", "chain", "star")
    for relay in relays:
        wishes = msgspec.structs.replace(ONE, relay=relay)
        plan = plan_split(model(*[(10.0, 100)] * 9), given_nodes, wishes, Planner())
        last = plan.megaphone_plan.chain[-1].node_id
        asked[plan.megaphone_plan.topology] = sources(plan, last, NodeId("o"))
    assert asked["chain"][-1] == asked["mixed"][0] == "o"
    assert set(asked["chain"]) == set(asked["mixed"])
    assert len(asked["mixed"]) == 2
    assert asked["star"] == ("o",)


def test_parts_travel_as_wished_for_and_else_as_the_settings_say(
    model: Models, nodes: Nodes
) -> None:
    metadata, three = model(*[(10.0, 100)] * 9), nodes((10, 400), (10, 400), (10, 400))

    def shape(wishes: Wishes, policy: Planner) -> str:
        return plan_split(metadata, three, wishes, policy).megaphone_plan.topology

    assert shape(ONE, Planner()) == "mixed"
    assert shape(ONE, Planner(relay="star")) == "star"
    asked = msgspec.structs.replace(ONE, relay="auto")
    assert shape(asked, Planner(relay="star")) == "mixed"


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
