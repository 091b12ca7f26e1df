"""What `inspect` says about a pair. Times are measured but never judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from anydraft.checks.timing import Timing, measure
from anydraft.decoder import Decoder
from anydraft.drafters import LookupDrafter
from anydraft.errors import OptionConflict
from anydraft.inspection import inspect, kv_bytes
from anydraft.lm import LanguageModel
from anydraft.loading import load

TIMING = Timing({1: 0.01, 4: 0.012}, 0.001, 3.0, 0.6, 4.0, 1.5, 100)


def universal(**changes: object) -> Decoder:
    pieces = tiny.pieces()
    assistant = tiny.make("llama", vocab=len(pieces), seed=1, **changes)
    return load(
        tiny.model("llama"), assistant, tokenizer=tiny.byte_level(), assistant_tokenizer=pieces
    )


def test_memory_of_keys_and_values() -> None:
    layers, heads, width = 2, 2, 8
    assert kv_bytes(LanguageModel(tiny.model("llama"))) == layers * 2 * heads * width * 4 * 1000


def test_different_tokenizers() -> None:
    found = inspect(universal(max_position_embeddings=64), text="the red hat and the bear")
    assert found.kind == "universal"
    assert found.structure == "tree"
    assert not found.overlap.same
    assert 0 < (found.overlap.target_token_share or 0) <= 1
    assert found.target.ends == {2: "</s>"}
    assert found.target.weight_bytes == 4 * found.target.parameters
    words = " ".join(found.warnings)
    assert "reads 64 tokens, the target 256" in words
    assert "of the target's parameters" in words
    assert "--no-measure" in found.verdict
    assert found.to_dict()["timing"] is None


def test_same_tokenizer() -> None:
    tokenizer = tiny.byte_level()
    decoder = load(tiny.model("llama"), tiny.relative("llama"), tokenizer=tokenizer, assistant_tokenizer=tokenizer)
    found = inspect(decoder)
    assert found.kind == "assistant"
    assert found.overlap.same


@pytest.mark.parametrize(
    ("cost", "words"), [(1.5, "worth it: about 2.0 times"), (3.0, "about even"), (6.0, "not worth it")]
)
def test_verdict_is_tau_over_cost(cost: float, words: str) -> None:
    timing = replace(TIMING, cost=cost)
    found = inspect(universal(), timing=timing)
    assert found.verdict.startswith(words)
    assert found.to_dict()["timing"]["gain"] == pytest.approx(3.0 / cost)


def test_a_costly_assistant_is_told() -> None:
    found = inspect(universal(), timing=replace(TIMING, draft_step_seconds=0.005))
    assert "takes 50% of a target pass" in " ".join(found.warnings)
    assert "takes" not in " ".join(inspect(universal(), timing=TIMING).warnings)


def test_bfloat16_without_fixed_shapes_is_told() -> None:
    tokenizer = tiny.byte_level()
    model = tiny.make("llama").to(torch.bfloat16)
    for exact in (False, True):
        decoder = load(model, model, tokenizer=tokenizer, assistant_tokenizer=tokenizer, exact=exact)
        assert any("--exact" in warning for warning in inspect(decoder).warnings) is not exact


def test_measure() -> None:
    parts = list(measure(universal(), ["the red hat", "the bear"], max_new_tokens=6))
    timing = parts[-1]
    assert timing is not None
    assert parts[:-1] == [None] * 6
    assert set(timing.pass_seconds) == {1, 4, 8, 16}
    assert timing.tokens == 12
    assert timing.tokens_per_pass >= 1
    assert timing.cost > 0
    assert timing.draft_step_seconds > 0


def test_lookup_has_nothing_to_inspect() -> None:
    decoder = Decoder(tiny.target("llama"), LookupDrafter())
    with pytest.raises(OptionConflict, match="name an assistant"):
        inspect(decoder)
