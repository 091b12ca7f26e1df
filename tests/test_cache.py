"""The cache holds what a plain forward over the committed ids would have put there, after every step."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Adversarial, Noisy, Oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import RAGGED, VOCAB
from transformers import DynamicCache, PreTrainedModel

from anydraft import SamplingParams
from anydraft.cache import BUCKET, SlotCache, bucket
from anydraft.drafters import AssistantDrafter, UniversalDrafter
from anydraft.drafters.draft_model import DraftModel
from anydraft.lm import LanguageModel
from anydraft.session import Session
from anydraft.target import Target
from anydraft.tree import visibility

ARCHITECTURES = ["llama", "gemma2", "gemma3", "mistral-window", "gpt2", "gpt-bigcode", "opt", "mixtral"]


def expected(model: PreTrainedModel, tokens: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values (heads, length, dim) per layer of a plain forward over the tokens."""
    cache = DynamicCache()  # without a config it keeps everything, sliding layers too
    with torch.no_grad():
        model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers]


def check(cache: SlotCache, slot: int, model: PreTrainedModel, tokens: list[int]) -> None:
    assert cache.lengths[slot] == len(tokens)
    assert not cache.tails[slot]
    if not tokens:
        return
    for layer, (keys, values) in zip(cache.layers, expected(model, tokens), strict=True):
        torch.testing.assert_close(layer.keys[slot, :, : len(tokens)], keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(layer.values[slot, :, : len(tokens)], values, atol=1e-5, rtol=1e-4)


def session_of(target: Target, drafter: Any, options: dict[str, Any], **bounds: Any) -> Session:
    decoder = tiny.decoder(target, drafter, **bounds)
    rows, _ = decoder._intake.rows(RAGGED, SamplingParams(**options), None)
    return Session(target, drafter, decoder.pacing, rows)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_target_cache_is_that_of_a_plain_forward(arch: str) -> None:
    """Trees, rejections, ragged rows, and rows that leave in the middle."""
    target = tiny.target(arch)
    plain = tiny.decoder(arch).generate(RAGGED, max_new_tokens=18, ignore_eos=True)
    assert isinstance(plain, list)
    truth = {i: result.tokens for i, result in enumerate(plain)}
    stops = [truth[0][3], truth[2][9]]
    sizes = set()
    for drafter in (Noisy(VOCAB, truth, seed=1), Oracle(VOCAB, truth, decoys=2), Adversarial(VOCAB, truth)):
        session = session_of(target, drafter, {"max_new_tokens": 18, "ignore_eos": True, "stop_token_ids": stops})
        while session.active:
            sizes.add(session.cache.num_rows)
            session.step()
            for slot, row in enumerate(session._cached if session.active else []):
                check(session.cache, slot, target.model, row.prompt + row.tokens[:-1])
    assert len(sizes) > 1


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mistral-window", "gpt2"])
@pytest.mark.parametrize("sampled", [False, True])
def test_draft_models_cache_is_that_of_a_plain_forward(arch: str, sampled: bool) -> None:
    """An assistant's cache equals recomputation from its own context after every synchronisation."""
    options: dict[str, Any] = {"max_new_tokens": 18, "ignore_eos": True}
    if sampled:
        options |= {"temperature": 1.0, "seed": 3}
    drafter = AssistantDrafter(LanguageModel(tiny.relative(arch)), vocab_size=VOCAB)
    _follow(drafter, tiny.target(arch), options)


@pytest.mark.parametrize("draft", ["pieces", "byte-level"])
def test_universal_drafters_cache_and_context(draft: str) -> None:
    """The same with another tokenizer; the context's bytes are the committed ones, pending ones included."""
    tokenizer, vocab = tiny.tokenizer_of(draft)
    target = tiny.parrot_target("whole bytes")
    lm = LanguageModel(tiny.make("llama", vocab, seed=4))
    drafter = UniversalDrafter(lm, tokenizer, target_tokenizer=target.tokenizer, vocab_size=target.vocab_size)
    _follow(drafter, target, {"max_new_tokens": 18, "ignore_eos": True, "temperature": 1.0, "seed": 3}, drafter)


def _follow(drafter: Any, target: Target, options: dict[str, Any], universal: UniversalDrafter | None = None) -> None:
    checked = 0
    inner = drafter.model
    grow = inner.grow

    def watched(rows: Any, unread: Any, bounds: Any, score: Any) -> Any:
        nonlocal checked
        for slot, row in enumerate(inner._rows):
            if row not in rows:
                continue
            cached = inner.cached(row)
            check(inner._cache, slot, inner.lm.model, cached)
            pending = unread[list(rows).index(row)]
            assert len(pending) >= 1
            if universal is None:
                assert [*cached, *pending] == row.prompt + row.tokens
            else:
                context = universal._rows[row].context
                assert [*cached, *pending] == context.tokens
                said = row.prompt_text + universal.target_encoder.table.join(row.tokens)
                assert context.committed_bytes == said
                read = universal.encoder.table.join(context.tokens[context.prefix_length :]) + context.pending
                if universal.encoder.table.complete:
                    assert read.removeprefix(b" ") == said.removeprefix(b" ")
            checked += 1
        return grow(rows, unread, bounds, score)

    inner.grow = watched
    for width in (1, 3):
        session = session_of(target, drafter, options, width=width)
        while session.active:
            session.step()
    assert checked > 20
    assert not inner._rows
    assert not inner._context


def test_draft_model_sync_against_a_naive_twin() -> None:
    """Arbitrary changes of context between drafts: what is cached is always a proper prefix of it, and right."""
    lm = LanguageModel(tiny.model("llama"))
    (row,), _ = tiny.decoder("llama")._intake.rows([5, 6], SamplingParams(max_new_tokens=50), None)
    draft = DraftModel(lm)
    draft.start(row, [5, 6])
    generator = torch.Generator().manual_seed(0)
    context = [5, 6]
    for _ in range(25):
        cut = int(torch.randint(1, len(context) + 1, (1,), generator=generator))
        extra = torch.randint(3, 8, (int(torch.randint(0, 4, (1,), generator=generator)),), generator=generator)
        changed = context[:cut] + extra.tolist()
        same = next((i for i, (a, b) in enumerate(zip(context, changed, strict=False)) if a != b), cut)
        unread = draft.sync(row, changed, min(same, cut))
        assert draft.cached(row) + unread == changed
        assert unread
        assert draft._cache is not None
        check(draft._cache, 0, lm.model, draft.cached(row))
        context = changed
        if len(context) > 40:
            context = context[:20]
            draft.sync(row, context, 20)
        draft.lm.score(draft._cache, [(list(unread), range(-1, len(unread) - 1))])
        draft._tail[row] = list(unread)


# SlotCache by itself, against a naive twin. -------------------------------------------------------


class Twin:
    """Lists of (token, position) per row."""

    def __init__(self, rows: int) -> None:
        self.prefix: list[list[float]] = [[] for _ in range(rows)]
        self.tail: list[list[float]] = [[] for _ in range(rows)]
        self.parents: list[list[int]] = [[] for _ in range(rows)]


@torch.inference_mode()
def write(cache: SlotCache, twin: Twin, rows: range, new: list[list[int]], values: list[list[float]]) -> None:
    """One pass: `new` holds the parents of each row's new nodes."""
    width = max(map(len, new))
    starts = [cache.lengths[r] + len(cache.tails[r]) for r in rows]
    for r, parents in zip(rows, new, strict=True):
        if parents:
            cache.append(r, parents)
    cache.reserve(max(starts) + width)
    cache.plan(rows, starts, width, max(starts) + width)
    states = torch.full((len(starts), 2, width, 3), -1.0)
    for i, (r, numbers) in enumerate(zip(rows, values, strict=True)):
        for j, number in enumerate(numbers):
            states[i, :, j] = number
        twin.tail[r] += numbers
        twin.parents[r] += new[i]
    for layer in range(2):
        keys, values_ = cache.update(states + layer, states - layer, layer)
        assert keys.shape == values_.shape == (len(starts), 2, max(starts) + width, 3)


def compare(cache: SlotCache, twin: Twin) -> None:
    assert cache.lengths == [len(prefix) for prefix in twin.prefix]
    assert cache.tails == twin.parents
    assert cache.capacity % BUCKET == 0
    for r, (prefix, tail, parents) in enumerate(zip(twin.prefix, twin.tail, twin.parents, strict=True)):
        assert (cache.visible[r] == visibility(parents)).all()
        stored = torch.tensor(prefix + tail)
        for number, layer in enumerate(cache.layers):
            if layer.is_initialized and len(stored):
                assert (layer.keys[r, :, : len(stored)] == stored[:, None] + number).all()
                assert (layer.values[r, :, : len(stored)] == stored[:, None] - number).all()


ACTIONS = ["append", "append", "some", "commit", "commit", "advance", "cut", "keep", "add", "copy"]


@settings(max_examples=60)
@given(st.data())
def test_slot_cache_against_a_naive_twin(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 3))
    cache, twin = SlotCache(rows, 1), Twin(rows)
    counter = 0.0
    for _ in range(data.draw(st.integers(1, 12))):
        count = len(twin.prefix)
        action = data.draw(
            st.sampled_from(["append", "append", "one", "commit", "commit", "advance", "cut", "keep", "add"])
        )
        row = data.draw(st.integers(0, count - 1))
        if action in ("append", "some"):
            chosen = range(count) if action == "append" else range(row, data.draw(st.integers(row + 1, count)))
            new = []
            for r in chosen:
                old = len(twin.parents[r])
                size = data.draw(st.integers(0, 5))
                new.append([data.draw(st.integers(-1, old + i - 1)) for i in range(size)])
            if not any(new):
                continue
            numbers = []
            for parents in new:
                numbers.append([counter + i for i in range(len(parents))])
                counter += len(parents)
            write(cache, twin, chosen, new, numbers)
        elif action == "commit":
            parents = twin.parents[row]
            node = data.draw(st.integers(-1, len(parents) - 1))
            path: list[int] = []
            while node >= 0:
                path.insert(0, node)
                node = parents[node]
            cache.commit(row, path)
            twin.prefix[row] += [twin.tail[row][n] for n in path]
            twin.tail[row], twin.parents[row] = [], []
        elif action == "advance":
            size = data.draw(st.integers(0, len(twin.tail[row])))
            cache.advance(row, size)
            twin.prefix[row] += twin.tail[row][:size]
            twin.tail[row], twin.parents[row] = [], []
        elif action == "cut":
            length = data.draw(st.integers(0, len(twin.prefix[row])))
            cache.cut(row, length)
            twin.prefix[row] = twin.prefix[row][:length]
            twin.tail[row], twin.parents[row] = [], []
        elif action == "copy":
            source = data.draw(st.integers(0, count - 1))
            cache.copy_prefix(source, row)
            twin.prefix[row] = list(twin.prefix[source])
            twin.tail[row], twin.parents[row] = [], []
        elif action == "keep":
            kept = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4))
            cache.keep_rows(kept)
            for name in ("prefix", "tail", "parents"):
                setattr(twin, name, [list(getattr(twin, name)[r]) for r in kept])
        elif count < 5:
            cache.add_rows(1)
            for name in ("prefix", "tail", "parents"):
                getattr(twin, name).append([])
        compare(cache, twin)


