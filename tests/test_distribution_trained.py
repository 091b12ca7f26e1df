"""The law of sampled tokens with trained drafters is the target's own; with ReDrafter's published rule it is not.

- "rejection": the drafters' own proposals, verified by `reject`, enumerated over every draw and every coin;
  and that the drafters draw what they record, by chi-square;
- both rules from end to end, by Monte Carlo: total variation within what chance allows at that sample size;
- Apple's rule (apple_rule.py, enumerated) on the same P and Q as ours: a table, with `pytest -s`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import apple_rule
import numpy as np
import pytest
import tiny_networks
import torch
from test_distribution import RUNS, TARGET, p_value, target, words
from test_verify import Law, Script, Uniform, distance, enumerate_runs, plain_law, table_model, without_replacement
from tiny_networks import KINDS, fitted_network

from anydraft import Decoder, Generation, verify
from anydraft.growth import Bounds, Growth, grow
from anydraft.hidden import LastHidden
from anydraft.networks.network import DrafterNetwork
from anydraft.noise import Noise
from anydraft.pacing import Fixed
from anydraft.processors import Processors
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.tree import DraftTree
from anydraft.verify import reject, walk

VOCAB = len(TARGET)
PROMPT = [2, 3]
"""Two tokens: after a prompt of one the first pass has no hidden state to draft from."""
CHUNK = 500
CERTAINTY = 1e-6
"""A test of a true law fails once in a million."""

FORMS = [*KINDS, "lean, reduced"]


def noise_level(p: dict[Any, float], draws: int) -> float:
    """What the total variation between a law and that many draws from it stays below, but for one time in a million.

    Its mean is at most the sum of the cells' mean deviations; one draw moves it by 1 / draws, so it exceeds its mean by
    t with probability at most exp(-2 draws t^2) (McDiarmid).
    """
    mean = sum(math.sqrt(weight * (1 - weight) / draws) for weight in p.values()) / 2
    return mean + math.sqrt(math.log(1 / CERTAINTY) / (2 * draws))


def empirical(tokens: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    return {said: count / len(tokens) for said, count in Counter(tokens).items()}


@cache
def network(kind: str) -> DrafterNetwork:
    """Fitted to what the target says: right often, and far from always."""
    said = [[*PROMPT, *result.tokens] for result in drawn(Decoder(target()), 40)]
    return fitted_network(kind, target().model, said, steps=30)


def decoder(kind: str, verification: Any, width: int, depth: int = 2) -> Decoder:
    drafter = tiny_networks.drafter(network(kind), target(), verification)
    return Decoder(target(), drafter, pacing=Fixed(Bounds(depth, width, 8)), verification=verification)


# Rejection, enumerated. -------------------------------------------------------------------------


class Forced:
    """Noise under which given tokens are drawn, in order, at each depth of a draft."""

    seed = 0

    def __init__(self, position: int, orders: tuple[tuple[int, ...], ...]) -> None:
        self.position = position
        self.orders = orders

    def own(self, position: int, size: int, stream: int = 1) -> torch.Tensor:
        noise = torch.zeros(size)
        for rank, token in enumerate(self.orders[position - self.position]):
            noise[token] = 1e6 * (len(self.orders[0]) - rank)
        return noise


class Drafts:
    """The drafter's trees as a function of the text and of what it draws, with their probability."""

    def __init__(self, kind: str) -> None:
        self.drafter: Any = tiny_networks.drafter(network(kind), target(), "rejection")
        self.columns = VOCAB if network(kind).vocabulary is None else len(network(kind).vocabulary)  # type: ignore[arg-type]
        self._known: dict[Any, list[tuple[DraftTree, float]]] = {}

    def __call__(self, said: tuple[int, ...], branch: int, depth: int) -> list[tuple[DraftTree, float]]:
        key = (said, branch, depth)
        if key not in self._known:
            self._known[key] = [self._draft(said, orders) for orders in self._orders(branch, depth)]
        return self._known[key]

    def _orders(self, branch: int, depth: int) -> Iterator[tuple[tuple[int, ...], ...]]:
        level = list(itertools.permutations(range(self.columns), min(branch, self.columns)))
        return itertools.product(level, repeat=depth)

    def _draft(self, said: tuple[int, ...], orders: tuple[tuple[int, ...], ...]) -> tuple[DraftTree, float]:
        params = SamplingParams(temperature=1.0, seed=0)
        row = Row(0, PROMPT, params, Processors(sample=True), tokens=list(said))
        row.noise = Forced(row.position, orders)  # type: ignore[assignment]
        with torch.no_grad(), LastHidden(target().model).caught() as caught:
            target().model(torch.tensor([[*PROMPT, *said][:-1]]))
        self.drafter.start([row])
        self.drafter.read(row, caught[-1][0])
        branch = len(orders[0]) if orders else 1
        bounds = Bounds(len(orders), branch, 8, branch=branch, target_depth=len(orders))
        (tree,) = self.drafter.propose([row], [bounds])
        self.drafter.stop([row])
        weight = 1.0
        for parent, q in (tree.probs or {}).items():
            drawn = tuple(tree.tokens[n] for n, above in enumerate(tree.parents) if above == parent)
            weight *= dict(without_replacement(q, len(drawn)))[drawn]
        return tree, weight


