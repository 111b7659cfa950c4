"""`williw dead`: messages that a service gave up, listed, shown, sent again, removed."""

from collections.abc import Sequence
from typing import Annotated, Any

import anyio
import msgspec
from cyclopts import Parameter

from messages.base import Fact
from messages.failures import Permanent
from messages.jobs import CancelJob, ModelRequest
from messages.subjects import JOB_CANCEL, MODEL_REQUEST, subject_matching
from messages.wire import decode_any
from services.console.commands.ending import next_generation
from services.console.commands.jobs import known
from services.console.failures import EXIT_DONE, Usage
from services.console.options import Asking, Reach
from services.console.output import plain, say, say_json, table
from services.console.reaching import ask, reached
from services.console.wanted import new_job_id
from services.runtime.bus import Bus
from services.runtime.graveyard import Buried, Graveyard, MessageGone

All = Annotated[bool, Parameter(name="--all", negative="")]


def list_letters(*, reach: Asking = None) -> int:
    """List the dead letters, the oldest first.

    Example: williw dead list
    """
    reach = reach or Reach()
    letters = ask(reach, lambda bus: Graveyard(bus.client).letters())
    if reach.json:
        say_json([_object(one) for one in letters])
        return EXIT_DONE
    rows = [
        (one.number, one.letter.service, one.letter.subject, one.letter.attempts, one.letter.error)
        for one in letters
        if one.letter
    ]
    table(("number", "service", "subject", "attempts", "error"), rows)
    return EXIT_DONE


def show(number: int, /, *, reach: Asking = None) -> int:
    """Show one dead letter whole, its message included.

    Example: williw dead show 1

    Parameters
    ----------
    number
        As `williw dead list` numbers them.
    """
    told = ask(reach or Reach(), lambda bus: _whole(Graveyard(bus.client), number))
    say_json(told, pretty=not (reach and reach.json))
    return EXIT_DONE


async def _whole(graveyard: Graveyard, number: int) -> dict[str, Any]:
    one = await graveyard.letter(number)
    try:
        body = await graveyard.payload(one)
    except MessageGone as error:
        return {**_object(one), "message": None, "lost": error.reason}
    return {**_object(one), "message": _readable(body)}


def retry(*number: int, every: All = False, reach: Asking = None) -> int:
    """Send dead letters again: a fact's job goes on as a new generation, a command is repeated.

    Example: williw dead retry 1 2

    Parameters
    ----------
    number
        As `williw dead list` numbers them.
    every
        All there are.
    """
    return anyio.run(_each, number, every, reach or Reach(), True, backend="asyncio")


def drop(*number: int, every: All = False, reach: Asking = None) -> int:
    """Remove dead letters for good.

    Example: williw dead drop --all

    Parameters
    ----------
    number
        As `williw dead list` numbers them.
    every
        All there are.
    """
    return anyio.run(_each, number, every, reach or Reach(), False, backend="asyncio")


async def _each(numbers: Sequence[int], every: bool, reach: Reach, again: bool) -> int:
    if bool(numbers) == every:
        raise Usage("name letters by their numbers, or --all", advice="see `williw dead list`")
    async with reached(reach) as bus:
        graveyard = Graveyard(bus.client)
        named = dict.fromkeys(numbers)
        letters = await graveyard.letters() if every else [await graveyard.letter(n) for n in named]
        for one in letters:
            did = await _again(bus, one) if again else "removed"
            await graveyard.drop(one.number)
            if reach.json:
                say_json({"type": "DeadLetter", "number": one.number, "did": did})
            else:
                say(f"{one.number}: {did}")
    return EXIT_DONE


async def _again(bus: Bus, one: Buried) -> str:
    """Send the letter's message again; what was done, in words. Permanent where it is no use."""
    subject = subject_matching(one.letter.subject) if one.letter else None
    if one.letter is None or subject is None:
        raise Permanent(
            f"dead letter {one.number} holds no message of a subject that is known",
            advice=f"`williw dead drop {one.number}` removes it",
        )
    try:
        message = decode_any(await Graveyard(bus.client).payload(one), subject.types)
    except MessageGone:
        raise
    except Permanent as error:
        raise Permanent(
            f"dead letter {one.number} cannot be read by anybody: {error.reason}",
            advice=f"have it sent anew, and `williw dead drop {one.number}`",
        ) from None
    if isinstance(message, Fact):
        fact = await next_generation(bus, await known(bus, message.job_id))
        await bus.facts.say(fact)
        return f"{fact.job_id} goes on as generation {fact.generation}"
    if isinstance(message, ModelRequest):
        # Its own id may name a job that has failed over it, which nothing can start again.
        request = msgspec.structs.replace(message, job_id=new_job_id())
        await bus.send(request, MODEL_REQUEST)
        return f"requested as {request.job_id}"
    if isinstance(message, CancelJob):
        await bus.send(message, JOB_CANCEL)
    return "sent again"


def _object(one: Buried) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "DeadLetter", "number": one.number, "subject": one.subject}
    if one.letter is not None:
        told |= plain(one.letter)
        told.pop("payload", None)
    return told


def _readable(body: bytes) -> object:
    """The message as JSON where it is, else its text as far as it is one."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")
