"""What routed experts hold at their peak, as transformers runs them: grouped (`grouped_mm`).

Every token is copied for each of its experts, all experts are multiplied in one call, and the
outputs are weighted, brought back into order and summed (transformers/integrations/moe.py).
"""

from collections.abc import Iterable
from typing import NamedTuple

from services.profiler.tensors import Scene, Tensor

_INDEX_BYTES = 52
_FLOAT_BYTES = 4


class Habit(NamedTuple):
    """How a family's experts hold vectors.

    `inner` and `outer` count the vectors of the inner and of the hidden width that one visit holds
    at once, besides its input; `floats` says that routing weights stay float32, which makes the
    weighted outputs so; `shared` that the shared expert ran before and its output is held.
    """

    inner: int = 4
    outer: int = 3
    floats: bool = False
    shared: bool = False


_FLOATS = Habit(floats=True)
_SHARED = Habit(shared=True)
_HABITS = {
    **dict.fromkeys(("mixtral", "minimax_m2", "glm4_moe", "dots1"), _FLOATS),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), _FLOATS),
    **dict.fromkeys(("ernie4_5_moe", "qwen2_moe", "qwen3_next"), _SHARED),
    # Gates with limits are written out, and the biases of a visit's expert are copied for it.
    "gpt_oss": Habit(inner=9, outer=4),
}


def routed_bytes(tensors: Iterable[Tensor], scene: Scene, element_bytes: int, tokens: int) -> int:
    """The peak of a layer of which `tensors` are some routed experts', its input included; else 0.

    b·T·(3·hidden + shared + k·max(hidden + n·inner, c·hidden)) + 52·k·T: the residual, the normed
    input and the output; of each visit either its input and the gated vectors, or its input, its
    output, that weighted, and that in order; and the indices that sort visits by expert.
    """
    inner = _inner(tensors, scene)
    if not inner:
        return 0
    hidden, visits = scene.architecture.hidden, max(scene.architecture.top_k, 1)
    habit = _HABITS.get(scene.architecture.model_type, Habit())
    wide = max(_FLOAT_BYTES // element_bytes, 1) if habit.floats else 1
    outer = hidden * (1 + habit.outer + 2 * (wide - 1))
    width = (4 if habit.shared else 3) * hidden
    width += visits * max(hidden + habit.inner * inner, outer)
    return tokens * (element_bytes * width + _INDEX_BYTES * visits)


def _inner(tensors: Iterable[Tensor], scene: Scene) -> int:
    """The width of a routed expert: of the matrix that brings it back, since others are fused."""
    hidden = max(scene.architecture.hidden, 1)
    widths = (
        t.matrix.elements // (t.matrix.stack * hidden)
        for t in tensors
        if t.matrix is not None and t.role == "expert" and t.place.runs
    )
    return min((width for width in widths if width), default=0)
