"""The system as one table: each subject, the type it carries, who says it and who hears it.

Nothing else in williw builds or parses a subject. Facts are said once (`once` names the tokens
that may differ without making it another fact); commands may be said again and again.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from messages.api import (
    CancelAccepted,
    JobQuery,
    NodesAnswer,
    NodesQuery,
    PlanAnswer,
    PreviewRequest,
    ProcessRequest,
    ProfileAnswer,
    RequestAccepted,
    StatusAnswer,
)
from messages.base import Fact, Message
from messages.dead import DeadLetter
from messages.ids import is_id
from messages.jobs import (
    CancelJob,
    JobCancelled,
    JobCompleted,
    JobFailed,
    ModelRequest,
    ModelRequested,
)
from messages.models import MetadataReady, ModelDownloaded, ModelProfiled
from messages.plans import NodeAssigned, SplitPlanned
from messages.progress import Progress
from messages.shards import ShardDelivered, ShardFailed, ShardsReady

M = TypeVar("M", bound=Message)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
_TOKEN = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Subject(Generic[M]):
    """A pattern of NATS subjects and the one type (or union) that travels on it.

    `says` and `hears` name the services, which is also where their permissions come from. A second
    fact is refused by the server on any subject that differs in `varies` alone.
    """

    pattern: str
    types: tuple[type[M], ...]
    says: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    varies: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """The thing and its state: `model.requested`."""
        return ".".join(self.pattern.split(".")[1:3])

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The names of the tokens that a message fills in."""
        return tuple(_TOKEN.findall(self.pattern))

    def of(self, message: M) -> str:
        """The subject of this message; ValueError where one of its ids could not be a token."""
        return self._filled({token: _checked(getattr(message, token)) for token in self.tokens})

    def once(self, message: M) -> str:
        """The filter that may hold at most one message, which is this one."""
        fixed = (token for token in self.tokens if token not in self.varies)
        return self._filled({token: _checked(getattr(message, token)) for token in fixed})

    def where(self, **tokens: object) -> str:
        """The subject, or the filter with `*` for every token that is not given."""
        if not tokens.keys() <= set(self.tokens):
            unknown = sorted(tokens.keys() - set(self.tokens))
            raise ValueError(f"{self.pattern} has no token {', '.join(unknown)}")
        return self._filled({token: _checked(value) for token, value in tokens.items()})

    def _filled(self, given: dict[str, str]) -> str:
        return ".".join([given.get(token, "*") if token else word for word, token in self._words])

    @cached_property
    def _words(self) -> tuple[tuple[str, str], ...]:
        """Each word of the pattern, with the token that it is, if any."""
        words = self.pattern.split(".")
        return tuple((word, word[1:-1] if word.startswith("{") else "") for word in words)

    def matches(self, subject: str) -> bool:
        """Whether `subject` is one of this pattern's."""
        ours, theirs = self.pattern.split("."), subject.split(".")
        return len(ours) == len(theirs) and all(
            o == t or (o.startswith("{") and is_id(t)) for o, t in zip(ours, theirs, strict=True)
        )


def _checked(token: object) -> str:
    text = str(token)
    if not is_id(text):
        raise ValueError(f"{text[:80]!r} cannot be a token of a subject")
    return text


def _subject(
    pattern: str,
    *types: type[M],
    says: str = "",
    hears: str = "",
    varies: str = "",
) -> Subject[M]:
    return Subject(pattern, types, tuple(says.split()), tuple(hears.split()), tuple(varies.split()))


_JOB = "{origin}.{job_id}.{generation}"
_NODE = "{node_id}.{job_id}.{generation}"
_EVERY_STAGE = "requester downloader profiler uploader planner splitter distributor"

