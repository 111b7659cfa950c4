"""The node's models directory: stages under their digests, and one link for each model.

<models>/<org>--<name>                     a link to the stage in use, swapped by one rename
<models>/.stages/<org>--<name>@<16 of sha> a whole stage, content-addressed
<models>/.stages/.manifests/<sha256>.json  what it must be; its time is that of its last use
<models>/.stages/.arriving/<sha256>/       a stage on its way; found again after a crash
<models>/.stages/.replaced/<sha256>/       what made place for it, for a moment
"""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from messages.documents import digest_of
from messages.shards import StageManifest
from messages.wire import Undecodable, decode
from services.checkpoint.chunks import digests_of_file

_STAGES = ".stages"
_MANIFEST = re.compile(r"^([0-9a-f]{64})\.json\Z")
FORGOTTEN_S = 7 * 86_400.0
"""What has been arriving for so long without a new byte is swept."""
Stamps = tuple[tuple[int, int, int], ...]
"""Inode, time of writing and time of change of each file of a stage, in the manifest's order."""


@dataclass(frozen=True)
class HeldStage:
    """A whole stage on this node."""

    sha256: str
    manifest: StageManifest
    directory: Path
    used_at: float

    @property
    def size_bytes(self) -> int:
        """Bytes of its files."""
        return self.manifest.size_bytes


