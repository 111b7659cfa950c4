"""The stages of the origin's shelf as they can be served, and what was read of them before."""

from collections.abc import Iterable
from dataclasses import dataclass

from messages.documents import digest_of
from messages.ids import NodeId, PlanId
from messages.wire import Undecodable
from services.checkpoint.description import STAGE_NAME, without_files
from services.checkpoint.layout import Literal, StageLayout
from services.checkpoint.shelf import OriginShelf, Stamp, manifest_of
from services.runtime.remembered import Remembered


@dataclass(frozen=True)
class Made:
    """A stage that the origin can serve: its manifest as stored, and what is said of it.

    `digests` are those of its files; `description` is the stage's, as it travels.
    """

    body: bytes
    plan_id: PlanId
    node_id: NodeId
    stage: int
    size_bytes: int
    digests: tuple[str, ...]
    description: bytes


class Kept:
    """Reads stages off the shelf; one whose layout and manifest are as they were is known."""

    def __init__(self, shelf: OriginShelf) -> None:
        self._shelf = shelf
        self._known = Remembered[tuple[str, Stamp], Made]()

    def all_of(self, stages: Iterable[str]) -> tuple[Made, ...] | None:
        """The stages of these digests; None where one of them is gone or damaged."""
        made = [self.stage(sha256) for sha256 in stages]
        whole = tuple(one for one in made if one is not None)
        return whole if len(whole) == len(made) else None

    def stage(self, sha256: str) -> Made | None:
        """One stage, which counts as used now; None where it is gone or damaged."""
        stamp, body = self._shelf.stamp(sha256), self._shelf.manifest(sha256)
        if stamp is None or body is None or not self._shelf.use(sha256):
            return None
        known = self._known.get((sha256, stamp))
        if known is not None and known.body == body:
            return known
        made = self._read(sha256, body)
        if made is not None:
            size_bytes = len(made.body) + len(made.description)
            self._known.keep((sha256, stamp), made, size_bytes)
        return made

    def _read(self, sha256: str, body: bytes) -> Made | None:
        shelved = self._shelf.stage(sha256)
        if shelved is None or digest_of(body) != sha256:
            return None
        described = _description(shelved.layout)
        if described is None:
            return None
        try:
            manifest, description = manifest_of(body), without_files(described)
        except Undecodable:
            return None
        return Made(
            body=body,
            plan_id=manifest.plan_id,
            node_id=manifest.node_id,
            stage=manifest.stage,
            size_bytes=manifest.size_bytes,
            digests=tuple(file.digest for file in manifest.files),
            description=description,
        )


def _description(layout: StageLayout) -> bytes | None:
    """The stage's own description of itself, which is in no file of the model."""
    pieces = (piece for file in layout.files if file.name == STAGE_NAME for piece in file.pieces)
    return next((piece.data for piece in pieces if isinstance(piece, Literal)), None)
