"""config.json as a JSON object: read with a limit, nothing in it believed yet."""

import json
from pathlib import Path
from typing import Any

import msgspec

from services.checkpoint.failures import BadConfig
from services.checkpoint.files import contained

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 16 << 20
_ADVICE = "a model directory in the Hugging Face layout has its config.json beside the weights"


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration of the model in `directory`; BadConfig where it is none."""
    path = contained(directory, CONFIG_NAME)
    if not path.is_file():
        raise BadConfig(f"{directory} has no {CONFIG_NAME}", advice=_ADVICE)
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise BadConfig(f"{CONFIG_NAME} in {directory} is over 16 MiB", advice=_ADVICE)
    return parse_config(path.read_bytes(), f"{CONFIG_NAME} in {directory}")


def parse_config(body: bytes, where: str = CONFIG_NAME) -> dict[str, Any]:
    """The JSON object in `body`; BadConfig, naming `where`, if it is none.

    Older transformers wrote Infinity and NaN, which are no JSON (Mamba, Falcon-H1): they come back
    as newer ones write them, {"__float__": "Infinity"}.
    """
    try:
        if body.lstrip().startswith(b"{") and (b"Infinity" in body or b"NaN" in body):
            body = msgspec.json.encode(json.loads(body, parse_constant=_tagged))
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BadConfig(
            f"{where} is not a JSON object: {str(error)[:200]}", advice=_ADVICE
        ) from None


def _tagged(name: str) -> dict[str, str]:
    return {"__float__": name}
