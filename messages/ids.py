"""The identifiers and bounded numbers that messages are made of, checked where they are decoded.

An id becomes a token of a NATS subject, a key, a file name: one pattern guards every door. The
lookahead is there because `$` alone accepts a trailing newline.
"""

import re
from typing import Annotated, NewType

from msgspec import Meta

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$(?!\n)"

NodeId = NewType("NodeId", Annotated[str, Meta(pattern=ID_PATTERN)])
JobId = NewType("JobId", Annotated[str, Meta(pattern=ID_PATTERN)])
PlanId = NewType("PlanId", Annotated[str, Meta(pattern=ID_PATTERN)])

Sha256 = NewType("Sha256", Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")])

# JSON has no infinity, but 1e999 decodes to one: an upper bound is what refuses it.
_FINITE = 1e300
Finite = Annotated[float, Meta(ge=-_FINITE, le=_FINITE)]
NonNegative = Annotated[float, Meta(ge=0, le=_FINITE)]
Positive = Annotated[float, Meta(gt=0, le=_FINITE)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
PositiveCount = Annotated[int, Meta(ge=1, le=2**62)]
LAST_GENERATION = 2**31
Generation = Annotated[int, Meta(ge=1, le=LAST_GENERATION)]

_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Whether `text` may be a node, job or plan id, and so a subject token and a file name."""
    return _ID.search(text) is not None
