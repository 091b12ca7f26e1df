"""Everything stays where the models are: the same calls on each kind of device that this machine has."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import RAGGED

import anydraft
from anydraft import Generation

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 3},
    "restricted": {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "seed": 3},
    "by path": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "frequency_penalty": 0.2,
        "logit_bias": {7: 1.0},
        "bad_words": [[9]],
        "min_new_tokens": 4,
    },
}


def decoder(device: str, drafter: str | None, **options: Any) -> anydraft.Decoder:
    target = tiny.make("llama").to(device)
    tokenizer = tiny.byte_level()
    if drafter in (None, "lookup"):
        return anydraft.load(target, drafter, tokenizer=tokenizer, **options)
    other = tiny.pieces() if drafter == "universal" else tokenizer
    assistant = tiny.make("gpt2", vocab=len(other) if drafter == "universal" else tiny.VOCAB, seed=1).to(device)
    return anydraft.load(
        target, drafter, assistant=assistant, tokenizer=tokenizer, assistant_tokenizer=other, **options
    )


def tokens(of: anydraft.Decoder, **options: Any) -> list[list[int]]:
    results = of.generate(RAGGED, max_new_tokens=12, **options)
    assert isinstance(results, list)
    assert all(isinstance(result, Generation) for result in results)
    return [result.tokens for result in results]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("drafter", ["assistant", "universal", "lookup"])
@pytest.mark.parametrize("name", SETTINGS)
def test_drafters(device: str, drafter: str, name: str) -> None:
    assert tokens(decoder(device, drafter), **SETTINGS[name]) == tokens(decoder(device, None), **SETTINGS[name])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("drafter", ["assistant", "universal"])
def test_rejection(device: str, drafter: str) -> None:
    drafted = decoder(device, drafter, verification="rejection")
    first = tokens(drafted, temperature=1.0, seed=3)
    assert first == tokens(drafted, temperature=1.0, seed=3)
    assert tokens(drafted) == tokens(decoder(device, None))


@pytest.mark.parametrize("device", DEVICES)
def test_transformers(device: str) -> None:
    target, assistant = tiny.make("llama").to(device), tiny.make("llama", seed=1).to(device)
    ids = torch.tensor([RAGGED[0]], device=device)
    shared: dict[str, Any] = {"max_new_tokens": 12, "pad_token_id": 0}
    result = anydraft.generate(target, ids, assistant_model=assistant, drafter="assistant", **shared)
    assert result.device.type == device
    assert result.tolist() == target.generate(ids, attention_mask=torch.ones_like(ids), **shared).tolist()
