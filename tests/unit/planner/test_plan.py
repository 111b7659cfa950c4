"""The planning function: what every plan promises, whatever the input."""

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import Block, Layer, ModelMetadata
from messages.nodes import Node
from messages.wire import decode, encode
from messages.wishes import Objective, Pin, Strategy, Wishes
from services.planner.failures import ImpossibleWish, Infeasible, NoNodes
from services.planner.plan import plan_split

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]
ALL = Wishes(headroom=0.0)
ONE = Wishes(headroom=0.0, replicas=1)


@st.composite
def models(draw: st.DrawFn) -> ModelMetadata:
    count = draw(st.integers(1, 9))
    blocks = []
    for k in range(count):
        bound = draw(st.sampled_from([None, None, None, f"b{draw(st.integers(0, count - 1))}"]))
        blocks.append(
            Block(
                name=f"b{k}",
                tensors=(f"t{k}.a", f"t{k}.b"),
                compute_required=draw(st.floats(0, 1e6)),
                weight_bytes=draw(st.integers(0, 100)),
                kv_bytes=draw(st.integers(0, 20)),
                activation_bytes=draw(st.integers(0, 20)),
                together_with=bound,
            )
        )
    return ModelMetadata(
        model_name="org/model", blocks=tuple(blocks), ties=(("t0.a", "head.weight"),)
    )


NODES = st.lists(
    st.tuples(st.floats(1, 1e5), st.integers(0, 900), st.none() | st.floats(0.5, 100)),
    min_size=1,
    max_size=9,
).map(
    lambda rows: tuple(
        Node(
            node_id=NodeId(f"n{k}"), compute_gflops=gflops, memory_bytes=memory, bandwidth_mbps=mbps
        )
        for k, (gflops, memory, mbps) in enumerate(rows)
    )
)


@given(
    metadata=models(),
    nodes=NODES,
    strategy=st.sampled_from(["pipeline", "greedy", "balanced"]),
    objective=st.sampled_from(["throughput", "latency"]),
    replicas=st.sampled_from([None, 1, 2]),
)
@settings(max_examples=200, deadline=None)
def test_every_plan_covers_the_model_within_memory_and_above_its_bound(
    metadata: ModelMetadata,
    nodes: tuple[Node, ...],
    strategy: Strategy,
    objective: Objective,
    replicas: int | None,
) -> None:
    wishes = Wishes(headroom=0.25, strategy=strategy, objective=objective, replicas=replicas)
    try:
        plan = plan_split(metadata, nodes, wishes, Planner(budget_s=1e9))
    except (Infeasible, NoNodes):
        return
    except ImpossibleWish:
        assert objective == "latency" or replicas == 2
        assert strategy != "pipeline" or (objective == "latency" and replicas == 2)
        return
    assert plan.objective == objective
    assert plan.replicas == (replicas or plan.replicas)
    memory = {node.node_id: node.memory_bytes * 0.75 for node in nodes}
    assert all(a.memory_bytes <= memory[a.node_id] for a in plan.assignments)
    for replica in range(plan.replicas):
        names = [n for a in plan.assignments if a.replica == replica for n in a.layer_names]
        wanted = {name for block in metadata.blocks for name in block.tensors}
        assert set(names) == wanted
        assert len(names) - len(wanted) <= 1, "only the tied tensor is there twice"
    reached = plan.latency_s if plan.objective == "latency" else plan.bottleneck_s
    assert plan.lower_bound_s <= max(reached, plan.bottleneck_s)
    assert plan.gap >= 0
    unused = {n.node_id for n in nodes} - plan.split_plan.keys()
    assert {r.node_id for r in plan.rejected} == unused
    assert all(r.reasons for r in plan.rejected)


