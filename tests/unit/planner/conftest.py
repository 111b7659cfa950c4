"""Small models and nodes to plan for."""

from collections.abc import Callable

import pytest

from messages.ids import NodeId
from messages.metadata import Block, ModelMetadata
from messages.nodes import Node

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]


@pytest.fixture(scope="session")
def model() -> Models:
    """A model of blocks: (GFLOP, bytes) each, with a tensor each."""

    def of(*blocks: tuple[float, int]) -> ModelMetadata:
        return ModelMetadata(
            model_name="org/model",
            blocks=tuple(
                Block(name=f"b{k}", tensors=(f"t{k}",), compute_required=work, weight_bytes=size)
                for k, (work, size) in enumerate(blocks)
            ),
        )

    return of


@pytest.fixture(scope="session")
def nodes() -> Nodes:
    """Nodes n0, n1, …: (GFLOPS, bytes) each."""

    def of(*figures: tuple[float, int]) -> tuple[Node, ...]:
        return tuple(
            Node(node_id=NodeId(f"n{k}"), compute_gflops=gflops, memory_bytes=memory)
            for k, (gflops, memory) in enumerate(figures)
        )

    return of
