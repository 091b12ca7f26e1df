"""Sampling parameters: each means what it means in transformers, and sees the path of its own node."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Adversarial, Noisy, Oracle
from tiny import EOS, RAGGED, VOCAB

from anydraft import Decoder, Generation, SamplingParams
from anydraft.errors import OptionConflict
from anydraft.noise import Noise
from anydraft.processors import Processors
from anydraft.target import Target

ARCH = "qwen3"
NEW = 20
SAMPLED: dict[str, Any] = {"temperature": 1.0, "seed": 6}


def generate(decoder: Decoder, prompts: Any = RAGGED, **options: Any) -> list[Generation]:
    results = decoder.generate(prompts, max_new_tokens=NEW, **options)
    return results if isinstance(results, list) else [results]


def plain_and_drafted(**options: Any) -> list[list[int]]:
    """Plain decoding's tokens, checked against a good, a half good and a bad drafter."""
    plain = [r.tokens for r in generate(tiny.decoder(ARCH), **options)]
    truth = dict(enumerate(plain))
    for drafter in (Oracle(VOCAB, truth, decoys=1), Noisy(VOCAB, truth), Adversarial(VOCAB, truth)):
        results = generate(tiny.decoder(ARCH, drafter), **options)
        assert [r.tokens for r in results] == plain
        if isinstance(drafter, Oracle):
            assert sum(r.stats.num_accepted_tokens for r in results) > sum(r.stats.num_passes for r in results)
    return plain


def transformers_says(**options: Any) -> list[list[int]]:
    """Greedy `generate`, row by row."""
    answers = []
    for prompt in RAGGED:
        ids = torch.tensor([prompt])
        output = tiny.model(ARCH).generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, **options
        )
        answers.append(output[0, len(prompt) :].tolist())
    return answers


def greedy() -> list[list[int]]:
    return transformers_says()


# One option at a time, as transformers has it. ----------------------------------------------------


def test_min_new_tokens() -> None:
    """The end is forbidden before, allowed after; in transformers' words and in drafts."""
    model = tiny.make(ARCH)
    first = greedy()[0][4]
    model.generation_config.eos_token_id = [EOS, first]
    target = Target(model, structure="tree")
    for least in (0, 3, 12, NEW):
        ids = torch.tensor([RAGGED[0]])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=least, do_sample=False
        )[0, ids.shape[1] :].tolist()
        for drafter in (None, Oracle(VOCAB, {0: expected})):
            (result,) = generate(tiny.decoder(target, drafter), RAGGED[0], min_new_tokens=least)
            assert result.tokens == expected
            assert len(result.tokens) >= least


def test_bad_words() -> None:
    said = greedy()
    bad = [[said[0][1]], said[0][3:5], said[2][0:3], [said[1][0]]]
    expected = transformers_says(bad_words_ids=bad)
    assert expected != said
    assert plain_and_drafted(bad_words=bad) == expected


def test_bad_words_as_strings() -> None:
    target = tiny.parrot_target("pieces")
    (before,) = generate(tiny.decoder(target), "Once upon a time")
    assert "little" in before.text
    for drafter in (None, Oracle(target.vocab_size, {0: before.tokens})):
        (result,) = generate(tiny.decoder(target, drafter), "Once upon a time", bad_words=["little", "girl"])
        encoded = [target.tokenizer.encode(word, add_special_tokens=False) for word in ("little", " girl")]
        assert all(result.tokens[i : i + len(word)] != word for word in encoded for i in range(len(result.tokens)))


def test_logit_bias() -> None:
    said = greedy()
    favourite = next(token for token in range(3, VOCAB) if all(token not in tokens for tokens in said))
    assert all(set(tokens) == {favourite} for tokens in plain_and_drafted(logit_bias={favourite: 100.0}))
    banned = plain_and_drafted(logit_bias={said[0][0]: float("-inf")}, **SAMPLED)
    assert all(said[0][0] not in tokens for tokens in banned)
    biased = plain_and_drafted(logit_bias={favourite: 2.0, said[0][0]: -3.0})
    model = tiny.model(ARCH)
    for prompt, tokens in zip(RAGGED, biased, strict=True):
        for i, token in enumerate(tokens):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + tokens[:i]])).logits[0, -1]
            logits[favourite] += 2
            logits[said[0][0]] -= 3
            assert token == int(logits.argmax())