# fmt: off
MODEL_REQUEST    = _subject("williw.model.request", ModelRequest, says="anybody", hears="requester")
MODEL_REQUESTED  = _subject(f"williw.model.requested.{_JOB}", ModelRequested, says="requester", hears="requester downloader", varies="origin")
MODEL_DOWNLOADED = _subject(f"williw.model.downloaded.{_JOB}", ModelDownloaded, says="downloader", hears="profiler")
MODEL_PROFILED   = _subject(f"williw.model.profiled.{_JOB}", ModelProfiled, says="profiler", hears="uploader")
METADATA_READY   = _subject(f"williw.metadata.ready.{_JOB}", MetadataReady, says="uploader requester", hears="planner")
SPLIT_PLANNED    = _subject(f"williw.split.planned.{_JOB}", SplitPlanned, says="planner", hears="requester planner splitter")
NODE_ASSIGNED    = _subject(f"williw.node.assigned.{_NODE}", NodeAssigned, says="planner", hears="distributor")
SHARDS_READY     = _subject(f"williw.shards.ready.{_JOB}", ShardsReady, says="splitter", hears="distributor")
SHARD_DELIVERED: Subject[ShardDelivered | ShardFailed] = Subject(
    f"williw.shard.delivered.{_NODE}", (ShardDelivered, ShardFailed),
    says=("distributor",), hears=("distributor",))
JOB_ENDED: Subject[JobCompleted | JobFailed | JobCancelled] = Subject(
    f"williw.job.ended.{_JOB}", (JobCompleted, JobFailed, JobCancelled),
    says=tuple(_EVERY_STAGE.split()), hears=tuple(_EVERY_STAGE.split()))
JOB_CANCEL       = _subject("williw.job.cancel.{job_id}", CancelJob, says="anybody", hears="requester")
PROGRESS         = _subject("williw.progress.{stage}.{node_id}.{job_id}", Progress, says="downloader profiler splitter distributor", hears="anybody")
# fmt: on

FACTS: tuple[Subject[Any], ...] = (
    MODEL_REQUESTED,
    MODEL_DOWNLOADED,
    MODEL_PROFILED,
    METADATA_READY,
    SPLIT_PLANNED,
    NODE_ASSIGNED,
    SHARDS_READY,
    SHARD_DELIVERED,
    JOB_ENDED,
)
COMMANDS: tuple[Subject[Any], ...] = (MODEL_REQUEST, JOB_CANCEL)
DEAD_LETTERS = "williw.dead.>"


def dead_subject(service: str, job_id: str) -> str:
    """Where a service's dead letter of this job goes; a letter of no job says `none`."""
    return f"williw.dead.{_checked(service)}.{_checked(job_id or 'none')}"


@dataclass(frozen=True)
class Api(Generic[Q, A]):
    """A request-reply endpoint: `question` is answered by `answer`, or refused.

    `asked_by` are services that need it for answers of their own.
    """

    subject: str
    question: type[Q]
    answer: type[A]
    served_by: str = "requester"
    asked_by: tuple[str, ...] = ()


API_REQUEST = Api("williw.api.request", ModelRequest, RequestAccepted)
API_PROCESS = Api("williw.api.process", ProcessRequest, PlanAnswer)
API_PLAN = Api("williw.api.plan", JobQuery, PlanAnswer)
API_STATUS = Api("williw.api.status", JobQuery, StatusAnswer)
API_CANCEL = Api("williw.api.cancel", CancelJob, CancelAccepted)
API_NODES = Api("williw.api.nodes", NodesQuery, NodesAnswer)
API_PREVIEW = Api("williw.api.preview", PreviewRequest, PlanAnswer, served_by="planner")
API_PROFILE = Api(
    "williw.api.profile", ModelRequest, ProfileAnswer, served_by="profiler", asked_by=("planner",)
)
ENDPOINTS: tuple[Api[Any, Any], ...] = (
    API_REQUEST,
    API_PROCESS,
    API_PLAN,
    API_STATUS,
    API_CANCEL,
    API_NODES,
    API_PREVIEW,
    API_PROFILE,
)


def fact_subject(fact: Fact) -> Subject[Any]:
    """The one subject a fact of this type is said on."""
    for subject in FACTS:
        if type(fact) in subject.types:
            return subject
    raise TypeError(f"{type(fact).__name__} is bound to no subject")


def subject_matching(subject: str) -> Subject[Any] | None:
    """The fact or command whose pattern this subject has, if any."""
    found = _BY_NAME.get(".".join(subject.split(".")[1:3])) or PROGRESS
    return found if found.matches(subject) else None


_BY_NAME: dict[str, Subject[Any]] = {subject.name: subject for subject in (*FACTS, *COMMANDS)}
SAID_BY_TYPE: dict[type[Message], str] = {
    t: s.pattern for s in (*FACTS, *COMMANDS, PROGRESS) for t in s.types
} | {DeadLetter: DEAD_LETTERS}
