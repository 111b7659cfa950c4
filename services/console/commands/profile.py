"""`williw profile`: a model's metadata, from its headers."""

from pathlib import Path

import anyio

from config import load
from config.settings import Settings
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from services.console.failures import EXIT_DONE
from services.console.options import Answer
from services.console.output import say_json
from services.console.wanted import model_named, request_for
from services.console.whole import Whole


def profile(
    model: str,
    /,
    *,
    batch_size: Whole = 1,
    sequence_length: Whole = 512,
    revision: str = "main",
    closed_form: bool = False,
    output: Answer = None,
) -> int:
    """Print the metadata of a model: what each tensor costs to compute and to hold.

    Weights are never read: of a directory the headers are, of a Hub model they are fetched.

    Example: williw profile ./model --sequence-length 2048 > metadata.json

    Parameters
    ----------
    model
        A directory with a checkpoint, or a Hub id.
    batch_size
        Batch that costs and memory are counted for.
    sequence_length
        Sequence length that costs and memory are counted for.
    revision
        Branch, tag or commit of the Hub.
    closed_form
        Do not count on the meta device, even where torch is installed.
    """
    found = profiled(
        model, revision, batch_size, sequence_length, load.load(), exact=not closed_form
    )
    say_json(found, pretty=not (output and output.json))
    return EXIT_DONE


def profiled(
    model: str,
    revision: str,
    batch_size: int,
    sequence_length: int,
    settings: Settings,
    *,
    exact: bool = True,
) -> ModelMetadata:
    """The metadata of a directory or Hub model; what cannot be profiled is a Permanent."""
    name = model_named(model)
    # The bounds of a request hold here too.
    request_for(name, revision=revision, batch_size=batch_size, sequence_length=sequence_length)
    from services.profiler import profile as profiling
    from services.profiler.counting import Counter

    counter = None
    if exact and settings.profiler.exact:
        cache = settings.origin_dir / "cache" / "flops"
        counter = Counter(cache, settings.profiler.count_timeout_s)
    try:
        if name.startswith("/"):
            node_id = NodeId(settings.node.node_id)
            return profiling.profile_directory(
                Path(name),
                batch_size=batch_size,
                sequence_length=sequence_length,
                node_id=node_id,
                counter=counter,
            )

        async def from_hub() -> ModelMetadata:
            return await profiling.profile_hub(
                name,
                revision,
                batch_size=batch_size,
                sequence_length=sequence_length,
                counter=counter,
            )

        return anyio.run(from_hub, backend="asyncio")
    finally:
        if counter is not None:
            counter.close()
