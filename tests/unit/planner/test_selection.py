"""Thresholds apply to what a node reports; each rejected node has all its reasons."""

import msgspec
import pytest

from config.capacity import compute_gflops
from config.settings import Planner
from messages.ids import NodeId
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.backups import backups_of
from services.planner.failures import BadNodes, NoNodes
from services.planner.selection import offered_bytes, reasons_against, select

QUIET = Node(node_id=NodeId("quiet"), compute_gflops=10.0, memory_bytes=1000)


def test_a_node_that_reports_nothing_is_not_judged() -> None:
    assert reasons_against(QUIET, Wishes(), Planner()) == ()


@pytest.mark.parametrize(
    ("figure", "kept", "dropped"),
    [
        ("gpu_percent", 80.0, 80.1),
        ("cpu_percent", 85.0, 85.1),
        ("memory_percent", 80.0, 80.1),
        ("battery_percent", 20.0, 19.9),
        ("bandwidth_mbps", 1.0, 0.9),
    ],
)
def test_each_threshold_is_kept_at_its_edge(figure: str, kept: float, dropped: float) -> None:
    at_edge = msgspec.structs.replace(QUIET, **{figure: kept})
    beyond = msgspec.structs.replace(QUIET, **{figure: dropped})
    assert reasons_against(at_edge, Wishes(), Planner()) == ()
    (reason,) = reasons_against(beyond, Wishes(), Planner())
    assert f"{dropped:g}" in reason


def test_a_rejected_node_has_every_reason() -> None:
    busy = msgspec.structs.replace(QUIET, gpu_percent=99.0, cpu_percent=99.0, battery_percent=3.0)
    with pytest.raises(NoNodes) as refusal:
        select((busy,), Wishes(exclude=(busy.node_id,)), Planner())
    assert len(refusal.value.rejected[busy.node_id]) == 4


@pytest.mark.parametrize("gflops", [5e-324, 1e-307, 1e-300, 9e-7])
def test_a_node_slower_than_any_machine_is_left_out(gflops: float) -> None:
    broken = msgspec.structs.replace(QUIET, node_id=NodeId("broken"), compute_gflops=gflops)
    selection = select((QUIET, broken), Wishes(), Planner())
    assert selection.nodes == (QUIET,)
    assert selection.rejected[NodeId("broken")][0].startswith(f"compute {gflops:g} GFLOPS below")


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(BadNodes, match="quiet"):
        select((QUIET, QUIET), Wishes(), Planner())


def test_headroom_is_taken_off_what_a_node_offers() -> None:
    assert offered_bytes(QUIET, Wishes(headroom=0.25), Planner()) == 750
    assert offered_bytes(QUIET, Wishes(headroom=0.0), Planner()) == 1000
    assert offered_bytes(QUIET, Wishes(), Planner(headroom=0.1)) == 900


def test_the_table_gives_the_demo_its_figures() -> None:
    assert compute_gflops("NVIDIA GeForce RTX 3080", 8, 0.2) == pytest.approx(24_000)
    assert compute_gflops("NVIDIA GeForce RTX 3090", 8, 0.3) == pytest.approx(25_200)
    assert compute_gflops(None, 8, 0.0) == 80
    assert compute_gflops("Tesla T4", 8, 0.0) == 8_000
    assert compute_gflops("NVIDIA T400", 8, 0.0) == 5_000
    assert compute_gflops("NVIDIA A100-SXM4-40GB", 8, 0.0) == 312_000


def test_at_least_two_backups_stand_by_where_there_are_any() -> None:
    spare = [
        Node(node_id=NodeId(f"s{k}"), compute_gflops=1.0 + k, memory_bytes=100) for k in range(3)
    ]
    offered = {node.node_id: node.memory_bytes for node in spare}
    assert len(backups_of((), spare, offered)) == 2
    assert len(backups_of((), spare[:1], offered)) == 1
