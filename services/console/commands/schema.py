"""`williw schema`: the JSON Schema of everything that travels, and of the files."""

import difflib
from typing import Any

import msgspec

from config.settings import Settings
from messages.base import Message
from messages.dead import DeadLetter
from messages.documents import Document
from messages.metadata import ModelMetadata
from messages.nodes import Node, NodeEntry
from messages.plans import SplitPlan
from messages.shards import Access, StageManifest
from messages.state import JobState
from messages.subjects import COMMANDS, ENDPOINTS, FACTS, PROGRESS
from messages.wishes import Wishes
from services.console.failures import EXIT_DONE, Usage
from services.console.options import Answer
from services.console.output import say_json

_FILES: tuple[type[msgspec.Struct], ...] = (
    ModelMetadata,
    SplitPlan,
    StageManifest,
    Node,
    NodeEntry,
    Document,
    Access,
    JobState,
    Wishes,
    Settings,
)


def schema(name: str = "", /, *, output: Answer = None) -> int:
    """Print the JSON Schema of a message or file; without NAME, of all of them.

    Example: williw schema ModelRequest

    Parameters
    ----------
    name
        ModelRequest, SplitPlan, ModelMetadata, Node, Settings, ...
    """
    kinds = schema_kinds()
    if not name:
        say_json({kind: _schema(kinds[kind]) for kind in sorted(kinds)}, pretty=_pretty(output))
        return EXIT_DONE
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.4)
        meant = f"did you mean {near[0]}? " if near else ""
        raise Usage(f"nothing is named {name[:80]!r}", advice=f"{meant}known: {', '.join(kinds)}")
    say_json(_schema(kinds[name]), pretty=_pretty(output))
    return EXIT_DONE


def schema_kinds() -> dict[str, type[msgspec.Struct]]:
    """Every message of the subject table and the endpoints, and the files, by name."""
    messages: list[type[Message]] = [t for s in (*FACTS, *COMMANDS, PROGRESS) for t in s.types]
    messages += [kind for api in ENDPOINTS for kind in (api.question, api.answer)]
    kinds: tuple[type[msgspec.Struct], ...] = (*messages, DeadLetter, *_FILES)
    return {kind.__name__: kind for kind in kinds}


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        **msgspec.json.schema(kind),
    }


def _pretty(output: Answer) -> bool:
    return not (output and output.json)
