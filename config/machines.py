"""From a machine's name to a node's id. Pure."""

import hashlib
import re

from messages.ids import NodeId

_LONGEST = 64
_DIGEST = 8


def node_id_of(machine: str) -> NodeId:
    """The node id that stands for a machine's name, the same each time.

    Dots become `_`, which no host's and no Kubernetes node's name holds: `gpu-1.example.com` and
    `gpu-1-example.com` stay two nodes. A name of more than 64 characters, or with others than those
    of an id, keeps its beginning and gets eight hexadecimal digits of its SHA-256 instead of its
    end.
    """
    found = machine.replace(".", "_")
    legal = re.sub(r"[^A-Za-z0-9_-]", "_", found).lstrip("_-")
    if not legal or legal != found or len(legal) > _LONGEST:
        digest = hashlib.sha256(machine.encode()).hexdigest()[:_DIGEST]
        legal = f"{legal[: _LONGEST - _DIGEST - 1]}_{digest}".lstrip("_")
    return NodeId(legal)
