"""Weights that others trained: a story model with an assistant of another tokenizer keeps the promise."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import anydraft
from anydraft import Decoder, Generation
from anydraft.drafters import UniversalDrafter

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
TARGET, ASSISTANT = MODELS / "babyllama-tok361", MODELS / "stories260K"

pytestmark = pytest.mark.skipif(not (TARGET.exists() and ASSISTANT.exists()), reason="the story models are not here")

PROMPTS = [
    f"{opening}, {who} {did}"
    for opening, who, did in itertools.product(
        ["Once upon a time", "One day", "In a small house", "It was a sunny day", "Long ago"],
        ["a little girl named Lily", "Tim and his mom", "a big dog", "the old man", "two birds"],
        ["wanted to", "found a"],
    )
]


@cache
def decoder(drafter: bool) -> Decoder:
    torch.set_num_threads(1)
    if not drafter:
        return anydraft.load(str(TARGET), None, dtype="float32", device="cpu")
    return anydraft.load(str(TARGET), assistant=str(ASSISTANT), dtype="float32", device="cpu", draft_tokens=4)


def answers(drafter: bool, **options: Any) -> list[Generation]:
    results = []
    for start in range(0, len(PROMPTS), 25):
        part = decoder(drafter).generate(PROMPTS[start : start + 25], max_new_tokens=24, **options)
        assert isinstance(part, list)
        results += part
    return results


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_fifty_stories(temperature: float) -> None:
    options: dict[str, Any] = {"temperature": temperature}
    if temperature:
        options["seed"] = 1
    assert isinstance(decoder(True).drafter, UniversalDrafter)
    assert len(PROMPTS) == 50
    plain, drafted = answers(False, **options), answers(True, **options)
    assert [r.tokens for r in drafted] == [r.tokens for r in plain]
    assert [r.text for r in drafted] == [r.text for r in plain]
    passes = sum(r.stats.num_passes for r in drafted)
    tokens = sum(r.stats.num_tokens for r in drafted)
    assert tokens / passes > (1.8 if temperature == 0 else 1.5)
    assert len({tuple(r.tokens) for r in plain}) > 10


def test_one_by_one_as_transformers_says() -> None:
    model, tokenizer = decoder(False).target.model, decoder(False).tokenizer
    for prompt in PROMPTS[:5]:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        result = decoder(True).generate(prompt, max_new_tokens=24)
        assert isinstance(result, Generation)
        assert result.tokens == output[0, ids.shape[1] :].tolist()


def test_temperatures_one_and_a_half() -> None:
    options: dict[str, Any] = {"temperature": 1.5, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 2}
    plain = decoder(False).generate(PROMPTS[:12], max_new_tokens=40, **options)
    drafted = decoder(True).generate(PROMPTS[:12], max_new_tokens=40, **options)
    assert isinstance(plain, list)
    assert isinstance(drafted, list)
    assert [r.tokens for r in drafted] == [r.tokens for r in plain]
