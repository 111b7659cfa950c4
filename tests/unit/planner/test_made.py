"""What a made plan is remembered under: everything that went into it."""

import msgspec
import pytest

from messages.ids import JobId, NodeId, Sha256
from messages.jobs import ModelRequest
from messages.models import MetadataReady
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.made import key_of

NODE = Node(node_id=NodeId("n1"), compute_gflops=100.0, memory_bytes=400)
OTHER = Node(
    node_id=NodeId("n2"),
    compute_gflops=101.0,
    memory_bytes=401,
    disk_bytes=1,
    bandwidth_mbps=1.0,
    latency_s=1.0,
    copy_gbps=1.0,
    cores=1,
    gpu_name="one",
    gpu_memory_bytes=1,
    gpu_percent=1.0,
    cpu_percent=1.0,
    memory_percent=1.0,
    battery_percent=1.0,
    compute_source="said",
)
READY = MetadataReady(
    origin=NodeId("node_001"),
    job_id=JobId("job"),
    request=ModelRequest(model_name="org/model"),
    repo="documents",
    file="f",
    url="",
    sha256=Sha256("0" * 64),
    size_bytes=1,
)


@pytest.mark.parametrize("figure", Node.__struct_fields__)
def test_every_figure_of_a_node_counts(figure: str) -> None:
    changed = msgspec.structs.replace(NODE, **{figure: getattr(OTHER, figure)})
    assert key_of(READY, (changed,)) != key_of(READY, (NODE,))


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": Sha256("1" * 64)},
        {"repo": "elsewhere"},
        {"file": "g"},
        {"commit": "c0ffee"},
        {"revision": "c0ffee"},
        {"origin": NodeId("node_002")},
        {"generation": 2},
        {"request": ModelRequest(model_name="org/other")},
        {"request": ModelRequest(model_name="org/model", wishes=Wishes(replicas=1))},
    ],
)
def test_all_that_is_asked_counts(change: dict[str, object]) -> None:
    assert key_of(msgspec.structs.replace(READY, **change), (NODE,)) != key_of(READY, (NODE,))


def test_whose_job_it_is_does_not_count() -> None:
    other = msgspec.structs.replace(READY, job_id=JobId("other"), plan_only=True)
    assert key_of(other, [NODE, OTHER]) == key_of(READY, (NODE, OTHER))
