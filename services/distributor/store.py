"""The node's models directory: stages under their digests, and one link for each model.

<models>/<org>--<name>                     a link to the stage in use, swapped by one rename
<models>/.stages/<org>--<name>@<16 of sha> a whole stage, content-addressed
<models>/.stages/.manifests/<sha256>.json  what it must be; its time is that of its last use
<models>/.stages/.arriving/<sha256>/       a stage on its way; found again after a crash
"""

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from messages.documents import digest_of
from messages.shards import StageManifest
from messages.wire import Undecodable, decode

_STAGES = ".stages"
_MANIFEST = re.compile(r"^([0-9a-f]{64})\.json\Z")
FORGOTTEN_S = 7 * 86_400.0
"""What has been arriving for so long without a new byte is swept."""


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

    def link(self, manifest: StageManifest) -> Path:
        """The path under which engines find this model's stage."""
        return self.models / manifest.directory

    def place(self, sha256: str, manifest: StageManifest) -> Path:
        """Where this stage stands when it is whole."""
        return place_beside(self.link(manifest), sha256)

    def arriving(self, sha256: str) -> Path:
        """Where this stage lies until it is whole."""
        return self._arriving / sha256

    def holds(self, sha256: str, manifest: StageManifest) -> bool:
        """Whether the stage is here, whole: what was renamed into place was verified before."""
        place = self.place(sha256, manifest)
        return (self._manifests / f"{sha256}.json").is_file() and all(
            _size(place / file.name) == file.size_bytes for file in manifest.files
        )

    def finish(self, sha256: str, body: bytes) -> Path:
        """Make an arrived stage visible: sync, rename, then swap the model's link; the link.

        `body` is the manifest as it came. Every step may be done again after a crash.
        """
        manifest = decode(body, StageManifest)
        if digest_of(body) != sha256:
            raise ValueError("the manifest is not that of this stage")
        place, arriving = self.place(sha256, manifest), self.arriving(sha256)
        if arriving.is_dir():
            if place.is_dir():
                shutil.rmtree(place)
            for file in manifest.files:
                _sync(arriving / file.name)
            for folder in {(arriving / file.name).parent for file in manifest.files} | {arriving}:
                _sync(folder)
            arriving.rename(place)
            _sync(place.parent)
        self._manifests.mkdir(parents=True, exist_ok=True)
        _write(self._manifests / f"{sha256}.json", body)
        return self.use(sha256, manifest)

    def use(self, sha256: str, manifest: StageManifest) -> Path:
        """Point the model's link at a stage that is here, and note that it was used."""
        link, place = self.link(manifest), self.place(sha256, manifest)
        os.utime(self._manifests / f"{sha256}.json")
        if link.is_dir() and not link.is_symlink():
            raise FileExistsError(f"{link} is a directory that williw did not make")
        # Two stages of one model may become visible at once.
        temporary = link.with_name(f".{link.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(place.relative_to(link.parent))
        temporary.rename(link)
        _sync(link.parent)
        return link

    def stages(self) -> Iterator[HeldStage]:
        """Every whole stage; what cannot be read is passed over."""
        if not self._manifests.is_dir():
            return
        for entry in sorted(self._manifests.iterdir()):
            found = _MANIFEST.match(entry.name)
            if not found:
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
        """Remove what a crash left: arrivals nobody resumed for a week, stages without manifest."""
        if self._arriving.is_dir():
            for entry in self._arriving.iterdir():
                newest = max((p.stat().st_mtime for p in entry.rglob("*")), default=0.0)
                if time.time() - newest > FORGOTTEN_S:
                    shutil.rmtree(entry, ignore_errors=True)
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


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
