import os
import time
from pathlib import Path
from typing import Any

import pytest

from services.profiler.counting import Counter, Counts, Uncounted
from services.profiler.workload import Workload

pytest.importorskip("transformers")
WORK = Workload(1, 16)
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
}


def counted(answer: Counts | Uncounted) -> Counts:
    assert isinstance(answer, Counts), answer
    return answer


def refused(answer: Counts | Uncounted) -> str:
    assert isinstance(answer, Uncounted)
    return answer.reason


def child_of(counter: Counter) -> int:
    assert counter._child is not None
    return counter._child.pid


def test_a_second_profile_of_an_architecture_takes_milliseconds(tmp_path: Path) -> None:
    first = Counter(tmp_path)
    try:
        answer = counted(first.count(LLAMA, WORK))
    finally:
        first.close()
    second = Counter(tmp_path)
    start = time.perf_counter()
    assert second.count(LLAMA, WORK) == answer
    assert time.perf_counter() - start < 0.5
    assert second._child is None


def test_batch_sequence_and_architecture_are_counted_apart(counter: Counter) -> None:
    base = counted(counter.count(LLAMA, WORK)).total
    assert counted(counter.count(LLAMA, Workload(2, 16))).total == 2 * base
    assert counted(counter.count(LLAMA | {"num_hidden_layers": 2}, WORK)).total > base
    assert counted(counter.count(LLAMA, Workload(1, 32))).total > 2 * base


def test_one_child_answers_one_count_after_another(counter: Counter) -> None:
    counter.count(LLAMA | {"vocab_size": 51}, WORK)
    first = child_of(counter)
    counter.count(LLAMA | {"vocab_size": 52}, WORK)
    assert child_of(counter) == first


def test_a_child_that_was_killed_is_started_again(counter: Counter) -> None:
    counter.count(LLAMA | {"vocab_size": 53}, WORK)
    os.kill(child_of(counter), 9)
    assert counter._child is not None
    counter._child._process.wait(10)
    counted(counter.count(LLAMA | {"vocab_size": 54}, WORK))


def test_a_child_knows_no_token(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_the_child")
    counter.close()
    counted(counter.count(LLAMA | {"vocab_size": 55}, WORK))
    environ = Path(f"/proc/{child_of(counter)}/environ").read_bytes()
    assert b"hf_not_for_the_child" not in environ


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "none_such"}, "no model type none_such"),
        ({}, "no model type"),
        (LLAMA | {"num_hidden_layers": 10**9}, "more than any real model"),
        (LLAMA | {"hidden_size": "wide"}, "Error"),
    ],
)
def test_a_configuration_it_cannot_build_leaves_a_reason(
    counter: Counter, config: dict[str, Any], why: str
) -> None:
    assert why in refused(counter.count(config, WORK))


def test_a_configuration_that_names_code_runs_none(counter: Counter, tmp_path: Path) -> None:
    hostile = LLAMA | {
        "auto_map": {"AutoModelForCausalLM": "evil--repo--modeling.Evil"},
        "attn_implementation": "evil/kernel",
        "_attn_implementation": "evil/kernel",
        "_attn_implementation_internal": "evil/kernel",
        "quantization_config": {"quant_method": "evil"},
        "architectures": ["PreTrainedModel", "os.system"],
    }
    assert counted(counter.count(hostile, WORK)).total > 0


def test_a_count_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    counter = Counter(tmp_path, timeout_s=0.05)
    assert "too long" in refused(counter.count(LLAMA, WORK))
    assert counter._child is None
