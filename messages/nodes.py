"""A node as a plan sees it, and its entry in the registry."""

from typing import Annotated

import msgspec
from msgspec import Meta

from messages.ids import Count, NodeId, NonNegative, Positive, PositiveCount

Percent = Annotated[float, Meta(ge=0, le=100)]


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one machine offers. None means "not reported": no threshold applies to it.

    `compute_gflops` is what is available for this work (already × (1 − utilisation) where it was
    measured or came from a table). `latency_s` is the one-way link latency to any neighbour.
    `copy_gbps` is the measured memory bandwidth in gigabytes a second, which bounds decoding.
    """

    node_id: NodeId
    compute_gflops: Positive
    memory_bytes: Count
    disk_bytes: Count | None = None
    bandwidth_mbps: NonNegative | None = None
    latency_s: NonNegative | None = None
    copy_gbps: Positive | None = None
    cores: PositiveCount | None = None
    gpu_name: str | None = None
    gpu_memory_bytes: Count | None = None
    gpu_percent: Percent | None = None
    cpu_percent: Percent | None = None
    memory_percent: Percent | None = None
    battery_percent: Percent | None = None
    compute_source: str | None = None


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A live node in the registry's bucket; the key expires when heartbeats stop.

    `data_url` is where its distributor serves bytes. `origin` says that it can hold a model for
    others. Reading the entry never keeps the node alive.
    """

    node: Node
    data_url: str
    origin: bool = False
    disk_free_bytes: Count = 0
    heartbeat_s: Positive = 2.0
    version: str = ""
