"""A plan that was made, under all that it was made from: the same again needs no search."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from messages.models import MetadataReady
from messages.nodes import Node
from messages.plans import SplitPlan


class Made(NamedTuple):
    """A plan and its bytes."""

    plan: SplitPlan
    body: bytes


def key_of(ready: MetadataReady, nodes: Sequence[Node]) -> bytes:
    """A digest of what the plan of this metadata on these nodes depends on, beside the settings.

    Where the metadata lies is part of it: what is known was once read there.
    """
    asked = (
        ready.sha256,
        ready.repo,
        ready.file,
        ready.commit,
        ready.revision,
        ready.origin,
        ready.generation,
        ready.request.model_name,
        ready.request.policy,
        tuple(nodes),
    )
    return hashlib.sha256(msgspec.msgpack.encode(asked)).digest()