@cache
def drafts(kind: str) -> Drafts:
    return Drafts(kind)


@cache
def truth(said: tuple[int, ...]) -> torch.Tensor:
    """The target's probabilities (vocab,) after the prompt and what was said."""
    with torch.no_grad():
        logits = target().model(torch.tensor([[*PROMPT, *said]])).logits[0, -1]
    return logits.double().softmax(-1)


def enumerated(kind: str, rule: Callable[..., verify.Verdict], branch: int, depth: int, tokens: int) -> Law:
    """Exact law of the first tokens under draft, verify, repeat."""

    def run(script: Script) -> tuple[int, ...]:
        said: tuple[int, ...] = ()
        while len(said) < tokens:
            options = drafts(kind)(said, branch, min(depth, tokens - len(said) - 1))
            tree = options[script.decide([weight for _, weight in options])][0] if options else DraftTree.EMPTY

            def after(node: int, tree: DraftTree = tree, said: tuple[int, ...] = said) -> torch.Tensor:
                return truth(said + tuple(tree.tokens[n] for n in tree.path(node)))

            verdict = rule(after, tree, tree.probs or {}, lambda: Uniform(script))
            said += (*(tree.tokens[node] for node in verdict.accepted), verdict.next_token)
        return said

    found: Law = defaultdict(float)
    for said, weight in enumerate_runs(run):
        found[said[:tokens]] += weight
    return dict(found)


