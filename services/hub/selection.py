"""Which files of a repository or directory make the model: one set of weights and its companions.

Safetensors are preferred; of several formats, precisions or copies of the same weights one is
taken.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from messages.parts import PART, missing_parts
from services.hub.failures import UnsafeName, UnusableModel

WeightFormat = Literal["safetensors", "pickle"]
INDEX = ".index.json"

_PLAIN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,199})?$")
_COMPANION = re.compile(
    r"\.(json|txt|model|tiktoken|jinja|py|vocab|merges|spm|bpe)$|^(LICEN[CS]E|NOTICE|USE_POLICY)[^/]*$"
)
_MODULE = re.compile(r"^(\d+_\w+|additional_chat_templates)/")
_NOT_WEIGHTS = re.compile(
    r"^(consolidated|adapter_model|optimizer|scheduler|training_args|rng_state)"
)
_LEFT_BY_TRAINING = re.compile(r"^(optimizer|scheduler|training_args|rng_state)")
_NOT_COMPANIONS = frozenset({"trainer_state.json", "all_results.json", "train_results.json"})
_SUFFIXES: dict[WeightFormat, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "pickle": (".bin", ".pth", ".pt"),
}
_STEMS = ("model", "pytorch_model")


@dataclass(frozen=True)
class File:
    """A file of a model; `sha256` is an LFS file's digest, `git_oid` the blob id of any other."""

    path: str
    size_bytes: int
    sha256: str = ""
    git_oid: str = ""


@dataclass(frozen=True)
class Choice:
    """What is needed of a model: its weights, all of one format, and the files beside them.

    `left_out` are further safetensors files beside the weights: other copies, or an adapter.
    """

    format: WeightFormat
    weights: tuple[File, ...]
    companions: tuple[File, ...]
    left_out: tuple[File, ...] = ()

    @property
    def files(self) -> tuple[File, ...]:
        """Everything, in the order of names."""
        return tuple(sorted((*self.weights, *self.companions), key=lambda file: file.path))

    @property
    def size_bytes(self) -> int:
        """The bytes of everything."""
        return sum(file.size_bytes for file in self.files)


def choose(model_name: str, files: Iterable[File]) -> Choice:
    """The files to use; UnsafeName and UnusableModel say why a model cannot be used."""
    listed = tuple(files)
    for file in listed:
        _checked(model_name, file.path)
    plain = [file for file in listed if _PLAIN.match(file.path)]
    for weight_format in ("safetensors", "pickle"):
        weights = _weights(model_name, plain, weight_format)
        if weights:
            return Choice(
                weight_format, weights, _companions(plain, weights), _left_out(plain, weights)
            )
    raise _unusable(model_name, [file.path for file in listed])


def _checked(model_name: str, path: str) -> None:
    steps = path.split("/")
    if "\\" in path or not path.isprintable() or any(s in ("", ".", "..") for s in steps):
        raise UnsafeName(
            model_name,
            f"a file is called {path[:200]!r}, which could leave the model's directory",
            advice="do not use this repository; report it to the Hub",
        )


def _weights(model_name: str, files: Sequence[File], kind: WeightFormat) -> tuple[File, ...]:
    """The best whole family of weight files at the top level.

    Files with names of their own choosing belong together when there is an index.
    """
    families: dict[str, list[File]] = {}
    for file in files:
        if "/" in file.path or not file.path.endswith(_SUFFIXES[kind]):
            continue
        if not _NOT_WEIGHTS.match(file.path):
            families.setdefault(_family(file.path), []).append(file)
    if not families:
        return ()
    ranked = sorted(families, key=lambda family: _rank(family, families[family]))
    indexed = any(file.path.endswith(f"{_SUFFIXES[kind][0]}{INDEX}") for file in files)
    if indexed and _stem(ranked[0]) not in _STEMS:
        chosen = [file for family in families.values() for file in family]
    else:
        whole = next((family for family in ranked if not _missing(families[family])), ranked[0])
        chosen = families[whole]
    missing = _missing(chosen)
    if missing:
        raise UnusableModel(
            model_name,
            f"of its weight files {', '.join(missing[:4])} are missing",
            advice="the upload is not finished or the copy not whole; ask for another revision",
        )
    return tuple(sorted(chosen, key=lambda file: file.path))


def _family(path: str) -> str:
    """`model-of-00003` for a part, so that a whole copy beside the parts is another family."""
    part = PART.match(path)
    return f"{part['stem']}-of-{part['n']}" if part else path.rpartition(".")[0]


def _stem(family: str) -> str:
    return family.partition("-of-")[0]


def _rank(family: str, files: Sequence[File]) -> tuple[int, bool, int, str]:
    """Known names before variants (`model.fp16`), one file before parts as loaders do, larger."""
    stem = _stem(family)
    known = _STEMS.index(stem) if stem in _STEMS else len(_STEMS)
    return known, stem != family, -sum(file.size_bytes for file in files), family


def _missing(files: Sequence[File]) -> list[str]:
    return missing_parts(file.path for file in files)


def _companions(files: Sequence[File], weights: Sequence[File]) -> tuple[File, ...]:
    """Configuration, tokenizer, templates, code, licence, and the index of the chosen weights."""
    indices = _indices(weights)
    chosen = []
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if folder and not _MODULE.match(file.path):
            continue
        if name.endswith(INDEX) and not indices.fullmatch(file.path):
            continue
        dense = folder and name.endswith(".safetensors")
        if (_COMPANION.search(name) and name not in _NOT_COMPANIONS) or dense:
            chosen.append(file)
    return tuple(chosen)


def _left_out(files: Sequence[File], weights: Sequence[File]) -> tuple[File, ...]:
    """Safetensors at the top level that are not the weights, nor what training leaves behind."""
    used = {file.path for file in weights}
    return tuple(
        file
        for file in sorted(files, key=lambda file: file.path)
        if "/" not in file.path
        and file.path.endswith(_SUFFIXES["safetensors"])
        and file.path not in used
        and not _LEFT_BY_TRAINING.match(file.path)
    )


def _indices(weights: Sequence[File]) -> re.Pattern[str]:
    """The names of an index of these files: parts have one, a whole file has none."""
    part = PART.match(weights[0].path)
    if part:
        return re.compile(re.escape(f"{part['stem']}{part['suffix']}{INDEX}"))
    suffix = re.escape(f".{weights[0].path.rpartition('.')[2]}{INDEX}")
    return re.compile(rf"[^/]+{suffix}" if len(weights) > 1 else r"(?!)")


def _unusable(model_name: str, paths: Sequence[str]) -> UnusableModel:
    names = " ".join(paths)
    if "adapter_model" in names:
        reason, advice = "holds an adapter, not a model", "ask for the model it was trained on"
    elif ".gguf" in names:
        reason = "holds GGUF weights only, which williw does not cut"
        advice = "ask for the repository it was converted from, which has safetensors"
    elif "consolidated" in names:
        reason = "holds its weights in their maker's own layout only (consolidated.*)"
        advice = "ask for the version in the Hugging Face layout, often named -hf"
    elif any("/" in path and path.endswith(".safetensors") for path in paths):
        reason = "has no weights at its top level: it is made of several models"
        advice = "williw splits one transformer; copy its folder and ask for that directory"
    else:
        held = sorted({f".{path.rpartition('.')[2]}" for path in paths if "." in path})[:8]
        reason = f"holds no safetensors weights (it has {' '.join(held) or 'nothing'})"
        advice = "ask for a model that has model.safetensors, or convert it with save_pretrained"
    return UnusableModel(model_name, reason, advice=advice)
