"""What each user of the bus may say and hear, from the table of subjects and the routes. Pure.

An origin's services run on a machine that already holds the model; a node's distributor is trusted
with its own part and no more. A JetStream request may name any subject for its answer, so that a
reader could have the server publish what it put into a stream before, as a fact of somebody else's.
So people, who look and ask, have accounts of their own; a node's key reads facts as JSON by the
stream's leader, which is no fact, and what direct gets it may, holds nothing that it can write.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from messages.subjects import (
    API_NODES,
    API_PLAN,
    API_STATUS,
    COMMANDS,
    ENDPOINTS,
    FACTS,
    JOB_ENDED,
    MODEL_REQUESTED,
    PROGRESS,
    SHARD_DELIVERED,
    SHARDS_READY,
    SPLIT_PLANNED,
    Subject,
)
from services.runtime import names
from services.runtime.service import Service

_API = "$JS.API"
_DOCUMENTS = f"OBJ_{names.DOCUMENTS_BUCKET}"
_NODES = f"KV_{names.NODES_BUCKET}"
_GRANTS = f"KV_{names.GRANTS_BUCKET}"
# The newest fact of a subject; many facts, or whether there is one; how many there are, and when.
_LOOK = f"{_API}.STREAM.MSG.GET.{names.FACTS_STREAM}"
_SCAN = f"{_API}.DIRECT.GET.{names.FACTS_STREAM}"
_COUNT = f"{_API}.STREAM.INFO.{names.FACTS_STREAM}"
_DOCUMENT = (f"{_API}.DIRECT.GET.{_DOCUMENTS}", f"{_API}.DIRECT.GET.{_DOCUMENTS}.>")
_NODE_LIST = f"{_API}.DIRECT.GET.{_NODES}"
_READ_DOCUMENTS = {"requester", "planner", "splitter", "distributor"}
_WRITE_DOCUMENTS = {"requester", "profiler", "uploader", "planner", "splitter"}
_LIST_NODES = {"requester", "planner"}
# Who waits for a fact: a plain subscription tells that it is time to look. Every service listens
# for the ends of jobs.
_WAITS: dict[str, tuple[Subject[Any], ...]] = {
    "requester": (MODEL_REQUESTED, SPLIT_PLANNED),
    "planner": (SPLIT_PLANNED,),
    "distributor": (SHARDS_READY,),
}
# A command's connection is named for the command, not for its user; `client` is a program's.
_CONSOLES = ("williw-console", "williw-doctor")
# No previews: a Hub model's headers are read with the origin's token.
ASKING_ONLY = (API_STATUS, API_PLAN, API_NODES)


@dataclass(frozen=True)
class Permissions:
    """Subjects allowed, sorted; `answers` lets it reply once to whatever it is asked."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


OPERATOR = Permissions((">",), (">",))


def of_service(service: Service, node_id: str) -> Permissions:
    """Exactly what this service needs on this node."""
    publish = [*_read(service), *_said(service, node_id), *_kept(service.name, node_id)]
    publish.append(f"williw.dead.{service.name}.*")
    publish += [PROGRESS.where(node_id=node_id)] if service.name in PROGRESS.says else []
    for route in service.routes:
        consumer = f"{names.FACTS_STREAM}.{names.consumer_name(service.name, route)}"
        publish += [f"{_API}.CONSUMER.INFO.{consumer}", f"{_API}.CONSUMER.MSG.NEXT.{consumer}"]
        publish.append(f"$JS.ACK.{consumer}.>")
    subscribe = [inbox(f"{service.name}-{node_id}")]
    subscribe += [s.where() for s in (JOB_ENDED, *_WAITS.get(service.name, ()))]
    publish += [api.subject for api in ENDPOINTS if service.name in api.asked_by]
    if service.endpoints:
        subscribe += [endpoint.api.subject for endpoint in service.endpoints]
        name = f"williw-{service.name}"
        subscribe += ["$SRV.*", f"$SRV.*.{name}", f"$SRV.*.{name}.*"]
    return _sorted(publish, subscribe, answers=bool(service.endpoints))


def of_client() -> Permissions:
    """Asking for models, cancelling, looking: what the command line does besides provisioning."""
    publish = [*_reads_from_apart(), *(c.where() for c in COMMANDS)]
    publish += [endpoint.subject for endpoint in ENDPOINTS]
    return _sorted(publish, [*map(inbox, (*_CONSOLES, "client")), "williw.>"])


def of_tap() -> Permissions:
    """Looking and nothing else."""
    publish = [*_reads_from_apart(), *(api.subject for api in ASKING_ONLY)]
    return _sorted(publish, [*map(inbox, _CONSOLES), "williw.>"])