@pytest.fixture
def enumerable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`draw` splits into all tokens instead of inverting a number."""
    monkeypatch.setattr(verify, "draw", lambda p, u: u.script.decide([float(x) for x in p / p.sum()]))


@pytest.mark.usefixtures("enumerable")
@pytest.mark.parametrize(("branch", "depth", "tokens"), [(1, 1, 3), (1, 2, 3), (2, 1, 2), (3, 1, 2)])
@pytest.mark.parametrize("kind", FORMS)
def test_rejection_of_real_proposals_has_the_targets_law(kind: str, branch: int, depth: int, tokens: int) -> None:
    for said in ((), (3,)):
        options = drafts(kind)(said, branch, depth)
        assert sum(weight for _, weight in options) == pytest.approx(1, abs=1e-6)
        assert all(tree.depth == depth for tree, _ in options)
    found = enumerated(kind, reject, branch, depth, tokens)
    scale = sum(found.values())  # recorded proposals sum to 1 up to float32
    assert scale == pytest.approx(1, abs=1e-5)
    exact = plain_law(truth, tokens, VOCAB)
    assert distance({said: weight / scale for said, weight in found.items()}, exact) < 1e-9


@pytest.mark.usefixtures("enumerable")
@pytest.mark.parametrize("kind", KINDS)
def test_the_enumeration_sees_a_proposal_that_lies(kind: str) -> None:
    """Rejecting with another q than the one drawn from is seen at once."""

    def flat(after: Any, tree: DraftTree, probs: Any, uniform: Any) -> verify.Verdict:
        even = torch.full((VOCAB,), 1 / VOCAB, dtype=torch.float64)
        return reject(after, tree, dict.fromkeys(probs, even), uniform)

    assert distance(enumerated(kind, flat, 1, 1, 2), plain_law(truth, 2, VOCAB)) > 0.01


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("kind", FORMS)
def test_what_is_drawn_is_what_is_recorded(kind: str, width: int) -> None:
    """Children of the root, and of its first child, against the recorded q, over as many seeds."""
    drafter: Any = tiny_networks.drafter(network(kind), target(), "rejection")
    params = SamplingParams(temperature=1.0, seed=0)
    with torch.no_grad(), LastHidden(target().model).caught() as caught:
        target().model(torch.tensor([PROMPT[:1]]))
    rows = [Row(i, PROMPT, params, Processors(sample=True), Noise(i, VOCAB)) for i in range(RUNS // 20)]
    drafter.start(rows)
    for row in rows:
        drafter.read(row, caught[-1][0])
    trees: list[DraftTree] = drafter.propose(rows, [Bounds(2, width, 8, branch=width)] * len(rows))
    drafter.stop(rows)
    first: list[tuple[int, ...]] = []
    below: dict[int, torch.Tensor] = {}
    recorded: list[torch.Tensor] = []
    alike: list[torch.Tensor] = []
    for tree in trees:
        places = [[n for n, parent in enumerate(tree.parents) if parent == node] for node in (-1, 0)]
        first.append(tuple(tree.tokens[n] for n in places[0] + places[1]))
        assert tree.probs is not None
        recorded.append(torch.stack([tree.probs[-1], tree.probs[0]]))
        alike.append(torch.stack([recorded[0][0], below.setdefault(tree.tokens[0], tree.probs[0])]))
    torch.testing.assert_close(torch.stack(recorded), torch.stack(alike))
    expected: Law = {
        order + then: weight * share
        for order, weight in without_replacement((trees[0].probs or {})[-1], width)
        if order[0] in below
        for then, share in without_replacement(below[order[0]], width)
    }
    assert sum(expected.values()) > 0.9  # first children so rare that no seed drew them are missing
    rest = 1 - sum(expected.values())
    assert p_value(first, {**expected, (-1,): max(rest, 0.0)}) > 1e-5


# Both rules from end to end. --------------------------------------------------------------------

CASES = [(kind, rule, RUNS // 20) for kind in KINDS for rule in ("exact", "rejection")]
CASES[CASES.index(("lean", "exact", RUNS // 20))] = ("lean", "exact", RUNS // 4)


@pytest.mark.parametrize(("kind", "verification", "runs"), CASES)
def test_from_end_to_end(kind: str, verification: str, runs: int) -> None:
    """Through the engine, from a prompt of two tokens on, so that the first token is a drafted one already."""
    results = drawn(decoder(kind, verification, 3 if verification == "exact" else 2), runs)
    found, exact = empirical(words(results)), plain_law(truth, 3, VOCAB)
    for tokens in (1, 2, 3):
        cut, whole = marginal(found, tokens), marginal(exact, tokens)
        assert distance(cut, whole) < noise_level(whole, runs), tokens
    assert p_value(words(results), exact) > 1e-5
    accepted = sum(result.stats.num_accepted_tokens for result in results)
    drafted = sum(result.stats.num_draft_tokens for result in results)
    assert 0.5 * runs < accepted < drafted


def drawn(decoder: Decoder, count: int, **options: Any) -> list[Generation]:
    """Answers of three tokens, each with a seed of its own."""
    results: list[Generation] = []
    for seed in range(-(-count // CHUNK)):
        part = decoder.generate(
            PROMPT, n=min(CHUNK, count), max_new_tokens=3, seed=seed, **{"temperature": 1.0, **options}
        )
        assert isinstance(part, list)
        results += part
    return results


def marginal(of: Law, tokens: int) -> Law:
    found: Law = defaultdict(float)
    for said, weight in of.items():
        found[said[:tokens]] += weight
    return dict(found)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("width", [1, 3])
def test_shared_noise_says_what_plain_decoding_says(kind: str, width: int) -> None:
    """Seed by seed, so its law is plain decoding's; warpers included."""
    for options in ({}, {"temperature": 0.7, "top_k": 3}):
        results = drawn(decoder(kind, "exact", width), 200, **options)
        assert words(results) == words(drawn(Decoder(target()), 200, **options))


# Apple's rule and ours on the same P and Q. ---------------------------------------------------------

EIGHT = 8
PAIRS = 6
DRAWS = 20_000
WALKS = 300