@given(metadata=models(), nodes=NODES, seed=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_same_input_gives_the_same_plan_in_whatever_order_nodes_are_listed(
    metadata: ModelMetadata, nodes: tuple[Node, ...], seed: random.Random
) -> None:
    shuffled = list(nodes)
    seed.shuffle(shuffled)
    try:
        first = plan_split(metadata, nodes, ALL, Planner())
    except (Infeasible, NoNodes) as refusal:
        with pytest.raises(type(refusal)):
            plan_split(metadata, shuffled, ALL, Planner())
        return
    assert encode(first) == encode(plan_split(metadata, shuffled, ALL, Planner()))


@given(metadata=models(), nodes=NODES)
@settings(max_examples=100, deadline=None)
def test_a_refusal_names_bytes_that_would_be_enough(
    metadata: ModelMetadata, nodes: tuple[Node, ...]
) -> None:
    wishes = Wishes(headroom=0.25, replicas=1)
    try:
        plan_split(metadata, nodes, wishes, Planner())
    except NoNodes:
        return
    except Infeasible as refusal:
        grown = [
            msgspec.structs.replace(n, memory_bytes=n.memory_bytes + refusal.missing + 1)
            if n.node_id == refusal.node_id
            else n
            for n in nodes
        ]
        assert plan_split(metadata, grown, wishes, Planner()).assignments


def test_a_plan_survives_the_wire(model: Models, nodes: Nodes) -> None:
    plan = plan_split(
        model(*[(10.0, 100)] * 8), nodes((24_000, 400), (25_200, 500)), ALL, Planner()
    )
    assert decode(encode(plan), type(plan)) == plan


def test_the_demo_is_cut_by_compute(model: Models, nodes: Nodes) -> None:
    plan = plan_split(
        model(*[(10.0, 100)] * 8), nodes((30_000, 800), (10_000, 800)), ONE, Planner()
    )
    assert [(a.node_id, a.end_block - a.start_block) for a in plan.assignments] == [
        ("n1", 2),
        ("n0", 6),
    ]
    assert plan.gap == 0
    assert plan.hops_per_token == 1
    assert plan.split_plan[NodeId("n0")].compute_utilization == pytest.approx(60 / 30_000)


def test_machines_that_each_hold_the_model_become_replicas(model: Models, nodes: Nodes) -> None:
    metadata = model(*[(10.0, 100)] * 7)
    three = nodes((1000, 800), (1000, 800), (1000, 800))
    plan = plan_split(metadata, three, ALL, Planner())
    assert plan.replicas == 3
    assert plan.hops_per_token == 0
    chain = plan_split(metadata, three, ONE, Planner())
    assert chain.replicas == 1
    assert plan.throughput_per_s > chain.throughput_per_s


def test_the_tied_embedding_is_on_the_last_stage_too_and_counted(nodes: Nodes) -> None:
    def layer(name: str, size: int) -> Layer:
        return Layer(
            name=name,
            shape=(size,),
            num_params=size,
            compute_required=1.0,
            layer_type="other",
            dtype="torch.int8",
            size_bytes=size,
        )

    metadata = ModelMetadata(
        model_name="org/tied",
        layers=(layer("embed", 50), layer("middle", 60), layer("norm", 10)),
        blocks=tuple(
            Block(name=f"b{k}", tensors=(name,), compute_required=1.0, weight_bytes=size)
            for k, (name, size) in enumerate((("embed", 50), ("middle", 60), ("norm", 10)))
        ),
        ties=(("embed", "head"),),
    )
    plan = plan_split(metadata, nodes((1.0, 60), (1.0, 60), (1.0, 60)), ONE, Planner())
    last = plan.assignments[-1]
    assert last.layer_names == ("norm", "embed")
    assert last.memory_bytes == 60
    with pytest.raises(Infeasible):
        plan_split(metadata, nodes((1.0, 60), (1.0, 60), (1.0, 59), (1.0, 59))[1:], ONE, Planner())


class TestWishes:
    """Pins, required, excluded and ordered nodes are kept or refused with the reason."""

    @pytest.mark.parametrize("count", [4, 14])
    def test_a_pin_is_kept(self, model: Models, nodes: Nodes, count: int) -> None:
        metadata = model(*[(10.0 + k % 3, 100) for k in range(20)])
        figures = [(1000.0 + 37 * k, 600 + 10 * k) for k in range(count)]
        wishes = Wishes(headroom=0.0, pins=(Pin(node_id=NodeId("n1"), start_block=3, end_block=5),))
        plan = plan_split(metadata, nodes(*figures), wishes, Planner())
        mine = next(a for a in plan.assignments if a.node_id == "n1")
        assert mine.start_block <= 3
        assert mine.end_block >= 5

    @pytest.mark.parametrize("count", [4, 14])
    def test_a_required_node_has_a_stage(self, model: Models, nodes: Nodes, count: int) -> None:
        figures = [(1000.0 + 37 * k, 1200) for k in range(count)] + [(1.0, 150)]
        wishes = Wishes(headroom=0.0, require=(NodeId(f"n{count}"),))
        metadata = model(*[(10.0 + k % 3, 100) for k in range(20)])
        plan = plan_split(metadata, nodes(*figures), wishes, Planner())
        assert f"n{count}" in plan.split_plan

    def test_the_order_is_kept_and_others_are_left_out(self, model: Models, nodes: Nodes) -> None:
        order = (NodeId("n2"), NodeId("n0"))
        plan = plan_split(
            model(*[(10.0, 100)] * 8),
            nodes((10, 500), (10, 500), (10, 500)),
            Wishes(headroom=0.0, order=order),
            Planner(),
        )
        assert tuple(a.node_id for a in plan.assignments) == order
        assert plan.rejected[0].reasons == ("not in the requested order",)

    @pytest.mark.parametrize(
        ("wishes", "said"),
        [
            (Wishes(require=(NodeId("nobody"),)), "no live node"),
            (Wishes(require=(NodeId("n0"),), exclude=(NodeId("n0"),)), "excluded by request"),
            (Wishes(pins=(Pin(node_id=NodeId("n0"), start_block=5, end_block=99),)), "has 8"),
            (
                Wishes(
                    pins=(
                        Pin(node_id=NodeId("n0"), start_block=0, end_block=3),
                        Pin(node_id=NodeId("n1"), start_block=2, end_block=4),
                    )
                ),
                "same block",
            ),
            (
                Wishes(replicas=2, pins=(Pin(node_id=NodeId("n0"), start_block=0, end_block=1),)),
                "one chain",
            ),
            (Wishes(objective="latency", replicas=2), "latency is that of one chain"),
            (Wishes(strategy="greedy", replicas=2), "greedy .* cannot keep several replicas"),
            (Wishes(strategy="greedy", objective="latency"), "cannot keep the objective latency"),
            (
                Wishes(strategy="balanced", require=(NodeId("n0"),), order=(NodeId("n0"),)),
                "balanced .* cannot keep required nodes, a fixed order",
            ),
            (
                Wishes(
                    strategy="greedy",
                    pins=(Pin(node_id=NodeId("n0"), start_block=0, end_block=1),),
                ),
                "cannot keep pins",
            ),
        ],
    )
    def test_an_impossible_wish_is_refused_with_the_reason(
        self, model: Models, nodes: Nodes, wishes: Wishes, said: str
    ) -> None:
        with pytest.raises(ImpossibleWish, match=said):
            plan_split(
                model(*[(10.0, 100)] * 8), nodes((10, 900), (10, 900), (10, 900)), wishes, Planner()
            )

    @pytest.mark.parametrize("strategy", ["greedy", "balanced"])
    def test_a_strategy_of_the_settings_drops_no_wish_either(
        self, model: Models, nodes: Nodes, strategy: Strategy
    ) -> None:
        with pytest.raises(ImpossibleWish, match=strategy):
            plan_split(
                model((1.0, 10)), nodes((10, 900)), Wishes(replicas=2), Planner(strategy=strategy)
            )

    def test_an_excluded_node_that_is_not_there_is_warned_of(
        self, model: Models, nodes: Nodes
    ) -> None:
        wishes = Wishes(exclude=(NodeId("n1"), NodeId("n7")))
        plan = plan_split(model((1.0, 10)), nodes((10, 900), (10, 900)), wishes, Planner())
        assert plan.warnings == ("n7 is excluded, and no live node",)
        assert [(r.node_id, r.reasons) for r in plan.rejected] == [("n1", ("excluded by request",))]
