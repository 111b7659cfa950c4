"""A model on the Hub is profiled by its headers; its weights stay there."""

import json
import struct
from pathlib import Path

import anyio
import msgspec
import pytest

from services.checkpoint.failures import BadConfig, BadHeader, BadIndex
from services.profiler import child
from services.profiler.counting import Counter
from services.profiler.profile import profile_directory, profile_hub
from tests.loopback_hub.server import LoopbackHub

HIDDEN, LAYERS = 512, 2
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (1000, HIDDEN)}
    for n in range(LAYERS):
        at = f"model.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{at}.self_attn.{part}.weight"] = (HIDDEN, HIDDEN)
        found[f"{at}.input_layernorm.weight"] = (HIDDEN,)
    return found | {"model.norm.weight": (HIDDEN,)}


def file_of(tensors: dict[str, tuple[int, ...]]) -> bytes:
    header, reached = {}, 0
    for name, shape in tensors.items():
        size = 2
        for dimension in shape:
            size *= dimension
        offsets = [reached, reached + size]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": offsets}
        reached += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(reached)


def repository() -> dict[str, bytes]:
    whole = shapes()
    early = {name: shape for name, shape in whole.items() if ".layers.1." not in name}
    late = {name: shape for name, shape in whole.items() if ".layers.1." in name}
    index = {"weight_map": dict.fromkeys(early, FIRST) | dict.fromkeys(late, SECOND)}
    return {
        "config.json": json.dumps(CONFIG).encode(),
        FIRST: file_of(early),
        SECOND: file_of(late),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


async def test_the_metadata_from_afar_is_that_of_the_directory(
    hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = repository()
    commit = hub.add("org/model", files)
    remote = await profile_hub("org/model", sequence_length=100)
    folder = tmp_path_factory.mktemp("model")
    for name, body in files.items():
        (folder / name).write_bytes(body)
    local = profile_directory(folder, sequence_length=100, model_name="org/model", revision=commit)
    same = msgspec.structs.replace(local, generated_at=remote.generated_at)
    assert remote == same
    assert hub.file_bytes < 2 * 100_000 + 10_000
    assert sum(len(body) for body in files.values()) > 5 * hub.file_bytes


async def test_a_remote_index_that_lies_is_refused(hub: LoopbackHub) -> None:
    files = repository()
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"]["model.norm.weight"] = SECOND
    hub.add("org/model", files | {"model.safetensors.index.json": json.dumps(index).encode()})
    with pytest.raises(BadIndex, match=r"model\.norm\.weight"):
        await profile_hub("org/model")


async def test_infinities_of_older_makers_are_read_from_afar(hub: LoopbackHub) -> None:
    files = repository()
    config = files["config.json"].replace(b"{", b'{"time_step_limit": [0.0, Infinity], ', 1)
    hub.add("org/old", files | {"config.json": config})
    assert (await profile_hub("org/old")).warnings == ()


@pytest.mark.parametrize("config", [b"[]", b"{", b"\xff", b"[" * 100_000, b"NaN", b"[Infinity"])
async def test_a_configuration_that_is_no_json_object_is_refused(
    hub: LoopbackHub, config: bytes
) -> None:
    hub.add("org/none", repository() | {"config.json": config})
    with pytest.raises(BadConfig, match=r"org/none: config\.json is not a JSON object"):
        await profile_hub("org/none")


async def test_a_remote_header_that_lies_is_refused(hub: LoopbackHub) -> None:
    files = repository()
    files[SECOND] += bytes(8)
    hub.add("org/model", files)
    with pytest.raises(BadHeader, match="no tensor claims"):
        await profile_hub("org/model")


async def test_other_copies_of_the_weights_are_told_of_from_afar_as_from_a_directory(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    files = repository()
    files |= dict.fromkeys(("consolidated.safetensors", "optimizer.safetensors"), files[FIRST])
    hub.add("org/model", files)
    folder = tmp_path / "model"
    folder.mkdir()
    for name, body in files.items():
        (folder / name).write_bytes(body)
    remote = await profile_hub("org/model")
    assert remote.warnings == profile_directory(folder).warnings
    (warning,) = remote.warnings
    assert warning.startswith("consolidated.safetensors: not used")
    assert len(remote.layers) == len(shapes())


async def test_a_cancelled_profile_ends_the_count_that_is_under_way(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    hub.add("org/model", repository())
    silent = tmp_path / "silent.py"
    silent.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(child, "_SCRIPT", silent)
    counter = Counter(tmp_path / "flops", timeout_s=600)

    async def profile() -> None:
        await profile_hub("org/model", counter=counter)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(profile)
            while counter._child is None:  # noqa: ASYNC110 - a thread makes it
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        while counter._child is not None:  # noqa: ASYNC110 - a thread ends it
            await anyio.sleep(0.01)
