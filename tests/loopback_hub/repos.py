"""What a loopback Hub holds: repositories, their commits, and files from memory or from disk."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".gguf", ".h5", ".onnx", ".msgpack")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """One file of a commit; large and binary ones are LFS objects, as on the Hub."""

    path: str
    body: bytes | Path

    @cached_property
    def size_bytes(self) -> int:
        return len(self.body) if isinstance(self.body, bytes) else self.body.stat().st_size

    @property
    def lfs(self) -> bool:
        return self.path.endswith(LFS_SUFFIXES) or self.size_bytes > 10 << 20

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self.size_bytes, _PIECE_BYTES):
            digest.update(self.read(start, min(start + _PIECE_BYTES, self.size_bytes)))
        return digest.hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """The id of the git blob, which for an LFS file is its pointer's."""
        body = self._pointer if self.lfs else self.read(0, self.size_bytes)
        return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()

    @property
    def _pointer(self) -> bytes:
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size_bytes}\n"
        ).encode()

    def read(self, start: int, end: int) -> bytes:
        if isinstance(self.body, bytes):
            return self.body[start:end]
        with self.body.open("rb") as source:
            source.seek(start)
            return source.read(end - start)


@dataclass
class Repo:
    """A repository and its history; `gated` and `private` ones are closed to other tokens."""

    repo_id: str
    gated: bool = False
    private: bool = False
    reader_token: str = ""
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, StoredFile], branch: str = "main") -> str:
        """A new commit that holds `files` and nothing else; returns its id."""
        text = "\n".join(f"{f.path} {f.git_oid}" for f in files.values())
        parent = self.refs.get(branch, "")
        body = f"{self.repo_id} {parent} {len(self.commits)}\n{text}".encode()
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        self.commits[oid] = dict(files)
        self.refs[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch or a commit id means."""
        if revision in self.commits:
            return revision
        return self.refs.get(revision)

    @property
    def head(self) -> dict[str, StoredFile]:
        """The files at the newest commit of `main`."""
        return self.commits[self.refs["main"]]


def files_of(content: Path | Mapping[str, bytes | Path]) -> dict[str, StoredFile]:
    """The files of a directory, or of a mapping of names to bodies."""
    if isinstance(content, Path):
        found = {
            str(path.relative_to(content)): path
            for path in sorted(content.rglob("*"))
            if path.is_file()
        }
        return {name: StoredFile(name, path) for name, path in found.items()}
    return {name: StoredFile(name, body) for name, body in content.items()}
