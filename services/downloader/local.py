"""A model that is already a directory on this origin: used where it is, if settings allow it."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from services.hub.failures import ModelRefused
from services.hub.selection import Choice, File, choose


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
    found, folders = _entries(directory)
    for folder in folders:
        found += _entries(directory, f"{folder}/")[0]
    return tuple(found)


def _entries(directory: Path, below: str = "") -> tuple[list[File], list[str]]:
    """The files of one folder, and the folders in it that are no links, each in name order."""
    files, folders = list[File](), list[str]()
    entries = list[os.DirEntry[str]]()
    with suppress(OSError), os.scandir(f"{directory}/{below}") as found:
        entries = sorted(found, key=attrgetter("name"))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders += [] if entry.name.startswith(".") else [entry.name]
        # A link that leads nowhere, or in a circle, is no file.
        elif Path(entry).is_file() if entry.is_symlink() else entry.is_file():
            files.append(File(f"{below}{entry.name}", entry.stat().st_size))
    return files, folders


def check_contained(model_name: str, directory: Path, choice: Choice) -> None:
    """Escapes where a file leads out of `directory`, a path without links.

    The Hub's cache links to its own blobs. A file that is no link is where its folder is.
    """
    allowed = [directory]
    if directory.parent.name == "snapshots":
        allowed.append(directory.parent.parent / "blobs")

    def inside(path: Path) -> bool:
        target = path.resolve()
        return any(target.is_relative_to(folder) for folder in allowed)

    folders = {file.path.rpartition("/")[0] for file in choice.files}
    within = {folder for folder in folders if not folder or inside(directory / folder)}
    for file in choice.files:
        linked = os.path.islink(f"{directory}/{file.path}")  # noqa: PTH114  # a path costs more
        plain = not linked and file.path.rpartition("/")[0] in within
        if not plain and not inside(directory / file.path):
            raise Escapes(
                model_name,
                f"{file.path} is a link out of the directory",
                advice="copy the file into the directory",
            )


def _revision(directory: Path, files: Sequence[File]) -> str:
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(f"{directory}/{file.path}")  # noqa: PTH116  # as above
        changed_ns = status.st_mtime_ns
        digest.update(f"{file.path}\0{file.size_bytes}\0{changed_ns}\n".encode())
    return f"local-{digest.hexdigest()[:40]}"
