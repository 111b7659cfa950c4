"""Keys of the bus's users: seeds in files that only their owner reads, never made twice."""

import os
from pathlib import Path

import nkeys

from config.settings import Settings
from services.runtime import authorization, permissions
from services.runtime.authorization import User
from services.runtime.service import Service

CONFIG_FILE = "williw-auth.conf"
_NODE_KEY = "distributor.nk"


def seed(file: Path) -> str:
    """The public key of the seed in `file`, which is made where it is not there yet."""
    try:
        made = file.read_bytes().strip()
    except FileNotFoundError:
        made = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        making = file.with_name(f".{file.name}.{os.getpid()}")
        with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(made + b"\n")
        making.replace(file)
    return str(nkeys.from_seed(bytearray(made)).public_key, "ascii")


def known(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Origins and other nodes that `folder` has keys of; an origin's services are more than one."""
    owners = {seed.parent.name for seed in folder.glob("*/*.nk")}
    alone = {
        name for name in owners if [s.name for s in (folder / name).glob("*.nk")] == [_NODE_KEY]
    }
    return tuple(sorted(owners - alone)), tuple(sorted(alone))


def write(folder: Path, services: list[tuple[Service, Settings]], account: str) -> list[Path]:
    """Write seeds and the server's configuration below `folder`; returns the files.

    Seeds that are there are kept, so that running it again, with another node, locks nobody out:
    `<folder>/<node>/<service>.nk`, `operator.nk`, `client.nk`, `tap.nk`.
    """
    files: list[Path] = []

    def user(place: str, may: permissions.Permissions) -> User:
        files.append(folder / place)
        return User(place.removesuffix(".nk"), seed(folder / place), may)

    users = [user("operator.nk", permissions.OPERATOR), user("client.nk", permissions.of_client())]
    for service, settings in services:
        node_id = settings.node.node_id
        may = permissions.of_service(service, node_id)
        users.append(user(f"{node_id}/{service.name}.nk", may))
    text = authorization.render(users, [user("tap.nk", permissions.of_tap())], account)
    config = folder / CONFIG_FILE
    making = config.with_suffix(".new")
    making.write_text(text)
    making.replace(config)
    return [*files, config]