def pair(closeness: str, seed: int) -> tuple[apple_rule.Model, apple_rule.Model]:
    """P and Q over eight tokens as functions of the tokens before."""
    p = table_model(EIGHT, 100 + seed, sharp=1.3)
    if closeness == "Q = P":
        return p, p
    other = table_model(EIGHT, 200 + seed, sharp=0.5 if closeness == "close" else 1.3)

    def q(context: tuple[int, ...]) -> torch.Tensor:
        product = p(context) * other(context) if closeness == "close" else other(context)
        return product / product.sum()

    return p, q


@cache
def noises(depth: int, draws: int) -> torch.Tensor:
    """(draws, depth, vocab) shared noise of as many seeds."""
    return torch.stack([torch.stack([Noise(seed, EIGHT).at(i) for i in range(depth)]) for seed in range(draws)])


def ours(p: apple_rule.Model, q: apple_rule.Model, width: int, depth: int) -> tuple[Law, float]:
    """Law of the first token over seeds, and how often a drafted one is kept.

    A tree grown from Q and walked by P says what P and the noise choose, which is asserted seed by seed; so the law
    is that of the choices, and is counted over more seeds.
    """
    texts = [said for length in range(depth + 1) for said in itertools.product(range(EIGHT), repeat=length)]
    noise = noises(depth + 1, WALKS)[:, [len(said) for said in texts]]
    choices = (torch.stack([p(said).log() for said in texts]) + noise).argmax(-1).tolist()
    logs, best = (torch.stack([q(said).log() for said in texts]) + noise).log_softmax(-1).topk(width)
    index = {said: i for i, said in enumerate(texts)}
    kept = 0
    for choice, log, token in zip(choices, logs.tolist(), best.tolist(), strict=True):
        growth = Growth()
        steps = grow(Bounds(depth, width, width * depth, branch=width), growth)
        paths: dict[int, tuple[int, ...]] = {-1: ()}
        with suppress(StopIteration):
            frontier = next(steps)
            while True:
                places = [index[path(growth, node, paths)] for node in frontier]
                frontier = steps.send([[(t, s, False) for t, s in zip(token[i], log[i], strict=True)] for i in places])
        tree = growth.tree(width * depth)

        def says(node: int, tree: DraftTree = tree, choice: list[int] = choice) -> int:
            return choice[index[tuple(tree.tokens[n] for n in tree.path(node))]]

        verdict = walk(says, tree)
        kept += bool(verdict.accepted)
        assert (tree.tokens[verdict.accepted[0]] if verdict.accepted else verdict.next_token) == choice[0]
    said = (p(()).log() + noises(1, DRAWS)[:, 0]).argmax(-1)
    return {(token,): float((said == token).double().mean()) for token in range(EIGHT)}, kept / WALKS


def path(growth: Growth, node: int, known: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    if node not in known:
        known[node] = (*path(growth, growth.parents[node], known), growth.tokens[node])
    return known[node]


def test_apples_rule_is_far_from_the_law_and_ours_is_not() -> None:
    lines = ["drafter  W,drafted  Apple's rule: TV  kept   ours: TV  (noise)  kept"]
    rows = [("Q = P", 1, 1), ("Q = P", 3, 2), ("close", 3, 2), ("close", 6, 2), ("poor", 3, 2), ("poor", 6, 2)]
    for closeness, width, depth in rows:
        theirs, own, kept, own_kept, level = [], [], [], [], []
        for seed in range(PAIRS):
            p, q = pair(closeness, seed)
            exact = {(token,): float(weight) for token, weight in enumerate(p(()))}
            found, share = apple_rule.first_token(p, q, width, depth)
            assert sum(found.values()) == pytest.approx(1)
            theirs.append(distance(found, exact))
            kept.append(share)
            found, share = ours(p, q, width, depth)
            own.append(distance(found, exact))
            own_kept.append(share)
            level.append(noise_level(exact, DRAWS))
        bound = float(np.mean(level))  # the pairs share their seeds
        tv, tv_own = float(np.mean(theirs)), float(np.mean(own))
        lines.append(
            f"{closeness:8} {width},{depth}        {tv:16.3f}  {np.mean(kept):.2f}  {tv_own:9.4f}  "
            f"({bound:.3f})  {np.mean(own_kept):.2f}"
        )
        assert 0.2 < tv < 0.65, closeness
        assert tv_own < bound < 0.04, closeness
    print("\n" + "\n".join(lines))
