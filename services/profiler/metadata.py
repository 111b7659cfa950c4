"""A checkpoint's tensors and its configuration in, the model's metadata out: pure."""

from collections.abc import Iterable
from typing import NamedTuple

from messages.ids import NodeId
from messages.metadata import Layer, LayerType, ModelMetadata
from services.checkpoint.checkpoint import StoredTensor
from services.profiler.architecture import Config
from services.profiler.blocks import Costed, blocks_of, single_block
from services.profiler.flops import GIGA
from services.profiler.roles import type_of
from services.profiler.study import Study, study
from services.profiler.tensors import Cost, Tensor
from services.profiler.workload import Workload


class About(NamedTuple):
    """What the metadata says of itself: whose it is, of what, made when (ISO 8601, UTC)."""

    model_name: str
    revision: str = ""
    node_id: NodeId | None = None
    generated_at: str | None = None


def build_metadata(
    tensors: Iterable[StoredTensor],
    config: Config,
    about: About,
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
) -> ModelMetadata:
    """The metadata of a model by closed forms: every tensor's cost and bytes, blocks, ties.

    A layout that is not known becomes one block, with a warning that says why.
    """
    work = Workload(batch_size, sequence_length)
    return metadata_of(study(tensors, config, work), about, work)


def metadata_of(found: Study, about: About, work: Workload) -> ModelMetadata:
    """What a study of a model comes to; `work` is the workload as it was asked for."""
    costed = [
        Costed(tensor, found.costs[tensor.name], stored.size_bytes)
        for tensor, stored in zip(found.tensors, found.stored, strict=True)
    ]
    blocks = (
        blocks_of(costed, found.scene, found.tied, found.element_bytes)
        if found.known
        else single_block(costed, found.scene, found.tied, found.element_bytes)
    )
    return ModelMetadata(
        model_name=about.model_name,
        model_type=found.scene.architecture.model_type,
        batch_size=work.batch,
        sequence_length=work.sequence,
        layers=tuple(
            _layer(stored, tensor, found)
            for stored, tensor in zip(found.stored, found.tensors, strict=True)
        ),
        total_compute=sum(block.compute_required for block in blocks),
        total_layers=len(found.stored),
        node_id=about.node_id,
        generated_at=about.generated_at,
        revision=about.revision,
        total_params=sum(t.num_elements for t in found.stored),
        total_size_bytes=sum(t.size_bytes for t in found.stored),
        blocks=blocks,
        ties=found.ties.groups,
        warnings=found.warnings,
    )


def _layer(stored: StoredTensor, tensor: Tensor, found: Study) -> Layer:
    cost = _booked(tensor, found)
    return Layer(
        name=stored.name,
        shape=stored.shape,
        num_params=stored.num_elements,
        compute_required=cost.forward / GIGA,
        layer_type=_type(tensor),
        dtype=stored.torch_dtype,
        size_bytes=stored.size_bytes,
        decode_compute=cost.decode / GIGA,
        cost_source=cost.source,
        assigned_with=found.companions.get(stored.name),
    )


def _booked(tensor: Tensor, found: Study) -> Cost:
    """The cost of a tensor; a tied head's is booked to the token embedding it multiplies."""
    cost = found.costs[tensor.name]
    if found.tied is None or found.tied.token != tensor.name:
        return cost
    tied = found.tied.cost
    return Cost(cost.forward + tied.forward, cost.decode + tied.decode, tied.source)


def _type(tensor: Tensor) -> LayerType:
    if tensor.role in ("norm", "conv"):
        return type_of(tensor.role)
    if tensor.place.part == "first":
        return "embedding"
    return "head" if tensor.place.part == "last" else type_of(tensor.role)
