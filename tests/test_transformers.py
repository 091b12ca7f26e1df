"""`anydraft.generate` returns what `model.generate` returns, whatever drafts and whatever is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Noisy
from transformers import GenerationConfig
from transformers.generation import (
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
)

import anydraft

NEW = 16
PROMPT = torch.tensor([tiny.prompt(9, 5)])


def padded() -> dict[str, torch.Tensor]:
    """Three prompts of different lengths, padded on the left."""
    prompts = [tiny.prompt(length, length) for length in (4, 11, 7)]
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[tiny.PAD] * (width - len(p)) + p for p in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
    }


def target() -> Any:
    return tiny.model("gemma2")


def drafting(kind: str) -> dict[str, Any]:
    """Arguments that make `generate` draft in one way or another."""
    if kind == "same tokenizer":
        same = tiny.byte_level()
        return {"assistant_model": tiny.relative("gemma2"), "tokenizer": same, "assistant_tokenizer": same}
    if kind == "other tokenizer":
        return {
            "assistant_model": tiny.model("llama", 405),
            "tokenizer": tiny.byte_level(),
            "assistant_tokenizer": tiny.pieces(),
        }
    return {"lookup": {"prompt_lookup_num_tokens": 4}, "plain": {}}[kind]


KINDS = ["plain", "lookup", "same tokenizer", "other tokenizer"]


class Favour(LogitsProcessor):
    """A user's processor: likes the token after the last one, more so the longer the (padded) row is."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[torch.arange(len(scores)), (input_ids[:, -1] + 1) % tiny.VOCAB] += 0.1 * input_ids.shape[1]
        return scores


class Unsure(StoppingCriteria):
    """Stops where the last score's margin is small; sees scores only if they are asked for."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        best = scores[-1].topk(2).values
        return best[:, 0] - best[:, 1] < 1.0


class After(StoppingCriteria):
    """Stops once a row has a multiple of seven, six tokens after the prompt or later."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        assert scores is None
        return (input_ids[:, -1] % 7 == 0) & torch.tensor(input_ids.shape[1] > 17)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "penalty": {"repetition_penalty": 1.3},
    "ngram": {"no_repeat_ngram_size": 1},
    "bad words": {"bad_words_ids": [[5], [7, 9]], "suppress_tokens": [11, 12], "begin_suppress_tokens": [13]},
    "min new tokens": {"min_new_tokens": 12, "eos_token_id": list(range(20, 90))},
    "min length": {"min_length": 20, "eos_token_id": list(range(20, 90))},
    "many ends": {"eos_token_id": list(range(20, 40))},
    "forced end": {"forced_eos_token_id": 44},
    "bias": {"sequence_bias": [[[17], 6.0], [[17, 18], 9.0]]},
    "decay": {"exponential_decay_length_penalty": (3, 1.5)},
    "prompt penalty": {"encoder_repetition_penalty": 1.5},
    "prompt ngrams": {"encoder_no_repeat_ngram_size": 1},
    "allowed": {"prefix_allowed_tokens_fn": lambda row, ids: [t for t in range(3, 150) if (t + row) % 3 == 0]},
    "processor": {"logits_processor": LogitsProcessorList([Favour()])},
    "criterion": {"stopping_criteria": StoppingCriteriaList([After()])},
    "length": {"stopping_criteria": StoppingCriteriaList([MaxLengthCriteria(15)])},
    "config": {"generation_config": GenerationConfig(repetition_penalty=1.2, max_new_tokens=9, pad_token_id=3)},
    "time": {"max_time": 1e-9},
    "renormalised": {"renormalize_logits": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_greedy_batch_is_that_of_transformers(setting: str) -> None:
    options = SETTINGS[setting]
    length = {} if setting == "config" else {"max_new_tokens": NEW}
    expected = target().generate(**padded(), **length, **options)
    if setting not in ("plain", "renormalised"):
        assert expected.tolist() != target().generate(**padded(), max_new_tokens=NEW).tolist()
    for kind in KINDS if setting == "plain" else ("same tokenizer",):
        found = anydraft.generate(target(), **padded(), **length, **options, **drafting(kind))
        assert found.tolist() == expected.tolist(), kind


def test_rows_of_a_batch_are_those_of_single_prompts() -> None:
    batch = padded()
    for options in ({}, {"repetition_penalty": 1.3}):
        together = anydraft.generate(target(), **batch, max_new_tokens=NEW, **options, **drafting("same tokenizer"))
        for ids, mask, answer in zip(*batch.values(), together, strict=True):
            alone = anydraft.generate(target(), ids[mask == 1][None], max_new_tokens=NEW, **options)
            new = alone[0, int(mask.sum()) :].tolist()
            assert answer[len(ids) :].tolist() == new + [tiny.PAD] * (len(answer) - len(ids) - len(new))


def test_right_padding_is_not_read() -> None:
    ids = torch.cat([PROMPT, torch.full((1, 3), tiny.PAD)], dim=1)
    mask = (torch.arange(12) < 9).long()[None]
    found = anydraft.generate(target(), ids, attention_mask=mask, max_new_tokens=NEW)
    assert found[0, 12:].tolist() == target().generate(PROMPT, max_new_tokens=NEW)[0, 9:].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 0},
        {"repetition_penalty": 1.3, "min_p": 0.02},
        {"typical_p": 0.8},
    ],
)
def test_sampling_does_not_depend_on_who_drafts(options: dict[str, Any]) -> None:
    found = []
    for kind in KINDS:
        torch.manual_seed(3)
        found.append(
            anydraft.generate(
                target(), **padded(), do_sample=True, max_new_tokens=NEW, **options, **drafting(kind)
            ).tolist()
        )
    assert all(one == found[0] for one in found)


