"""What a plan is wished to be like, from words on the command line."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from messages.ids import NodeId, is_id
from messages.wishes import Objective, Pin, Relay, Strategy, Wishes
from services.console.failures import Usage
from services.console.output import plain


@dataclass(frozen=True, kw_only=True)
class Wished:
    """The options that say how to plan."""

    strategy: Annotated[
        Strategy | None,
        Parameter(help="pipeline, greedy or balanced; the settings' by default."),
    ] = None
    headroom: Annotated[
        float | None,
        Parameter(help="Share of each node's memory that the plan leaves free (the settings')."),
    ] = None
    replicas: Annotated[
        str, Parameter(help="How many whole copies; auto takes the best number.")
    ] = "auto"
    objective: Annotated[
        Objective, Parameter(help="What is made small: the slowest stage, or the way through all.")
    ] = "throughput"
    relay: Annotated[
        Relay | None,
        Parameter(help="How parts travel: chain, star, or auto, the better (the settings')."),
    ] = None
    pin: Annotated[
        tuple[str, ...], Parameter(help="NODE:FIRST-LAST, blocks that this node must have.")
    ] = ()
    require: Annotated[tuple[str, ...], Parameter(help="A node that must take part.")] = ()
    exclude: Annotated[tuple[str, ...], Parameter(help="A node that must not.")] = ()
    order: Annotated[str, Parameter(help="Node ids with commas: the only order allowed.")] = ""

    def wishes(self) -> Wishes:
        """These options checked as a request's reader checks them; Usage says what is wrong."""
        fields: dict[str, Any] = {
            "strategy": self.strategy,
            "headroom": self.headroom,
            "replicas": _replicas(self.replicas),
            "objective": self.objective,
            "pins": [_pin(text) for text in self.pin],
            "require": self.require,
            "exclude": self.exclude,
            "order": [part.strip() for part in self.order.split(",") if part.strip()],
        }
        if self.relay:  # one that is not wished for is not there at all
            fields["relay"] = self.relay
        try:
            return msgspec.convert(fields, Wishes)
        except msgspec.ValidationError as error:
            raise Usage(f"cannot plan so: {error}") from None


def _replicas(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise Usage(f"--replicas must be auto or a number from 1 on, not {text[:40]!r}")
    return int(text)


def _pin(text: str) -> dict[str, Any]:
    """The pin in `node:first-last`, blocks counted from 0, `last` included."""
    node_id, _, blocks = text.rpartition(":")
    first, _, last = blocks.partition("-")
    if not (is_id(node_id) and first.isdecimal() and (last or first).isdecimal()):
        raise Usage(f"--pin must be NODE:FIRST-LAST, not {text[:80]!r}")
    if int(last or first) < int(first):
        raise Usage(f"--pin {text[:80]} ends before it begins")
    pin = Pin(node_id=NodeId(node_id), start_block=int(first), end_block=int(last or first) + 1)
    return plain(pin)
