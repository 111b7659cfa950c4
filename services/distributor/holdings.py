"""What this node can serve, by digest: arriving, whole on disk, or laid out at an origin."""

from pathlib import Path

from messages.shards import StageFile, StageManifest
from messages.wire import decode
from services.checkpoint.shelf import OriginShelf, ShelvedStage
from services.distributor.content import ArrivingFile, Content, LaidOutFile, WholeFile
from services.distributor.store import Store


class Holdings:
    """Files by digest; each with its chunk size. `shelf` is an origin's, else None."""

    def __init__(self, store: Store, shelf: OriginShelf | None) -> None:
        self._store, self._shelf = store, shelf
        self._arriving: dict[str, ArrivingFile] = {}
        self._whole: dict[str, tuple[Content, int]] = {}
        self._seen: set[str] = set()
        self._read: set[str] = set()

    def arriving(self, files: dict[str, ArrivingFile]) -> None:
        """Serve what is verified of these files from now on."""
        self._arriving.update({file.board.file.digest: file for file in files.values()})

    def arrived(self, files: dict[str, ArrivingFile]) -> None:
        """These files arrive no longer; if their stage is whole, `read` has seen it."""
        for file in files.values():
            self._arriving.pop(file.board.file.digest, None)

    def read(self) -> None:
        """Look at the disk for what is new: whole stages, then what the origin's shelf has of late.

        A stage of a digest is what it was; one that is found gone has all of them read again.
        """
        for stage in self._store.stages(known=self._read):
            self._read.add(stage.sha256)
            for file in stage.manifest.files:
                whole = WholeFile(stage.directory / file.name, file.size_bytes)
                self._whole[file.digest] = whole, file.chunk_bytes
        if self._shelf is not None:
            self._seen &= (shelved_now := set(self._shelf))  # one may go, and come again
            for sha256 in shelved_now - self._seen:
                shelved = self._shelf.stage(sha256)
                if shelved is not None:
                    self._seen.add(sha256)
                    self._add(sha256, shelved, self._shelf)

    def find(self, digest: str) -> tuple[Content, int] | None:
        """The content and its chunk size; None where the node has none that is still there."""
        arriving = self._arriving.get(digest)
        if arriving is not None:
            return arriving, arriving.board.file.chunk_bytes
        found = self._whole.get(digest)
        if found is not None and isinstance(found[0], WholeFile) and not found[0].path.is_file():
            del self._whole[digest]
            self._seen.clear()
            self._read.clear()
            return None
        return found

    def _add(self, sha256: str, shelved: ShelvedStage, shelf: OriginShelf) -> None:
        manifest = shelf.manifest(sha256)
        if manifest is None:
            return
        cut: Path | None = shelf.files(sha256)
        by_name = {file.name: file for file in shelved.layout.files}
        for file in _files_of(manifest):
            content: Content = LaidOutFile(by_name[file.name], shelved.paths)
            if cut is not None:
                content = WholeFile(cut / file.name, file.size_bytes)
            self._whole.setdefault(file.digest, (content, file.chunk_bytes))


def _files_of(body: bytes) -> tuple[StageFile, ...]:
    return decode(body, StageManifest).files