def test_seeds() -> None:
    def sample(**options: Any) -> list[list[int]]:
        return anydraft.generate(target(), PROMPT, do_sample=True, max_new_tokens=NEW, **options).tolist()

    torch.manual_seed(0)
    first, second = sample(), sample()
    torch.manual_seed(0)
    assert [sample(), sample()] == [first, second]
    assert first != second
    assert sample(seed=5) == sample(seed=5) != sample(seed=6)
    several = sample(seed=5, num_return_sequences=3, **drafting("same tokenizer"))
    assert len({tuple(row) for row in several}) == 3
    assert several == sample(seed=5, num_return_sequences=3)
    trimmed = several[0][: len(sample(seed=5)[0])]
    assert trimmed == sample(seed=5)[0]


def test_sampling_follows_the_processed_distribution() -> None:
    rows = PROMPT.expand(400, -1)
    found = anydraft.generate(target(), rows, do_sample=True, top_k=4, max_new_tokens=1, seed=0)[:, -1]
    given = target().generate(
        PROMPT, do_sample=True, top_k=4, max_new_tokens=1, return_dict_in_generate=True, output_scores=True
    )
    probabilities = given.scores[0][0].softmax(-1)
    shares = torch.bincount(found, minlength=tiny.VOCAB) / 400
    assert float((shares - probabilities).abs().sum()) / 2 < 0.08
    assert set(found.tolist()) <= set(probabilities.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3, "stopping_criteria": [Unsure()]}])
def test_scores_and_logits(kind: str, options: dict[str, Any]) -> None:
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "max_new_tokens": NEW}
    expected = target().generate(PROMPT, **asked, **options)
    found = anydraft.generate(target(), PROMPT, **asked, **options, **drafting(kind))
    assert type(found) is type(expected)
    assert found.sequences.tolist() == expected.sequences.tolist()
    assert found.past_key_values is None
    for name in ("scores", "logits"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert [s.shape for s in mine] == [s.shape for s in theirs]
        torch.testing.assert_close(torch.cat(mine), torch.cat(theirs), atol=1e-4, rtol=1e-4)
    transitions = target().compute_transition_scores(found.sequences, found.scores)
    torch.testing.assert_close(
        transitions, target().compute_transition_scores(expected.sequences, expected.scores), atol=1e-4, rtol=1e-4
    )


def test_scores_of_a_batch_end_with_zeros() -> None:
    asked = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": NEW}
    found = anydraft.generate(target(), **padded(), **asked, eos_token_id=list(range(20, 60)))
    assert found.logits is None
    new = found.sequences[:, 11:]
    assert len(found.scores) == new.shape[1]
    for i, scores in enumerate(found.scores):
        ended = new[:, i] == tiny.PAD
        assert (scores[ended] == 0).all()
        assert (scores[~ended].std(-1) > 0).all()
    assert anydraft.generate(target(), PROMPT, return_dict_in_generate=True, max_new_tokens=2).scores is None


def test_ways_of_drafting() -> None:
    expected = target().generate(PROMPT, max_new_tokens=NEW).tolist()
    same = drafting("same tokenizer")
    ways: list[dict[str, Any]] = [
        {"exact": True, **same},
        {"exact": True, **drafting("other tokenizer")},
        {"draft_tokens": 3, **same},
        {"num_assistant_tokens": 3, **same},
        {"drafter": "universal", **same},
        {"drafter": "lookup"},
        {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1},
    ]
    for way in ways:
        assert anydraft.generate(target(), PROMPT, max_new_tokens=NEW, **way).tolist() == expected
    sample = {"do_sample": True, "num_return_sequences": 2, "seed": 1, "max_new_tokens": NEW}
    plain = anydraft.generate(target(), PROMPT, **sample)
    assert plain.tolist() == anydraft.generate(target(), PROMPT, **sample, prompt_lookup_num_tokens=3).tolist()


def test_a_drafter_of_ones_own() -> None:
    expected = target().generate(PROMPT, max_new_tokens=NEW)
    noisy = Noisy(tiny.VOCAB, {0: expected[0, 9:].tolist()})
    found = anydraft.generate(target(), PROMPT, max_new_tokens=NEW, drafter=noisy)
    assert noisy.calls
    assert not noisy.known
    assert found.tolist() == expected.tolist()
