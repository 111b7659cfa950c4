"""`williw preview`: the plan for a model and some nodes, without a bus."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from config import load
from config.settings import Settings
from messages.metadata import ModelMetadata
from services.console.explaining import Case, draw, tell
from services.console.failures import EXIT_DONE, Usage
from services.console.files import read_json
from services.console.nodes_file import ids_given, nodes_added, read_nodes
from services.console.options import Answer
from services.console.output import say_json
from services.console.wishing import Wished


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the metadata comes from, beside a model's name."""

    metadata: Annotated[
        Path | None, Parameter(help="A metadata file, as `williw profile` prints it.")
    ] = None
    batch_size: Annotated[int, Parameter(help="For a model that is profiled here.")] = 1
    sequence_length: Annotated[int, Parameter(help="For a model that is profiled here.")] = 512
    revision: Annotated[str, Parameter(help="For a Hub model.")] = "main"


def preview(
    model: str = "",
    /,
    *,
    nodes: Path,
    explain: Annotated[bool, Parameter(negative="")] = False,
    picture: Path | None = None,
    add: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    source: Annotated[Source | None, Parameter(name="*")] = None,
    wished: Annotated[Wished | None, Parameter(name="*")] = None,
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
    explain
        Say why, in tables; with --json, under the key `explanation` of the plan.
    picture
        Write an SVG of blocks over nodes to this file.
    add
        A node to add, as JSON; with --explain, what it would bring.
    without
        A node to leave away; with --explain, what that would cost.
    """
    settings = load.load()
    case = Case(
        wishes=(wished or Wished()).wishes(),
        metadata=_metadata(model, source or Source(), settings),
        nodes=read_nodes(nodes),
        add=nodes_added(add),
        without=ids_given(without),
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


def _metadata(model: str, source: Source, settings: Settings) -> ModelMetadata:
    if bool(model) == bool(source.metadata):
        raise Usage("name either a model or --metadata FILE")
    if source.metadata is not None:
        return read_json(source.metadata, ModelMetadata)
    from services.console.commands.profile import profiled

    return profiled(model, source.revision, source.batch_size, source.sequence_length, settings)
