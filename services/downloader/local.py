"""A model that is already a directory on this origin: used where it is, if settings allow it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.hub.failures import ModelRefused
from services.hub.selection import Choice, File, choose

_DEPTH = 2


class NotAllowed(ModelRefused):
    """The path is not below a directory from which this origin may take models."""


class NotThere(ModelRefused):
    """There is no such directory on this origin."""


class Escapes(ModelRefused):
    """A file of the directory is a link to somewhere else."""


@dataclass(frozen=True)
class Found:
    """A whole model on this disk: where, which revision, and the files that make it."""

    directory: Path
    revision: str
    choice: Choice


def open_local(model_name: str, roots: Sequence[str]) -> Found:
    """The model in the directory `model_name`; links are resolved before anything is compared.

    Its revision is `local-` and a digest of its files' names, sizes and modification times. Raises
    NotAllowed, NotThere, Escapes, UnusableModel.
    """
    directory = Path(model_name).resolve()
    if not any(directory.is_relative_to(Path(root).expanduser().resolve()) for root in roots):
        raise NotAllowed(
            model_name,
            "is not below a directory from which this origin takes models",
            advice="add its parent to local_roots in [downloader] (WILLIW_DOWNLOADER_LOCAL_ROOTS)"
            " on the origin",
        )
    if not directory.is_dir():
        raise NotThere(
            model_name,
            "is not a directory on this origin",
            advice="check the path, and which node is the origin (node_id of the request)",
        )
    choice = choose(model_name, listing(directory))
    check_contained(model_name, directory, choice)
    return Found(directory, _revision(directory, choice.files), choice)


def listing(directory: Path) -> tuple[File, ...]:
    """The files of a model's directory and of its folders, one level down."""
    found = []
    for folder, folders, names in os.walk(directory):
        here = Path(folder)
        depth = len(here.relative_to(directory).parts) + 1
        folders[:] = sorted(f for f in folders if depth < _DEPTH and not f.startswith("."))
        for name in sorted(names):
            path = here / name
            if path.is_file():
                found.append(File(path.relative_to(directory).as_posix(), path.stat().st_size))
    return tuple(found)


def check_contained(model_name: str, directory: Path, choice: Choice) -> None:
    """Escapes where a file leads out of the directory; the Hub's cache links to its own blobs."""
    allowed = [directory]
    if directory.parent.name == "snapshots":
        allowed.append(directory.parent.parent / "blobs")
    for file in choice.files:
        target = (directory / file.path).resolve()
        if not any(target.is_relative_to(folder) for folder in allowed):
            raise Escapes(
                model_name,
                f"{file.path} is a link out of the directory",
                advice="copy the file into the directory",
            )


def _revision(directory: Path, files: Sequence[File]) -> str:
    digest = hashlib.sha256()
    for file in files:
        changed_ns = (directory / file.path).stat().st_mtime_ns
        digest.update(f"{file.path}\0{file.size_bytes}\0{changed_ns}\n".encode())
    return f"local-{digest.hexdigest()[:40]}"