@pytest.mark.parametrize("options", [{}, SAMPLED])
@pytest.mark.parametrize(("presence", "frequency"), [(1.5, 0.0), (0.0, 1.0), (-0.5, 2.0)])
def test_presence_and_frequency_penalties(presence: float, frequency: float, options: dict[str, Any]) -> None:
    """Over the output only: prompts do not count."""
    answers = plain_and_drafted(presence_penalty=presence, frequency_penalty=frequency, ignore_eos=True, **options)
    noise = Noise(options["seed"], VOCAB) if options else None
    for prompt, tokens in zip(RAGGED, answers, strict=True):
        for i, token in enumerate(tokens):
            with torch.no_grad():
                scores = tiny.model(ARCH)(torch.tensor([prompt + tokens[:i]])).logits[0, -1].clone()
            for seen, count in Counter(tokens[:i]).items():
                scores[seen] -= presence + frequency * count
            if noise is not None:
                scores += noise.at(i)
            assert token == int(scores.argmax())


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 3},
        {"top_p": 0.4},
        {"min_p": 0.3},
        {"typical_p": 0.5},
        {"top_k": 1},
        {"top_p": 1e-9},
        {"temperature": 1e-6},
        {"temperature": 5.0, "top_k": 50, "top_p": 0.8},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "top_k": 5},
    ],
    ids=str,
)
def test_warpers(options: dict[str, Any]) -> None:
    answers = plain_and_drafted(**{**SAMPLED, **options})
    if options.get("top_k") == 1 or options.get("top_p") == 1e-9 or options.get("temperature") == 1e-6:
        assert answers == greedy()
    else:
        assert answers != greedy()


def test_processors_together_as_in_transformers() -> None:
    options: dict[str, Any] = {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2}
    bad = [[greedy()[0][0]], greedy()[1][:2]]
    assert plain_and_drafted(bad_words=bad, **options) == transformers_says(bad_words_ids=bad, **options)


# Processors of the user's own. -------------------------------------------------------------------


