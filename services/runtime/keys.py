"""Keys of the bus's users: seeds in files that only their owner reads, never made twice."""

import os
from pathlib import Path

import nkeys

from config.settings import Settings
from services.runtime import authorization, permissions
from services.runtime.authorization import User
from services.runtime.service import Service

CONFIG_FILE = "williw-auth.conf"
# For a server at another site; its configuration takes a seed in itself only.
LEAF_CONFIG_FILE, LEAF_KEY_FILE = "leaf-auth.conf", "leaf-key.conf"
NODE_KEY = "distributor.nk"


def seed(file: Path) -> str:
    """The public key of the seed in `file`, which is made where it is not there yet."""
    try:
        made = file.read_bytes().strip()
    except FileNotFoundError:
        made = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        write_secret(file, made + b"\n")
    return str(nkeys.from_seed(bytearray(made)).public_key, "ascii")


def write_secret(file: Path, body: bytes) -> None:
    """Write a file that only its owner reads; it is whole at any moment."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    making = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(body)
    making.replace(file)


def known(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Origins and other nodes that `folder` has keys of; an origin's services are more than one."""
    owners = {seed.parent.name for seed in folder.glob("*/*.nk")}
    alone = {
        name for name in owners if [s.name for s in (folder / name).glob("*.nk")] == [NODE_KEY]
    }
    return tuple(sorted(owners - alone)), tuple(sorted(alone))


def write(folder: Path, services: list[tuple[Service, Settings]], account: str) -> list[Path]:
    """Write seeds and the server's configuration below `folder`; returns the files.

    Seeds that are there are kept, so that running it again, with another node, locks nobody out:
    `<folder>/<node>/<service>.nk`, `operator.nk`, `client.nk`, `tap.nk`,
    and `leaf-*.conf` for a server at another site.
    """
    files: list[Path] = []

    def user(place: str, may: permissions.Permissions) -> User:
        files.append(folder / place)
        return User(place.removesuffix(".nk"), seed(folder / place), may)

    users = [user("operator.nk", permissions.OPERATOR)]
    for service, settings in services:
        node_id = settings.node.node_id
        may = permissions.of_service(service, node_id)
        users.append(user(f"{node_id}/{service.name}.nk", may))
    apart = {
        "CLIENT": user("client.nk", permissions.of_client()),
        "TAP": user("tap.nk", permissions.of_tap()),
    }
    configs = [folder / CONFIG_FILE, folder / LEAF_CONFIG_FILE]
    for config in configs:
        leaf = config.name == LEAF_CONFIG_FILE
        making = config.with_suffix(".new")
        making.write_text(authorization.render(users, apart, account, leaf=leaf))
        making.replace(config)
    operator = (folder / "operator.nk").read_bytes().strip()
    write_secret(folder / LEAF_KEY_FILE, b"nkey: " + operator + b"\n")
    return [*files, configs[0]]
