"""Whole numbers on the command line: a fraction is a mistake, and is not rounded."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)


Whole = Annotated[int, Parameter(converter=_whole)]
