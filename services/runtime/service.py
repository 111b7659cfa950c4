"""A service as data: a name and a table of routes; no registration, no inheritance."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from messages.base import Fact, Message
from messages.subjects import Api, Subject

M = TypeVar("M", bound=Message)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Background = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Route(Generic[M]):
    """One subject bound to one handler: one message in, facts out.

    `where` fixes tokens of the subject for this consumer (an origin hears only its own jobs);
    `slots` handlers run at once; `stage` names the work in progress and failures (the service's
    name by default); a `patient` route may be delivered any number of times (`NotYet`).
    `part` tells two routes of one service on one subject apart. What fails `at_node` is said as
    the node's `ShardFailed`, which the job's origin makes its `JobFailed`.
    """

    subject: Subject[M]
    handle: Callable[[M], Awaitable[Iterable[Fact]]]
    where: Mapping[str, str] = field(default_factory=dict)
    slots: int = 1
    stage: str = ""
    patient: bool = False
    part: str = ""
    at_node: bool = False

    @property
    def filter(self) -> str:
        """The subjects this route hears."""
        return self.subject.where(**self.where)


@dataclass(frozen=True)
class Endpoint(Generic[Q, A]):
    """A question answered at once; raising Permanent refuses it with its reason and advice."""

    api: Api[Q, A]
    answer: Callable[[Q], Awaitable[A]]


@dataclass(frozen=True)
class Service:
    """What runs under one name; `background` tasks live as long as the service does.

    `waits_for` are subjects that its handlers wait for: they are listened to from the start.
    """

    name: str
    routes: tuple[Route[Any], ...] = ()
    endpoints: tuple[Endpoint[Any, Any], ...] = ()
    background: tuple[Background, ...] = ()
    waits_for: tuple[Subject[Any], ...] = ()


class NotYet(Exception):
    """The answer of a patient route: hand the message back for `delay_s` seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"not before {delay_s:.1f} s")
        self.delay_s = delay_s
