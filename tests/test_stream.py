"""Streams: the same tokens and text in pieces, never half a character, and safe to leave at any time."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
import tiny
from drafters_for_tests import Noisy, Oracle
from hypothesis import given
from hypothesis import strategies as st
from tiny import RAGGED, VOCAB

from anydraft import Decoder, Generation, SamplingParams, Step
from anydraft.drafters import AssistantDrafter, LookupDrafter, UniversalDrafter
from anydraft.errors import OptionConflict
from anydraft.lm import LanguageModel
from anydraft.target import Target
from anydraft.text.stream import StopStrings, TextStream

OPTIONS: list[dict[str, Any]] = [
    {"max_new_tokens": 24},
    {"max_new_tokens": 24, "temperature": 1.0, "seed": 2},
    {"max_new_tokens": 24, "stop": [" t"], "temperature": 0.5, "seed": 1},
]


def answers(decoder: Decoder, prompts: Any, **options: Any) -> list[Generation]:
    results = decoder.generate(prompts, **options)
    return results if isinstance(results, list) else [results]


def universal(target: Target) -> UniversalDrafter:
    return UniversalDrafter(
        LanguageModel(tiny.parrot("pieces")),
        tiny.pieces(),
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
    )


def test_passes_with_parameters_of_each_prompts_own() -> None:
    """Each row as if it had been alone, whatever its neighbours' temperature, seed and length."""
    decoder = tiny.decoder("llama", LookupDrafter())
    own = [
        SamplingParams(max_new_tokens=5),
        SamplingParams(max_new_tokens=9, temperature=1.0, seed=4),
        SamplingParams(max_new_tokens=7, temperature=0.5, top_k=3, seed=1),
    ]
    prompts = RAGGED[: len(own)]
    found: list[list[int]] = [[] for _ in own]
    for number, passed in enumerate(decoder.passes(prompts, own)):
        if number == 0:
            assert [step.row.index for step in passed] == [0, 1, 2]
        for step in passed:
            found[step.row.index] += step.tokens
    assert found == [answers(decoder, ids, params=of)[0].tokens for ids, of in zip(prompts, own, strict=True)]
    with closing(decoder.passes(prompts, own)) as passes:
        rows = [step.row for step in next(passes)]
    assert {row.finish_reason for row in rows} == {"aborted"}
    with pytest.raises(OptionConflict, match="n must be 1"):
        decoder.passes([[5]], [SamplingParams(n=2, temperature=1.0)])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "lookup", "universal"])
def test_steps_add_up_to_the_answer(kind: str, options: dict[str, Any]) -> None:
    target = tiny.parrot_target("whole bytes")
    drafter = {"plain": None, "lookup": LookupDrafter(), "universal": universal(target)}[kind]
    decoder = tiny.decoder(target, drafter)
    expected = answers(decoder, tiny.STORIES, **options)
    rows: dict[int, list[Step]] = {}
    for step in decoder.stream(tiny.STORIES, **options):
        rows.setdefault(step.row, []).append(step)
    for i, result in enumerate(expected):
        steps = rows[i]
        assert [token for step in steps for token in step.tokens] == result.tokens
        assert "".join(step.text for step in steps) == result.text
        assert [name for step in steps for name in step.proposers] == result.proposers
        assert [step.finish_reason for step in steps] == [None] * (len(steps) - 1) + [result.finish_reason]
        assert all(step.tokens for step in steps)
        assert len(steps) == result.stats.num_passes
        for step in steps:
            kept = [step.draft.tokens[node] for node in step.accepted]
            assert step.tokens[: len(kept)] == kept
            assert step.proposers == [drafter.name if drafter else ""] * len(kept) + ["target"] * (
                len(step.tokens) - len(kept)
            )


EMOJI = "naïve 🙂👍 Élan 🙂"


