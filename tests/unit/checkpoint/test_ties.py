"""What config.json ties is what two stages may hold; every family's names are known for it."""

import pytest

from services.checkpoint.naming import is_head, is_token_table
from services.checkpoint.ties import tied_names
from services.profiler.families import FAMILIES

EMBED, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.weight"


def test_an_untied_model_has_nothing_that_two_stages_may_hold() -> None:
    assert tied_names({"tie_word_embeddings": False}, [EMBED, LAYER, HEAD]) == ()
    assert tied_names({"tie_word_embeddings": False}, [EMBED, LAYER]) == ()


@pytest.mark.parametrize(
    "config",
    [{"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}],
    ids=["", "of a part"],
)
def test_a_tied_model_has_its_embedding_and_head(config: dict[str, object]) -> None:
    assert tied_names(config, [EMBED, LAYER]) == (EMBED,)
    assert tied_names(config, [EMBED, LAYER, HEAD]) == (HEAD, EMBED)


def test_where_the_configuration_is_silent_a_stored_head_says_untied() -> None:
    assert tied_names({}, ["wte.weight", "wpe.weight", "h.0.mlp.weight"]) == ("wte.weight",)
    assert tied_names({}, [EMBED, LAYER, HEAD]) == ()


def test_what_encoder_and_decoder_share_is_one_tensor_even_where_the_head_is_not_tied() -> None:
    names = ["shared.weight", "encoder.block.0.layer.0.weight", HEAD]
    assert tied_names({"tie_word_embeddings": False}, names) == ("shared.weight",)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_embedding_and_head_of_every_family_are_known_by_name(kind: str) -> None:
    family = FAMILIES[kind]
    for prefix in ("", *family.prefixes):
        for name in filter(None, (family.table, *family.copies)):
            assert is_token_table(prefix + name)
        assert not family.head or is_head(family.head)
