"""The services of any node as values, for what they need of the bus."""

import importlib

import msgspec

from config.settings import Settings
from messages.ids import NodeId
from services.console.household import SERVICES
from services.runtime.bus import Bus
from services.runtime.service import Service


def services_of(
    bus: Bus, settings: Settings, nodes: tuple[str, ...], origins: tuple[str, ...]
) -> list[Service]:
    """The services of these nodes: a distributor on each, and all the others on origins."""
    asked = [(name, node, True) for node in origins for name in SERVICES]
    asked += [("distributor", node, False) for node in nodes]
    return [
        importlib.import_module(f"services.{name}.service").build(
            as_node(settings, node, is_origin), bus
        )
        for name, node, is_origin in asked
    ]


def as_node(settings: Settings, node_id: str, is_origin: bool) -> Settings:
    """These settings for another node. Being an origin gives a distributor a consumer more."""
    node = msgspec.structs.replace(settings.node, node_id=NodeId(node_id), origin=is_origin)
    return msgspec.structs.replace(settings, node=node)
