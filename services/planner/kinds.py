"""Tensors that are alike: what `balanced` places by their number, not one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.greedy import Item

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kinds:
    """Tensors alike: GFLOP and bytes of each kind, how many there are, and which."""

    compute: Floats
    size: Ints
    count: Ints
    members: tuple[tuple[int, ...], ...]


def kinds_of(items: Sequence[Item]) -> Kinds:
    """The items by compute and bytes, the heaviest first."""
    grouped: dict[tuple[float, int], list[int]] = {}
    for k, item in enumerate(items):
        grouped.setdefault((item.compute, item.size_bytes), []).append(k)
    ranked = sorted(grouped, key=lambda kind: (-kind[0], -kind[1]))
    return Kinds(
        compute=np.array([compute for compute, _ in ranked]),
        size=np.array([size for _, size in ranked], dtype=np.int64),
        count=np.array([len(grouped[kind]) for kind in ranked], dtype=np.int64),
        members=tuple(tuple(grouped[kind]) for kind in ranked),
    )
