"""What is remembered is little, and the last that was asked for."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from services.runtime.remembered import Remembered


def test_what_was_used_longest_ago_gives_way_to_what_comes() -> None:
    known = Remembered[str, int](count=2)
    known.keep("a", 1, 10)
    known.keep("b", 2, 10)
    assert known.get("a") == 1
    known.keep("c", 3, 10)
    assert (known.get("a"), known.get("b"), known.get("c")) == (1, None, 3)


@pytest.mark.parametrize("size_bytes", [40, 101])
def test_all_together_never_take_more_than_their_bytes(size_bytes: int) -> None:
    known = Remembered[int, int](size_bytes=100)
    for k in range(1000):
        known.keep(k % 7, k, size_bytes)
    held = [k for k in range(7) if known.get(k) is not None]
    assert len(held) * size_bytes == (80 if size_bytes == 40 else 0)


def test_a_value_kept_again_counts_once_and_one_too_large_takes_the_older_away() -> None:
    known = Remembered[str, int](size_bytes=100)
    for k in range(10):
        known.keep("a", k, 60)
    known.keep("b", 1, 40)
    assert (known.get("a"), known.get("b")) == (9, 1)
    known.keep("a", 10, 101)
    assert (known.get("a"), known.get("b")) == (None, 1)
    known.keep("c", 1, 60)
    assert (known.get("b"), known.get("c")) == (1, 1)


def test_several_threads_may_keep_and_get_at_once() -> None:
    known = Remembered[int, int](count=8, size_bytes=100)

    def work(k: int) -> bool:
        known.keep(k % 16, k % 16, 10)
        return known.get(k * 7 % 16) in (None, k * 7 % 16)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(4000)))
    assert sum(known.get(k) is not None for k in range(16)) == 8
