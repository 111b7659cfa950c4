"""What `williw up` keeps in its home: the lock, pid files, the bus's URL."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.console.failures import Usage


class HomeInUse(Usage):
    """Another `williw up` runs on this home."""


class Home:
    """The folders `run/`, `logs/`, `nats/` and `nodes/` below one path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_dir(self) -> Path:
        """Pid files and the bus's URL, while `williw up` runs."""
        return self.path / "run"

    @property
    def nats_dir(self) -> Path:
        """The embedded server's files: the facts of all jobs."""
        return self.path / "nats"

    def log_file(self, name: str) -> Path:
        """Where a child's output goes."""
        return self.path / "logs" / f"{name}.log"

    def node_dir(self, node_id: str) -> Path:
        """What one local node keeps."""
        return self.path / "nodes" / node_id

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The home for this process alone; HomeInUse names the process that has it.

        The kernel gives the lock back however its holder ends, so a stale file never blocks.
        """
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            locked = (self.run_dir / "up.lock").open("a+")
        except OSError as error:
            raise Usage(
                f"{str(self.path)[:200]} cannot be a home: {error.strerror}",
                advice="name a directory to write in with --home",
            ) from None
        with locked as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise HomeInUse(
                    f"`williw up` runs on {self.path} already (process {lock.read().strip()})",
                    advice="stop that one, or give this one another --home",
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            self._forget()
            try:
                yield
            finally:
                self._forget()

    def write_pid(self, name: str, pid: int) -> None:
        """Say which process is `name` now; the file is whole at any moment."""
        self._write(f"{name}.pid", str(pid))

    def remove_pid(self, name: str) -> None:
        """Say that `name` does not run."""
        (self.run_dir / f"{name}.pid").unlink(missing_ok=True)

    def write_url(self, url: str) -> None:
        """Say where the bus is."""
        self._write("nats.url", url)

    def _write(self, name: str, text: str) -> None:
        making = self.run_dir / f".{name}.new"
        making.write_text(text + "\n")
        making.replace(self.run_dir / name)

    def _forget(self) -> None:
        for file in (*self.run_dir.glob("*.pid"), self.run_dir / "nats.url"):
            file.unlink(missing_ok=True)
