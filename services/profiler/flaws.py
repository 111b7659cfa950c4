"""What a checkpoint of a known layout lacks, and where it contradicts itself or config.json."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.profiler.attention import attention_modules
from services.profiler.roles import attention_of, is_cross, is_projection
from services.profiler.tensors import Scene, Tensor

_NAMED = 3
_READING = ("query", "key_value", "fused_qkv", "latent_kv")
_INNER = ("mlp", "expert", "router")
# A layer of a stack, and in it each module that carries a matrix, by its name within the layer.
Layers = Mapping[tuple[int, int], Mapping[str, Tensor]]


def flaws_of(tensors: Sequence[Tensor], plain: frozenset[str], scene: Scene) -> tuple[str, ...]:
    """Sentences for the user, none where all is there and fits.

    `plain` are the tensors that are stored as they are meant, so that their shapes can be judged.
    """
    layers = _layers(tensors)
    return (
        *_ends(tensors, scene),
        *_noted(_lacking(layers, scene), "not stored, though other layers have the like"),
        *_noted(_headless(tensors, scene), "attention of which not every projection is stored"),
        *_noted(
            _narrow(tensors, plain, scene),
            f"not of the width that config.json gives, {scene.architecture.hidden}",
        ),
        *_noted(_unlike(layers, plain, scene), "not of the shape that other layers have"),
        *_idle(tensors, scene),
    )


def listed(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    several = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
    return f"{', '.join(names[:_NAMED])}{several}"


def _noted(names: Iterable[str], what: str) -> Iterator[str]:
    if found := tuple(names):
        yield f"{listed(found)}: {what}"


def _ends(tensors: Iterable[Tensor], scene: Scene) -> Iterator[str]:
    """Whether what comes before the layers, and what comes after them, is stored."""
    family, architecture = scene.family, scene.architecture
    names = tuple(f".{t.name}" for t in tensors)

    def stored(*weights: str) -> bool:
        modules = tuple(f".{weight.removesuffix('weight')}" for weight in weights)
        return any(module in name for module in modules for name in names)

    if family.table and not stored(family.table, *family.copies):
        yield f"the token embedding ({family.table}) is not stored"
    tied = family.tied if architecture.tied is None else architecture.tied
    if family.head and architecture.has_head and not tied and not stored(family.head):
        yield f"the head ({family.head}) is not stored, and config.json does not tie it"


def _layers(tensors: Iterable[Tensor]) -> Layers:
    layers: dict[tuple[int, int], dict[str, Tensor]] = {}
    for tensor in tensors:
        place = tensor.place
        if place.part != "layer" or place.layer < 0 or not place.runs:
            continue
        modules = layers.setdefault((place.stack, place.layer), {})
        if tensor.matrix is not None and tensor.role not in ("norm", "lookup"):
            modules[place.rest.rpartition(".")[0] or place.rest] = tensor
    return layers


def _lacking(layers: Layers, scene: Scene) -> Iterator[str]:
    """The modules that a layer is short of one that is like it in all else."""
    kinds: dict[int, set[frozenset[str]]] = {}
    for (stack, _), modules in layers.items():
        kinds.setdefault(stack, set()).add(frozenset(modules))
    for (stack, layer), modules in sorted(layers.items()):
        fuller = [kind for kind in kinds[stack] if modules.keys() < kind]
        for module in sorted(min(fuller, key=len) - modules.keys() if fuller else ()):
            yield f"{scene.family.stacks[stack]}.{layer}.{module}"


def _headless(tensors: Iterable[Tensor], scene: Scene) -> Iterator[str]:
    for module in attention_modules(tensors):
        roles = Counter(t.role for t in module)
        asks = roles["query"] and (roles["latent_kv"] or roles["key_value"] > 1)
        if not roles["output"] or not (roles["fused_qkv"] or asks):
            place = module[0].place
            name = attention_of(place.rest).removesuffix(".")
            yield f"{scene.family.stacks[place.stack]}.{place.layer}.{name}"


def _narrow(tensors: Iterable[Tensor], plain: frozenset[str], scene: Scene) -> Iterator[str]:
    """The matrices that neither read nor give a vector of the model's width, where they should."""
    hidden = scene.architecture.hidden
    projected = any(t.place.part != "layer" and is_projection(t.place.rest) for t in tensors)
    ends = {scene.family.table: "first", scene.family.head: "last"}
    for tensor in tensors:
        matrix, place = tensor.matrix, tensor.place
        if matrix is None or not matrix.columns or not place.runs or tensor.name not in plain:
            continue
        if place.part != "layer":
            ending = ends.get(place.rest) == place.part and not projected
            fits = matrix.columns == hidden or not ending
        elif tensor.role in _READING and not place.rest.endswith("q_b_proj.weight"):
            fits = matrix.columns == hidden or is_cross(attention_of(place.rest))
        elif tensor.role == "output":
            fits = matrix.rows == hidden
        else:
            fits = tensor.role not in _INNER or hidden in (matrix.rows, matrix.columns)
        if not fits:
            yield _shown(tensor)


def _unlike(layers: Layers, plain: frozenset[str], scene: Scene) -> Iterator[str]:
    """Matrices of another shape than most of their kind; windows may have heads of their own."""
    architecture = scene.architecture
    kinds, windows = architecture.layer_types, architecture.windows
    shapes: dict[tuple[object, ...], dict[str, Tensor]] = {}
    for (stack, layer), modules in layers.items():
        kind = kinds[layer : layer + 1], windows[layer : layer + 1]
        for module, tensor in modules.items():
            if tensor.name in plain:
                shapes.setdefault((stack, kind, module), {})[tensor.name] = tensor
    for alike in shapes.values():
        shape, times = Counter(t.shape for t in alike.values()).most_common(1)[0]
        usual = shape if 2 * times > len(alike) else None
        yield from (_shown(t) for t in alike.values() if t.shape != usual)


def _shown(tensor: Tensor) -> str:
    return f"{tensor.name} ({' × '.join(map(str, tensor.shape))})"


def _idle(tensors: Iterable[Tensor], scene: Scene) -> Iterator[str]:
    """What is stored of layers, and is not computed."""
    beyond = {t.place.layer for t in tensors if t.place.part == "last" and t.place.layer >= 0}
    if len(beyond) > scene.architecture.predictors:
        yield (
            f"layers beyond the {scene.architecture.layers} of config.json are stored"
            f" ({len(beyond)}): they are held and not computed"
        )
    if any(not t.place.runs and is_cross(attention_of(t.place.rest)) for t in tensors):
        yield "cross-attention is held and not computed: the encoder that it reads is not here"
