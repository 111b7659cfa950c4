"""What a block with a recurrent state keeps of a sequence, whatever its length."""

from collections.abc import Iterable

from services.profiler.tensors import Scene, Tensor

_FLOAT_BYTES = 4


def state_bytes(tensors: Iterable[Tensor], scene: Scene, element_bytes: int) -> int:
    """Bytes of one sequence: the inputs that the convolution sees again, and the state itself.

    Convolution: channels × kernel. State: inner channels (what the output projection reads) × the
    width of the state (that of a two-dimensional A_log, else config.json's), in float32.
    """
    tensors = [t for t in tensors if t.role == "state" and t.place.runs]
    convolved = sum(t.matrix.elements for t in tensors if t.matrix and len(t.shape) == 3)
    decay = next((t for t in tensors if t.place.rest.endswith("A_log")), None)
    if decay is None:
        return element_bytes * convolved
    width = decay.shape[1] if len(decay.shape) == 2 else scene.architecture.state_width
    hidden = max(scene.architecture.hidden, 1)
    outputs = (t for t in tensors if t.matrix and "out_proj" in t.place.rest)
    channels = max((t.matrix.elements // hidden for t in outputs if t.matrix), default=0)
    return element_bytes * convolved + _FLOAT_BYTES * channels * width


def state_inner(tensors: Iterable[Tensor], scene: Scene) -> int:
    """Inner vectors of a token: what reads the hidden vector, and as much again once convolved."""
    hidden = scene.architecture.hidden
    rows = (
        t.matrix.rows
        for t in tensors
        if t.matrix and t.role == "state" and len(t.shape) == 2 and t.matrix.columns == hidden
    )
    return 2 * sum(rows)
