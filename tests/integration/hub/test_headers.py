"""Knowing a model from afar: its configuration and headers, never its weights."""

import json
import struct

import msgspec
import pytest

from services.checkpoint.headers import parse_header
from services.hub.failures import NoSuchFile, UnusableModel
from services.hub.hub import HEADER_GUESS_BYTES, read_headers
from tests.loopback_hub.server import LoopbackHub


def safetensors(names: list[str], size_bytes: int = 4 << 20) -> bytes:
    each = size_bytes // len(names)
    header = {
        name: {"dtype": "U8", "shape": [each], "data_offsets": [k * each, (k + 1) * each]}
        for k, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(each * len(names))


FEW = safetensors(["a", "b"])
MANY = safetensors([f"model.layers.{k}.self_attn.q_proj.weight" for k in range(2000)])
CONFIG = b'{"model_type": "llama"}'


async def test_headers_arrive_without_the_weights(hub: LoopbackHub) -> None:
    commit = hub.add(
        "org/model",
        {
            "config.json": CONFIG,
            "model-00001-of-00002.safetensors": FEW,
            "model-00002-of-00002.safetensors": MANY,
            "model.safetensors.index.json": b'{"weight_map": {"a": "x"}}',
        },
    )
    remote = await read_headers("org/model")
    assert remote.commit == commit
    assert msgspec.json.decode(remote.config) == {"model_type": "llama"}
    assert remote.index == {"weight_map": {"a": "x"}}
    few, many = remote.files
    assert (few.size_bytes, many.size_bytes) == (len(FEW), len(MANY))
    assert set(parse_header(few.header, few.size_bytes, few.path).tensors) == {"a", "b"}
    assert len(parse_header(many.header, many.size_bytes, many.path).tensors) == 2000
    sent = [seen.body_bytes for seen in hub.asked("00001-of-00002.safetensors")]
    assert sum(sent) == HEADER_GUESS_BYTES
    assert hub.file_bytes < 4 * HEADER_GUESS_BYTES


async def test_a_file_that_is_no_safetensors_is_refused_before_much_is_fetched(
    hub: LoopbackHub,
) -> None:
    hub.add("org/model", {"config.json": CONFIG, "model.safetensors": b"\xff" * (1 << 20)})
    with pytest.raises(UnusableModel, match="announces a header"):
        await read_headers("org/model")
    assert hub.file_bytes <= HEADER_GUESS_BYTES + len(CONFIG)


@pytest.mark.parametrize("index", [b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_an_index_that_is_no_json_object_is_refused(hub: LoopbackHub, index: bytes) -> None:
    files = {"config.json": CONFIG, "model.safetensors.index.json": index}
    parts = {f"model-0000{k}-of-00002.safetensors": FEW for k in (1, 2)}
    hub.add("org/model", files | parts)
    with pytest.raises(UnusableModel, match="not a JSON object"):
        await read_headers("org/model")


async def test_a_model_without_configuration_is_refused(hub: LoopbackHub) -> None:
    hub.add("org/model", {"model.safetensors": FEW})
    with pytest.raises(NoSuchFile, match=r"config\.json"):
        await read_headers("org/model")


async def test_pickles_are_not_read_from_afar(hub: LoopbackHub) -> None:
    hub.add("org/model", {"config.json": CONFIG, "pytorch_model.bin": b"p"})
    with pytest.raises(UnusableModel) as refused:
        await read_headers("org/model")
    assert "pickle" in refused.value.advice
