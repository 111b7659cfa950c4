"""Keys as the Secrets of deploy/kubernetes: to each kind of pod its own, and no more."""

import base64
from pathlib import Path
from typing import Any

import msgspec

from services.console import members
from services.console.failures import Usage
from services.console.members import Members
from services.runtime import keys

FILE = "kubernetes.json"
_MOST_BYTES = 1 << 20


def write(folder: Path, everyone: Members) -> Path:
    """Write `folder`'s keys as Secrets for `kubectl apply`, for their owner to read; the file.

    Usage where a Secret would hold more than Kubernetes takes.
    """
    named = {
        "williw-operator": {"operator.nk": "operator.nk", members.FILE: members.FILE},
        "williw-auth": {keys.CONFIG_FILE: keys.CONFIG_FILE},
        "williw-keys": {
            f"{origin}.{seed.name}": f"{origin}/{seed.name}"
            for origin in everyone.origin_ids
            for seed in sorted((folder / origin).glob("*.nk"))
        },
        # By the machine's name, which is what a pod knows of where it runs.
        "williw-node-keys": {
            f"{name}.{keys.NODE_KEY}": f"{node_id}/{keys.NODE_KEY}"
            for name, node_id in zip(everyone.nodes, everyone.node_ids, strict=True)
        },
    }
    items = [_secret(name, folder, files) for name, files in named.items()]
    body = msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": items})
    file = folder / FILE
    keys.write_secret(file, body + b"\n")
    return file


def _secret(name: str, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    bodies = {key: (folder / place).read_bytes() for key, place in sorted(files.items())}
    size_bytes = sum(map(len, bodies.values()))
    if size_bytes > _MOST_BYTES:
        raise Usage(
            f"the Secret {name} would hold {size_bytes} bytes, and Kubernetes takes {_MOST_BYTES}",
            advice="give some of the nodes an account or a site of their own",
        )
    data = {key: base64.b64encode(body).decode() for key, body in bodies.items()}
    labels = {"app.kubernetes.io/part-of": "williw"}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
