"""`williw run`: services in this process, for systemd and Kubernetes."""

import importlib
from typing import Annotated

import anyio
import structlog
from cyclopts import Parameter

from config import load, logging
from services.console.failures import EXIT_BUS, Usage
from services.console.household import SERVICES
from services.console.options import Answer


def run(
    *service: str,
    provision: Annotated[bool, Parameter(negative="")] = False,
    output: Answer = None,
) -> int:
    """Run one or more services in this process until SIGTERM.

    Example: williw run downloader profiler uploader splitter distributor

    Parameters
    ----------
    service
        requester, downloader, profiler, uploader, planner, splitter, distributor.
    provision
        Create what they need on the bus first; else `williw provision` must have.
    """
    if not service:
        raise Usage("no service was named", advice=f"name some of: {', '.join(SERVICES)}")
    for name in service:
        if name not in SERVICES:
            raise Usage(f"{name[:80]!r} is no service", advice=f"known: {', '.join(SERVICES)}")
    named = tuple(dict.fromkeys(service))
    overrides = {"logging": {"format": "json"}} if output and output.json else None
    settings = load.load(overrides=overrides)
    together = "-".join(named)
    logging.setup(settings.logging, service=together)
    from services.console.refusals import check_key
    from services.runtime import actor
    from services.runtime.connection import BusUnreachable

    name = f"{together}-{settings.node.node_id}"
    builds = [importlib.import_module(f"services.{name}.service").build for name in named]

    async def serve() -> int:
        try:
            await check_key(settings, builds, name, provisions=provision)
        except BusUnreachable as error:
            structlog.get_logger().error("bus unreachable", error=str(error))
            return EXIT_BUS
        return await actor.run(settings, builds, provisioned=not provision, name=name)

    return anyio.run(serve, backend="asyncio")
