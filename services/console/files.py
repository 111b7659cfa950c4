"""JSON files that a command line names, read strictly."""

from pathlib import Path
from typing import TypeVar

from messages.failures import Permanent
from messages.wire import decode
from services.console.failures import Usage

T = TypeVar("T")


def read_json(file: Path, kind: type[T]) -> T:
    """The value in a JSON file; Usage where it cannot be read or is no `kind`."""
    try:
        return decode(file.read_bytes(), kind)
    except OSError as error:
        raise Usage(f"{file}: {error.strerror}") from None
    except Permanent as error:
        raise Usage(f"{file}: {error.reason}", advice=error.advice) from None
