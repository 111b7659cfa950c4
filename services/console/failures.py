"""How errors leave the command line: a line or two on standard error, and an exit code."""

import sys

from config.load import BadSettings
from messages.failures import Passing, Permanent

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_BUS = 0, 1, 2, 3


class Usage(Permanent):
    """The command line, or a file it names, is not what the command needs."""


class BusMissing(Passing):
    """No bus answers where one was expected."""


def exit_code_of(error: Exception) -> int:
    """2 for what the user gave, 3 for a bus that cannot be reached, 1 for the rest."""
    if isinstance(error, (Usage, BadSettings)):
        return EXIT_USAGE
    # By name: importing the bus's room for it would cost each `williw preview` half a second.
    names = {kind.__name__ for kind in type(error).__mro__}
    return EXIT_BUS if names & {"BusUnreachable", "BusMissing"} else EXIT_FAILED


def first_known(error: BaseException) -> Permanent | Passing | None:
    """The error itself or, of a group, the first one in it that was written for people."""
    if isinstance(error, (Permanent, Passing)):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    known = (first_known(one) for one in inner)
    return next((one for one in known if one is not None), None)


def tell(error: Exception) -> None:
    """Write `error: reason` and the advice to standard error, secrets masked."""
    from config.logging import masked  # structlog with it: a fifth of a second for --help

    reason = masked(str(error)) or type(error).__name__
    advice = masked(error.advice) if isinstance(error, Permanent) else ""
    sys.stderr.write(f"error: {reason}\n" + (f"  {advice}\n" if advice else ""))
