"""Choosing the origin of a job: the node whose disk will hold the model."""

from collections.abc import Sequence

from messages.failures import Passing
from messages.ids import NodeId
from messages.jobs import ModelRequest
from messages.nodes import NodeEntry


class NoOrigin(Passing):
    """No node that may hold a model is alive."""


def choose_origin(
    request: ModelRequest, own: NodeId, own_is_origin: bool, live: Sequence[NodeEntry]
) -> NodeId:
    """The node named in the request, else this one, else the live origin with most free disk.

    NoOrigin where the named node is not a live origin, or none is alive: it may come.
    """
    if request.node_id == own or (request.node_id is None and own_is_origin):
        return own
    origins = {entry.node.node_id: entry.disk_free_bytes for entry in live if entry.origin}
    if request.node_id is not None:
        if request.node_id in origins:
            return request.node_id
        raise NoOrigin(
            f"node {request.node_id} is not a live origin; live origins: "
            f"{', '.join(sorted(origins)) or 'none'}"
        )
    if not origins:
        raise NoOrigin(
            "no origin is alive; start one with `williw run downloader profiler uploader "
            "splitter distributor` and node.origin = true"
        )
    return max(sorted(origins), key=lambda node_id: origins[node_id])
