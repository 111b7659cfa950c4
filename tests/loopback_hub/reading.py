"""The Hub's reading side: what a repository holds, and its files."""

import re
from urllib.parse import unquote

from aiohttp import web

from tests.loopback_hub.bodies import send_file
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.repos import Repo, StoredFile
from tests.loopback_hub.state import HubError, HubState, Seen


def repo_of(hub: HubState, request: web.Request, found: re.Match[str]) -> Repo:
    """The repository asked for; a private one is hidden from whoever may not read it."""
    repo = hub.repos.get(found["repo"])
    if repo is None or (repo.private and not _may_read(hub, repo, request)):
        status = 404 if "Authorization" in request.headers else 401
        raise HubError(status, "RepoNotFound", "Repository not found")
    return repo


def commit_of(repo: Repo, revision: str) -> tuple[str, dict[str, StoredFile]]:
    """The commit that a quoted revision means, and its files."""
    commit = repo.resolve(unquote(revision))
    if commit is None:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
    return commit, repo.commits[commit]


def _may_read(hub: HubState, repo: Repo, request: web.Request) -> bool:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return token in {repo.reader_token, hub.write_token} - {""}


async def info(
    hub: HubState, request: web.Request, found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    repo = repo_of(hub, request, found)
    commit, files = commit_of(repo, found.groupdict().get("rev") or "main")
    blobs = request.query.get("blobs", "").lower() == "true"
    siblings = [_sibling(f) if blobs else {"rfilename": f.path} for f in files.values()]
    answer = {
        "id": repo.repo_id,
        "modelId": repo.repo_id,
        "sha": commit,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "siblings": siblings,
    }
    return web.json_response(answer)


async def tree(
    hub: HubState, request: web.Request, found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    _, files = commit_of(repo_of(hub, request, found), found["rev"])
    return web.json_response([_tree_entry(f) for f in files.values()])


async def file(
    hub: HubState, request: web.Request, found: re.Match[str], fault: Fault
) -> web.StreamResponse:
    repo = repo_of(hub, request, found)
    if repo.gated and not _may_read(hub, repo, request):
        raise HubError(403, "GatedRepo", f"Access to model {repo.repo_id} is restricted")
    commit, files = commit_of(repo, found["rev"])
    stored = files.get(unquote(found["file"]))
    if stored is None:
        raise HubError(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if stored.lfs:
        headers |= {"X-Linked-Size": str(stored.size_bytes), "X-Linked-ETag": f'"{stored.sha256}"'}
        # Another host than the Hub's own, like the real one's: no token may be sent there.
        elsewhere = hub.url.replace("127.0.0.1", "localhost")
        headers["Location"] = f"{elsewhere}/cdn/{stored.sha256}/{stored.path}"
        return web.Response(status=302, headers=headers)
    headers["ETag"] = f'"{stored.git_oid}"'
    return await _send(hub, request, stored, headers, fault)


async def cdn(
    hub: HubState, request: web.Request, found: re.Match[str], fault: Fault
) -> web.StreamResponse:
    if "Authorization" in request.headers:
        raise HubError(400, "", "a token was sent to another host than the Hub")
    every = (f for r in hub.repos.values() for c in r.commits.values() for f in c.values())
    stored = next((f for f in every if f.lfs and f.sha256 == found["oid"]), None)
    if stored is None:
        raise HubError(404, "", "no such object")
    headers = {"ETag": f'"{stored.sha256}"', "Accept-Ranges": "bytes"}
    return await _send(hub, request, stored, headers, fault)


async def _send(
    hub: HubState, request: web.Request, stored: StoredFile, headers: dict[str, str], fault: Fault
) -> web.StreamResponse:
    asked = request.headers.get("Range", "")
    seen = Seen(request.method, request.rel_url.raw_path, asked, 200)
    hub.requests.append(seen)
    return await send_file(request, stored, headers, fault, hub.bytes_per_s, seen)


def _sibling(file: StoredFile) -> dict[str, object]:
    entry: dict[str, object] = {
        "rfilename": file.path,
        "size": file.size_bytes,
        "blobId": file.git_oid,
    }
    if file.lfs:
        entry["lfs"] = {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return entry


def _tree_entry(file: StoredFile) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": file.path,
        "size": file.size_bytes,
        "oid": file.git_oid,
    }
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return entry
