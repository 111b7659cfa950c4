"""What this machine has to share among local nodes."""

import os
import shutil
from pathlib import Path

from messages.nodes import Node
from services.console.household import local_nodes

MOST_LOCAL_NODES = 64


def local_nodes_of_this_machine(count: int, home: Path) -> tuple[Node, ...]:
    """`count` unlike nodes out of this machine's memory and the disk that `home` lies on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    existing = next(p for p in (home, *home.parents) if p.exists())
    return local_nodes(count, memory_bytes, shutil.disk_usage(existing).total)
