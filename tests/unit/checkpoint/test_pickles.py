import os
import pickle
from pathlib import Path

import anyio
import pytest

from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.pickles import BadPickle, convert

torch = pytest.importorskip("torch")


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


async def test_pickles_become_safetensors_with_the_same_values(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shared = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    torch.save({"a": shared, "b": shared.t()}, tmp_path / "pytorch_model-1.bin")
    torch.save(
        {"c": torch.ones(4, dtype=torch.bfloat16), "a": shared}, tmp_path / "pytorch_model-2.bin"
    )
    await convert(
        [tmp_path / "pytorch_model-1.bin", tmp_path / "pytorch_model-2.bin"], tmp_path / "out"
    )
    found = open_checkpoint(tmp_path / "out")
    assert sorted(found.names) == ["a", "b", "c"]
    first = load_file(tmp_path / "out" / "model-00001-of-00002.safetensors")
    assert torch.equal(first["b"], shared.t())


async def test_a_pickle_with_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    weights, marker = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    weights.write_bytes(pickle.dumps({"a": Hostile(marker)}))
    with pytest.raises(BadPickle):
        await convert([weights], tmp_path / "out")
    assert not marker.exists()


async def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"nothing")
    with pytest.raises(BadPickle, match="cannot be converted"):
        await convert([tmp_path / "x.bin"], tmp_path / "out")


async def test_a_cancelled_conversion_leaves_no_child(tmp_path: Path) -> None:
    endless = tmp_path / "pytorch_model.bin"
    os.mkfifo(endless)
    async with anyio.create_task_group() as group:
        group.start_soon(convert, [endless], tmp_path / "out")
        with anyio.fail_after(60):
            while not (children := _children(endless)):  # noqa: ASYNC110  # another process appears
                await anyio.sleep(0.05)
        group.cancel_scope.cancel()
    assert children
    assert not _children(endless)


def _children(weights: Path) -> list[int]:
    """Processes that were given this file."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(weights) in words:
            found.append(int(process.name))
    return found
