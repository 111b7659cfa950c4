"""Which files of a directory are the model's weights, and that none of them leads elsewhere."""

import re
from collections.abc import Container, Iterable
from pathlib import Path

from messages.parts import missing_parts
from services.checkpoint.failures import EscapingFile, NoWeights
from services.checkpoint.index import INDEX_NAME, PLAIN_NAME, read_index

SINGLE_NAME = "model.safetensors"
# Second copies of the same weights (Mistral's own layout) and things that are no model.
_SET_ASIDE = re.compile(r"^(consolidated|adapter_model|optimizer|training_args)")
_LEFT_BY_TRAINING = re.compile(r"^(optimizer|scheduler|training_args|rng_state)")


def weight_files(directory: Path) -> tuple[str | None, tuple[str, ...]]:
    """The index (None where there is none) and the safetensors files, by the order of loaders.

    `model.safetensors` alone if it is there; else the files of `model.safetensors.index.json`;
    else every safetensors file in name order. Raises NoWeights, also where a part `k-of-n` is not
    there, BadIndex, EscapingFile.
    """
    if not directory.is_dir():
        raise NoWeights(
            f"{directory} is not a directory",
            advice="name the directory that holds config.json and the *.safetensors files",
        )
    present = {entry.name for entry in directory.iterdir()}
    index = INDEX_NAME if INDEX_NAME in present else None
    named = read_index(contained(directory, index)).files if index else ()
    return choose_files(present, named, str(directory))


def choose_files(
    present: Iterable[str], indexed: Iterable[str], where: str
) -> tuple[str | None, tuple[str, ...]]:
    """The rule of `weight_files` for names alone: `indexed` are those that the index names."""
    present = set(present)
    if SINGLE_NAME in present:
        return None, (SINGLE_NAME,)
    if indexed := tuple(sorted(set(indexed))):
        missing = sorted(set(indexed) - present)
        if missing:
            raise _incomplete(
                where,
                f"{len(missing)} of the {len(indexed)} files that its index names, "
                f"the first being {missing[0]}",
            )
        return INDEX_NAME, indexed
    found = sorted(name for name in present if name.endswith(".safetensors"))
    found = [name for name in found if not _SET_ASIDE.match(name)] or found
    if not found:
        raise _no_weights(present, where)
    if missing := missing_parts(found):
        raise _incomplete(where, f"{', '.join(missing[:4])}, by the names of the others")
    return None, tuple(found)


def left_out(directory: Path, used: Container[str]) -> tuple[str, ...]:
    """Safetensors files of `directory` beside those in `used`: other copies, or an adapter."""
    names = sorted(entry.name for entry in directory.iterdir())
    return tuple(
        name
        for name in names
        if name.endswith(".safetensors") and name not in used and not _LEFT_BY_TRAINING.match(name)
    )


def contained(directory: Path, name: str) -> Path:
    """The path of file `name` of `directory`; EscapingFile where it leads outside.

    A symbolic link may lead within the directory, or from a snapshot of the Hub's cache to the
    blobs of the same repository.
    """
    if not PLAIN_NAME.search(name):
        raise EscapingFile(
            f"{name[:80]!r} is not the plain name of a file in {directory}",
            advice="the checkpoint is damaged or hostile; nothing of it was used",
        )
    root = directory.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    target = (root / name).resolve()
    if not any(target.is_relative_to(folder) for folder in allowed):
        raise EscapingFile(
            f"{name} in {directory} is a link to {target}, outside of it",
            advice="copy the file into the directory, or name the directory it is in",
        )
    return target


def _incomplete(where: str, what: str) -> NoWeights:
    return NoWeights(
        f"{where} lacks {what}", advice="download the model again; its files are not complete"
    )


def _no_weights(present: set[str], where: str) -> NoWeights:
    if any(name.endswith(".gguf") for name in present):
        return NoWeights(
            f"{where} holds GGUF files, whose tensors are repacked and renamed for llama.cpp",
            advice="use the safetensors repository that the GGUF files were made from",
        )
    if any(name.endswith((".bin", ".pth", ".pt", ".ckpt")) for name in present):
        return NoWeights(
            f"{where} holds weights only as Python pickles (.bin, .pth), which may run code",
            advice='ask again with "pickle": true to have them converted to safetensors once',
        )
    return NoWeights(
        f"{where} holds no *.safetensors file",
        advice="name a directory, or a Hub model, that has its weights as safetensors",
    )
