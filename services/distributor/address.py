"""The edge to the network's addresses: under which one other nodes can dial this machine."""

import ipaddress
import socket
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger()
_NATS_PORT = 4222


def dialled(host: str, bus_url: str) -> str:
    """`host` as it stands in a URL; where it means every address, the one that leads to the bus.

    That is the address from which this machine would send there: nothing is sent. The machine's own
    name where nothing leads there. May wait for a name to be looked up.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    if address.is_unspecified:
        return _from(bus_url.split(",")[0])
    return _bracketed(str(address))


def _from(url: str) -> str:
    try:
        there = urlsplit(url if "://" in url else f"nats://{url}")
        place = there.hostname, there.port or _NATS_PORT
        family, kind, *_, target = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as link:
            link.connect(target)
            return _bracketed(str(link.getsockname()[0]))
    except (OSError, ValueError) as error:
        name = socket.gethostname()
        log.warning("no address leads to the bus; set advertise_url", error=str(error), name=name)
        return name


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
