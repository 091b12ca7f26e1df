"""The one promise: the same tokens with any drafter and with none, on every architecture.

The reference is a naive twin: whole forwards without a cache, transformers' own processors, noise, argmax. For
greedy settings transformers' `generate` must say the same.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import tiny
import torch
import transformers as tf
from drafters_for_tests import Adversarial, Noisy, Oracle
from tiny import EOS, RAGGED, VOCAB
from transformers import generation as hf

import anydraft
from anydraft import Decoder, Generation, UnsupportedModel
from anydraft.drafters import AssistantDrafter, LookupDrafter, UniversalDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.lm import LanguageModel
from anydraft.noise import Noise
from anydraft.pacing import Steady
from anydraft.sampling import SamplingParams
from anydraft.session import Session
from anydraft.target import Target
from anydraft.text.token_bytes import TokenBytes

NEW = 16
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
        made, _ = decoder._intake.rows(RAGGED, params, None)
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


# Assistants with another tokenizer that know the language. ---------------------------------------

KINDS = ["byte-level", "whole bytes", "pieces"]
PARROT_SETTINGS = {
    "greedy": {},
    "temperature": {"temperature": 1.0, "seed": 1},
    "hot": {"temperature": 1.5, "top_k": 20, "repetition_penalty": 1.1, "seed": 5},
}


@pytest.mark.parametrize("draft", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_universal_with_real_acceptance(kind: str, draft: str) -> None:
    """Models of one language in different tokenizers: drafts are converted, accepted, rejected in the middle."""
    target = tiny.parrot_target(kind)
    universal = UniversalDrafter(
        LanguageModel(tiny.parrot(draft)),
        tiny.tokenizer_of(draft)[0],
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
    )
    for setting, options in PARROT_SETTINGS.items():
        plain = generate(tiny.decoder(target), tiny.STORIES, max_new_tokens=32, **options)
        for width in (1, 3) if setting == "greedy" else (2,):
            decoder = tiny.decoder(target, universal, width=width)
            results = generate(decoder, tiny.STORIES, max_new_tokens=32, **options)
            assert [r.tokens for r in results] == [r.tokens for r in plain], setting
            passes = sum(r.stats.num_passes for r in results)
            tokens = sum(r.stats.num_tokens for r in results)
            if setting != "hot":
                assert tokens / passes > (3 if setting == "greedy" else 1.5), setting
            assert all(r.proposers.count("universal") == r.stats.num_accepted_tokens for r in results)


def test_what_the_drafter_reads_is_its_own_affair() -> None:
    """Another prompt for the drafter changes acceptance, not tokens; so does an assistant without a start token."""
    target = tiny.parrot_target("pieces")
    tokenizer, _ = tiny.tokenizer_of("whole bytes")
    universal = UniversalDrafter(
        LanguageModel(tiny.parrot("whole bytes")),
        tokenizer,
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
    )
    options: dict[str, Any] = {"max_new_tokens": 24, "temperature": 1.0, "seed": 9}
    plain = generate(tiny.decoder(target), tiny.STORIES, **options)
    for draft_prompt in (["</s>"] * 6, [""] * 6, ["<s> 🙂"] * 6, [story[1:] for story in tiny.STORIES]):
        results = generate(tiny.decoder(target, universal), tiny.STORIES, draft_prompt=draft_prompt, **options)
        assert [r.tokens for r in results] == [r.tokens for r in plain], draft_prompt


@pytest.mark.parametrize("kind", ["assistant", "universal"])
def test_a_prompt_longer_than_the_assistants_context(kind: str) -> None:
    """The assistant's window slides; nothing fails and nothing changes."""
    target = tiny.parrot_target("byte-level")
    draft = "byte-level" if kind == "assistant" else "pieces"
    tokenizer, vocab = tiny.tokenizer_of(draft)
    lm = LanguageModel(tiny.ToyModel(tiny.Parrot(tokenizer, vocab), vocab, context=100))
    shared: dict[str, Any] = {"vocab_size": target.vocab_size, "eos_token_ids": target.eos_token_ids}
    drafter_: Drafter = (
        AssistantDrafter(lm, **shared)
        if kind == "assistant"
        else UniversalDrafter(lm, tokenizer, target_tokenizer=target.tokenizer, **shared)
    )
    prompts = [tiny.TEXT[:200], "Once", tiny.TEXT[100:160]]
    for options in ({}, {"temperature": 1.0, "seed": 3}):
        plain = generate(tiny.decoder(target), prompts, max_new_tokens=60, **options)
        results = generate(tiny.decoder(target, drafter_), prompts, max_new_tokens=60, **options)
        assert [r.tokens for r in results] == [r.tokens for r in plain]
        assert all(r.stats.tokens_per_pass > 1.5 for r in results)