def least_user(subject: str, *, hearing: bool) -> str:
    """Who of the people's users may say (or hear) this subject: `tap`, `client`, else `operator`.

    A server tells of a refusal in lower case, so case does not count here.
    """
    for name, may in (("tap", of_tap()), ("client", of_client())):
        allowed = may.subscribe if hearing else may.publish
        if any(covers(pattern.lower(), subject.lower()) for pattern in allowed):
            return name
    return "operator"


def covers(pattern: str, subject: str) -> bool:
    """Whether all that `subject` matches, wildcards included, matches `pattern` too."""
    tokens, asked = pattern.split("."), subject.split(".")
    for place, token in enumerate(tokens):
        if token == ">":  # noqa: S105  # of a subject
            return place < len(asked)
        if place >= len(asked) or asked[place] == ">" or token not in ("*", asked[place]):
            return False
    return len(tokens) == len(asked)


def _reads_from_apart() -> tuple[str, ...]:
    """Facts, documents and nodes, which hold no secret: tokens are in the grants.

    Only direct gets: everything else of JetStream's is answered for the asker's own account.
    """
    return (_SCAN, f"{_SCAN}.>", *_DOCUMENT, _NODE_LIST)


def _read(service: Service) -> list[str]:
    """What a service reads: facts each of them, the stream's time who ends jobs by it."""
    ends_jobs = any(route.subject is SHARD_DELIVERED for route in service.routes)
    return [
        _LOOK,
        *([_SCAN] if ends_jobs or service.name != "distributor" else ()),
        *([_COUNT] if service.name == "requester" else ()),
        *(_DOCUMENT if service.name in _READ_DOCUMENTS else ()),
        *([_NODE_LIST] if service.name in _LIST_NODES else ()),
    ]


def heard_by_all() -> tuple[str, ...]:
    """Everything said about jobs, as it is said."""
    return (*names.FACTS_SUBJECTS, PROGRESS.where())


def inbox(connection_name: str) -> str:
    """Where the answers to a connection of this name come."""
    return f"_INBOX_{connection_name}.>"


def _said(service: Service, node_id: str) -> list[str]:
    """A distributor speaks for its node; a service that hears one origin speaks for that one."""
    said = [subject for subject in FACTS if service.name in subject.says]
    commands = list(COMMANDS) if service.name == "requester" else []
    own = {"node_id": node_id} if service.name == "distributor" else {}
    origins = {route.where["origin"] for route in service.routes if "origin" in route.where}
    if service.name == "distributor":
        # Whoever hears what was delivered ends the jobs of its own origin; a plain node ends none.
        hears = any(route.subject is SHARD_DELIVERED for route in service.routes)
        origins = {node_id} if hears else set()
        said = [subject for subject in said if hears or subject is not JOB_ENDED]
    own |= {"origin": min(origins)} if origins else {}
    return [
        _where(subject, {token: own[token] for token in subject.tokens if token in own})
        for subject in (*said, *commands)
    ]


def _where(subject: Subject[object], fixed: dict[str, str]) -> str:  # type: ignore[type-var]
    return subject.where(**fixed)


def _kept(service: str, node_id: str) -> list[str]:
    """Buckets: the registry, the grants, the documents."""
    found: list[str] = []
    if service in _WRITE_DOCUMENTS:
        # A document whose writing breaks off is purged by the library.
        verbs = ("STREAM.INFO", "STREAM.MSG.GET", "STREAM.PURGE")
        found += [f"{_API}.{verb}.{_DOCUMENTS}" for verb in verbs]
        found += [f"$O.{names.DOCUMENTS_BUCKET}.{kind}.*" for kind in ("C", "M")]
    if service == "distributor":
        above = f"$KV.{names.NODES_BUCKET}"
        found += [f"{_API}.STREAM.INFO.{_NODES}", f"{_API}.STREAM.MSG.GET.{_NODES}"]
        found.append(f"{above}.{node_id}")
    owner = {"distributor": node_id, "splitter": "*"}.get(service)
    if owner is not None:
        key = f"$KV.{names.GRANTS_BUCKET}.{owner}.*"
        # A direct get names the key in its subject, where it can be held to the node's own.
        mine = (f"STREAM.INFO.{_GRANTS}", f"DIRECT.GET.{_GRANTS}.{key}")
        reads = (f"STREAM.MSG.GET.{_GRANTS}",) if service == "splitter" else mine
        found += [f"{_API}.{read}" for read in reads]
        found += [key] if service == "splitter" else []
    return found


def _sorted(
    publish: Iterable[str], subscribe: Iterable[str], *, answers: bool = False
) -> Permissions:
    return Permissions(tuple(sorted(set(publish))), tuple(sorted(set(subscribe))), answers)
