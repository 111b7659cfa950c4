import pickle
from pathlib import Path

import pytest

from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.pickles import BadPickle, convert

torch = pytest.importorskip("torch")


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def test_pickles_become_safetensors_with_the_same_values(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shared = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    torch.save({"a": shared, "b": shared.t()}, tmp_path / "pytorch_model-1.bin")
    torch.save(
        {"c": torch.ones(4, dtype=torch.bfloat16), "a": shared}, tmp_path / "pytorch_model-2.bin"
    )
    convert([tmp_path / "pytorch_model-1.bin", tmp_path / "pytorch_model-2.bin"], tmp_path / "out")
    found = open_checkpoint(tmp_path / "out")
    assert sorted(found.names) == ["a", "b", "c"]
    first = load_file(tmp_path / "out" / "model-00001-of-00002.safetensors")
    assert torch.equal(first["b"], shared.t())


def test_a_pickle_with_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    weights, marker = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    weights.write_bytes(pickle.dumps({"a": Hostile(marker)}))
    with pytest.raises(BadPickle):
        convert([weights], tmp_path / "out")
    assert not marker.exists()


def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"nothing")
    with pytest.raises(BadPickle, match="cannot be converted"):
        convert([tmp_path / "x.bin"], tmp_path / "out")
