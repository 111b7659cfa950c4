"""What an origin can serve: each stage's manifest and layout under the stage's own digest.

    <root>/<sha256 of the manifest>/manifest.json   the very bytes that the digest is of
                                    layout.json     the layout, and where the model's files are
                                    files/          the stage itself, only where it was written
    <root>/cuts/<key>.json          the stages that a cut gave, so that the same again reads nothing

The time of a manifest.json is that of the stage's last use. The splitter writes it; a distributor
of the same machine reads it, in another process.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from blake3 import blake3

from messages.documents import digest_of
from messages.shards import StageManifest
from messages.wire import Undecodable, decode
from services.checkpoint.appearing import appear, sync_directory
from services.checkpoint.layout import StageLayout

_STAGE = re.compile(r"^[0-9a-f]{64}\Z")
_CUTS = "cuts"
Stamp = tuple[int, int, int, int]
"""Inode, size, time of writing and time of change of a layout.json."""
_DESCRIBED = 2
"""Raised whenever the same layouts are described otherwise than before: known cuts are then old."""


class ShelvedStage(msgspec.Struct, frozen=True, kw_only=True):
    """layout.json: the layout of a stage, and the path of each file it takes bytes from."""

    layout: StageLayout
    paths: dict[str, str]


class OriginShelf:
    """The stages below `root`; entries appear whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, body: bytes, stage: ShelvedStage, cut: Path | None = None) -> str:
        """Keep a stage under the digest of its manifest `body`, which is returned.

        `cut` is a directory made by `room_for_cutting` that holds the stage's files; it is taken.
        """
        sha256 = digest_of(body)
        final, temporary = self.root / sha256, self.room()
        _write(temporary / "manifest.json", body)
        _write(temporary / "layout.json", msgspec.json.encode(stage))
        files = cut if cut is not None else final / "files"
        if files.is_dir():
            files.rename(temporary / "files")
        sync_directory(temporary)
        appear(temporary, final)
        return sha256

    def room(self) -> Path:
        """A new directory on the shelf's file system, for this process to fill."""
        self.root.mkdir(parents=True, exist_ok=True)
        name = f".making-{os.getpid()}-{os.urandom(6).hex()}"
        place = self.root / name
        place.mkdir()
        return place

    def sweep(self) -> None:
        """Remove what processes that no longer live left half made."""
        for place in self.root.glob(".making-*"):
            pid = place.name.split("-")[1]
            if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
                shutil.rmtree(place, ignore_errors=True)

    def manifest(self, sha256: str) -> bytes | None:
        """The manifest's bytes, or None where the shelf has no such stage."""
        try:
            return (self._place(sha256) / "manifest.json").read_bytes()
        except OSError:
            return None

    def stage(self, sha256: str) -> ShelvedStage | None:
        """The stage's layout and paths, or None."""
        try:
            body = (self._place(sha256) / "layout.json").read_bytes()
            return decode(body, ShelvedStage)
        except (OSError, Undecodable):
            return None

    def stamp(self, sha256: str) -> Stamp | None:
        """What changes when the stage's layout does; None where it has none."""
        try:
            found = (self._place(sha256) / "layout.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def files(self, sha256: str) -> Path | None:
        """The directory of the stage's files where it was written, else None."""
        place = self._place(sha256) / "files"
        return place if place.is_dir() else None

    def use(self, sha256: str) -> bool:
        """Note that a stage is used now; whether it is here."""
        try:
            os.utime(self._place(sha256) / "manifest.json")
        except OSError:
            return False
        return True

    def used_at(self, sha256: str) -> float:
        """When a stage was used last, in Unix seconds; 0 where it is not here."""
        try:
            return (self._place(sha256) / "manifest.json").stat().st_mtime
        except OSError:
            return 0.0

    def size_bytes(self, sha256: str) -> int:
        """What a stage takes on the shelf's disk."""
        return sum(p.stat().st_size for p in self._place(sha256).rglob("*") if p.is_file())

    def remove(self, sha256: str) -> None:
        """Take a stage away: by one rename, then its files, then the cuts that gave it."""
        room = self.room()
        self._place(sha256).rename(room / sha256)
        shutil.rmtree(room)
        for cut in (self.root / _CUTS).glob("*.json"):
            if sha256 in (self._given_by(cut.stem) or {}).values():
                cut.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """The digests of all stages on the shelf."""
        if self.root.is_dir():
            yield from (entry.name for entry in self.root.iterdir() if _STAGE.match(entry.name))

    def recall(self, key: str) -> dict[str, str] | None:
        """The stage digest of each node that a cut with this key gave, if all are still here.

        They count as used now; whether they can be read is seen by whoever reads them.
        """
        stages = self._given_by(key)
        if stages is None:
            return None
        here = [self.use(sha256) and self.stamp(sha256) for sha256 in stages.values()]
        return stages if all(here) else None

    def remember(self, key: str, stages: Mapping[str, str]) -> None:
        """Keep what a cut with this key gave."""
        folder = self.root / _CUTS
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{key}-{os.getpid()}"
        temporary.write_bytes(msgspec.json.encode(dict(stages)))
        temporary.rename(folder / f"{key}.json")

    def _given_by(self, key: str) -> dict[str, str] | None:
        try:
            return decode((self.root / _CUTS / f"{key}.json").read_bytes(), dict[str, str])
        except (OSError, Undecodable):
            return None

    def _place(self, sha256: str) -> Path:
        if not _STAGE.match(sha256):
            raise ValueError("a stage is named by 64 hexadecimal digits")
        return self.root / sha256


def cut_key(layouts: Sequence[StageLayout], paths: Mapping[str, Path], materialize: str) -> str:
    """What a cut depends on: the layouts, and the identity, size and change time of each source.

    Two cuts of one key give the same digests, so the second need not read anything.
    """
    facts: list[object] = [_DESCRIBED, materialize, layouts]
    for name, path in sorted(paths.items()):
        status = path.stat()
        facts.append((name, str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return str(blake3(msgspec.json.encode(facts)).hexdigest())


def _write(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def manifest_of(body: bytes) -> StageManifest:
    """The manifest in these bytes; Undecodable where it is none."""
    return decode(body, StageManifest)
