"""What a stage advises for loading it with transformers, done to the letter."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.nodes import Node
from messages.wishes import Wishes
from services.checkpoint.description import read_description
from services.planner.plan import plan_split
from services.profiler.profile import profile_directory
from services.splitter.split import split_directory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
}


def stages_of(kind: str, folder: Path, **more: object) -> tuple[Path, list[Path]]:
    """A random model of this kind, and its three stages in order."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{kind}Config")(**SIZES, **more)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        model.to(torch.bfloat16).save_pretrained(folder / "model")
    metadata = profile_directory(folder / "model", sequence_length=4)
    total = sum(b.weight_bytes + b.kv_bytes + b.activation_bytes for b in metadata.blocks)
    nodes = [
        Node(node_id=NodeId(f"n{k}"), compute_gflops=10.0, memory_bytes=int(total * 0.6))
        for k in range(3)
    ]
    wishes = Wishes(replicas=1, headroom=0.0)
    plan = plan_split(metadata, nodes, wishes, Planner(), origin=NodeId("n0"))
    split_directory(folder / "model", plan, folder / "out")
    order = sorted(plan.assignments, key=lambda one: one.stage)
    assert len(order) == 3
    return folder / "model", [folder / "out" / one.node_id for one in order]


def advised(stage: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The names that the advice leaves when it is run in the stage's directory."""
    monkeypatch.chdir(stage)
    names: dict[str, Any] = {}
    exec(read_description(stage).launch["transformers"], names)
    return names


def test_a_tied_llama_is_loaded_with_its_head_at_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stages = stages_of("Llama", tmp_path, tie_word_embeddings=True)
    weights = safetensors_torch.load_file(source / "model.safetensors")
    hidden = torch.ones(1, 2, SIZES["hidden_size"], dtype=torch.bfloat16)
    for number, stage in enumerate(stages):
        model = advised(stage, monkeypatch)["model"]
        held = {name for _, tensor in read_description(stage).tensors for name in [tensor.name]}
        here = {name: p for name, p in model.named_parameters() if not p.is_meta}
        assert here.keys() == held
        assert all(torch.equal(here[name], weights[name]) for name in held)
        with torch.no_grad():
            if number == 0:
                assert model.model.embed_tokens(torch.tensor([[5]])).shape[-1] == 32
            if number == 2:
                logits = model.lm_head(hidden)
                assert torch.equal(logits, hidden @ weights["model.embed_tokens.weight"].T)
        description = read_description(stage)
        assert description.has_embedding == (number == 0)
        assert description.has_head == (number == 2)


def test_an_expert_model_whose_names_transformers_changed_is_not_loaded_in_part_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stages = stages_of("Mixtral", tmp_path, num_local_experts=2)
    if int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("this transformers names experts as the checkpoint does")
    with pytest.raises(AssertionError, match=r"not loaded: \d+ of \d+, such as .*experts"):
        advised(stages[1], monkeypatch)
