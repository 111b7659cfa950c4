"""The values that costs are computed from: a placed tensor, the scene it acts in, its cost."""

from typing import NamedTuple

from services.profiler.architecture import Architecture
from services.profiler.families import Family
from services.profiler.places import Place
from services.profiler.roles import Role
from services.profiler.unpacked import Matrix
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

    @property
    def source(self) -> Workload:
        """What an encoder reads: as many tokens as are written, or an audio model's frames."""
        frames = self.architecture.source_positions if self.family.audio else 0
        return Workload(self.work.batch, frames) if frames else self.work

    def read_by(self, stack: int) -> Workload:
        """The tokens that go through the layers of a stack: an encoder's or the decoder's."""
        return self.source if stack < len(self.family.stacks) - 1 else self.work

    def window(self, layer: int) -> int:
        """How many tokens a new one sees in the self-attention of a layer, itself among them."""
        windows = self.architecture.windows
        single = len(self.family.stacks) == 1 and 0 <= layer < len(windows)
        return min(self.work.sequence, (windows[layer] if single else None) or self.work.sequence)
