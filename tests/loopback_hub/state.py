"""The state of a loopback Hub: its repositories, its faults, and what it was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.loopback_hub.faults import Fault
from tests.loopback_hub.repos import Repo, files_of


@dataclass
class Seen:
    """A request: what it asked for, how it was answered, how much of a file went out so far."""

    method: str
    path: str
    range: str
    status: int
    body_bytes: int = 0


class HubError(Exception):
    """An answer that is an error in the Hub's own form."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


@dataclass
class HubState:
    """What a Hub holds and what it was asked; `url` is what HF_ENDPOINT should say.

    `write_token` may create and commit; `bytes_per_s` slows every file down. `requests` tells what
    was asked for, so that a test can say that nothing was downloaded again.
    """

    write_token: str = "hf_loopbackwritetoken"
    bytes_per_s: float = 0.0
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def add(
        self,
        repo_id: str,
        content: Path | Mapping[str, bytes | Path],
        *,
        gated: bool = False,
        private: bool = False,
        reader_token: str = "",
    ) -> str:
        """A repository with one more commit, of these files; returns the commit's id."""
        repo = self.repos.setdefault(repo_id, Repo(repo_id))
        repo.gated, repo.private, repo.reader_token = gated, private, reader_token
        return repo.commit(files_of(content))

    def fail(self, fault: Fault) -> None:
        """Make the next matching requests go wrong."""
        self.faults.append(fault)

    def asked(self, part: str = "") -> list[Seen]:
        """The requests so far whose "METHOD path" contains `part`."""
        return [seen for seen in tuple(self.requests) if part in f"{seen.method} {seen.path}"]

    @property
    def file_bytes(self) -> int:
        """The bytes of files sent so far."""
        return sum(seen.body_bytes for seen in tuple(self.requests))