def spelling_target() -> tuple[Target, list[int]]:
    """A target that says EMOJI byte by byte, then half an emoji, then its end."""
    tokenizer, vocab = tiny.tokenizer_of("pieces")
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in EMOJI.encode() + "🙂".encode()[:2]]
    ids.append(tiny.EOS)

    class Speller:
        def __call__(self, context: tuple[int, ...]) -> Any:
            import torch

            logits = torch.zeros(vocab)
            logits[ids[min(len(context) - 2, len(ids) - 1)]] = 9.0
            return logits

    return Target(tiny.ToyModel(Speller(), vocab), tokenizer, structure="tree"), ids


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 5])
def test_never_half_a_character(depth: int) -> None:
    target, ids = spelling_target()
    decoder = tiny.decoder(target, Oracle(target.vocab_size, {0: ids}, depth=depth) if depth else None)
    texts = []
    for step in decoder.stream([5, 6], max_new_tokens=60):
        assert "\ufffd" not in step.text or step.finish_reason
        texts.append(step.text)
    assert "".join(texts) == EMOJI + "\ufffd"  # the last emoji was left unfinished by the target itself
    assert answers(decoder, [5, 6], max_new_tokens=60)[0].text == EMOJI + "\ufffd"
    if depth < 2:
        assert "" in texts


def test_a_stop_string_of_split_characters() -> None:
    target, ids = spelling_target()
    for drafter in (None, Oracle(target.vocab_size, {0: ids}, depth=9)):
        (result,) = answers(tiny.decoder(target, drafter), [5, 6], max_new_tokens=60, stop=["🙂👍"])
        assert result.text == "naïve 🙂👍"
        assert result.finish_reason == "stop"


def test_leaving_a_stream_early() -> None:
    """Closing it, breaking out or failing around it: the drafter forgets the rows, the decoder goes on."""
    truth = {i: r.tokens for i, r in enumerate(answers(tiny.decoder("gpt2"), RAGGED, max_new_tokens=16))}
    assistant = AssistantDrafter(LanguageModel(tiny.relative("gpt2")), vocab_size=VOCAB)
    for drafter in (Noisy(VOCAB, truth), assistant):
        decoder = tiny.decoder("gpt2", drafter)

        def rows(drafter: Any = drafter) -> list[Any]:
            return drafter.known if isinstance(drafter, Noisy) else drafter.model._rows

        for steps in range(4):
            stream = decoder.stream(RAGGED, max_new_tokens=16)
            for _ in range(steps):
                next(stream)
            assert len(rows()) == (4 if steps else 0)
            stream.close()  # type: ignore[attr-defined]
            assert not rows()
        with pytest.raises(ZeroDivisionError):
            _fail_inside(decoder)
        assert [r.tokens for r in answers(decoder, RAGGED, max_new_tokens=16)] == list(truth.values())
        assert not rows()


def _fail_inside(decoder: Decoder) -> None:
    for step in decoder.stream(RAGGED, max_new_tokens=16):
        step.row // 0


def test_a_stream_that_was_never_started_costs_nothing() -> None:
    drafter = Noisy(VOCAB, {})
    tiny.decoder("gpt2", drafter).stream(RAGGED, max_new_tokens=4)
    assert not drafter.known


# Text and stop strings by themselves. --------------------------------------------------------------

texts = st.text(st.sampled_from("ab é🙂👍漢\n"), max_size=12)


@given(texts, st.data())
def test_text_stream_is_the_whole_text(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))) | {0, len(raw)})
    table = [raw[a:b] for a, b in pairwise(cuts)]
    stream = TextStream(lambda token: table[token] if token < len(table) else None)
    said = ""
    for token in range(len(table)):
        said += stream.push([token, 10_000])  # special tokens write nothing
        assert text.startswith(said)
        assert len(said.encode()) <= cuts[token + 1]
        assert cuts[token + 1] - len(said.encode()) < 4
    assert said + stream.finish() == text


@given(texts, st.lists(st.text(st.sampled_from("ab é🙂"), min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_stop_strings_are_found_where_they_are_complete(text: str, stops: list[str], data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))) | {0, len(raw)})
    table = [raw[a:b] for a, b in pairwise(cuts)]
    finder = StopStrings(stops, lambda token: table[token])
    for token in range(len(table)):
        found = finder.push(token)
        # "Complete with this token": it was not in the text before.
        expected = any(
            raw[: cuts[token + 1]].find(stop.encode(), max(0, cuts[token] - len(stop.encode()) + 1)) >= 0
            for stop in stops
        )
        assert found == expected
        if found:
            break
