"""The cost of every tensor of a placed model: GFLOP of a forward pass and of one decoded token.

Attention's own products are booked to the attention module's output projection, which is what
consumes them; the product with a tied head to the token embedding, the matrix it multiplies.
"""

from collections.abc import Iterable, Mapping

from services.profiler import flops
from services.profiler.attention import ATTENTION, attention_modules, products
from services.profiler.places import Place
from services.profiler.roles import attention_of, is_cross, is_projection
from services.profiler.tensors import Cost, Scene, Tensor
from services.profiler.unpacked import Matrix

SHAPE = "shape"
ROUTED = "shape:routed"
TIED = "shape:tied-head"
NOTHING = "none"
_ONCE = ("pooler.", "cls.seq_relationship.", "sop_classifier.", "classification_head.")
_ZERO = Cost(0.0, 0.0, NOTHING)


def costs_of(tensors: Iterable[Tensor], scene: Scene) -> dict[str, Cost]:
    """The cost of every tensor, by name."""
    tensors = tuple(tensors)
    counts = _expert_counts(tensors)
    costs = {t.name: _cost(t, scene, counts) for t in tensors}
    for module in attention_modules(tensors):
        name, extra = products(module, scene)
        own = costs[name]
        costs[name] = Cost(own.forward + extra.forward, own.decode + extra.decode, ATTENTION)
    passes = scene.architecture.passes
    for tensor in tensors:
        if tensor.place.part == "layer" and 0 <= tensor.place.layer < len(passes):
            times, once = passes[tensor.place.layer], costs[tensor.name]
            costs[tensor.name] = Cost(times * once.forward, times * once.decode, once.source)
    return costs


def _cost(tensor: Tensor, scene: Scene, counts: Mapping[tuple[int, int], int]) -> Cost:
    matrix, place = tensor.matrix, tensor.place
    if matrix is None or not place.runs or tensor.role in ("norm", "lookup"):
        return _ZERO
    if place.part == "first":
        return _first(tensor, matrix, scene)
    if place.part == "last":
        return _last(matrix, place.rest, scene)
    if tensor.role == "expert":
        return _routed(matrix, place, scene, counts)
    crosses = tensor.role == "key_value" and is_cross(attention_of(place.rest))
    read = scene.source if crosses else scene.read_by(place.stack)
    # A latent cache is brought back to keys and values for every token of it, each time.
    again = scene.window(place.layer) if tensor.role == "latent_up" else 1
    decode = 0.0 if crosses or _encodes(place, scene) else 2.0 * matrix.elements * again
    return Cost(flops.linear(matrix.elements, read.tokens), decode, SHAPE)


def _routed(
    matrix: Matrix, place: Place, scene: Scene, counts: Mapping[tuple[int, int], int]
) -> Cost:
    stack = max(matrix.stack, counts.get((place.stack, place.layer), 1))
    top_k = scene.architecture.top_k or 1
    forward = flops.experts(matrix.elements, stack, top_k, scene.work.tokens)
    source = ROUTED if stack > 1 else SHAPE
    return Cost(forward, flops.experts(matrix.elements, stack, top_k, 1), source)


def _first(tensor: Tensor, matrix: Matrix, scene: Scene) -> Cost:
    """Look-ups cost nothing; patches and sounds are convolved, projections linear layers."""
    if scene.family.vision and len(tensor.shape) == 4:
        patches = scene.work.batch * (scene.work.sequence - extra_tokens(scene))
        return Cost(flops.linear(matrix.elements, patches), 0.0, SHAPE)
    if tensor.role == "conv":
        # Whisper's first convolution sees two frames a position, its second strides over them.
        frames = scene.source.tokens * (2 if "conv1" in tensor.place.rest else 1)
        return Cost(flops.linear(matrix.elements, frames), 0.0, SHAPE)
    if is_projection(tensor.place.rest):
        forward = flops.linear(matrix.elements, scene.work.tokens)
        return Cost(forward, 2.0 * matrix.elements if scene.family.decodes else 0.0, SHAPE)
    return _ZERO


def extra_tokens(scene: Scene) -> int:
    """Class and distillation tokens that a vision model puts before its patches."""
    return 2 if scene.architecture.model_type == "deit" else 1


def _last(matrix: Matrix, rest: str, scene: Scene) -> Cost:
    """Poolers and heads of a whole sequence see one vector of each, other heads every token."""
    once = rest.startswith(_ONCE) or (
        scene.architecture.per_sequence_head and rest.startswith(("classifier.", "pre_classifier."))
    )
    vectors = scene.work.batch if once else scene.work.tokens
    decode = 2.0 * matrix.elements if scene.family.decodes else 0.0
    return Cost(flops.linear(matrix.elements, vectors), decode, SHAPE)


def tied_cost(matrix: Matrix, scene: Scene) -> Cost:
    """The head's product with a token embedding that no tensor of its own stores."""
    decode = 2.0 * matrix.elements if scene.family.decodes else 0.0
    return Cost(flops.linear(matrix.elements, scene.work.tokens), decode, TIED)


def _encodes(place: Place, scene: Scene) -> bool:
    """Whether one more token needs nothing of this: an encoder's layer."""
    return not scene.family.decodes or place.stack < len(scene.family.stacks) - 1


def _expert_counts(tensors: Iterable[Tensor]) -> dict[tuple[int, int], int]:
    """How many routed experts each layer has, where every expert has tensors of its own."""
    found: dict[tuple[int, int], set[str]] = {}
    for tensor in tensors:
        if tensor.role == "expert":
            number = tensor.place.rest.partition("experts.")[2].partition(".")[0]
            number = number.removeprefix("expert_")
            if number.isdecimal():
                key = (tensor.place.stack, tensor.place.layer)
                found.setdefault(key, set()).add(number)
    return {key: len(numbers) for key, numbers in found.items()}
