"""Commits as the Hub's client sends them: lines of JSON, each an operation."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from tests.loopback_hub.repos import Repo, StoredFile

LARGE_BYTES = 10 << 20


def commit_from(
    repo: Repo, operations: Sequence[Mapping[str, Any]], uploads: Mapping[str, bytes]
) -> str:
    """Add a commit with these operations to `repo`; returns its id."""
    files = dict(repo.head)
    for operation in operations:
        value = operation["value"]
        match operation["key"]:
            case "file":
                body = base64.b64decode(value["content"])
                files[value["path"]] = StoredFile(value["path"], body)
            case "lfsFile":
                files[value["path"]] = StoredFile(value["path"], uploads[value["oid"]])
            case "deletedFile":
                del files[value["path"]]
            case other:
                raise ValueError(f"an operation this Hub does not know: {other}")
    return repo.commit(files)
