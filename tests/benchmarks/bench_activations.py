"""The estimate of a layer's activations against peaks measured by running such a layer on the CPU.

python tests/benchmarks/bench_activations.py [grouped_mm | eager | batched_mm]

Every storage that torch hands out while a layer runs is followed from its making to its end; the
peak counts the layer's input too. What a kernel takes and gives back inside one call is not seen.
"""

import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 320


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes that live; `peak` is their most since it was last set."""

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        # A view of a weight would show as a storage made here.
        self._sizes = {weight.untyped_storage()._cdata: 0 for weight in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and take in the storages of what it returns."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf.untyped_storage())
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


class Case(NamedTuple):
    """A model of one family: `tokens` of each of `batch` sequences, `dtype` by torch's name.

    `alike` gives DeepSeek values as wide as queries: where they differ no kernel on the CPU is
    fused, and matrices of scores are all that shows.
    """

    family: str
    hidden: int = 256
    inner: int = 128
    top_k: int = 2
    experts: int = 8
    tokens: int = 256
    batch: int = 2
    dtype: str = "bfloat16"
    alike: bool = False

    def __str__(self) -> str:
        kind = "f32" if self.dtype == "float32" else "bf16"
        shape = f"{kind} h={self.hidden} i={self.inner} B={self.batch} S={self.tokens}"
        routed = f" k={self.top_k}/{self.experts}" if self.family in ROUTED else ""
        return f"{self.family + (' alike' if self.alike else ''):18}{shape}{routed}"


def _plain(case: Case) -> dict[str, Any]:
    return {
        "hidden_size": case.hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "intermediate_size": case.inner,
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
    }


def _grouped(case: Case) -> dict[str, Any]:
    return _plain(case) | {"num_key_value_heads": 4, "head_dim": case.hidden // 8}


def _moe(case: Case) -> dict[str, Any]:
    return _grouped(case) | {
        "num_experts": case.experts,
        "num_local_experts": case.experts,
        "num_experts_per_tok": case.top_k,
        "moe_intermediate_size": case.inner,
        "decoder_sparse_step": 1,
    }


def _deepseek(case: Case) -> dict[str, Any]:
    return _moe(case) | {
        "num_key_value_heads": 8,
        "n_routed_experts": case.experts,
        "n_shared_experts": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 32,
        "qk_rope_head_dim": case.hidden // 16,
        "head_dim": case.hidden // 16,
        "qk_nope_head_dim": case.hidden // 8,
        "v_head_dim": case.hidden // 16 * (3 if case.alike else 2),
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
    }


def _without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in names}


Settings = Callable[[Case], dict[str, Any]]
DENSE: dict[str, Settings] = {
    "Llama": _grouped,
    "Qwen3": _grouped,
    "Gemma2": _grouped,
    "Phi3": lambda c: _without(_grouped(c), "head_dim"),
    "OPT": lambda c: _plain(c) | {"ffn_dim": c.inner, "word_embed_proj_dim": c.hidden},
    "GPT2": lambda c: {
        "n_embd": c.hidden,
        "n_layer": 1,
        "n_head": 8,
        "n_inner": c.inner,
        "vocab_size": VOCABULARY,
    },
    "Bert": _plain,
}
ROUTED: dict[str, Settings] = {
    "Mixtral": _moe,
    "Qwen2Moe": lambda c: _moe(c) | {"shared_expert_intermediate_size": c.inner},
    "Qwen3Moe": _moe,
    "Olmoe": _moe,
    "Phimoe": _moe,
    "GraniteMoe": _moe,
    "GptOss": _moe,
    "MiniMaxM2": _moe,
    "Ernie4_5_Moe": lambda c: (
        _moe(c)
        | {
            "moe_k": c.top_k,
            "moe_num_experts": c.experts,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 0,
            "moe_layer_interval": 1,
        }
    ),
    "DeepseekV2": _deepseek,
    "DeepseekV3": _deepseek,
    "Glm4Moe": lambda c: _deepseek(c) | _moe(c),
    "Dots1": lambda c: _deepseek(c) | _moe(c),
}


def model_of(case: Case, experts: str = "grouped_mm") -> Any:
    """A model of one layer with random weights."""
    import transformers

    settings = (DENSE | ROUTED)[case.family](case)
    kind = getattr(transformers, f"{case.family}Config")
    head = "Model" if case.family == "Bert" else "LMHeadModel" if case.family == "GPT2" else ""
    make = getattr(transformers, f"{case.family}{head or 'ForCausalLM'}")
    options = {"experts_implementation": experts} if case.family in ROUTED else {}
    torch.manual_seed(0)
    model = make._from_config(
        kind(**settings),
        attn_implementation="eager" if case.family in ("GptOss", "Gemma2") else "sdpa",
        dtype=getattr(torch, case.dtype),
        **options,
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.05)
    return model.eval()


def layer_of(model: Any) -> Any:
    """The one layer."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 1]
    return lists[0][0]


