"""The one promise: the same tokens with any drafter and with none, on every architecture.

The reference is a naive twin: whole forwards without a cache, transformers' own processors, noise, argmax. For
greedy settings transformers' `generate` must say the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Adversarial, Noisy, Oracle
from tiny import EOS, RAGGED, VOCAB
from transformers import generation as hf

from anydraft import Decoder, Generation
from anydraft.drafters import AssistantDrafter, LookupDrafter, UniversalDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.lm import LanguageModel
from anydraft.noise import Noise
from anydraft.sampling import SamplingParams
from anydraft.session import Session

NEW = 20
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 1.0, "seed": 1},
    "top-p": {"temperature": 0.7, "top_p": 0.9, "seed": 2},
    "penalty": {"repetition_penalty": 1.3},
    "ngram": {"no_repeat_ngram_size": 3},
}
DRAFTERS = ["assistant", "universal", "lookup", "adversarial", "noisy", "oracle"]


def twin(arch: str, prompts: list[list[int]], settings: dict[str, Any], new: int = NEW) -> list[list[int]]:
    """Decode without a cache: right-padded whole forwards, and each row's own processors."""
    model = tiny.model(arch)
    rows = [list(prompt) for prompt in prompts]
    done = [False] * len(rows)
    processors, warpers = _transformers_chain(settings)
    noise = Noise(settings["seed"], VOCAB) if "seed" in settings else None
    for position in range(new):
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits
        for i, row in enumerate(rows):
            if done[i]:
                continue
            scores = warpers(torch.tensor([row]), processors(torch.tensor([row]), logits[i, len(row) - 1][None]))[0]
            if noise is not None:
                scores = scores + noise.at(position)
            row.append(int(scores.argmax()))
            done[i] = row[-1] == EOS
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


def _transformers_chain(settings: dict[str, Any]) -> tuple[hf.LogitsProcessorList, hf.LogitsProcessorList]:
    processors, warpers = hf.LogitsProcessorList(), hf.LogitsProcessorList()
    if "repetition_penalty" in settings:
        processors.append(hf.RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    if "no_repeat_ngram_size" in settings:
        processors.append(hf.NoRepeatNGramLogitsProcessor(settings["no_repeat_ngram_size"]))
    if "temperature" in settings:
        warpers.append(hf.TemperatureLogitsWarper(settings["temperature"]))
    if "top_p" in settings:
        warpers.append(hf.TopPLogitsWarper(settings["top_p"]))
    return processors, warpers


@cache
def reference(arch: str, setting: str) -> list[list[int]]:
    """The twin's tokens for the ragged batch."""
    return twin(arch, RAGGED, SETTINGS[setting])


@cache
def assistant(arch: str) -> LanguageModel:
    return LanguageModel(tiny.relative(arch))


@cache
def stranger() -> LanguageModel:
    """An assistant of another architecture, size and tokenizer."""
    return LanguageModel(tiny.make("qwen2", len(tiny.pieces()), seed=5, hidden_size=16, num_hidden_layers=1))


@cache
def universal() -> UniversalDrafter:
    """Shared by all tests, as an application would: rows leave nothing behind."""
    return UniversalDrafter(
        stranger(),
        tiny.pieces(),
        target_tokenizer=tiny.byte_level(),
        vocab_size=VOCAB,
        eos_token_ids=frozenset({EOS}),
    )


def drafter(kind: str, arch: str, truth: dict[int, list[int]]) -> Drafter:
    if kind == "assistant":
        return AssistantDrafter(assistant(arch), vocab_size=VOCAB, eos_token_ids=frozenset({EOS}))
    if kind == "universal":
        return universal()
    if kind == "lookup":
        return LookupDrafter(min_ngram=1)
    if kind == "adversarial":
        return Adversarial(VOCAB, truth)
    if kind == "noisy":
        return Noisy(VOCAB, truth)
    return Oracle(VOCAB, truth, decoys=2)


def generate(decoder: Decoder, prompts: Any, **options: Any) -> list[Generation]:
    result = decoder.generate(prompts, **options)
    return result if isinstance(result, list) else [result]


def mixed(decoder: Decoder, new: int = NEW) -> dict[tuple[str, int], Generation]:
    """All settings and prompts as one batch of rows, as a server would have them."""
    rows, names = [], []
    for setting, options in SETTINGS.items():
        params = SamplingParams(max_new_tokens=new, **options)
        made, _ = decoder._rows(RAGGED, params, None)
        names += [(setting, i) for i in range(len(made))]
        rows += made
    for index, row in enumerate(rows):
        row.index = index
    session = Session(decoder.target, decoder.drafter, decoder.pacing, rows)
    while session.active:
        session.step()
    return {name: decoder._generation(row) for name, row in zip(names, rows, strict=True)}


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_plain_is_the_twin_and_transformers(arch: str) -> None:
    decoder = tiny.decoder(arch)
    assert decoder.target.structure == "tree"
    for (setting, i), result in mixed(decoder).items():
        assert result.tokens == reference(arch, setting)[i], (setting, i)
    for setting in ("greedy", "penalty", "ngram"):
        for i, prompt in enumerate(RAGGED):
            ids = torch.tensor([prompt])
            output = tiny.model(arch).generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, **SETTINGS[setting]
            )
            assert output[0, len(prompt) :].tolist() == reference(arch, setting)[i], (setting, i)


@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_batch(arch: str, kind: str) -> None:
    """Twenty ragged rows of five settings in one batch, rows leaving as they finish."""
    expected = [tokens for setting in SETTINGS for tokens in reference(arch, setting)]
    decoder = tiny.decoder(arch, drafter(kind, arch, dict(enumerate(expected))))
    results = mixed(decoder)
    assert [result.tokens for result in results.values()] == expected
    stats = sum((result.stats for result in results.values()), start=type(next(iter(results.values())).stats)())
    if kind == "oracle":
        assert stats.tokens_per_pass > 3
    elif kind == "adversarial":
        assert stats.tokens_per_pass == 1
        assert stats.num_draft_tokens > stats.num_tokens
    elif kind != "lookup":
        assert stats.num_draft_tokens > 0
    if kind in ("assistant", "noisy"):
        assert stats.num_accepted_tokens > 0


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_single(arch: str, kind: str, setting: str) -> None:
    """One row, through the public call."""
    new = 12
    expected = reference(arch, setting)[0]
    decoder = tiny.decoder(arch, drafter(kind, arch, {0: expected}))
    (result,) = generate(decoder, RAGGED[0], max_new_tokens=new, **SETTINGS[setting])
    assert result.tokens == expected[:new]
