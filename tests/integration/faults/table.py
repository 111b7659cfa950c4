"""The table of faults, printed when the run ends."""

from collections.abc import Callable
from typing import Any

PROPERTY = "williw-fault"
Record = Callable[[str, object], None]


def row(record: Record, fault: str, ending: object, wall_s: float, note: str = "") -> None:
    """Note one line of the table: the fault, how the job ended, how long it took in all."""
    record(
        PROPERTY,
        (
            fault,
            ending.__name__ if isinstance(ending, type) else type(ending).__name__,
            f"{wall_s:.1f}",
            note,
        ),
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the rows of every test that ran, whichever worker it ran in."""
    reports = [r for group in terminalreporter.stats.values() for r in group]
    rows = [
        tuple(value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if not rows:
        return
    terminalreporter.section("faults: each job ended once, every fact said once")
    width = max(len(fault) for fault, *_ in rows)
    for fault, ending, wall_s, note in rows:
        terminalreporter.write_line(f"{fault:{width}}  {ending:12}  {wall_s:>6} s  {note}".rstrip())