@pytest.mark.parametrize("count", [3, 4, 600])
def test_hidden_states_of_a_prefill_are_all_or_the_last(count: int) -> None:
    """Also where a prompt is read in several passes, or not at all because an equal one was."""
    lm = LanguageModel(tiny.model("llama", seed=1))
    prompts = [[5] * 3, [5, 6] * (count // 2), [], [5] * 3]
    every = lm.prefill_rows(lm.new_cache(4), prompts, hidden="all")
    last = lm.prefill_rows(lm.new_cache(4), prompts, hidden="last")
    assert [len(states) for states in every] == [len(prompt) for prompt in prompts]
    assert all(torch.equal(one, states[-1:]) for one, states in zip(last, every, strict=True) if len(states))
    assert lm.prefill_rows(lm.new_cache(4), prompts) == []


def test_growing_keeps_what_is_there() -> None:
    cache, twin = SlotCache(2, 1), Twin(2)
    for step in range(12):
        size = 60
        parents = [list(range(-1, size - 1))] * 2
        write(cache, twin, range(2), parents, [[float(step * 100 + i) for i in range(size)]] * 2)
        cache.commit(0, list(range(size)))
        cache.commit(1, list(range(size // 2)))
        for row, kept in ((0, size), (1, size // 2)):
            twin.prefix[row] += twin.tail[row][:kept]
            twin.tail[row], twin.parents[row] = [], []
        compare(cache, twin)
    assert cache.capacity >= 720
    assert cache.capacity == bucket(cache.capacity)


def test_cutting_to_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="0 slots cannot be cut to 3"):
        SlotCache(1).cut(0, 3)


def test_memory_of_a_dropped_cache_is_freed_at_once() -> None:
    model = tiny.model("llama")
    lm = LanguageModel(model)
    cache = lm.new_cache(1)
    lm.prefill(cache, 0, [3, 4, 5])
    keys = weakref.ref(cache.layers[0].keys)
    gc.disable()
    try:
        del cache
        assert keys() is None
    finally:
        gc.enable()
