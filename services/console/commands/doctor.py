"""`williw doctor`: what is wrong here, and how to mend it."""

import anyio
import msgspec

from messages.failures import Passing
from services.console.checks import Check, bus_checks
from services.console.failures import EXIT_BUS, EXIT_DONE, EXIT_FAILED, exit_code_of
from services.console.machine_checks import local_checks
from services.console.options import Asking, Reach
from services.console.output import say, say_json
from services.console.reaching import patient_no_longer, quiet, settings_of
from services.console.refusals import NotAllowed, opened


def doctor(*, reach: Asking = None) -> int:
    """Check the bus, JetStream, what is provisioned, disk, Hub token and clock.

    Exit code 1 when something is wrong, 3 when the bus cannot be reached.

    Example: williw doctor --json
    """
    reach = reach or Reach()
    quiet()
    checks = anyio.run(_checks, reach, backend="asyncio")
    if reach.json:
        ok = all(check.outcome != "wrong" for check in checks)
        say_json({"type": "Doctor", "ok": ok, "checks": msgspec.to_builtins(checks)})
    else:
        for check in checks:
            say(f"{_MARKS[check.outcome]} {check.name:<12} {check.found}")
            if check.mend:
                say(f"{'':15}{check.mend}")
    wrong = {check.name for check in checks if check.outcome == "wrong"}
    return EXIT_BUS if "bus" in wrong else EXIT_FAILED if wrong else EXIT_DONE


_MARKS = {"ok": "✓", "warning": "!", "wrong": "✗"}


async def _checks(reach: Reach) -> list[Check]:
    settings = settings_of(reach)
    checks: list[Check] = []
    try:
        async with opened(patient_no_longer(settings), "williw-doctor") as bus:
            url = bus.client.connected_url
            where = f"{url.hostname}:{url.port}" if url else "connected"
            checks.append(Check(name="bus", outcome="ok", found=where))
            checks += await bus_checks(bus, settings)
    except NotAllowed as error:
        found = f"{error.reason}, so that it cannot be examined"
        checks.append(Check(name="permissions", outcome="warning", found=found, mend=error.advice))
    except Passing as error:
        if exit_code_of(error) != EXIT_BUS:
            raise
        mend = "start nats-server, or `williw up`; or set WILLIW_NATS_URL"
        checks.append(Check(name="bus", outcome="wrong", found=str(error), mend=mend))
    return [*checks, *await local_checks(settings)]
