"""How a job is shown while it runs: live on a terminal, else line by line, or as JSON."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from messages.base import Fact
from messages.progress import Progress
from messages.state import Said
from services.console.output import note, say, say_json, size
from services.console.telling import (
    as_object,
    progress_as_object,
    progress_sentence,
    sentence,
)
from services.console.watch import STAGES, Watch, share_done, stage_seconds

_PROGRESS_EVERY_S = 1.0


class View(Protocol):
    """What `up`, `request --wait` and `tap JOB` tell as it happens."""

    def note(self, text: str) -> None:
        """Something about the machinery, not the job."""

    def fact(self, said: Said[Fact]) -> None:
        """A fact was said."""

    def progress(self, progress: Progress) -> None:
        """Some work has come further."""


class JsonView:
    """One JSON object a line; notes go to standard error."""

    def note(self, text: str) -> None:
        """Not part of the answer."""
        note(text)

    def fact(self, said: Said[Fact]) -> None:
        """The fact as an object."""
        say_json(as_object(said))

    def progress(self, progress: Progress) -> None:
        """The progress as an object."""
        say_json(progress_as_object(progress, time.time()))


class LineView:
    """A line for each fact, and for progress now and then; times count from the first."""

    def __init__(self, began: float | None = None) -> None:
        self._began = began
        self._shown: dict[tuple[str, str], float] = {}

    def note(self, text: str) -> None:
        """A line to standard error."""
        note(text)

    def fact(self, said: Said[Fact]) -> None:
        """The fact's sentence with the seconds since the beginning."""
        at = said.at or time.time()
        self._began = at if self._began is None else self._began
        say(f"{at - self._began:7.2f} s  {sentence(said.fact)}")

    def progress(self, progress: Progress) -> None:
        """A line, at most one a second for each stage and node."""
        key, now = (progress.stage, str(progress.node_id)), time.monotonic()
        if now - self._shown.get(key, 0.0) >= _PROGRESS_EVERY_S:
            self._shown[key] = now
            say(f"           {progress_sentence(progress)}")


class LiveView(LineView):
    """The stages and nodes of a job as a table that is drawn again in place."""

    def __init__(self, watch: Watch, live: Any) -> None:
        super().__init__()
        self._watch, self._live = watch, live

    def note(self, text: str) -> None:
        """A line above the table."""
        self._live.console.print(text, style="yellow", markup=False)

    def fact(self, said: Said[Fact]) -> None:
        """The table, further on."""
        self._live.update(drawn(self._watch), refresh=True)

    def progress(self, progress: Progress) -> None:
        """The table, a little further on."""
        self._live.update(drawn(self._watch))


@contextmanager
def shown(watch: Watch, *, as_json: bool, began: float | None = None) -> Iterator[View]:
    """The view that fits: JSON if asked for, a live table on a terminal, else lines."""
    if as_json:
        yield JsonView()
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        yield LineView(began)
        return
    from rich.live import Live

    with Live(drawn(watch), console=console, refresh_per_second=8) as live:
        yield LiveView(watch, live)


def drawn(watch: Watch) -> Any:
    """The job as a rich table: one row for each stage, and one for each node while it receives."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    state = watch.state
    seconds = stage_seconds(state.at) if state else {}
    for name, _, end in STAGES:
        done = state is not None and end in state.at
        mark = "[green]✓[/]" if done else "[dim]·[/]"
        running = [p for (stage, _), p in sorted(watch.progress.items()) if stage == name]
        took = f"{seconds[name]:.2f} s" if name in seconds else ""
        if done or not running:
            grid.add_row(mark, name, "", took)
        for progress in () if done else running:
            bar = ProgressBar(total=1.0, completed=share_done(progress), width=30)
            figure = size(progress.done) if progress.unit == "bytes" else f"{progress.done:g}"
            grid.add_row("[cyan]▸[/]", f"{name} {progress.node_id}", bar, figure)
    for fact in watch.deliveries():
        grid.add_row("[green]✓[/]", f"  {fact.node_id}", size(fact.size_bytes), fact.stage_dir)
    return grid
