"""`williw up`: a bus, all services and some nodes on this machine, and a model brought to them."""

import time
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from config import load
from messages.nodes import Node
from messages.wishes import Relay, Strategy
from services.console import capacity
from services.console.failures import Usage
from services.console.home import Home
from services.console.household import further_keys
from services.console.nodes_file import read_nodes
from services.console.order import Order
from services.console.output import note
from services.console.wanted import model_named
from services.console.whole import Whole

_NODES = 3


def up(
    model: str = "",
    /,
    *,
    nodes: Whole | None = None,
    nodes_file: Path | None = None,
    home: Path | None = None,
    strategy: Strategy | None = None,
    relay: Relay | None = None,
    batch_size: Whole = 1,
    sequence_length: Whole = 512,
    exit_when_done: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Start a NATS server, every service and some local nodes; with MODEL, bring it to them.

    Example: williw up org/name --nodes 3 --exit-when-done

    Parameters
    ----------
    model
        A Hub id, or a directory with a checkpoint.
    nodes
        How many local nodes of different capacity (3).
    nodes_file
        JSON or TOML list of nodes to stand for, instead.
    home
        Where everything is kept; the same home again reuses what it holds.
    strategy
        How to split; the settings' by default.
    relay
        How the parts travel; the settings' by default.
    batch_size
        Batch that costs and memory are counted for.
    sequence_length
        Sequence length that costs and memory are counted for.
    exit_when_done
        Stop when the job has ended; exit code 1 unless it completed.
    json
        One JSON object a line; the last is the job's final state.
    """
    began = time.time()
    settings = load.load(overrides={"node": {"home": str(home.absolute())}} if home else None)
    place = Home(settings.home)
    if exit_when_done and not model:
        raise Usage("--exit-when-done needs a MODEL to be done with")
    from services.console.bringing import Upbringing

    order = Order(
        nodes=_chosen(nodes, nodes_file, place),
        model_name=model_named(model) if model else "",
        strategy=strategy,
        relay=relay,
        batch_size=batch_size,
        sequence_length=sequence_length,
        exit_when_done=exit_when_done,
        as_json=json,
        began=began,
    )
    order.check()
    with place.taken():
        return anyio.run(Upbringing(place, settings, order).run, backend="asyncio")


def _chosen(count: int | None, file: Path | None, home: Home) -> tuple[Node, ...]:
    if file is not None:
        if count is not None:
            raise Usage("--nodes and --nodes-file exclude each other")
        found = read_nodes(file)
        unused = sorted({key for node in found for key in further_keys(node)})
        if unused:
            note(f"the local nodes do not stand for {', '.join(unused)}; `williw preview` does")
        return found
    wanted = _NODES if count is None else count
    if not 1 <= wanted <= capacity.MOST_LOCAL_NODES:
        raise Usage(f"--nodes must be 1 to {capacity.MOST_LOCAL_NODES}, not {wanted}")
    return capacity.local_nodes_of_this_machine(wanted, home.path)
