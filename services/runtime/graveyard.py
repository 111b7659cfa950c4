"""The dead letters that are kept: listed, read, removed. Sending one again is a new command."""

from dataclasses import dataclass

from nats.aio.client import Client
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from messages.dead import DeadLetter
from messages.failures import Passing, Permanent
from messages.subjects import DEAD_LETTERS
from messages.wire import Undecodable, decode
from services.runtime import names
from services.runtime.connection import BUS_TROUBLE


class NoSuchLetter(Permanent):
    """No dead letter has this number."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"there is no dead letter {number}", advice="`williw dead list` lists those there are"
        )


class MessageGone(Permanent):
    """A letter's message was too large to be kept in it, and the stream holds it no longer."""

    def __init__(self, number: int, sequence: int) -> None:
        super().__init__(
            f"the message of dead letter {number} was kept at sequence {sequence} of the stream, "
            "which holds it no longer",
            advice=f"have it sent anew, and `williw dead drop {number}`",
        )


@dataclass(frozen=True)
class Buried:
    """A dead letter by its number, the sequence in its stream; None where it cannot be read."""

    number: int
    subject: str
    letter: DeadLetter | None


class Graveyard:
    """The stream of dead letters."""

    def __init__(self, client: Client) -> None:
        self._js = client.jetstream(timeout=5)

    async def letters(self) -> tuple[Buried, ...]:
        """Every letter that is kept, the oldest first."""
        found: list[Buried] = []
        number = 0
        while (raw := await self._get(number + 1, following=True)) is not None:
            number = raw.seq or 0
            found.append(_read(raw))
        return tuple(found)

    async def letter(self, number: int) -> Buried:
        """One letter; NoSuchLetter."""
        _checked(number)
        raw = await self._get(number, following=False)
        if raw is None:
            raise NoSuchLetter(number)
        return _read(raw)

    async def payload(self, one: Buried) -> bytes:
        """The bytes of a letter's message, from the stream where they outgrew it; MessageGone."""
        letter = one.letter
        if letter is None or letter.payload or not letter.stream_sequence:
            return b"" if letter is None else letter.payload
        try:
            raw = await self._js.get_msg(names.FACTS_STREAM, letter.stream_sequence, direct=True)
        except NotFoundError:
            raise MessageGone(one.number, letter.stream_sequence) from None
        except BUS_TROUBLE as error:
            raise Passing(f"dead letters not read: {type(error).__name__}") from error
        if raw.subject != letter.subject:
            raise MessageGone(one.number, letter.stream_sequence)
        return raw.data or b""

    async def drop(self, number: int) -> None:
        """Remove a letter for good; NoSuchLetter."""
        _checked(number)
        try:
            await self._js.delete_msg(names.DEAD_STREAM, number)
        except BUS_TROUBLE as error:
            if isinstance(error, NotFoundError) or getattr(error, "err_code", 0) in _ABSENT:
                raise NoSuchLetter(number) from None
            raise Passing(f"dead letter {number} not removed: {type(error).__name__}") from error

    async def _get(self, number: int, *, following: bool) -> RawStreamMsg | None:
        try:
            if following:
                return await self._js.get_msg(
                    names.DEAD_STREAM, number, subject=DEAD_LETTERS, next=True, direct=True
                )
            return await self._js.get_msg(names.DEAD_STREAM, number, direct=True)
        except NotFoundError:
            return None
        except BUS_TROUBLE as error:
            raise Passing(f"dead letters not read: {type(error).__name__}") from error


# Sequences count from 1, and the server reads them as unsigned numbers of 64 bits.
_LAST_NUMBER = 2**64 - 1
_ABSENT = (names.MESSAGE_NOT_FOUND, 10043, 10057)


def _checked(number: int) -> None:
    if not 1 <= number <= _LAST_NUMBER:
        raise NoSuchLetter(number)


def _read(raw: RawStreamMsg) -> Buried:
    try:
        letter = decode(raw.data or b"", DeadLetter)
    except Undecodable:
        letter = None
    return Buried(raw.seq or 0, raw.subject or "", letter)
