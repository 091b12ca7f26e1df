"""The law of the first three tokens on tiny vocabularies is the target's, whatever the drafter's vocabulary.

Three steps make one argument, each with a test that can fail:

- shared noise: plain decoding has the target's law (chi-square), and every drafter's tokens are plain decoding's;
- rejection: `reject` has the target's law if siblings are drawn from the recorded q (test_verify enumerates it);
  real drafters record the q of their model and draw from it; two pairs are run from end to end as well;
- power: wrong rules run through the same chi-square fail it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy import stats
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from anydraft import Decoder, Generation, SamplingParams
from anydraft.drafters import AssistantDrafter, UniversalDrafter
from anydraft.drafters.draws import sampled
from anydraft.drafters.protocol import Drafter
from anydraft.growth import Bounds
from anydraft.lm import LanguageModel
from anydraft.noise import Noise
from anydraft.pacing import Fixed
from anydraft.row import Row
from anydraft.session import Session
from anydraft.target import Target
from anydraft.text.token_bytes import TokenBytes
from anydraft.tree import DraftTree
from anydraft.verify import Verdict

RUNS = 20_000
TARGET = "abcde"
START = 2  # the prompt: one token
# Draft vocabularies: superset, subset, overlap, nothing in common, permuted; and one of longer tokens.
VOCABULARIES = {
    "superset": "gabcdefh",
    "subset": "bd",
    "overlap": "xdey",
    "disjoint": "wxyz",
    "permuted": "edacb",
    "words": ["c", "ab", "a", "b", "de", "d", "e", "abc"],
}


@cache
def letters(vocabulary: str | tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A tokenizer of few tokens; longer ones are merged from their first letters and the last."""
    merges = [(word[:-1], word[-1]) for word in vocabulary if len(word) > 1]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(vocabulary)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@cache
def small(vocab: int, seed: int) -> PreTrainedModel:
    return tiny.make(
        "llama",
        vocab,
        seed,
        initializer_range=0.15,
        num_hidden_layers=1,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )


@cache
def target() -> Target:
    return Target(small(len(TARGET), 0), letters(TARGET))


def universal(name: str, verification: Any) -> UniversalDrafter:
    vocabulary = VOCABULARIES[name]
    tokenizer = letters(vocabulary if isinstance(vocabulary, str) else tuple(vocabulary))
    return UniversalDrafter(
        LanguageModel(small(len(vocabulary), 3)),
        tokenizer,
        target_tokenizer=target().tokenizer,
        vocab_size=len(TARGET),
        verification=verification,
    )


def assistant(verification: Any, *, vocab: int = len(TARGET), seed: int = 3) -> AssistantDrafter:
    return AssistantDrafter(LanguageModel(small(vocab, seed)), vocab_size=len(TARGET), verification=verification)


def decoder(drafter: Drafter | None, width: int, verification: Any = "exact", depth: int = 2) -> Decoder:
    return Decoder(target(), drafter, pacing=Fixed(Bounds(depth, width, 8)), verification=verification)


