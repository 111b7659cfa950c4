"""The values that costs are computed from: a placed tensor, the scene it acts in, its cost."""

from typing import NamedTuple

from services.profiler.architecture import Architecture
from services.profiler.families import Family
from services.profiler.packed import Matrix
from services.profiler.places import Place
from services.profiler.roles import Role
from services.profiler.workload import Workload


class Tensor(NamedTuple):
    """A tensor with its place, its role in a layer, and the logical matrix it carries, if any."""

    name: str
    shape: tuple[int, ...]
    place: Place
    role: Role
    matrix: Matrix | None


class Cost(NamedTuple):
    """FLOP of the forward pass, FLOP of one decoded token, and the rule that gave them."""

    forward: float
    decode: float
    source: str


class Scene(NamedTuple):
    """What the cost of a tensor depends on besides the tensor."""

    architecture: Architecture
    family: Family
    work: Workload