def measured(model: Any, case: Case) -> int:
    """Bytes that live at most while the layer runs, its input among them."""
    mode = Peak([*model.parameters(), *model.buffers()])
    found: list[int] = []

    def before(module: Any, inputs: Sequence[Any], named: Any) -> None:
        held = inputs[0] if inputs else named["hidden_states"]
        mode.peak = mode.live
        found.append(held.untyped_storage().nbytes() - mode.live)

    def after(module: Any, inputs: Any, output: Any) -> None:
        found.append(mode.peak)

    layer = layer_of(model)
    layer.register_forward_pre_hook(before, with_kwargs=True)
    layer.register_forward_hook(after)
    ids = torch.randint(1, VOCABULARY, (case.batch, case.tokens))
    options = {} if case.family == "Bert" else {"use_cache": False}
    with torch.no_grad(), mode:
        model(input_ids=ids, **options)
    return sum(found)


def estimated(model: Any, case: Case) -> int:
    """The metadata's bytes for the layer."""
    from services.profiler.profile import profile_directory

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = profile_directory(Path(folder), batch_size=case.batch, sequence_length=case.tokens)
    return next(block.activation_bytes for block in found.blocks if block.name == "layer.0")


def cases() -> Iterator[Case]:
    """Every family at one shape in both widths of number; those with experts at others."""
    for family in DENSE:
        yield Case(family, inner=704)
        yield Case(family, inner=704, dtype="float32")
    for family in ROUTED:
        yield from others(Case(family))
        if family.startswith("Deepseek"):
            yield from others(Case(family, alike=True))


def others(case: Case) -> Iterator[Case]:
    """A mixture at shapes where its experts are wide, narrow, many, few, visited once or often."""
    yield case
    yield case._replace(dtype="float32")
    if case.family == "Phimoe":  # It visits two experts, whatever its configuration says.
        return
    yield case._replace(hidden=512, inner=1536, experts=4, tokens=128)
    yield case._replace(hidden=512, inner=64, top_k=8, experts=64, tokens=96, batch=3)
    yield case._replace(hidden=128, inner=192, top_k=1, experts=4, tokens=512, batch=1)
    yield case._replace(hidden=384, inner=384, top_k=6, experts=32, tokens=200, batch=1)


def main() -> None:
    """Print estimate and measurement, in units of the layer's input, and their ratio."""
    import transformers

    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    implementation = sys.argv[1] if len(sys.argv) > 1 else "grouped_mm"
    print(f"experts: {implementation}; estimate and peak in units of the layer's input")
    for case in cases():
        if case.family in DENSE and implementation != "grouped_mm":
            continue
        model = model_of(case, implementation)
        unit = case.batch * case.tokens * case.hidden * (4 if case.dtype == "float32" else 2)
        peak, estimate = measured(model, case), estimated(model, case)
        print(f"{case!s:60}{estimate / unit:8.2f}{peak / unit:8.2f}{estimate / peak:8.2f}")


if __name__ == "__main__":
    main()