class Store:
    """The stages below `models`."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self._stages = models / _STAGES
        self._manifests = self._stages / ".manifests"
        self._arriving = self._stages / ".arriving"
        self._replaced = self._stages / ".replaced"
        self._verified: dict[str, Stamps] = {}

    def link(self, manifest: StageManifest) -> Path:
        """The path under which engines find this model's stage."""
        return self.models / manifest.directory

    def place(self, sha256: str, manifest: StageManifest) -> Path:
        """Where this stage stands when it is whole."""
        return place_beside(self.link(manifest), sha256)

    def arriving(self, sha256: str) -> Path:
        """Where this stage lies until it is whole."""
        return self._arriving / sha256

    def holds(
        self, sha256: str, manifest: StageManifest, done: Callable[[int], None] = lambda size: None
    ) -> bool:
        """Whether the stage is here, whole, every chunk of it verified.

        The first time in this process it is read; later only where its files' times, sizes or
        inodes are no longer those that were verified. `done` hears the bytes of each chunk read.
        """
        place = self.place(sha256, manifest)
        stamps = _stamps(place, manifest)
        if stamps is None or not (self._manifests / f"{sha256}.json").is_file():
            return False
        if self._verified.get(sha256) == stamps:
            return True
        try:
            whole = all(
                digests_of_file(place / file.name, file.chunk_bytes, done=done) == file.chunks
                for file in manifest.files
            )
        except (OSError, EOFError):
            return False
        if whole:
            self._verified[sha256] = stamps
        return whole

    def take_back(self, sha256: str, manifest: StageManifest) -> bool:
        """Let a stage that is not whole arrive again, from what it has; whether there was one.

        Nobody finds it meanwhile. What arrived of it by another way stays, and has its place.
        """
        place, arriving = self.place(sha256, manifest), self.arriving(sha256)
        if not place.is_dir() or arriving.exists():
            return False
        self._arriving.mkdir(parents=True, exist_ok=True)
        place.rename(arriving)
        (self._manifests / f"{sha256}.json").unlink(missing_ok=True)
        return True

    def finish(self, sha256: str, body: bytes) -> Path:
        """Make an arrived stage visible: sync, rename, then swap the model's link; the link.

        `body` is the manifest as it came. Every step may be done again after a crash.
        """
        manifest = decode(body, StageManifest)
        if digest_of(body) != sha256:
            raise ValueError("the manifest is not that of this stage")
        place, arriving = self.place(sha256, manifest), self.arriving(sha256)
        if arriving.is_dir():
            for file in manifest.files:
                _sync(arriving / file.name)
            for folder in {(arriving / file.name).parent for file in manifest.files} | {arriving}:
                _sync(folder)
            self._set_aside(sha256, place)
            arriving.rename(place)
            _sync(place.parent)
            shutil.rmtree(self._replaced / sha256, ignore_errors=True)
            if (stamps := _stamps(place, manifest)) is not None:
                self._verified[sha256] = stamps
        self._manifests.mkdir(parents=True, exist_ok=True)
        _write(self._manifests / f"{sha256}.json", body)
        return self.use(sha256, manifest)

    def _set_aside(self, sha256: str, place: Path) -> None:
        """Make way by one rename: a crash never leaves a part of what stood there."""
        aside = self._replaced / sha256
        shutil.rmtree(aside, ignore_errors=True)
        if place.is_dir():
            self._replaced.mkdir(exist_ok=True)
            place.rename(aside)

    def discard(self, sha256: str) -> None:
        """Remove what arrived of a stage that nobody waits for any longer."""
        shutil.rmtree(self.arriving(sha256), ignore_errors=True)

    def use(self, sha256: str, manifest: StageManifest) -> Path:
        """Point the model's link at a stage that is here, and note that it was used.

        A link that points there already is left as it is: whoever made it has synced it, or died
        before, which `sweep` makes good.
        """
        link, place = self.link(manifest), self.place(sha256, manifest)
        os.utime(self._manifests / f"{sha256}.json")
        target = place.relative_to(link.parent)
        if _target(link) != target:
            self._swap(link, target)
        return link

    def _swap(self, link: Path, target: Path) -> None:
        if link.is_dir() and not link.is_symlink():
            raise FileExistsError(f"{link} is a directory that williw did not make")
        # Two stages of one model may become visible at once.
        temporary = link.with_name(f".{link.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.rename(link)
        _sync(link.parent)

    def stages(self, known: Collection[str] = ()) -> Iterator[HeldStage]:
        """Every whole stage but the `known` ones; what cannot be read is passed over."""
        if not self._manifests.is_dir():
            return
        for entry in sorted(self._manifests.iterdir()):
            found = _MANIFEST.match(entry.name)
            if not found or found[1] in known:
                continue
            try:
                manifest = decode(entry.read_bytes(), StageManifest)
                used_at = entry.stat().st_mtime
            except (OSError, Undecodable):
                continue
            place = self.place(found[1], manifest)
            if place.is_dir():
                yield HeldStage(found[1], manifest, place, used_at)

    def in_use(self) -> set[Path]:
        """The stages that a model's link points at."""
        if not self.models.is_dir():
            return set()
        links = (entry for entry in self.models.iterdir() if entry.is_symlink())
        return {entry.resolve() for entry in links}

    def remove(self, stage: HeldStage) -> None:
        """Take a whole stage away: first what says that it is whole, then its files."""
        (self._manifests / f"{stage.sha256}.json").unlink(missing_ok=True)
        shutil.rmtree(stage.directory)

    def sweep(self) -> None:
        """Remove what a crash left: arrivals nobody resumed for a week, stages without manifest.

        A link that was renamed and not yet synced is synced now.
        """
        if self.models.is_dir():
            _sync(self.models)
        if self._arriving.is_dir():
            for entry in self._arriving.iterdir():
                newest = max((p.stat().st_mtime for p in entry.rglob("*")), default=0.0)
                if time.time() - newest > FORGOTTEN_S:
                    shutil.rmtree(entry, ignore_errors=True)
        shutil.rmtree(self._replaced, ignore_errors=True)
        known = {stage.directory.name for stage in self.stages()}
        if self._stages.is_dir():
            for entry in self._stages.iterdir():
                if not entry.name.startswith(".") and entry.name not in known:
                    shutil.rmtree(entry, ignore_errors=True)

    def free_bytes(self) -> int:
        """Bytes free on the file system of the models directory."""
        self.models.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.models).free


def place_beside(link: Path, sha256: str) -> Path:
    """Where the stage of this name stands, whichever stage its model's `link` points at now."""
    return link.parent / _STAGES / f"{link.name}@{sha256[:16]}"


def _target(link: Path) -> Path | None:
    """Where the link points; None where it is none."""
    try:
        return link.readlink()
    except OSError:
        return None


def _stamps(place: Path, manifest: StageManifest) -> Stamps | None:
    """What changes when a file of the stage does; None where one is absent or of another length."""
    stamps = []
    for file in manifest.files:
        try:
            found = os.stat(f"{place}/{file.name}")  # noqa: PTH116  # a path costs as much again
        except OSError:
            return None
        if found.st_size != file.size_bytes:
            return None
        stamps.append((found.st_ino, found.st_mtime_ns, found.st_ctime_ns))
    return tuple(stamps)


def _write(path: Path, body: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(body)
    _sync(temporary)
    temporary.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
