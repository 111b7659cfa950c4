"""Which files make a model, out of what repositories really hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.failures import Permanent
from services.hub.failures import UnsafeName, UnusableModel
from services.hub.selection import Choice, File, choose

COMPANIONS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]


def files(*names: str) -> tuple[File, ...]:
    return tuple(File(name, 1000 + len(name)) for name in names)


def chosen(*names: str) -> Choice:
    return choose("org/name", files(*names))


def weights(*names: str) -> list[str]:
    return [file.path for file in chosen(*names).weights]


def companions(*names: str) -> list[str]:
    return [file.path for file in chosen(*names).companions]


def parts(stem: str, count: int, suffix: str = ".safetensors") -> list[str]:
    return [f"{stem}-{k:05d}-of-{count:05d}{suffix}" for k in range(1, count + 1)]


def test_safetensors_are_taken_and_every_other_format_of_the_same_weights_left() -> None:
    others = [
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "model.onnx",
        "rust_model.ot",
        "model.gguf",
        "consolidated.safetensors",
        "consolidated.00.pth",
        "original/consolidated.00.pth",
        "original/model.safetensors",
        "onnx/model.onnx",
        "onnx/config.json",
        ".gitattributes",
        "README.md",
        "training_args.bin",
    ]
    choice = chosen("model.safetensors", *COMPANIONS, *others)
    assert [file.path for file in choice.files] == sorted(["model.safetensors", *COMPANIONS])
    assert choice.format == "safetensors"
    assert choice.size_bytes == sum(file.size_bytes for file in choice.files)


def test_the_parts_of_a_model_come_with_their_index() -> None:
    index = "model.safetensors.index.json"
    names = [*parts("model", 3), index, "config.json", "pytorch_model.bin.index.json"]
    assert weights(*names) == parts("model", 3)
    assert companions(*names) == [index, "config.json"]


def test_of_a_whole_file_and_parts_of_the_same_the_one_that_loaders_take_is_taken() -> None:
    names = ["model.safetensors", *parts("model", 2), "model.safetensors.index.json"]
    assert weights(*names) == ["model.safetensors"]
    assert companions(*names) == []


def test_other_copies_of_the_weights_beside_them_are_told_of() -> None:
    copies = ["consolidated.safetensors", "model.fp16.safetensors"]
    beside = ["pytorch_model.bin", "optimizer.safetensors", "original/model.safetensors"]
    left = chosen(*parts("model", 2), *copies, *beside, "adapter_model.safetensors").left_out
    assert [file.path for file in left] == ["adapter_model.safetensors", *copies]
    assert chosen("model.safetensors", *COMPANIONS, *beside).left_out == ()
    whole = chosen("model.safetensors", *parts("model", 2), "model.safetensors.index.json")
    assert [file.path for file in whole.left_out] == parts("model", 2)


def test_parts_that_are_not_all_there_are_no_model() -> None:
    with pytest.raises(UnusableModel, match="model-00002-of-00003"):
        chosen("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors")


def test_parts_may_be_counted_from_nought_and_with_six_digits() -> None:
    nought = ["model-00000-of-00002.safetensors", *parts("model", 2)]
    assert weights(*nought) == nought
    six = [f"model-{k:05d}-of-000003.safetensors" for k in (1, 2, 3)]
    assert weights(*six) == six


def test_files_named_in_another_way_belong_together_when_there_is_an_index() -> None:
    named = ["layers.0.safetensors", "layers.1.safetensors"]
    index = "model.safetensors.index.json"
    assert weights(*named, index) == named
    assert companions(*named, index) == [index]


def test_the_only_part_of_one_keeps_its_index_since_loaders_need_it() -> None:
    names = [*parts("model", 1), "model.safetensors.index.json"]
    assert companions(*names) == ["model.safetensors.index.json"]


def test_a_whole_copy_is_taken_where_the_parts_are_not_all_there() -> None:
    names = ["model-00001-of-00002.safetensors", "model.safetensors"]
    assert weights(*names) == ["model.safetensors"]


def test_a_variant_is_taken_only_where_there_is_no_plain_one() -> None:
    assert weights("model.fp16.safetensors", "model.safetensors") == ["model.safetensors"]
    assert weights("model.fp16.safetensors", "config.json") == ["model.fp16.safetensors"]


def test_a_sentence_transformer_keeps_the_folders_of_its_modules() -> None:
    kept = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    names = ["model.safetensors", "modules.json", *kept, "openvino/config.json"]
    assert set(companions(*names)) == {"modules.json", *kept}
    assert weights(*names) == ["model.safetensors"]


def test_every_kind_of_tokenizer_template_code_and_licence_is_kept() -> None:
    kept = [
        "tokenizer.model",
        "vocab.txt",
        "merges.txt",
        "vocab.json",
        "qwen.tiktoken",
        "chat_template.jinja",
        "modeling_own.py",
        "LICENSE",
        "LICENSE.txt",
        "NOTICE",
        "spiece.model",
    ]
    assert set(companions("model.safetensors", *kept)) == set(kept)


def test_pickles_are_chosen_only_where_there_is_nothing_better() -> None:
    choice = chosen("pytorch_model.bin", "config.json", "training_args.bin", "optimizer.pt")
    assert choice.format == "pickle"
    assert [file.path for file in choice.weights] == ["pytorch_model.bin"]
    assert chosen("pytorch_model.bin", "model.safetensors").format == "safetensors"


UNUSABLE = [
    (("model-q4.gguf", "config.json"), "GGUF"),
    (("adapter_model.safetensors", "adapter_config.json"), "adapter"),
    (("consolidated.safetensors", "params.json"), "layout"),
    (("unet/model.safetensors", "model_index.json"), "several models"),
    (("tf_model.h5", "config.json"), ".h5"),
    ((), "nothing"),
]


@pytest.mark.parametrize(("names", "why"), UNUSABLE)
def test_what_cannot_be_used_says_why_and_what_to_do(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(UnusableModel, match=why) as refused:
        chosen(*names)
    assert refused.value.advice
    assert refused.value.model_name == "org/name"


UNSAFE = ["../x.json", "a/../../x.json", "/etc/passwd", "a//b", "a\\b", "a\nb", "..", "./a", "a\0b"]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_could_leave_the_directory_refuses_the_whole_repository(name: str) -> None:
    with pytest.raises(UnsafeName, match="could leave"):
        chosen("model.safetensors", name)


NAMES = st.text(alphabet="abA01._-/\\ \n", min_size=1, max_size=30) | st.sampled_from(
    ["model.safetensors", "pytorch_model.bin", *parts("model", 2), *COMPANIONS, "a/../b.json"]
)


@given(st.lists(NAMES, max_size=12))
def test_whatever_a_repository_holds_the_choice_is_part_of_it_and_safe(names: list[str]) -> None:
    listed = files(*names)
    try:
        choice = choose("org/name", listed)
    except Permanent:
        return
    assert choice.weights
    assert set(choice.files) <= set(listed)
    for file in choice.files:
        assert ".." not in file.path.split("/")
        assert not file.path.startswith("/")
    suffixes = {file.path.rpartition(".")[2] for file in choice.weights}
    assert suffixes == {"safetensors"} or choice.format == "pickle"