def answers(decoder: Decoder, count: int, chunk: int = 500, **options: Any) -> list[Generation]:
    """Answers of three tokens, each with a seed of its own."""
    results: list[Generation] = []
    for seed in range(-(-count // chunk)):
        part = decoder.generate(
            [START], n=min(chunk, count), max_new_tokens=3, seed=seed, **{"temperature": 1.0, **options}
        )
        assert isinstance(part, list)
        results += part
    return results


@cache
def law(temperature: float = 1.0, top_k: int = 0) -> dict[tuple[int, ...], float]:
    """Exact law of the first three tokens, by forward passes over all prefixes."""
    found = {}
    for said in itertools.product(range(len(TARGET)), repeat=3):
        with torch.no_grad():
            logits = target().model(torch.tensor([[START, *said[:2]]])).logits[0].double() / temperature
        if top_k:
            logits[logits < logits.topk(top_k, dim=-1).values[:, -1:]] = -torch.inf
        p = logits.softmax(-1)
        found[said] = float(p[0, said[0]] * p[1, said[1]] * p[2, said[2]])
    assert abs(sum(found.values()) - 1) < 1e-9
    return found


def p_value(tokens: list[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> float:
    """Chi-square against an exact law; rare outcomes are pooled, impossible ones must not occur."""
    counts = Counter(tokens)
    assert all(expected.get(said, 0) > 0 for said in counts)
    total = len(tokens)
    common = [said for said, weight in expected.items() if weight * total >= 8]
    observed = np.array([counts[said] for said in common] + [total - sum(counts[said] for said in common)])
    ideal = np.array([expected[said] for said in common])
    ideal = np.append(ideal, 1 - ideal.sum()) * total
    keep = ideal > 1e-6
    return float(stats.chisquare(observed[keep], ideal[keep] * observed[keep].sum() / ideal[keep].sum()).pvalue)


def words(results: list[Generation]) -> list[tuple[int, ...]]:
    return [tuple(result.tokens) for result in results]


# Shared noise. ----------------------------------------------------------------------------------


@cache
def plain(temperature: float = 1.0, top_k: int = 0) -> list[Generation]:
    count = RUNS // 2 if temperature == 1.0 else RUNS // 5
    return answers(decoder(None, 1), count, temperature=temperature, top_k=top_k)


def test_plain_decoding_has_the_targets_law() -> None:
    assert p_value(words(plain()), law()) > 1e-4


def test_plain_decoding_has_the_targets_law_under_warpers() -> None:
    assert p_value(words(plain(0.7, 3)), law(0.7, 3)) > 1e-4


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("name", [*VOCABULARIES, "assistant", "padded assistant"])
def test_shared_noise_says_what_plain_decoding_says(name: str, width: int) -> None:
    """Token for token, so its law is plain decoding's."""
    drafter: Drafter
    if name in VOCABULARIES:
        drafter = universal(name, "exact")
    else:
        drafter = assistant("exact", vocab=8 if name == "padded assistant" else 3)
    results = answers(decoder(drafter, width), 200)
    assert words(results) == [tuple(r.tokens) for r in answers(decoder(None, 1), 200)]
    drafted = sum(r.stats.num_draft_tokens for r in results)
    accepted = sum(r.stats.num_accepted_tokens for r in results)
    if name == "disjoint":
        assert accepted == 0
    else:
        assert 0 < accepted < drafted


# Rejection: real drafters record what they draw from. -----------------------------------------------


class Recorder:
    """Hands on another drafter's proposals and keeps them."""

    name = "recorder"

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen: list[tuple[list[int], DraftTree]] = []

    def start(self, rows: Any) -> None:
        self.inner.start(rows)

    def stop(self, rows: Any) -> None:
        self.inner.stop(rows)

    def propose(self, rows: Any, bounds: Any) -> list[DraftTree]:
        trees: list[DraftTree] = self.inner.propose(rows, bounds)
        self.seen += [(row.prompt + row.tokens, tree) for row, tree in zip(rows, trees, strict=True)]
        return trees


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("name", [*VOCABULARIES, "assistant", "larger assistant", "smaller assistant"])
def test_recorded_proposals_are_the_drafters(name: str, width: int) -> None:
    """probs[node] = softmax of the assistant's own logits there, over the tokens that the target has."""
    temperature, top_k = 0.8, 2
    if name in VOCABULARIES:
        inner: Any = universal(name, "rejection")
        size = len(VOCABULARIES[name])
        table = TokenBytes.of(inner.tokenizer).table
        index = [TARGET.encode().find(piece) if piece and len(piece) == 1 else -1 for piece in table]
        model = inner.lm.model
    else:
        size = {"assistant": 5, "larger assistant": 8, "smaller assistant": 3}[name]
        inner = assistant("rejection", vocab=size)
        index = [token if token < len(TARGET) else -1 for token in range(size)]
        model = inner.lm.model
    recorder = Recorder(inner)
    results = answers(decoder(recorder, width, "rejection"), 60, chunk=60, temperature=temperature, top_k=top_k)
    nodes = 0
    for context, tree in recorder.seen:
        assert set(tree.parents) <= set(tree.probs or {})
        for node in set(tree.parents):
            path = context + [tree.tokens[n] for n in tree.path(node)]
            text = target().tokenizer.decode(path)
            ids = [min(token, size - 1) for token in path]
            if name in VOCABULARIES:
                ids = inner.tokenizer.encode(text, add_special_tokens=False)
            recorded = (tree.probs or {})[node]
            assert float(recorded.sum()) == pytest.approx(1)
            drawn = [tree.tokens[n] for n, parent in enumerate(tree.parents) if parent == node]
            assert len(set(drawn)) == len(drawn)
            assert all(recorded[token] > 0 for token in drawn)
            if name in VOCABULARIES and (inner.tokenizer.decode(ids) != text or name == "words"):
                continue  # letters it cannot read, or words whose boundaries depend on the history
            nodes += 1
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1].double()
            logits[torch.tensor(index) < 0] = -torch.inf
            logits = logits / temperature
            logits[logits < logits.topk(min(top_k, len(logits))).values[-1]] = -torch.inf
            expected = torch.zeros(len(TARGET), dtype=torch.float64)
            for token, place in enumerate(index):
                if place >= 0:
                    expected[place] = logits.softmax(-1)[token]
            torch.testing.assert_close(recorded, expected, atol=1e-5, rtol=1e-4)
    if name == "disjoint":
        assert all(len(tree) == 0 for _, tree in recorder.seen)
    elif name in ("superset", "permuted", "assistant", "larger assistant"):
        assert nodes > 60
    assert len(results) == 60


@pytest.mark.parametrize("branch", [1, 2])
def test_siblings_are_drawn_without_replacement_from_q(branch: int) -> None:
    scores = torch.tensor([[0.3, -1.0, 1.2, -torch.inf, 0.1]])
    counts: Counter[tuple[int, ...]] = Counter()
    (row,), _ = decoder(None, 1)._intake.rows([START], SamplingParams(temperature=1.0, seed=0), None)
    for seed in range(RUNS // 2):
        row.noise = Noise(seed, 5)
        children, q = sampled(scores, row, 1, branch, frozenset())
        counts[tuple(token for token, _, _ in children[0])] += 1
    p = scores[0].double().softmax(-1)
    torch.testing.assert_close(q, p)
    expected = {}
    for order in itertools.permutations([0, 1, 2, 4], branch):
        weight, left = 1.0, 1.0
        for token in order:
            weight, left = weight * float(p[token]) / left, left - float(p[token])
        expected[order] = weight
    assert p_value(list(counts.elements()), expected) > 1e-4


@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_a_batch_draw_within_bounds_of_their_own(order: int) -> None:
    """A chain of at most 3 nodes beside a tree of at most 6, two drawn at each expanded node."""
    bounds = [Bounds(5, 1, 3, chain_only=True), Bounds(5, 2, 6)][::order]
    drafter = assistant("rejection")
    params = SamplingParams(temperature=1.0, seed=0, max_new_tokens=8)
    rows, _ = decoder(None, 1)._intake.rows([[START]] * 2, params, None)
    drafter.start(rows)
    chain, tree = drafter.propose(rows, bounds)[::order]
    assert chain.parents == (-1, 0, 1)
    assert Counter(tree.parents).keys() == tree.probs.keys()
    assert set(Counter(tree.parents).values()) == {2}
    assert len(tree) == 6


@pytest.mark.parametrize(
    ("name", "width", "options"),
    [
        ("assistant", 1, {}),
        ("same", 2, {}),
        ("superset", 1, {}),
        ("subset", 2, {}),
        ("permuted", 2, {}),
        ("overlap", 3, {"top_k": 3, "temperature": 0.7}),
    ],
)
def test_rejection_from_end_to_end(name: str, width: int, options: dict[str, Any]) -> None:
    drafter: Drafter
    if name in VOCABULARIES:
        drafter = universal(name, "rejection")
    else:
        drafter = assistant("rejection", seed=0 if name == "same" else 3)
    results = answers(decoder(drafter, width, "rejection"), RUNS // 20, **options)  # six of them, a row at a time
    assert p_value(words(results), law(**options)) > 1e-4
    accepted = sum(r.stats.num_accepted_tokens for r in results)
    drafts = sum(r.stats.num_drafts for r in results)
    assert accepted > 0
    if name == "same":
        assert accepted > 0.99 * drafts  # p = q: the first draw is accepted, whatever it is


def test_nothing_is_drafted_where_nothing_is_shared() -> None:
    results = answers(decoder(universal("disjoint", "rejection"), 2, "rejection"), RUNS // 5)
    assert sum(r.stats.num_draft_tokens for r in results) == 0
    assert p_value(words(results), law()) > 1e-4


# Power. -----------------------------------------------------------------------------------------


def test_a_drafter_that_hides_its_proposal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts drawn from one q and rejected with another: the same chi-square must notice."""

    class Liar(Recorder):
        def propose(self, rows: Any, bounds: Any) -> list[DraftTree]:
            trees = self.inner.propose(rows, bounds)
            flat = torch.full((len(TARGET),), 1 / len(TARGET), dtype=torch.float64)
            return [DraftTree(tree.tokens, tree.parents, probs=dict.fromkeys(tree.probs or {}, flat)) for tree in trees]

    liar = Liar(assistant("rejection"))
    assert p_value(words(answers(decoder(liar, 1, "rejection"), RUNS // 20)), law()) < 1e-4


def test_accepting_the_draft_as_it_is_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(self: Session, row: Row, tree: DraftTree, choices: Any) -> Verdict:
        return Verdict((0,), choices(0)) if len(tree) else Verdict((), choices(-1))

    monkeypatch.setattr(Session, "_verdict", trusting)
    drafter = assistant("exact")
    assert p_value(words(answers(decoder(drafter, 1, depth=1), RUNS // 20)), law()) < 1e-4


def test_the_chi_square_sees_a_wrong_law() -> None:
    assert p_value(words(plain()), law(1.08)) < 1e-4
