"""Faults planted in a forked service: it dies, stops or waits at an exact point of its work.

A point is `handling` (a message came, its handler has done nothing), `within` (its handler has told
of progress, or stored a document), `handled` (the work is done, nothing is said), `said` (a fact is
stored, the message not acknowledged) or `acknowledged`.
"""

import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from messages.base import Fact, Message
from messages.wire import encode
from services.runtime import factlog, progress, registry
from services.runtime.attendance import Attendance
from services.runtime.connection import BUS_TROUBLE
from services.runtime.documents import Documents
from services.runtime.factlog import FactLog

Fault = Mapping[str, Any]
POINTS = ("handling", "within", "handled", "said", "acknowledged")


def die(at: str, once: Path | None, job: str = "") -> Fault:
    """Kill itself with SIGKILL at a point; once where a file to remember that in is given."""
    return {"at": at, "do": "die", "once": str(once or ""), "job": job}


def stop(at: str, once: Path, job: str = "") -> Fault:
    """Stop the whole process, as SIGSTOP or a paused machine does, until it is continued."""
    return {"at": at, "do": "stop", "once": str(once), "job": job}


def hold(at: str, reached: Path, until: Path, job: str = "") -> Fault:
    """Wait at a point, touching `reached`, until the file `until` exists."""
    return {"at": at, "do": "hold", "once": str(reached), "until": str(until), "job": job}


def block(at: str, once: Path, for_s: float, job: str = "") -> Fault:
    """Do nothing else for so long: no lease is renewed, no ping answered."""
    return {"at": at, "do": "block", "once": str(once), "for_s": for_s, "job": job}


def tomorrow() -> Fault:
    """Write as a later version might: a field more in every message, and facts of a new kind."""
    return {"at": "start", "do": "tomorrow"}


def hasty() -> Fault:
    """Bear with a silent Hub for half a second instead of half a minute."""
    return {"at": "start", "do": "hasty"}


def clock(by_s: float) -> Fault:
    """A clock that is wrong by so much."""
    return {"at": "start", "do": "clock", "by_s": by_s}


def tamper(faults: Sequence[Fault]) -> None:
    """Plant these faults in this process."""
    for fault in faults:
        if fault["do"] == "clock":
            _set_clock(fault["by_s"])
        if fault["do"] == "hasty":
            _lose_patience()
        if fault["do"] == "tomorrow":
            _write_as_tomorrow()
    planted = [fault for fault in faults if fault["at"] != "start"]
    if planted:
        _plant(planted)
        _plant_within(planted)


def _set_clock(by_s: float) -> None:
    true = time.time
    true_ns = time.time_ns
    time.time = lambda: true() + by_s
    time.time_ns = lambda: true_ns() + int(by_s * 1e9)


def _lose_patience() -> None:
    from services.hub.transfer import Patience

    # A dataclass's defaults, in the order of its fields: tries, two waits, how long a silence.
    Patience.__init__.__defaults__ = (2, 0.05, 1.0, 0.5)


def _write_as_tomorrow() -> None:
    say = FactLog.say

    def encoded(message: object) -> bytes:
        fields = msgspec.json.decode(encode(message))
        for inner in (fields, fields.get("request"), fields.get("node")):
            if isinstance(inner, dict):
                inner["of_tomorrow"] = {"deep": [1, None]}
        return msgspec.json.encode(fields)

    async def said(self: FactLog, fact: Fact) -> Any:
        kind = type(fact).__name__.lower()
        subject = f"williw.model.dreamt-{kind}.{fact.origin}.{fact.job_id}.{fact.generation}"
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        with contextlib.suppress(*BUS_TROUBLE):  # said by the other copy already
            await self._js.publish(subject, b'{"type": "ModelDreamt"}', headers=headers)
        return await say(self, fact)

    factlog.encode = registry.encode = encoded  # type: ignore[attr-defined]
    setattr(FactLog, "say", said)  # noqa: B010


def _plant_within(faults: Sequence[Fault]) -> None:
    report, store, put = progress.report, Documents.store, Documents.put

    def reported(done: float, total: float, unit: Any = "bytes") -> None:
        report(done, total, unit)
        _strike_within(faults)

    async def stored(self: Documents, body: bytes, name: str) -> Any:
        kept = await store(self, body, name)
        _strike_within(faults)
        return kept

    async def was_put(self: Documents, body: bytes, name: str, *, among: int = 1) -> Any:
        kept = await put(self, body, name, among=among)
        _strike_within(faults)
        return kept

    progress.report = reported
    setattr(Documents, "store", stored)  # noqa: B010
    setattr(Documents, "put", was_put)  # noqa: B010


def _strike_within(faults: Sequence[Fault]) -> None:
    """In any thread of a handler; only death comes so suddenly."""
    gauge = progress.current.get()
    for fault in faults:
        named = gauge is not None and fault["job"] in ("", gauge.job_id)
        if fault["at"] == "within" and named and _first(fault["once"]):
            os.kill(os.getpid(), signal.SIGKILL)


def _plant(faults: Sequence[Fault]) -> None:
    handled, say, done = Attendance.handled, FactLog.say, Attendance.done

    async def tampered_handled(
        self: Attendance,
        handle: Callable[[Any], Awaitable[Iterable[Fact]]],
        message: Message,
        gauge: Any,
    ) -> Iterable[Fact]:
        job_id = str(getattr(message, "job_id", ""))

        async def around(given: Message) -> Iterable[Fact]:
            await _strike(faults, "handling", job_id)
            facts = tuple(await handle(given))
            await _strike(faults, "handled", job_id)
            return facts

        return await handled(self, around, message, gauge)

    async def tampered_say(self: FactLog, fact: Fact) -> Any:
        said = await say(self, fact)
        await _strike(faults, "said", fact.job_id)
        return said

    async def tampered_done(self: Attendance, outcome: str = "done") -> None:
        await done(self, outcome)
        await _strike(faults, "acknowledged", ".".join(self.msg.subject.split(".")[4:5]))

    setattr(Attendance, "handled", tampered_handled)  # noqa: B010  # mypy: a method is assigned
    setattr(FactLog, "say", tampered_say)  # noqa: B010
    setattr(Attendance, "done", tampered_done)  # noqa: B010


async def _strike(faults: Sequence[Fault], at: str, job_id: str) -> None:
    for fault in faults:
        named = fault["job"] in ("", job_id) or not job_id
        if fault["at"] != at or not named or not _first(fault["once"]):
            continue
        if fault["do"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault["do"] == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault["do"] == "block":
            time.sleep(fault["for_s"])  # noqa: ASYNC251
        if fault["do"] == "hold":
            while not Path(fault["until"]).exists():  # noqa: ASYNC110, ASYNC240
                await anyio.sleep(0.02)


def _first(once: str) -> bool:
    """Whether this is the first time in any process."""
    if not once:
        return True
    try:
        os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
