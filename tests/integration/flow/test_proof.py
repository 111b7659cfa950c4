"""The proof of a split: stages chained block by block give the whole model's output bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from messages.jobs import JobCompleted
from messages.plans import SplitPlan
from messages.wishes import Wishes
from tests.integration.flow.house import House

ONE_CHAIN = Wishes(replicas=1)


def tensors_of(stage: Path) -> dict[str, Tensor]:
    """What a stage directory holds, by the index that an engine would read."""
    index = msgspec.json.decode((stage / "model.safetensors.index.json").read_bytes())
    found: dict[str, Tensor] = {}
    for file in sorted(set(index["weight_map"].values())):
        found |= load_file(stage / file)
    assert set(found) == set(index["weight_map"])
    return found


def stage_model(stage: Path, auto: Any, dtype: torch.dtype) -> nn.Module:
    """The architecture with this stage's weights; everything else stays on the meta device."""
    config = AutoConfig.from_pretrained(stage)
    with torch.device("meta"):
        model: nn.Module = auto.from_config(config, dtype=dtype)
    model.load_state_dict(tensors_of(stage), strict=False, assign=True)
    return model


def real(module: nn.Module) -> bool:
    """Whether every parameter of a module has its weights here."""
    return all(parameter.device.type != "meta" for parameter in module.parameters())


async def brought(house: House, model: Path) -> tuple[SplitPlan, list[Path]]:
    async with house.open():
        job_id = await house.ask(str(model), wishes=ONE_CHAIN)
        ended = await house.end(job_id)
    assert isinstance(ended, JobCompleted), ended
    _, plan = await house.plan(job_id)
    in_order = [a.node_id for a in plan.assignments]
    assert len(in_order) == 3
    return plan, house.stages(f"local--{model.name}", in_order)


async def test_a_tied_decoders_stages_give_the_whole_models_logits_bit_for_bit(
    house: House, tiny_llama: Callable[[], Path]
) -> None:
    source = tiny_llama()
    _, stages = await brought(house, source)
    whole = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
    ids = torch.randint(0, 512, (2, 17), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(17)[None]
    with torch.no_grad():
        expected = whole(ids).logits
        rotary = whole.model.rotary_emb
        hidden: Any = None
        logits: Any = None
        done = 0
        for number, stage in enumerate(stages):
            part: Any = stage_model(stage, AutoModelForCausalLM, torch.bfloat16).eval()
            if number == 0:
                hidden = part.model.embed_tokens(ids)
            mask = torch.full((1, 1, 17, 17), float("-inf"), dtype=torch.bfloat16).triu(1)
            while done < 5 and real(part.model.layers[done]):
                hidden = part.model.layers[done](
                    hidden, attention_mask=mask, position_embeddings=rotary(hidden, positions)
                )
                done += 1
            if number == len(stages) - 1:
                logits = nn.functional.linear(
                    part.model.norm(hidden), part.model.embed_tokens.weight
                )
    assert done == 5
    assert torch.equal(logits, expected)


async def test_minilms_stages_give_the_whole_models_embedding_bit_for_bit(
    house: House, minilm: Path
) -> None:
    _, stages = await brought(house, minilm)
    whole = AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    ids = torch.randint(1000, 2000, (1, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = whole(ids)
        hidden: Any = None
        pooled: Any = None
        done = 0
        for number, stage in enumerate(stages):
            part: Any = stage_model(stage, AutoModel, torch.float32).eval()
            if number == 0:
                # Buffers are computed, not stored: they come from the architecture, never a stage.
                part.embeddings.position_ids = whole.embeddings.position_ids
                part.embeddings.token_type_ids = whole.embeddings.token_type_ids
                hidden = part.embeddings(input_ids=ids)
            while done < 6 and real(part.encoder.layer[done]):
                output = part.encoder.layer[done](hidden)
                hidden = output[0] if isinstance(output, tuple) else output
                done += 1
            if number == len(stages) - 1:
                pooled = part.pooler(hidden)
    assert done == 6
    assert torch.equal(hidden, expected.last_hidden_state)
    assert torch.equal(pooled, expected.pooler_output)
