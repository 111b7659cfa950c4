"""Doing one thing to many, a few at a time, with the first error as it was raised."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from messages.failures import Passing, Permanent

T = TypeVar("T")
R = TypeVar("R")


async def side_by_side(
    do: Callable[[T], Awaitable[R]], items: Iterable[T], workers: int
) -> list[R]:
    """The results in the order of `items`, at most `workers` at once.

    The first Permanent, Passing or OSError ends the others and is raised itself, not in a group.
    """
    wanted = tuple(items)
    results: dict[int, R] = {}
    failures: list[Permanent | Passing | OSError] = []
    limiter = anyio.CapacityLimiter(workers)

    async def one(place: int, item: T) -> None:
        try:
            async with limiter:
                results[place] = await do(item)
        except (Permanent, Passing, OSError) as failure:
            failures.append(failure)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for place, item in enumerate(wanted):
            group.start_soon(one, place, item)
    if failures:
        raise failures[0]
    return [results[place] for place in range(len(wanted))]
