"""The options that commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a command answers."""

    json: Annotated[bool, Parameter(negative="", help="Answer in JSON.")] = False


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a command answers and which bus it asks."""

    json: Annotated[bool, Parameter(negative="", help="Answer in JSON.")] = False
    home: Annotated[
        Path | None, Parameter(help="Home of the `williw up` that is meant; else the settings'.")
    ] = None
    nats_url: Annotated[
        str, Parameter(help="The bus; else WILLIW_NATS_URL, else that of `williw up`.")
    ] = ""


Answer = Annotated[Output | None, Parameter(name="*")]
Asking = Annotated[Reach | None, Parameter(name="*")]
