"""`williw nodes` and `williw node prune`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.settings import Settings
from messages.failures import Passing, Permanent
from messages.nodes import NodeEntry
from services.console.failures import EXIT_DONE, Usage
from services.console.options import Asking, Reach
from services.console.output import note, plain, say, say_json, size, table
from services.console.reaching import ask, settings_of
from services.console.whole import Whole
from services.runtime.bus import Bus


def nodes(*, reach: Asking = None) -> int:
    """List the nodes that live now, as they announced themselves.

    Example: williw nodes
    """
    reach = reach or Reach()
    live = ask(reach, _live)
    if reach.json:
        say_json([_object(entry) for entry in live])
        return EXIT_DONE
    rows = [
        (
            entry.node.node_id,
            "origin" if entry.origin else "",
            f"{entry.node.compute_gflops:,.0f}",
            size(entry.node.memory_bytes),
            size(entry.disk_free_bytes),
            "" if entry.node.bandwidth_mbps is None else f"{entry.node.bandwidth_mbps:g}",
            entry.data_url,
        )
        for entry in live
    ]
    table(("node", "", "GFLOPS", "memory", "disk free", "Mbps", "serves at"), rows)
    return EXIT_DONE


async def _live(bus: Bus) -> tuple[NodeEntry, ...]:
    return await bus.registry.nodes()


def _object(entry: NodeEntry) -> dict[str, Any]:
    """An entry with its node's keys at the top, as a nodes file has them."""
    fields = plain(entry)
    return {**fields.pop("node"), **fields}


def prune(
    *,
    models: Path | None = None,
    quota_bytes: Whole = 0,
    reach: Asking = None,
) -> int:
    """Remove stages that nobody uses, the least recently used first.

    At a node those that no model's link points at; at an origin also what it keeps to serve them
    from, but for what a running job may ask for.

    Example: williw node prune --quota-bytes 50000000000

    Parameters
    ----------
    models
        The models directory; else the settings', and those of the nodes of `williw up`.
    quota_bytes
        Keep as much as this in each directory; 0 keeps only what is in use.
    """
    if quota_bytes < 0:
        raise Usage(f"--quota-bytes must be 0 or more, not {quota_bytes}")
    if models is not None and not models.is_dir():
        raise Usage(f"{models} is not a directory")
    from services.distributor.prune import prune as prune_models

    reach = reach or Reach()
    settings = settings_of(reach)
    folders = [models] if models else _model_folders(settings)
    taken: list[Any] = [one for folder in folders for one in prune_models(folder, quota_bytes)]
    if models is None:
        taken += _from_shelf(settings, reach, quota_bytes)
    if reach.json:
        say_json({"type": "Pruned", "stages": [_pruned(one) for one in taken]})
        return EXIT_DONE
    for one in taken:
        say(f"removed {one.directory}  {size(one.size_bytes)}")
    say(f"{len(taken)} stages removed, {size(sum(one.size_bytes for one in taken))}")
    return EXIT_DONE


def _from_shelf(settings: Settings, reach: Reach, quota_bytes: int) -> Sequence[Any]:
    """What an origin can do without; nothing where no bus says which jobs run."""
    from services.checkpoint.shelf import OriginShelf
    from services.checkpoint.shelf_prune import prune_shelf
    from services.console.in_use import in_use

    shelf = OriginShelf(settings.origin_dir / "stages")
    if not any(True for _ in shelf):
        return ()
    try:
        used = ask(reach, in_use)
    except (Passing, Permanent) as error:
        note(f"the origin's own stages are left, as no bus says which jobs run: {error}")
        return ()
    return prune_shelf(shelf, quota_bytes, keep=used.stages, since=used.since)


def _model_folders(settings: Settings) -> list[Path]:
    own = settings.models_dir
    local = sorted((settings.home / "nodes").glob("*/models"))
    return [folder for folder in (own, *local) if folder.is_dir()]


def _pruned(one: Any) -> dict[str, Any]:
    return {"model_name": one.model_name, "directory": str(one.directory), "bytes": one.size_bytes}