@pytest.mark.parametrize("kind", ["assistant", "universal"])
def test_a_draft_longer_than_the_assistants_context(kind: str) -> None:
    """A table of positions ends; a draft of fixed length ends before it."""
    target = tiny.target("llama")
    lm = LanguageModel(tiny.make("gpt2", n_positions=20))
    shared: dict[str, Any] = {"vocab_size": target.vocab_size, "eos_token_ids": target.eos_token_ids}
    drafter_: Drafter = (
        AssistantDrafter(lm, **shared)
        if kind == "assistant"
        else UniversalDrafter(lm, target.tokenizer, target_tokenizer=target.tokenizer, **shared)
    )
    decoder = tiny.decoder(target, drafter_, depth=50, width=1, nodes=50)
    options: dict[str, Any] = {"max_new_tokens": 60, "ignore_eos": True}
    (plain,) = generate(tiny.decoder(target), RAGGED[0], **options)
    (result,) = generate(decoder, RAGGED[0], **options)
    assert result.tokens == plain.tokens
    assert result.stats.num_draft_tokens


@pytest.mark.parametrize("side", ["target", "assistant"])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}], ids=str)
def test_tokens_added_to_a_tokenizer_but_not_to_its_model(side: str, options: dict[str, Any]) -> None:
    """They are neither drafted nor read: the text is written with the tokens that the model knows."""
    target, (tokenizer, _) = tiny.parrot("whole bytes"), tiny.tokenizer_of("whole bytes")
    assistant, (other, _) = tiny.parrot("pieces"), tiny.tokenizer_of("pieces")
    plain = anydraft.load(target, None, tokenizer=tokenizer).generate("Once upon", **options)
    grown = copy.deepcopy(tokenizer if side == "target" else other)
    grown.add_tokens([*(f" w{i}" for i in range(6)), "little", "bear", "She "])
    decoder = anydraft.load(
        target,
        assistant=assistant,
        tokenizer=grown if side == "target" else tokenizer,
        assistant_tokenizer=grown if side == "assistant" else other,
        pacing=Steady(),
    )
    result = decoder.generate("Once upon", **options)
    assert isinstance(plain, Generation)
    assert isinstance(result, Generation)
    assert result.tokens == plain.tokens
    assert result.stats.tokens_per_pass > 1.5


# Ends inside an accepted run. -------------------------------------------------------------------


@cache
def long_run(sampled: bool) -> list[int]:
    options = {"temperature": 1.0, "seed": 4} if sampled else {}
    (result,) = generate(tiny.decoder("qwen2"), RAGGED[0], max_new_tokens=24, ignore_eos=True, **options)
    return result.tokens


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("decoys", [0, 2])
def test_stop_tokens_cut_where_plain_decoding_stops(sampled: bool, decoys: int) -> None:
    truth = long_run(sampled)
    options: dict[str, Any] = {"temperature": 1.0, "seed": 4} if sampled else {}
    for stop in truth:
        decoder = tiny.decoder("qwen2", Oracle(VOCAB, {0: truth}, depth=9, decoys=decoys))
        (result,) = generate(decoder, RAGGED[0], max_new_tokens=24, ignore_eos=True, stop_token_ids=[stop], **options)
        assert result.tokens == truth[: truth.index(stop) + 1]
        assert result.finish_reason == "stop"
        assert len(result.proposers) == len(result.tokens)
        assert not decoder.drafter.known  # type: ignore[union-attr]


def test_end_of_sequence_ends_and_can_be_ignored() -> None:
    model = tiny.make("llama")
    truth = generate(tiny.decoder("llama"), RAGGED[0], max_new_tokens=20, ignore_eos=True)[0].tokens
    model.generation_config.eos_token_id = [EOS, truth[6]]
    target = Target(model, structure="tree")
    for drafter_ in (None, Oracle(VOCAB, {0: truth}, depth=20)):
        decoder = tiny.decoder(target, drafter_)
        (result,) = generate(decoder, RAGGED[0], max_new_tokens=20)
        assert result.tokens == truth[: truth.index(truth[6]) + 1]
        assert (result.finish_reason, result.tokens[-1]) == ("stop", truth[6])
        (result,) = generate(decoder, RAGGED[0], max_new_tokens=20, ignore_eos=True)
        assert (result.tokens, result.finish_reason) == (truth, "length")


