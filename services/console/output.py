"""Writing answers: JSON for programs, tables for people."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec


def say(text: str = "") -> None:
    """A line on standard output, there at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line on standard error, for what is no part of the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(value: object, *, pretty: bool = False) -> None:
    """One JSON value on standard output: on one line, or indented."""
    body = msgspec.json.encode(value)
    say((msgspec.json.format(body, indent=2) if pretty else body).decode())


def plain(value: object) -> dict[str, Any]:
    """A struct as the dict that its JSON is, `type` included."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return found


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table on standard output; numbers right-aligned, nothing cut off where nobody looks."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(made_table(columns, rows, title=title))


def made_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> Any:
    """The table as a rich renderable."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell), justify=_side(cell)) for cell in row))
    return made


def _side(cell: object) -> Any:
    return "right" if isinstance(cell, (int, float)) else "left"


def size(size_bytes: float) -> str:
    """Bytes for people: `91.6 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def clock(at: float) -> str:
    """Unix seconds as local date and time; a dash for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"
