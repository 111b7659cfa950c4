"""The Hub's writing side: repositories are made, files uploaded and committed."""

import json
import re

from aiohttp import web

from tests.loopback_hub.commits import LARGE_BYTES, commit_from
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.reading import commit_of, repo_of
from tests.loopback_hub.repos import Repo, files_of
from tests.loopback_hub.state import HubError, HubState


def writer_only(hub: HubState, request: web.Request) -> None:
    """HubError where the request does not come with the token that may write."""
    if request.headers.get("Authorization") != f"Bearer {hub.write_token}":
        raise HubError(401, "", "Invalid username or password.")


async def whoami(
    hub: HubState, request: web.Request, _found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    writer_only(hub, request)
    return web.json_response({"type": "user", "name": "loopback", "orgs": []})


async def create(
    hub: HubState, request: web.Request, _found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    writer_only(hub, request)
    asked = await request.json()
    repo_id = f"{asked.get('organization') or 'loopback'}/{asked['name']}"
    if repo_id in hub.repos:
        raise HubError(409, "", "You already created this model repo")
    private = asked.get("private") or asked.get("visibility") == "private"
    repo = hub.repos[repo_id] = Repo(repo_id, private=bool(private))
    repo.commit(files_of({".gitattributes": b"*.safetensors filter=lfs\n"}))
    return web.json_response({"url": f"{hub.url}/{repo_id}", "name": repo_id})


async def preupload(
    hub: HubState, request: web.Request, found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    writer_only(hub, request)
    _, files = commit_of(repo_of(hub, request, found), found["rev"])
    modes = []
    for asked in (await request.json())["files"]:
        there = files.get(asked["path"])
        mode = "lfs" if asked["size"] > LARGE_BYTES else "regular"
        oid = there.git_oid if there else None
        modes.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return web.json_response({"files": modes})


async def commit(
    hub: HubState, request: web.Request, found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    writer_only(hub, request)
    repo = repo_of(hub, request, found)
    lines = [json.loads(line) for line in (await request.read()).splitlines() if line.strip()]
    parent = lines[0]["value"].get("parentCommit")
    if parent and parent != repo.refs["main"]:
        raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
    oid = commit_from(repo, lines[1:], hub.uploads)
    url = f"{hub.url}/{repo.repo_id}/commit/{oid}"
    return web.json_response({"success": True, "commitOid": oid, "commitUrl": url})


async def lfs_batch(
    hub: HubState, request: web.Request, _found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    writer_only(hub, request)
    objects = [
        {
            "oid": asked["oid"],
            "size": asked["size"],
            "actions": {"upload": {"href": f"{hub.url}/lfs/{asked['oid']}"}},
        }
        for asked in (await request.json())["objects"]
    ]
    return web.json_response({"transfer": "basic", "objects": objects})


async def lfs_put(
    hub: HubState, request: web.Request, found: re.Match[str], _fault: Fault
) -> web.StreamResponse:
    hub.uploads[found["oid"]] = await request.read()
    return web.Response()