@pytest.mark.parametrize("kind", KINDS)
def test_stop_strings_cut_where_plain_decoding_stops(kind: str) -> None:
    target = tiny.parrot_target(kind)
    table = TokenBytes.of(target.tokenizer)
    (plain,) = generate(tiny.decoder(target), "Once upon", max_new_tokens=30)
    text = table.join(plain.tokens).decode()
    stops = [text[at : at + size] for at in range(0, len(text) - 6, 5) for size in (1, 3, 6)]
    for stop in stops:
        first = next(i for i in range(31) if stop in table.join(plain.tokens[:i]).decode(errors="replace"))
        decoder = tiny.decoder(target, Oracle(target.vocab_size, {0: plain.tokens}, depth=12))
        (result,) = generate(decoder, "Once upon", max_new_tokens=30, stop=[stop, "never said"])
        assert result.tokens == plain.tokens[:first], stop
        assert result.finish_reason == "stop"
        assert stop in result.text
        (again,) = generate(tiny.decoder(target), "Once upon", max_new_tokens=30, stop=stop)
        assert again.tokens == result.tokens


@pytest.mark.parametrize("new", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", DRAFTERS)
def test_a_budget_smaller_than_the_draft(kind: str, new: int) -> None:
    for setting in ("greedy", "temperature"):
        expected = reference("llama", setting)
        decoder = tiny.decoder("llama", drafter(kind, "llama", dict(enumerate(expected))), depth=8)
        results = generate(decoder, RAGGED, max_new_tokens=new, **SETTINGS[setting])
        assert [r.tokens for r in results] == [tokens[:new] for tokens in expected]
        assert all(r.finish_reason == "length" for r in results if EOS not in r.tokens)


def test_rows_that_finish_at_different_times() -> None:
    """Each row of a batch stops at a token of its own; the others never notice."""
    plain = [r.tokens for r in generate(tiny.decoder("gemma2"), RAGGED, max_new_tokens=24, ignore_eos=True)]
    stops = [plain[0][2], plain[1][9], plain[2][5]]
    expected = [
        tokens[: min((tokens.index(stop) for stop in stops if stop in tokens), default=23) + 1] for tokens in plain
    ]
    assert len({len(tokens) for tokens in expected}) > 1
    for make in (Oracle, Noisy, Adversarial):
        for seed in range(3):
            decoder = tiny.decoder("gemma2", make(VOCAB, dict(enumerate(plain)), seed=seed))
            results = generate(decoder, RAGGED, max_new_tokens=24, ignore_eos=True, stop_token_ids=stops)
            assert [r.tokens for r in results] == expected


def test_several_answers_per_prompt() -> None:
    """`n` answers differ from each other and are those of plain decoding; the first is that of n=1."""
    options: dict[str, Any] = {"temperature": 1.0, "seed": 11, "max_new_tokens": 12}
    plain = generate(tiny.decoder("phi"), RAGGED[:2], n=3, **options)
    assert len({tuple(r.tokens) for r in plain}) == 6
    drafted = generate(tiny.decoder("phi", drafter("assistant", "phi", {})), RAGGED[:2], n=3, **options)
    assert [r.tokens for r in drafted] == [r.tokens for r in plain]
    single = generate(tiny.decoder("phi"), RAGGED[:2], **options)
    assert [r.tokens for r in single] == [plain[0].tokens, plain[3].tokens]


def test_the_answer_repeats_with_its_seed() -> None:
    """Without a seed one is drawn, and told."""
    decoder = tiny.decoder("phi", drafter("assistant", "phi", {}))
    first, second = (generate(decoder, RAGGED[0], max_new_tokens=12, temperature=1.5)[0] for _ in range(2))
    assert first.tokens != second.tokens
    (again,) = generate(tiny.decoder("phi"), RAGGED[0], max_new_tokens=12, temperature=1.5, seed=first.seed)
    assert again.tokens == first.tokens


# Refusals. --------------------------------------------------------------------------------------


def test_models_that_cannot_be_rolled_back_are_refused() -> None:
    small: dict[str, Any] = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}
    with pytest.raises(UnsupportedModel, match="recurrent state"):
        Target(tf.MambaForCausalLM(tf.MambaConfig(**small, state_size=8)).eval())
    with pytest.raises(UnsupportedModel, match="position ids"):
        Target(tf.BloomForCausalLM(tf.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)).eval())
