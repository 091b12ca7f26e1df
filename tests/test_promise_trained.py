"""The promise for drafters with trained networks: recurrent (Apple's form and lean), Medusa and EAGLE.

Each runs with random weights, which are never right, and with weights fitted to what the target will say, so that
long runs are accepted and broken off in the middle. The reference is plain decoding, which test_promise compares with
a naive twin.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import tiny
import torch
from test_promise import SETTINGS, generate, mixed
from tiny import EOS, PAD, RAGGED, VOCAB
from tiny_networks import ALL, KINDS, drafter, fitted_network, random_network

from anydraft import Decoder, Generation
from anydraft.networks.network import DrafterNetwork
from anydraft.sampling import SamplingParams
from anydraft.session import Session
from anydraft.stats import Stats
from anydraft.target import Target

NEW = 14
MORE: dict[str, dict[str, Any]] = {
    "hot": {"temperature": 1.4, "top_k": 12, "seed": 3},
    "cuts": {"temperature": 0.8, "min_p": 0.05, "typical_p": 0.9, "seed": 4},
    "bias": {"logit_bias": {7: 6.0, 11: -30.0}, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    "words": {"temperature": 1.0, "bad_words": [[5], [9, 20]], "min_new_tokens": 6, "seed": 6},
    "all": {"temperature": 0.9, "top_p": 0.8, "repetition_penalty": 1.2, "logit_bias": {30: 3.0}, "seed": 8},
}


@cache
def plain(arch: str) -> dict[tuple[str, int], Generation]:
    """Plain decoding of the ragged batch in every setting of test_promise."""
    return mixed(tiny.decoder(arch), NEW)


def texts(arch: str) -> list[list[int]]:
    """What the target says to the ragged batch, greedily and at temperature 1."""
    return [
        result.prompt_tokens + result.tokens
        for (setting, _), result in plain(arch).items()
        if setting in ("greedy", "temperature")
    ]


@cache
def fitted(arch: str, kind: str) -> DrafterNetwork:
    return fitted_network(kind, tiny.model(arch), texts(arch))


def decoder(arch: str, network: DrafterNetwork, **options: Any) -> Decoder:
    return tiny.decoder(arch, drafter(network, tiny.target(arch)), **options)


def total(results: Any) -> Stats:
    return sum((result.stats for result in results), start=Stats())


def said(results: Any) -> list[list[int]]:
    return [result.tokens for result in results]


def per_pass(results: Any) -> float:
    stats = total(results)
    return stats.num_tokens / stats.num_passes


# Architectures, forms and settings. -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_architectures(arch: str, kind: str) -> None:
    """Twenty ragged rows of five settings in one batch, rows leaving as they finish."""
    expected = plain(arch)
    results = mixed(decoder(arch, fitted(arch, kind)), NEW)
    assert {name: r.tokens for name, r in results.items()} == {name: r.tokens for name, r in expected.items()}
    known = [result for (setting, _), result in results.items() if setting in ("greedy", "temperature")]
    assert per_pass(known) > 1.8
    assert all(len(r.proposers) == len(r.tokens) == r.stats.num_tokens for r in results.values())
    assert all(r.proposers.count(r.proposers[0]) <= r.stats.num_tokens for r in results.values())


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_random_weights(arch: str) -> None:
    """Every form on the first architecture, on the others they take turns; drafts are made, and do no harm."""
    turn = tiny.ARCHITECTURES.index(arch)
    for kind in ALL if turn == 0 else [ALL[turn % len(ALL)]]:
        results = mixed(decoder(arch, random_network(kind, tiny.model(arch), seed=turn)), NEW)
        assert said(results.values()) == said(plain(arch).values()), kind
        assert total(results.values()).num_draft_tokens > 100


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in KINDS])
@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_reduced_vocabularies_and_the_cell_without_weights(arch: str, kind: str) -> None:
    results = mixed(decoder(arch, fitted(arch, kind)), NEW)
    assert said(results.values()) == said(plain(arch).values())
    assert per_pass([r for (setting, _), r in results.items() if setting == "greedy"]) > 1.2
    network = fitted(arch, kind)
    if network.vocabulary is not None:
        allowed = set(network.vocabulary.tolist())
        drafted = [
            token
            for r in results.values()
            for token, by in zip(r.tokens, r.proposers, strict=True)
            if by != "target"
        ]
        assert drafted
        assert set(drafted) <= allowed


@cache
def settings(arch: str) -> dict[str, list[Generation]]:
    """Plain decoding in the settings that test_promise leaves out."""
    return {name: generate(tiny.decoder(arch), RAGGED, max_new_tokens=NEW, **MORE[name]) for name in MORE}


@pytest.mark.parametrize("kind", KINDS)
def test_settings(kind: str) -> None:
    """A network fitted to what the target says under each of them: what it drafts is bent by them, too."""
    expected = settings("qwen3")
    known = [r.prompt_tokens + r.tokens for results in expected.values() for r in results]
    network = fitted_network(kind, tiny.model("qwen3"), known, 30)
    for name, options in MORE.items():
        results = generate(decoder("qwen3", network), RAGGED, max_new_tokens=NEW, **options)
        assert said(results) == said(expected[name]), name
        assert total(results).num_accepted_tokens > 4, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("depth", "width", "nodes"), [(1, 1, 1), (3, 2, 3), (9, 6, 30)])
def test_bounds(kind: str, depth: int, width: int, nodes: int) -> None:
    results = mixed(decoder("phi", fitted("phi", kind), depth=depth, width=width, nodes=nodes), NEW)
    assert said(results.values()) == said(plain("phi").values())
    stats = total(results.values())
    assert 0 < stats.num_draft_tokens <= nodes * stats.num_passes


# Batches. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", ["greedy", "temperature"])
def test_a_batch_is_its_rows(kind: str, setting: str) -> None:
    """Tokens and what was drafted for them are those of single prompts; default pacing included."""
    options = {**SETTINGS[setting], "max_new_tokens": NEW}
    made = decoder("olmo2", fitted("olmo2", kind))
    batch = generate(made, RAGGED, **options)
    single = [generate(made, prompt, **options)[0] for prompt in RAGGED]
    assert said(batch) == said(single) == [plain("olmo2")[setting, i].tokens for i in range(len(RAGGED))]
    assert [r.proposers for r in batch] == [r.proposers for r in single]
    steady = Decoder(tiny.target("olmo2"), made.drafter)
    assert said(generate(steady, RAGGED, **options)) == said(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_finish_at_different_times(kind: str) -> None:
    """Each row of a batch stops at a token of its own; the others never notice."""
    whole = said(generate(tiny.decoder("gemma2"), RAGGED, max_new_tokens=NEW, ignore_eos=True))
    stops = [whole[0][2], whole[1][9], whole[2][5]]
    expected = [
        tokens[: min((tokens.index(stop) for stop in stops if stop in tokens), default=NEW - 1) + 1]
        for tokens in whole
    ]
    assert len({len(tokens) for tokens in expected}) > 1
    results = generate(
        decoder("gemma2", fitted("gemma2", kind)), RAGGED, max_new_tokens=NEW, ignore_eos=True, stop_token_ids=stops
    )
    assert said(results) == expected
    assert per_pass(results) > 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_equal_prompts_and_several_answers(kind: str) -> None:
    made = decoder("phi", fitted("phi", kind))
    same = [RAGGED[0], RAGGED[1], RAGGED[0], RAGGED[0]]
    results = generate(made, same, max_new_tokens=NEW)
    assert said(results) == said(generate(tiny.decoder("phi"), same, max_new_tokens=NEW))
    assert results[0].tokens == results[2].tokens == results[3].tokens
    options: dict[str, Any] = {"temperature": 1.0, "seed": 1, "n": 3, "max_new_tokens": NEW}
    expected = said(generate(tiny.decoder("phi"), [RAGGED[0], RAGGED[0]], **options))
    assert said(generate(made, [RAGGED[0], RAGGED[0]], **options)) == expected
    assert expected[0] == plain("phi")["temperature", 0].tokens


@pytest.mark.parametrize("kind", KINDS)
def test_rows_join_and_leave_one_drafter(kind: str) -> None:
    """Two sessions in turn on one drafter, one of them closed in the middle: nothing is left behind."""
    made = decoder("llama", fitted("llama", kind))
    params = SamplingParams(max_new_tokens=NEW)
    sessions = []
    for prompts in (RAGGED[:2], RAGGED[2:]):
        rows, _ = made._intake.rows(prompts, params, None)
        sessions.append((rows, Session(made.target, made.drafter, made.pacing, rows)))
    (left, first), (right, second) = sessions
    first.step()
    second.step()
    first.close()
    while second.active:
        second.step()
    assert [row.tokens for row in right] == [plain("llama")["greedy", i].tokens for i in (2, 3)]
    for i, row in enumerate(left):
        assert row.finish_reason == "aborted"
        assert row.tokens == plain("llama")["greedy", i].tokens[: len(row.tokens)]
    kept = [value for value in vars(made.drafter).values() if isinstance(value, dict)]
    assert not any(row in held for held in kept for row in (*left, *right))


# Ends. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["greedy", "temperature"])
@pytest.mark.parametrize("kind", KINDS)
def test_stop_tokens_inside_an_accepted_run(kind: str, setting: str) -> None:
    """Each token in turn ends the answer: nothing after it is returned or counted."""
    truth = generate(tiny.decoder("qwen2"), RAGGED[0], max_new_tokens=NEW, ignore_eos=True, **SETTINGS[setting])[0]
    network = fitted_network(kind, tiny.model("qwen2"), [RAGGED[0] + truth.tokens])
    made = decoder("qwen2", network, depth=6)
    inside = 0
    for stop in dict.fromkeys(truth.tokens):
        (result,) = generate(
            made, RAGGED[0], max_new_tokens=NEW, ignore_eos=True, stop_token_ids=[stop], **SETTINGS[setting]
        )
        assert result.tokens == truth.tokens[: truth.tokens.index(stop) + 1]
        assert result.finish_reason == "stop"
        assert len(result.proposers) == result.stats.num_tokens == len(result.tokens)
        assert result.stats.num_accepted_tokens <= result.stats.num_tokens
        inside += result.proposers[-1] != "target"
    assert inside > 3


@pytest.mark.parametrize("kind", KINDS)
def test_end_of_sequence_inside_an_accepted_run(kind: str) -> None:
    """The end-of-sequence token is drafted and accepted; drafts that are allowed to go on behind it do so."""
    whole = generate(tiny.decoder("llama"), RAGGED[0], max_new_tokens=NEW, ignore_eos=True)[0].tokens
    model = copy.deepcopy(tiny.model("llama"))
    model.generation_config.eos_token_id = [EOS, whole[6]]
    target = Target(model, structure="tree")
    network = fitted_network(kind, model, [RAGGED[0] + whole] * 2)
    made = tiny.decoder(target, drafter(network, target), depth=12)
    (result,) = generate(made, RAGGED[0], max_new_tokens=NEW)
    assert result.tokens == whole[: whole.index(whole[6]) + 1]
    assert (result.finish_reason, result.stats.num_tokens) == ("stop", len(result.tokens))
    (result,) = generate(made, RAGGED[0], max_new_tokens=NEW, ignore_eos=True)
    assert (result.tokens, result.finish_reason) == (whole, "length")
    assert result.stats.tokens_per_pass > 1.5


@pytest.mark.parametrize("pad", ["eos", "said", "prompt"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_no_token_of_its_own(kind: str, pad: str) -> None:
    """Pad id equal to eos id, said by the target, or in the prompt: masks know places, not ids."""
    prompts = [list(prompt) for prompt in RAGGED]
    whole = said(generate(tiny.decoder("mistral"), prompts, max_new_tokens=NEW, ignore_eos=True))
    token = {"eos": EOS, "said": whole[0][1], "prompt": PAD}[pad]
    if pad == "prompt":
        prompts = [[*prompt[:-1], token, prompt[-1], token][-max(2, len(prompt)) :] for prompt in prompts]
    if pad == "eos":
        prompts = [[token, *prompt] for prompt in prompts]
    model = copy.deepcopy(tiny.model("mistral"))
    model.config.pad_token_id = model.generation_config.pad_token_id = token
    if pad == "said":
        assert sum(token in tokens for tokens in whole) >= 1
    target = Target(model, structure="tree")
    shared: dict[str, Any] = {"max_new_tokens": NEW, "ignore_eos": pad != "eos"}
    options = [{**SETTINGS[setting], **shared} for setting in ("greedy", "temperature")]
    expected = [said(generate(tiny.decoder("mistral"), prompts, **o)) for o in options]
    network = fitted_network(kind, model, [p + t for e in expected for p, t in zip(prompts, e, strict=True)])
    made = tiny.decoder(target, drafter(network, target))
    for wanted, o in zip(expected, options, strict=True):
        results = generate(made, prompts, **o)
        assert said(results) == wanted
        assert per_pass(results) > 1.5
        assert said(generate(made, prompt, **o)[0] for prompt in prompts) == wanted


@pytest.mark.parametrize("new", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_smaller_than_the_draft(kind: str, new: int) -> None:
    made = decoder("llama", fitted("llama", kind), depth=8)
    for setting in ("greedy", "temperature"):
        results = generate(made, RAGGED, max_new_tokens=new, **SETTINGS[setting])
        assert said(results) == [plain("llama")[setting, i].tokens[:new] for i in range(len(RAGGED))]
        assert all(r.stats.num_tokens == len(r.tokens) <= new for r in results)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_one_token(kind: str) -> None:
    """There is no hidden state before the first pass: it drafts nothing, the second does."""
    prompts = [[token] for token in (5, PAD, EOS, 9, VOCAB - 1)]
    shared: dict[str, Any] = {"max_new_tokens": NEW, "ignore_eos": True}
    options = [{**SETTINGS[setting], **shared} for setting in ("greedy", "temperature")]
    expected = [said(generate(tiny.decoder("starcoder2"), prompts, **o)) for o in options]
    known = [prompt + tokens for wanted in expected for prompt, tokens in zip(prompts, wanted, strict=True)]
    made = decoder("starcoder2", fitted_network(kind, tiny.model("starcoder2"), known))
    for wanted, o in zip(expected, options, strict=True):
        results = generate(made, prompts, **o)
        assert said(results) == wanted
        assert all(r.proposers[0] == "target" for r in results)
        assert per_pass(results) > 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_long_prompts(kind: str) -> None:
    """Prompts longer than any chunk or window, beside short ones."""
    prompts = [tiny.prompt(150, 7), tiny.prompt(66, 8), tiny.prompt(5, 9)]
    expected = said(generate(tiny.decoder("gemma3"), prompts, max_new_tokens=NEW))
    network = fitted_network(kind, tiny.model("gemma3"), [p + t for p, t in zip(prompts, expected, strict=True)])
    results = generate(decoder("gemma3", network), prompts, max_new_tokens=NEW)
    assert said(results) == expected
    assert per_pass(results) > 1.5


# Strings and streams. ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_stop_strings(kind: str) -> None:
    made = decoder("llama", fitted("llama", kind))
    whole = plain("llama")["greedy", 0]
    text = whole.text
    for stop in dict.fromkeys(text[at : at + size] for at in range(0, len(text) - 3, 3) for size in (1, 3)):
        options: dict[str, Any] = {"max_new_tokens": NEW, "stop": [stop, "never said"]}
        (expected,) = generate(tiny.decoder("llama"), RAGGED[0], **options)
        (result,) = generate(made, RAGGED[0], **options)
        assert (result.tokens, result.text, result.finish_reason) == (expected.tokens, expected.text, "stop"), stop
        assert len(result.tokens) == result.stats.num_tokens <= len(whole.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_streams(kind: str) -> None:
    """Pieces put together are the answers; a stream left in the middle leaves the decoder usable."""
    made = decoder("llama", fitted("llama", kind))
    tokens: list[list[int]] = [[] for _ in RAGGED]
    texts_: list[str] = ["" for _ in RAGGED]
    longest = 0
    for step in made.stream(RAGGED, max_new_tokens=NEW):
        tokens[step.row] += step.tokens
        texts_[step.row] += step.text
        longest = max(longest, len(step.tokens))
    expected = [plain("llama")["greedy", i] for i in range(len(RAGGED))]
    assert tokens == said(expected)
    assert texts_ == [r.text for r in expected]
    assert longest > 2
    stream = made.stream(RAGGED, max_new_tokens=NEW)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    assert said(generate(made, RAGGED, max_new_tokens=NEW)) == said(expected)


# Fixed shapes, other rules and precisions. --------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_shapes(kind: str, dtype: torch.dtype) -> None:
    """exact=True: chains of at most seven tokens, and bfloat16 keeps the promise as well."""
    model, network = tiny.model("llama"), fitted("llama", kind)
    if dtype != torch.float32:
        model = copy.deepcopy(model).to(dtype)
        network = copy.deepcopy(network).to(dtype)
    target = Target(model, tiny.byte_level(), exact=True)
    made = tiny.decoder(target, drafter(network, target), depth=9, width=4, nodes=60)
    for setting in ("greedy", "temperature", "penalty"):
        expected = generate(tiny.decoder(target), RAGGED, max_new_tokens=NEW, **SETTINGS[setting])
        results = generate(made, RAGGED, max_new_tokens=NEW, **SETTINGS[setting])
        assert said(results) == said(expected), setting
        stats = total(results)
        assert stats.num_draft_tokens <= 7 * stats.num_passes
        if setting == "greedy" and dtype == torch.float32:
            assert per_pass(results) > 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_verifies_chains_only(kind: str) -> None:
    target = Target(tiny.model("qwen2"), structure="chain")
    network = fitted("qwen2", kind)
    for setting in ("greedy", "temperature"):
        results = generate(
            tiny.decoder(target, drafter(network, target)), RAGGED, max_new_tokens=NEW, **SETTINGS[setting]
        )
        assert said(results) == [plain("qwen2")[setting, i].tokens for i in range(len(RAGGED))]
        assert per_pass(results) > 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_rejection_is_greedy_where_the_row_is(kind: str) -> None:
    """Under verification="rejection" greedy rows say what plain decoding says, beside rows that sample."""
    target = tiny.target("qwen3")
    made = tiny.decoder(target, drafter(fitted("qwen3", kind), target, "rejection"), verification="rejection")
    results = mixed_rejection(made)
    assert results[0] == [plain("qwen3")["greedy", i].tokens for i in range(len(RAGGED))]
    assert all(len(tokens) == NEW or tokens[-1] == EOS for tokens in results[1])


def mixed_rejection(made: Decoder) -> tuple[list[list[int]], list[list[int]]]:
    """Greedy and sampled rows of the ragged batch in one session."""
    greedy, _ = made._intake.rows(RAGGED, SamplingParams(max_new_tokens=NEW), None)
    hot, _ = made._intake.rows(RAGGED, SamplingParams(max_new_tokens=NEW, temperature=1.0, top_p=0.9, seed=5), None)
    for index, row in enumerate(greedy + hot):
        row.index = index
    session = Session(made.target, made.drafter, made.pacing, greedy + hot, verification="rejection")
    while session.active:
        session.step()
    return [row.tokens for row in greedy], [row.tokens for row in hot]
