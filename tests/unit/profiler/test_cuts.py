"""Cuts are legal: a stage that gets nothing but the hidden vectors ends as the whole model does."""

import copy
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from messages.metadata import ModelMetadata
from services.checkpoint.checkpoint import StoredTensor
from services.profiler.families import FAMILIES
from services.profiler.metadata import About, build_metadata
from services.profiler.profile import profile_directory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
LAYERS = 4
BATCH, SEQUENCE = 2, 12
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 300,
    "pad_token_id": 0,
}
MAMBA = SMALL | {"state_size": 8}
MAMBA2 = {
    "mamba_d_state": 16,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
PLAIN: dict[str, dict[str, Any]] = {
    "Llama": SMALL,
    "Mixtral": SMALL | {"num_local_experts": 4},
    "Gemma2": SMALL | {"head_dim": 16},
    "DeepseekV3": SMALL
    | {"num_key_value_heads": 4, "n_routed_experts": 8, "moe_intermediate_size": 32}
    | {"kv_lora_rank": 8, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    | {"v_head_dim": 16, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
}
MIXED = SMALL | EXPERTS | {"head_dim": 16, "moe_intermediate_size": 32, "n_routed_experts": 4}
WIDE = SMALL | {"head_dim": 16}
PLAIN |= dict.fromkeys(("Apertus", "Cwm", "DiffLlama", "HyperCLOVAX", "Jais2", "NanoChat"), SMALL)
PLAIN |= dict.fromkeys(("GraniteSWA", "Llama4Text", "Nemotron", "Olmo3"), SMALL)
PLAIN |= dict.fromkeys(("HunYuanDenseV1", "Ministral", "Ministral3", "VaultGemma"), WIDE)
PLAIN |= dict.fromkeys(("ExaoneMoe", "FlexOlmo", "MiMoV2Flash", "SolarOpen"), MIXED)
PLAIN["Glm4MoeLite"] = (
    MIXED
    | {"n_group": 1, "topk_group": 1, "num_key_value_heads": 4}
    | {
        "kv_lora_rank": 8,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    }
)
PLAIN["GraniteMoeShared"] = SMALL | EXPERTS | {"num_local_experts": 4}
HYBRID: dict[str, dict[str, Any]] = {
    "FalconH1": SMALL | MAMBA2 | {"mamba_d_ssm": 128, "head_dim": 16},
    "Bamba": SMALL | MAMBA2 | {"attn_layer_indices": [1]},
    "Jamba": SMALL
    | EXPERTS
    | {"mamba_d_state": 8, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1},
    "GraniteMoeHybrid": SMALL
    | MAMBA2
    | {"layers_block_type": ["mamba", "attention", "mamba", "mamba"], "num_local_experts": 4}
    | {"num_experts_per_tok": 2, "shared_intermediate_size": 48},
    "Qwen3Next": SMALL
    | EXPERTS
    | {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    | {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "moe_intermediate_size": 32}
    | {"shared_expert_intermediate_size": 32}
    | {"layer_types": ["linear_attention", "linear_attention", "full_attention"] * 2},
    "Qwen3_5Text": SMALL
    | {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    | {"linear_key_head_dim": 16, "linear_value_head_dim": 16},
    "Lfm2Moe": SMALL
    | EXPERTS
    | {"moe_intermediate_size": 32, "num_dense_layers": 1}
    | {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "Lfm2": SMALL | {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "Mamba": MAMBA,
    "FalconMamba": MAMBA,
    "Mamba2": MAMBA | {"num_heads": 8, "head_dim": 16, "expand": 2, "n_groups": 1, "chunk_size": 8},
}
HYBRID["Qwen3Next"]["layer_types"] = HYBRID["Qwen3Next"]["layer_types"][:LAYERS]


# Zamba's shared blocks; states of other makes; a decoder within a larger model.
PICTURES = ("Qwen2_5_VL", "Llava", "Mistral3", "PaliGemma", "Idefics3")
WHOLE = ("Zamba2", "RecurrentGemma", "Rwkv", "NemotronH", "MiniMax", "OlmoHybrid", *PICTURES, "Git")
TABLE = Path(__file__).parents[3] / "docs" / "metadata.md"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing by more, and lose much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Made(NamedTuple):
    """A model with random weights, and what its metadata says at BATCH sequences of SEQUENCE."""

    model: Any
    found: ModelMetadata


@pytest.fixture(scope="module", params=PLAIN | HYBRID)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind, settings = request.param, (PLAIN | HYBRID)[request.param]
    folder: Path = tmp_path_factory.mktemp("model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{kind}Config")(**settings)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        model.save_pretrained(folder)
    return Made(model, profile_directory(folder, batch_size=BATCH, sequence_length=SEQUENCE))


def layers_of(model: Any) -> Any:
    """The list of layers, which is the first list as long as the model is deep."""
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    return next(found for found in lists if len(found) == LAYERS)


def scrambled(model: Any, lost: list[int], *, early: bool) -> Any:
    """A copy that has other weights in the layers `lost`, and in the embeddings or in the head."""
    other = copy.deepcopy(model)
    torch.manual_seed(99)
    layers = layers_of(other)
    parts = [layers[number] for number in lost]
    tied = other.get_output_embeddings().weight is other.get_input_embeddings().weight
    if not tied:
        parts.append(other.get_input_embeddings() if early else other.get_output_embeddings())
    with torch.no_grad():
        for part in parts:
            for weight in part.parameters():
                weight.normal_(0, 0.1)
    return other


def steps(model: Any, ids: Any) -> list[Any]:
    """Logits of a prefill and of one more token after it, with a cache of the model's own."""
    with torch.no_grad():
        first = model(input_ids=ids, use_cache=True)
        kept = "past_key_values" if "past_key_values" in first else "cache_params"
        then = model(input_ids=ids[:, :1], use_cache=True, **{kept: first[kept]})
    return [first.logits, then.logits]


def test_every_layer_may_be_cut_from_the_one_before_it(made: Made) -> None:
    assert made.found.warnings == ()
    names = [block.name for block in made.found.blocks]
    assert names == ["embeddings", *(f"layer.{n}" for n in range(LAYERS)), "head"]
    assert {block.together_with for block in made.found.blocks} == {None}
    for number, block in enumerate(made.found.blocks[1:-1]):
        assert all(f".{number}." in name for name in block.tensors)


def test_two_stages_that_share_only_hidden_vectors_end_as_the_whole_model(made: Made) -> None:
    cut = LAYERS // 2
    ids = torch.randint(1, 300, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(5))
    whole = steps(made.model, ids)
    early = scrambled(made.model, list(range(cut, LAYERS)), early=False)
    seen: list[Any] = []
    layers_of(early)[cut].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].clone())
    )
    broken = steps(early, ids)
    late = scrambled(made.model, list(range(cut)), early=True)
    lost = steps(late, ids)
    layers_of(late)[cut].register_forward_pre_hook(lambda _, inputs: (seen.pop(0), *inputs[1:]))
    ended = steps(late, ids)
    for one, other, third, fourth in zip(whole, ended, broken, lost, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, third)
        assert not torch.equal(one, fourth)


def cache_bytes(layer: Any) -> int:
    """What transformers keeps for one layer: keys, values, convolutions, states."""
    kept = [getattr(layer, name, None) for name in ("keys", "values")]
    for name in ("conv_states", "recurrent_states"):
        kept += getattr(layer, name, {}).values()
    return sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))


def test_what_each_block_keeps_of_a_sequence_is_what_its_cache_holds(made: Made) -> None:
    ids = torch.ones((BATCH, SEQUENCE), dtype=torch.long)
    with torch.no_grad():
        answer = made.model(input_ids=ids, use_cache=True)
    cache = answer["past_key_values" if "past_key_values" in answer else "cache_params"]
    found = [block.kv_bytes for block in made.found.blocks[1:-1]]
    assert found == [cache_bytes(layer) for layer in cache.layers]


@pytest.mark.parametrize("kind", WHOLE)
def test_a_family_whose_blocks_share_more_is_one_block(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")()
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        head = "ConditionalGeneration" if kind in PICTURES else "CausalLM"
        model = getattr(transformers, f"{kind}For{head}")._from_config(config)
    tied = set(model.all_tied_weights_keys)
    stored = [
        StoredTensor(name, "model.safetensors", "BF16", tuple(t.shape), 0, 2 * t.numel())
        for name, t in model.state_dict().items()
        if name not in tied
    ]
    found = build_metadata(stored, config.to_dict(), About("org/name"))
    assert [block.name for block in found.blocks] == ["model"]
    assert "does not know this layout" in found.warnings[0]
    assert f"`{config.model_type}`" in TABLE.read_text()


def test_the_table_of_the_documentation_names_every_family_that_may_be_cut() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| between ")]
    told = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert told == {name for name, family in FAMILIES.items() if not family.whole}
