"""Counts by module brought to the checkpoint's tensors: what was counted replaces the closed form.

Every operation stays: what happens in a module without tensors of its own goes to the attention
output projections beneath it, as the closed form books it; what happens where the checkpoint has
other names goes to the tensors that are left there, in proportion to their closed form.
"""

from collections.abc import Iterable, Mapping, Sequence

from services.profiler.costs import ROUTED
from services.profiler.counting import Counts, Uncounted
from services.profiler.flops import GIGA
from services.profiler.guesses import is_head
from services.profiler.study import Study
from services.profiler.tensors import Cost, Tensor

COUNTED = "counted"
TOLERANCE = 0.001


def corrected(found: Study, counts: Counts | Uncounted) -> Study:
    """The study with counted costs; unchanged, with a warning, where they are not to be believed.

    The counter may miss fused products of experts, or run all experts on every token: their share
    is held to the closed form. So is all of a known layout whose shapes were read, but for
    recurrences, which are counted only; where it differs, the class is not the one that was stored,
    or the checkpoint not whole.
    """
    if isinstance(counts, Uncounted):
        return _kept(found, f"compute is in closed form, not counted: {counts.reason}")
    if counts.total <= 0:
        return found
    closed = sum(c.forward for c in found.costs.values())
    closed += found.tied.cost.forward if found.tied else 0.0
    routed, seen = _experts(found, counts, closed)
    if _differ(routed, seen):
        return _kept(
            found,
            f"compute is in closed form: the count has {seen / routed:.3g} times its figure for"
            " what only routed experts should compute",
        )
    held = found.held and all(tensor.role != "state" for tensor in found.tensors)
    if held and _differ(closed, counts.total):
        return _kept(
            found,
            f"compute is in closed form, {closed / GIGA:,.6g} GFLOP: the count of config.json's"
            f" model is {counts.total / GIGA:,.6g} GFLOP",
        )
    return _booked(found, counts)


def _kept(found: Study, note: str) -> Study:
    return found._replace(warnings=(*found.warnings, note))


def _differ(closed: float, counted: float) -> bool:
    return abs(counted - closed) > TOLERANCE * closed


def _experts(found: Study, counts: Counts, whole: float) -> tuple[float, float]:
    """FLOP of routed experts, in closed form and as counted; of all, where no module is theirs."""
    costs = {name: cost.forward for name, cost in found.costs.items() if cost.source == ROUTED}
    if not costs:
        return 0.0, 0.0
    named = {name for name in counts.modules if name.rpartition(".")[2] == "experts"}
    modules = {name for name in named if not any(name.startswith(f"{n}.") for n in named)}
    if not modules:
        modules = {name.removesuffix(".weight") for name in costs}
    if not modules <= counts.modules.keys():
        return whole, counts.total
    return sum(costs.values()), sum(counts.modules[name] for name in modules)


def _booked(found: Study, counts: Counts) -> Study:
    own = _own(counts)
    tied = found.tied
    if tied is not None:
        # What has no module of a head's name is booked with all else, and must not be twice.
        counted = float(own.pop(_head(own, found), 0))
        tied = tied._replace(cost=tied.cost._replace(forward=counted, source=COUNTED))
    forward = _distribute(own, _homes(found.tensors, counts.modules), found)
    costs = {
        name: Cost(forward[name], cost.decode, COUNTED) if forward.get(name) else _nothing(cost)
        for name, cost in found.costs.items()
    }
    return found._replace(costs=costs, tied=tied)


def _head(own: Mapping[str, int], found: Study) -> str:
    """The module of the head: the family's, else the one that a head's name says it is."""
    head = found.scene.family.head.removesuffix(".weight")
    if head in own:
        return head
    named = (name for name in own if is_head(f"{name}.weight"))
    return next((n for n in named if not any(o.startswith(f"{n}.") for o in own)), head)


def _nothing(cost: Cost) -> Cost:
    return cost._replace(forward=0.0, source=COUNTED if cost.forward else cost.source)


def _own(counts: Counts) -> dict[str, int]:
    """What is counted in a module itself, its children's taken out; the whole model is ""."""
    own = dict(counts.modules)
    own[""] = counts.total
    for name, flops in counts.modules.items():
        if name:
            parent = _parent(name, counts.modules)
            own[parent] -= flops
    return {name: flops for name, flops in own.items() if flops > 0}


def _parent(name: str, modules: Mapping[str, int]) -> str:
    while name:
        name = name.rpartition(".")[0]
        if name in modules:
            return name
    return ""


def _homes(tensors: Sequence[Tensor], modules: Mapping[str, int]) -> dict[str, str]:
    """The deepest counted module that each tensor with a matrix is in; "" is the whole model.

    A checkpoint may hold the bare model that the counted class wraps, or the other way round.
    """
    outer = sorted({name.partition(".")[0] for name in modules if "." in name})
    homes: dict[str, str] = {}
    for tensor in tensors:
        if tensor.matrix is not None:
            whole = tensor.name.rpartition(".")[0]
            wrapped = [_counted(f"{name}.{whole}", modules) for name in outer]
            inside = [_counted(whole.removeprefix(f"{name}."), modules) for name in outer]
            named = [name for name in (*wrapped, *inside) if name not in outer]
            homes[tensor.name] = max([_counted(whole, modules), *named], key=len)
    return homes


def _counted(name: str, modules: Mapping[str, int]) -> str:
    return name if name in modules else _parent(name, modules)


def _distribute(own: dict[str, int], homes: Mapping[str, str], found: Study) -> dict[str, float]:
    """FLOP by tensor, adding up to all that was counted; deepest modules first."""
    forward: dict[str, float] = {}
    pending: dict[str, float] = dict(own)
    for module in sorted({*own, *_ancestors(own)}, key=lambda name: -len(name)):
        flops = pending.get(module, 0.0)
        weights = _bearers(module, homes, found)
        if not weights:
            parent = module.rpartition(".")[0]
            pending[parent] = pending.get(parent, 0.0) + flops
            continue
        whole = sum(weights.values())
        for name, weight in weights.items():
            forward[name] = forward.get(name, 0.0) + flops * weight / whole
    return forward


def _ancestors(names: Iterable[str]) -> set[str]:
    found = {""}
    for name in names:
        while name:
            name = name.rpartition(".")[0]
            found.add(name)
    return found


def _bearers(module: str, homes: Mapping[str, str], found: Study) -> dict[str, float]:
    """Who bears a module's own operations, by weight: its tensors, else those beneath it.

    Nobody, so that they pass to the module around it, where an attention's inputs are all there is.
    """
    here = [t for t in found.tensors if homes.get(t.name) == module]
    weights = {t.name: found.costs[t.name].forward for t in here}
    if any(weights.values()):
        return weights
    start = f"{module}." if module else ""
    beneath = [t for t in found.tensors if t.name in homes and homes[t.name].startswith(start)]
    outputs = [t.name for t in beneath if t.role == "output"]
    if outputs:
        return dict.fromkeys(outputs, 1.0)
    weights = {t.name: found.costs[t.name].forward for t in beneath}
    inputs = module and all(t.role in ("query", "key_value", "fused_qkv") for t in beneath)
    return {} if inputs or not any(weights.values()) else weights