class Witness:
    """A logits processor that writes down what it saw and forbids a token that depends on it."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert input_ids.shape[0] == scores.shape[0] == 1
        assert scores.dtype == torch.float32
        path = tuple(input_ids[0].tolist())
        self.seen.append(path)
        scores = scores.clone()
        scores[0, sum(path) % VOCAB :: 7] = -torch.inf
        return scores


@pytest.mark.parametrize("options", [{}, SAMPLED])
@pytest.mark.parametrize("kind", ["oracle", "noisy", "adversarial"])
def test_a_processor_sees_its_own_nodes_path(kind: str, options: dict[str, Any]) -> None:
    """Every prefix of the answer once, and nothing else: what was drafted and rejected is never seen."""
    prompt = RAGGED[0]
    plain = Witness()
    (expected,) = generate(tiny.decoder(ARCH), prompt, logits_processors=[plain], **options)
    prefixes = [tuple(prompt + expected.tokens[:i]) for i in range(len(expected.tokens))]
    assert plain.seen == prefixes
    truth = {0: expected.tokens}
    drafter = {
        "oracle": Oracle(VOCAB, truth, decoys=2),
        "noisy": Noisy(VOCAB, truth),
        "adversarial": Adversarial(VOCAB, truth),
    }[kind]
    witness = Witness()
    (result,) = generate(tiny.decoder(ARCH, drafter), prompt, logits_processors=[witness], **options)
    assert result.tokens == expected.tokens
    # After the last drafted token that ends the row, the target's next choice may be asked for in vain.
    assert witness.seen[: len(prefixes)] == prefixes
    assert len(witness.seen) <= len(prefixes) + 1


def test_rows_have_processors_of_their_own() -> None:
    """A penalty of one row never leaks into another one."""
    alone = [generate(tiny.decoder(ARCH), prompt, repetition_penalty=1.5)[0].tokens for prompt in RAGGED]
    assert plain_and_drafted(repetition_penalty=1.5) == alone


def test_transformers_lists_keep_their_order() -> None:
    import transformers as tf

    chain = tf.LogitsProcessorList(
        [
            tf.RepetitionPenaltyLogitsProcessor(1.3),
            tf.TemperatureLogitsWarper(0.5),
            tf.NoBadWordsLogitsProcessor([[5]]),
            tf.TemperatureLogitsWarper(0.7),
            tf.TopKLogitsWarper(9),
        ]
    )
    ours = Processors.of_list(chain, sample=True)
    assert [type(p).__name__[:6] for p in ours.by_path] == ["Repeti", "Temper", "NoBadW"]
    assert [type(p).__name__[:6] for p in ours.by_scores] == ["Temper", "TopKLo"]
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(0))
    expected = chain(torch.tensor([[7, 8, 9]]), logits[None].clone())[0]
    torch.testing.assert_close(ours([7, 8, 9], logits), expected)


# Checks. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, r"temperature must be >= 0 \(0 is greedy\), got -0.5"),
        ({"temperature": float("nan")}, "temperature must be >= 0"),
        ({"temperature": float("inf")}, "temperature must be >= 0"),
        ({"temperature": "1"}, "temperature must be >= 0.*got '1'"),
        ({"temperature": True}, "temperature must be .*got True"),
        ({"top_p": 0.0, "temperature": 1}, r"top_p must be in \(0, 1\] \(1 is off\), got 0.0"),
        ({"top_p": 1.5, "temperature": 1}, "top_p must be .*got 1.5"),
        ({"top_k": -1, "temperature": 1}, "top_k must be >= 0.*got -1"),
        ({"top_k": 2.5, "temperature": 1}, "top_k must be an integer, got 2.5"),
        ({"min_p": 2, "temperature": 1}, "min_p must be in .*got 2"),
        ({"repetition_penalty": 0}, "repetition_penalty must be > 0.*got 0"),
        ({"presence_penalty": 3}, "presence_penalty must be in .*got 3"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
        ({"max_new_tokens": 2.0}, "max_new_tokens must be an integer, got 2.0"),
        ({"min_new_tokens": 9, "max_new_tokens": 4}, "min_new_tokens=9 exceeds max_new_tokens=4; raise the latter"),
        ({"top_p": 0.9}, "top_p restrict sampling, but temperature is 0.*set temperature > 0"),
        ({"top_k": 4, "min_p": 0.1}, "top_k, min_p restrict sampling"),
        ({"n": 2}, "n=2 greedy answers would be identical; set temperature > 0"),
        ({"n": 0, "temperature": 1}, "n must be >= 1, got 0"),
        ({"seed": 1.5, "temperature": 1}, "seed must be an integer or None, got 1.5"),
        ({"stop": [""]}, "stop takes non-empty strings"),
        ({"stop": [3]}, "stop takes non-empty strings"),
        ({"bad_words": [[]]}, "bad_words holds an empty entry"),
        ({"logit_bias": {3: float("nan")}}, "logit_bias maps token ids to numbers, got 3"),
        ({"logit_bias": {"a": 1.0}}, "logit_bias maps token ids to numbers, got 'a'"),
        ({"logit_bias": {3: "b"}}, "logit_bias maps token ids to numbers, got 3: 'b'"),
        ({"logit_bias": None}, "logit_bias maps token ids to numbers, got None"),
        ({"stop": 3}, "stop takes a list, got 3"),
        ({"stop_token_ids": 3}, "stop_token_ids takes a list, got 3"),
        ({"logits_processors": len}, "logits_processors takes a list, got <built-in"),
        ({"logits_processors": [3]}, r"logits_processors takes LogitsProcessors, got \[3\]"),
        ({"bad_words": [3]}, r"bad_words takes strings or lists of token ids, got \[3\]"),
        ({"ignore_eos": "no"}, "ignore_eos must be True or False, got 'no'"),
    ],
    ids=str,
)
def test_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionConflict, match=message):
        SamplingParams(**options)
    with pytest.raises(OptionConflict, match=message):
        tiny.decoder("llama").generate([5], **options)


def test_unknown_options_are_errors() -> None:
    with pytest.raises(OptionConflict, match=r"unknown option 'top_q'; sampling options are bad_words, .*top_p"):
        tiny.decoder("llama").generate([5], top_q=1)
    with pytest.raises(TypeError):
        SamplingParams(top_q=1)  # type: ignore[call-arg]


def test_options_on_top_of_params() -> None:
    params = SamplingParams(temperature=1.0, seed=3, max_new_tokens=4)
    merged = SamplingParams.of(params, {"max_new_tokens": 6})
    assert (merged.temperature, merged.seed, merged.max_new_tokens) == (1.0, 3, 6)
    assert SamplingParams.of(params, {}) == params
    with pytest.raises(OptionConflict, match="top_p restrict"):
        SamplingParams.of(params, {"temperature": 0, "top_p": 0.5})
    assert SamplingParams(stop="abc").stop == ("abc",)


def test_tokens_outside_the_vocabulary() -> None:
    for options in ({"logit_bias": {VOCAB: 1.0}}, {"stop_token_ids": [VOCAB]}, {"stop_token_ids": [-1]}):
        with pytest.raises(OptionConflict, match=rf"token id (-1|{VOCAB}) is outside the vocabulary of {VOCAB}"):
            tiny.decoder("llama").generate([5], **options)
    with pytest.raises(ValueError, match=r"."):
        tiny.decoder("llama").generate([5], bad_words=[[VOCAB + 3]], max_new_tokens=2)
