"""The child process that reads pickles: `python -I pickle_child.py INTO FILE...`; nothing of ours.

Each file becomes one safetensors file; a tensor met before (tied or repeated) is left out.
"""

import json
import sys
from pathlib import Path
from typing import Any


def tensors_of(path: Path) -> dict[str, Any]:
    """The named tensors of one pickle; ValueError where it holds anything else."""
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError):  # files of before torch 1.6 cannot be mapped
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise ValueError(f"{path.name} holds a {type(loaded).__name__}, not tensors by name")
    found = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    if not found:
        raise ValueError(f"{path.name} holds no tensors")
    return found


def main(into: Path, paths: list[Path]) -> None:
    """Write `into`/*.safetensors and, for several files, their index."""
    from safetensors.torch import save_file

    where: dict[str, str] = {}
    for number, path in enumerate(paths, start=1):
        name = (
            "model.safetensors"
            if len(paths) == 1
            else f"model-{number:05d}-of-{len(paths):05d}.safetensors"
        )
        fresh = {k: v for k, v in tensors_of(path).items() if k not in where}
        where |= dict.fromkeys(fresh, name)
        save_file(
            {k: v.clone().contiguous() for k, v in fresh.items()}, into / name, {"format": "pt"}
        )
    if len(paths) > 1:
        index = {"metadata": {}, "weight_map": where}
        (into / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
