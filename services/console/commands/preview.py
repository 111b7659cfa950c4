"""`williw preview`: the plan for a model and some nodes, without a bus."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from config import load
from config.settings import Settings
from messages.ids import NodeId, is_id
from messages.metadata import ModelMetadata
from messages.wishes import Objective, Pin, Relay, Strategy, Wishes
from services.console.explaining import Case, draw, tell
from services.console.failures import EXIT_DONE, Usage
from services.console.files import read_json
from services.console.nodes_file import ids_given, nodes_added, read_nodes
from services.console.options import Answer
from services.console.output import plain, say_json


def preview(
    model: str = "",
    /,
    *,
    nodes: Path,
    metadata: Path | None = None,
    strategy: Strategy | None = None,
    headroom: float | None = None,
    replicas: str = "auto",
    objective: Objective = "throughput",
    relay: Relay = "auto",
    explain: Annotated[bool, Parameter(negative="")] = False,
    picture: Path | None = None,
    add: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    pin: tuple[str, ...] = (),
    require: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    order: str = "",
    batch_size: int = 1,
    sequence_length: int = 512,
    revision: str = "main",
    output: Answer = None,
) -> int:
    """Print the plan as JSON, for a metadata file, a model's directory or a Hub model.

    Example: williw preview --metadata metadata.json --nodes nodes.json --explain

    Parameters
    ----------
    model
        A Hub id or a directory, profiled from its headers; or give --metadata.
    nodes
        JSON or TOML list of nodes.
    metadata
        A metadata file, as `williw profile` prints it.
    strategy
        pipeline, greedy or balanced; the settings' by default.
    headroom
        Share of each node's memory that the plan leaves free (the settings': 0.1).
    replicas
        How many whole copies; auto takes the best number.
    objective
        What is made small: the slowest stage, or the way through all.
    relay
        How parts travel: chain, star, or the better of them.
    explain
        Say why, in tables; with --json, under the key `explanation` of the plan.
    picture
        Write an SVG of blocks over nodes to this file.
    add
        A node to add, as JSON; with --explain, what it would bring.
    without
        A node to leave away; with --explain, what that would cost.
    pin
        NODE:FIRST-LAST, blocks that this node must have.
    require
        A node that must take part.
    exclude
        A node that must not.
    order
        Node ids with commas: the only order allowed.
    batch_size
        For a model that is profiled here.
    sequence_length
        For a model that is profiled here.
    revision
        For a Hub model.
    """
    settings = load.load()
    wishes = _wishes(
        strategy=strategy,
        headroom=headroom,
        replicas=_replicas(replicas),
        objective=objective,
        relay=relay,
        pins=[_pin(text) for text in pin],
        require=require,
        exclude=exclude,
        order=[part.strip() for part in order.split(",") if part.strip()],
    )
    case = Case(
        metadata=_metadata(model, metadata, revision, batch_size, sequence_length, settings),
        nodes=read_nodes(nodes),
        add=nodes_added(add),
        without=ids_given(without),
        wishes=wishes,
        settings=settings,
    )
    changed = case.changed_nodes()
    plan = case.plan(changed)
    draw(plan, picture)
    as_json = bool(output and output.json)
    if not explain:
        say_json(plan, pretty=not as_json)
        return EXIT_DONE
    explanation = case.explained(plan, changed, what_if=False)
    listed = case.compared(plan) if add or without else None
    tell(plan, explanation, listed, as_json=as_json)
    return EXIT_DONE


def _metadata(
    model: str,
    file: Path | None,
    revision: str,
    batch_size: int,
    sequence_length: int,
    settings: Settings,
) -> ModelMetadata:
    if bool(model) == bool(file):
        raise Usage("name either a model or --metadata FILE")
    if file is not None:
        return read_json(file, ModelMetadata)
    from services.console.commands.profile import profiled

    return profiled(model, revision, batch_size, sequence_length, settings)


def _wishes(**fields: Any) -> Wishes:
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
    pin = Pin(node_id=NodeId(node_id), start_block=int(first), end_block=int(last or first) + 1)
    return plain(pin)
