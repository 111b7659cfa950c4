"""File names of models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.names import directory_name, metadata_file_name, short_name

NAMES = [
    ("org/name", "org/name", "org--name", "org_name_metadata.json"),
    ("gpt2", "gpt2", "gpt2", "gpt2_metadata.json"),
    ("/data/My Model/", "local/My-Model", "local--My-Model", "local_My-Model_metadata.json"),
]


@pytest.mark.parametrize(("model", "short", "directory", "metadata"), NAMES)
def test_a_model_has_one_name_for_each_use(
    model: str, short: str, directory: str, metadata: str
) -> None:
    assert short_name(model) == short
    assert directory_name(model) == directory
    assert metadata_file_name(model) == metadata


@given(st.text(min_size=1).map(lambda text: f"/models/{text}"))
def test_the_name_of_a_path_is_always_a_plain_file_name(path: str) -> None:
    name = directory_name(path)
    assert "/" not in name
    assert name.isascii()
    assert name.isprintable()
