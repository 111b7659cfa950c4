"""The Hub's own cache on this disk: what it holds is used where it lies."""

import re
from collections.abc import Sequence
from pathlib import Path

from services.hub.account import cache_directory
from services.hub.hub import Snapshot
from services.hub.selection import File

_SHA256 = re.compile(r"[0-9a-f]{64}")


def cached(model_name: str, commit: str) -> Snapshot | None:
    """What the Hub's own cache on this disk says of a commit, without asking the Hub.

    The library tells of LFS files there only their pointer's id, not their digest.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(model_name, revision=commit, cache_dir=cache_directory())
    except (CachedRepoTreeNotFoundError, OSError):
        return None
    files = (File(entry.path, entry.size, git_oid=entry.blob_id) for entry in tree)
    return Snapshot(model_name, commit, tuple(files))


def cached_directory(snapshot: Snapshot, files: Sequence[File]) -> Path | None:
    """The directory of the Hub's own cache, where it holds all of `files` at this commit.

    Its files are links to blobs that are named by their digests; a file counts when the blob has
    the right size and name (any digest's, where ours is not known).
    """
    from huggingface_hub.file_download import repo_folder_name

    repo = cache_directory() / repo_folder_name(repo_id=snapshot.model_name, repo_type="model")
    directory = repo / "snapshots" / snapshot.commit
    for file in files:
        blob = (directory / file.path).resolve()
        if not blob.is_file() or blob.stat().st_size != file.size_bytes:
            return None
        digest_unknown = not file.sha256 and _SHA256.fullmatch(blob.name)
        if blob.name not in (file.sha256, file.git_oid) and not digest_unknown:
            return None
    return directory


def snapshot_directory(model_name: str, commit: str) -> Path | None:
    """Where the Hub's own cache keeps a commit's files; None where there are none.

    What is there need not be all, nor right: whoever uses it verifies it.
    """
    if not cache_directory().is_dir():
        return None
    from huggingface_hub.file_download import repo_folder_name

    repo = cache_directory() / repo_folder_name(repo_id=model_name, repo_type="model")
    directory = repo / "snapshots" / commit
    return directory if directory.is_dir() else None
