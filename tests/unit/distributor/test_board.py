"""A file's chunks are claimed once, given back or verified, and never counted twice."""

from hypothesis import given
from hypothesis import strategies as st

from messages.shards import StageFile
from services.distributor.board import Board


def file_of(size_bytes: int, chunk_bytes: int = 10) -> StageFile:
    count = -(-size_bytes // chunk_bytes)
    chunks = tuple("0" * 64 for _ in range(count))
    return StageFile(
        name="f.bin", size_bytes=size_bytes, digest="0" * 64, chunk_bytes=chunk_bytes, chunks=chunks
    )


@given(size=st.integers(0, 200), steps=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9))))
def test_whatever_is_given_back_every_chunk_is_verified_once_in_the_end(
    size: int, steps: list[tuple[int, int]]
) -> None:
    board = Board(file_of(size))
    counted = 0
    for most, good in [*steps, *[(9, 9)] * 30]:
        claimed = board.claim(most)
        if claimed is None:
            break
        first, count = claimed
        assert 1 <= count <= most
        for index in range(first, first + min(good, count)):
            counted += board.verify(index)
            assert board.verify(index) == 0
        board.give_back(first, count)
        assert counted == board.verified_bytes <= size
    assert board.complete
    assert counted == size
    assert board.claim(1) is None


def test_two_claims_never_overlap() -> None:
    board = Board(file_of(100))
    assert board.claim(3) == (0, 3)
    assert board.claim(3) == (3, 3)
    board.give_back(0, 3)
    assert board.claim(9) == (0, 3)


def test_a_run_ends_at_the_first_chunk_that_is_not_verified() -> None:
    board = Board(file_of(100))
    for index in (2, 3, 5):
        board.verify(index)
    assert board.run(2, 8) == 2
    assert board.run(5, 8) == 1
    assert board.run(0, 8) == 0
    assert board.missing == (0, 1, 4, 6, 7, 8, 9)
