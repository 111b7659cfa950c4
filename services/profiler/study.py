"""A model understood: every tensor placed, its role known, its cost in closed form."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from services.checkpoint.checkpoint import StoredTensor
from services.profiler.architecture import Architecture, Config, read_architecture
from services.profiler.blocks import TiedHead
from services.profiler.costs import costs_of, tied_cost
from services.profiler.families import FAMILIES, Family
from services.profiler.flaws import flaws_of
from services.profiler.guesses import guessed_family, guessed_places, guessed_ties, is_head
from services.profiler.packed import Packing, matrix_of, packing_of
from services.profiler.places import Place, Unplaced, place_all
from services.profiler.promised import keep_promises
from services.profiler.roles import Role, is_convolution, is_projection, is_turned, role_of
from services.profiler.tensors import Cost, Scene, Tensor
from services.profiler.ties import Ties, find_ties
from services.profiler.unpacked import Stored
from services.profiler.workload import Workload

_LOOKUP = re.compile(r"embed|(^|\.)(wte|wpe|shared)\.|relative_attention_bias|position|cls_token")
_PLAIN = ("F64", "F32", "F16", "BF16")
_WIDE = {"F32": 4, "F64": 8}


class Study(NamedTuple):
    """`stored` and `tensors` run in parallel, `costs` and `companions` are by name.

    `known` says whether the layout may be cut; `tied` is the head's product with the token
    embedding, where that is stored once. Warnings are sentences for the user. `held` says that the
    closed form is not to differ from a count: the layout is known, or of another depth than
    config.json says, and every shape was read.
    """

    stored: tuple[StoredTensor, ...]
    tensors: tuple[Tensor, ...]
    scene: Scene
    costs: Mapping[str, Cost]
    companions: Mapping[str, str]
    ties: Ties
    tied: TiedHead | None
    known: bool
    element_bytes: int
    warnings: tuple[str, ...] = ()
    held: bool = False


def study(tensors: Iterable[StoredTensor], config: Config, work: Workload) -> Study:
    """What the tensors of a checkpoint are and cost, by their names, shapes and configuration."""
    stored = tuple(tensors)
    architecture = read_architecture(config)
    names = tuple(t.name for t in stored)
    family = _family(architecture)
    places = _places(names, family, architecture) if family else Unplaced("", "")
    unplaced = places if isinstance(places, Unplaced) else None
    if family is None or isinstance(places, Unplaced):
        family = guessed_family(architecture)
        places = guessed_places(names, architecture)
    scene = Scene(architecture, family, _seen(stored, family, work))
    shapes = {t.name: Stored(t.shape, t.dtype) for t in stored}
    packing = packing_of(shapes, architecture.quantization)
    placed = tuple(_tensor(t, places[t.name], shapes, packing, scene) for t in stored)
    sizes = {t.name: t.size_bytes for t in stored}
    placed, unread = keep_promises(placed, sizes, packing, architecture)
    packed = {*packing.companions.values(), *packing.modules, *packing.unread}
    plain = frozenset(t.name for t in stored if t.dtype in _PLAIN) - packed
    told = flaws_of(placed, plain, scene) if unplaced is None else (_rough(architecture, unplaced),)
    ties = _ties(names, scene, known=unplaced is None)
    return Study(
        stored,
        placed,
        scene,
        costs_of(placed, scene),
        packing.companions,
        ties,
        _tied(ties, shapes, scene),
        unplaced is None,
        architecture.element_bytes or _element_bytes(stored),
        told + unread,
        not packing.unread and (unplaced is None or unplaced.denied),
    )


def _family(architecture: Architecture) -> Family | None:
    """The family of a model type; an encoder's that is told to write keeps a cache."""
    family = FAMILIES.get(architecture.model_type)
    return family._replace(decodes=True) if family and architecture.is_decoder else family


def _places(
    names: Iterable[str], family: Family, architecture: Architecture
) -> Mapping[str, Place] | Unplaced:
    several = len(family.stacks) > 1
    return place_all(names, family, architecture.depths if several else (architecture.layers,))


def _ties(names: Sequence[str], scene: Scene, *, known: bool) -> Ties:
    if known:
        return find_ties(frozenset(names), scene.family, scene.architecture)
    return guessed_ties(names, scene.architecture)


def _rough(architecture: Architecture, unplaced: Unplaced) -> str:
    why = "williw does not know this layout"
    if unplaced.name:
        why = f"{unplaced.name} {unplaced.why}"
    return (
        f"model type {architecture.model_type}: {why}; it is planned as one block that is not cut,"
        " and what is not counted of it is rough"
    )


def _seen(stored: Iterable[StoredTensor], family: Family, work: Workload) -> Workload:
    """A vision model sees as many tokens as it has positions, whatever the request says."""
    if not family.vision:
        return work
    tokens = next(
        (
            t.shape[1]
            for t in stored
            if t.name.endswith("position_embeddings") and len(t.shape) == 3
        ),
        work.sequence,
    )
    return Workload(work.batch, tokens)


def _tensor(
    stored: StoredTensor,
    place: Place,
    shapes: Mapping[str, Stored],
    packing: Packing,
    scene: Scene,
) -> Tensor:
    name, rank = stored.name, len(stored.shape)
    role = _role(stored, place, rank)
    if name in packing.modules:
        # What a packer calls its own way is that layer's weight, a matrix however it is kept.
        inside = len(name) - len(packing.modules[name])
        place = place._replace(rest=f"{place.rest[:-inside]}.weight")
        role = role if role == "lookup" else _role(stored, place, 2)
    elif name in packing.companions:
        role = _role(stored, place, min(rank, 2))
    matrix = None
    if name not in packing.companions and name not in packing.unread and _is_weight(name):
        turned = is_turned(place.rest, stored.shape, scene.architecture.hidden)
        matrix = matrix_of(name, shapes, scene.architecture.quantization, turned=turned)
    return Tensor(name, stored.shape, place, role, matrix)


def _role(stored: StoredTensor, place: Place, rank: int) -> Role:
    if place.part == "layer" and place.layer >= 0:
        guessed = place.rest == stored.name and not is_head(stored.name)
        if guessed and _LOOKUP.search(stored.name):
            return "lookup"
        return role_of(place.rest, rank)
    if place.part == "first" and not is_projection(place.rest):
        return "conv" if is_convolution(place.rest, rank) else "lookup"
    return "norm" if rank <= 1 else "other"


def _is_weight(name: str) -> bool:
    """Biases of fused experts have two dimensions and are no matrix."""
    return not name.endswith((".bias", "_bias", ".A_log", ".g_idx"))


def _tied(ties: Ties, shapes: Mapping[str, Stored], scene: Scene) -> TiedHead | None:
    if ties.token is None:
        return None
    matrix = matrix_of(ties.token, shapes, scene.architecture.quantization, turned=False)
    if matrix is None:
        return None
    return TiedHead(ties.token, tied_cost(matrix, scene), matrix.rows)


def _element_bytes(stored: Sequence[StoredTensor]) -> int:
    """Bytes of an activation where the configuration names no dtype: what most weights are in."""
    sizes: dict[int, int] = {}
    for tensor in stored:
        width = _WIDE.get(tensor.dtype, 2)
        sizes[width] = sizes.get(width, 0) + tensor.size_bytes
    return max(sizes, key=lambda width: sizes[width], default=2)
