"""Verification by itself: `walk` is exact match, `reject` has exactly the target's law.

The law of `reject` is not sampled but enumerated: its uniforms are replaced by objects that split the run at
every comparison, with the probability of each side. So an error of 1e-9 in any rule is seen.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anydraft import verify
from anydraft.tree import DraftTree
from anydraft.verify import Verdict, draw, reject, walk

Law = dict[tuple[int, ...], float]


# Exact laws of a randomised rule. ---------------------------------------------------------------


class Fork(Exception):
    """A decision that the script does not cover: probabilities of its outcomes."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.weights = weights


class Script:
    """Replays given outcomes of random decisions, then raises `Fork` at the next one."""

    def __init__(self, outcomes: tuple[int, ...]) -> None:
        self.outcomes = list(outcomes)

    def decide(self, weights: list[float]) -> int:
        if not self.outcomes:
            raise Fork(weights)
        return self.outcomes.pop(0)


class Uniform:
    """A uniform variable u that knows only how to answer `u * q < p`."""

    def __init__(self, script: Script, factor: float = 1.0) -> None:
        self.script = script
        self.factor = factor

    def __mul__(self, factor: float) -> Uniform:
        return Uniform(self.script, self.factor * factor)

    def __lt__(self, bound: float) -> bool:
        below = 1.0 if self.factor <= 0 else min(1.0, bound / self.factor)
        return self.script.decide([below, 1 - below]) == 0


def enumerate_runs(run: Callable[[Script], Any]) -> Iterator[tuple[Any, float]]:
    """Every outcome of a randomised procedure, with its probability."""
    stack: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    while stack:
        outcomes, weight = stack.pop()
        try:
            yield run(Script(outcomes)), weight
        except Fork as fork:
            stack += [((*outcomes, i), weight * w) for i, w in enumerate(fork.weights) if w > 0]


@pytest.fixture
def enumerable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`draw` splits into all tokens instead of inverting a number."""
    monkeypatch.setattr(
        verify, "draw", lambda p, u: u.script.decide([float(x) for x in p / p.sum()]) if isinstance(u, Uniform) else 0
    )


def without_replacement(q: torch.Tensor, count: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Ordered draws without replacement, with their probabilities."""
    support = [token for token in range(len(q)) if q[token] > 0]
    for order in itertools.permutations(support, min(count, len(support))):
        weight, left = 1.0, 1.0
        for token in order:
            weight *= float(q[token]) / left
            left -= float(q[token])
        yield order, weight


Model = Callable[[tuple[int, ...]], torch.Tensor]


def table_model(vocab: int, seed: int, zeros: int = 0, sharp: float = 1.5) -> Model:
    """Probabilities of the next token as a fixed function of the tokens before; `zeros` of them are impossible."""

    def probabilities(context: tuple[int, ...]) -> torch.Tensor:
        rng = np.random.default_rng([seed, 17, *context])
        p = np.exp(sharp * rng.standard_normal(vocab))
        p[rng.permutation(vocab)[:zeros]] = 0
        return torch.from_numpy(p / p.sum())

    return probabilities


def speculate(p: Model, q: Model, rule: Any, branch: int, depth: int, tokens: int) -> Law:
    """Exact law of the first `tokens` tokens under draft, verify, repeat: only the first sibling is expanded."""

    def draft(script: Script, context: tuple[int, ...], depth: int) -> DraftTree:
        nodes: list[int] = []
        parents: list[int] = []
        probs: dict[int, torch.Tensor] = {}
        node, path = -1, context
        for _ in range(depth):
            options = list(without_replacement(q(path), branch))
            order = options[script.decide([weight for _, weight in options])][0]
            probs[node] = q(path)
            first = len(nodes)
            nodes += order
            parents += [node] * len(order)
            node, path = first, (*path, order[0])
        return DraftTree(tuple(nodes), tuple(parents), probs=probs)

    def run(script: Script) -> tuple[int, ...]:
        said: tuple[int, ...] = ()
        while len(said) < tokens:
            tree = draft(script, said, min(depth, tokens - len(said) - 1))

            def after(node: int, tree: DraftTree = tree, said: tuple[int, ...] = said) -> torch.Tensor:
                return p(said + tuple(tree.tokens[n] for n in tree.path(node)))

            verdict: Verdict = rule(after, tree, tree.probs or {}, lambda: Uniform(script))
            said += (*(tree.tokens[node] for node in verdict.accepted), verdict.next_token)
        return said

    law: Law = defaultdict(float)
    for said, weight in enumerate_runs(run):
        law[said[:tokens]] += weight
    return law


def plain_law(p: Model, tokens: int, vocab: int) -> Law:
    law: Law = {}
    for said in itertools.product(range(vocab), repeat=tokens):
        weight = 1.0
        for i, token in enumerate(said):
            weight *= float(p(said[:i])[token])
        law[said] = weight
    return law


def distance(left: Mapping[Any, float], right: Mapping[Any, float]) -> float:
    """Total variation."""
    return sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in {*left, *right}) / 2


def restricted(model: Model, allowed: list[int]) -> Model:
    """A drafter that knows only some tokens (the rest of the target's vocabulary has probability 0)."""

    def probabilities(context: tuple[int, ...]) -> torch.Tensor:
        q = torch.zeros_like(model(context))
        q[allowed] = model(context)[allowed]
        return q / q.sum()

    return probabilities


def cut_to(model: Model, k: int) -> Model:
    """Top-k."""

    def probabilities(context: tuple[int, ...]) -> torch.Tensor:
        p = model(context).clone()
        p[p < p.topk(k).values[-1]] = 0
        return p / p.sum()

    return probabilities


P4, Q4 = table_model(4, 1), table_model(4, 2)
PAIRS: dict[str, tuple[Model, Model]] = {
    "all": (P4, Q4),
    "same": (P4, P4),
    "draft knows less": (P4, restricted(Q4, [0, 2])),
    "draft knows one": (P4, restricted(Q4, [3])),
    "target says less": (table_model(4, 1, zeros=2), Q4),
    "zeros on both sides": (table_model(4, 3, zeros=1), table_model(4, 4, zeros=2)),
    "disjoint": (restricted(P4, [0, 1]), restricted(Q4, [2, 3])),
    "top-k": (cut_to(P4, 2), cut_to(Q4, 2)),
    "sharp": (table_model(4, 5, sharp=6), table_model(4, 6, sharp=6)),
}


@pytest.mark.usefixtures("enumerable")
@pytest.mark.parametrize(("branch", "depth"), [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)])
@pytest.mark.parametrize("name", PAIRS)
def test_rejection_has_the_targets_law(name: str, branch: int, depth: int) -> None:
    p, q = PAIRS[name]
    tokens = 3 if branch * depth <= 2 else 2
    law = speculate(p, q, reject, branch, depth, tokens)
    assert sum(law.values()) == pytest.approx(1)
    assert distance(law, plain_law(p, tokens, 4)) < 1e-9


@pytest.mark.usefixtures("enumerable")
@pytest.mark.parametrize("zeros", [0, 1])
def test_rejection_in_a_deeper_tree(zeros: int) -> None:
    p, q = table_model(3, 7), table_model(3, 8, zeros=zeros)
    assert distance(speculate(p, q, reject, 2, 2, 3), plain_law(p, 3, 3)) < 1e-9


# Wrong rules are caught: the tests above can fail. ------------------------------------------------


def no_residual(target_probs: Any, tree: DraftTree, draft_probs: Any, uniform: Any) -> Verdict:
    """Accepts as it should, then draws from p instead of what is left of it."""
    p = target_probs(-1)
    if len(tree):
        token = tree.tokens[0]
        if uniform() * float(draft_probs[-1][token]) < float(p[token]):
            return Verdict((0,), verify.draw(target_probs(0), uniform()))
    return Verdict((), verify.draw(p, uniform()))


def with_replacement(target_probs: Any, tree: DraftTree, draft_probs: Any, uniform: Any) -> Verdict:
    """Treats siblings as independent draws from the same q."""
    p, q = target_probs(-1).clone(), draft_probs.get(-1)
    for child, parent in enumerate(tree.parents):
        if parent != -1:
            continue
        token = tree.tokens[child]
        if uniform() * float(q[token]) < float(p[token]):
            return Verdict((child,), verify.draw(target_probs(child), uniform()))
        p = (p - q).clamp(min=0)
        p = p / p.sum() if p.sum() > 0 else target_probs(-1)
    return Verdict((), verify.draw(p, uniform()))


def greedy_accept(target_probs: Any, tree: DraftTree, draft_probs: Any, uniform: Any) -> Verdict:
    """Accepts whatever the target finds likelier than the drafter did."""
    p = target_probs(-1)
    if len(tree) and float(p[tree.tokens[0]]) > float(draft_probs[-1][tree.tokens[0]]):
        return Verdict((0,), verify.draw(target_probs(0), uniform()))
    return Verdict((), verify.draw(p, uniform()))


@pytest.mark.usefixtures("enumerable")
@pytest.mark.parametrize(("rule", "branch"), [(no_residual, 1), (with_replacement, 2), (greedy_accept, 1)])
def test_wrong_rules_are_seen(rule: Any, branch: int) -> None:
    law = speculate(P4, Q4, rule, branch, 1, 2)
    assert sum(law.values()) == pytest.approx(1)
    assert distance(law, plain_law(P4, 2, 4)) > 0.01


@pytest.mark.usefixtures("enumerable")
def test_dropping_a_draft_because_of_its_token_is_seen() -> None:
    """Why whether a node has children must not depend on which tokens were drawn."""

    def picky(target_probs: Any, tree: DraftTree, draft_probs: Any, uniform: Any) -> Verdict:
        if len(tree) and tree.tokens[0] == 0:
            tree = DraftTree.EMPTY
        return reject(target_probs, tree, draft_probs, uniform)

    assert distance(speculate(P4, Q4, picky, 1, 1, 2), plain_law(P4, 2, 4)) > 0.01


# Details. -----------------------------------------------------------------------------------------


def test_a_perfect_draft_is_always_accepted() -> None:
    p = P4(())
    tree = DraftTree((2,), (-1,), probs={-1: p})
    for u in (0.0, 0.5, 1 - 1e-12):
        assert reject(lambda node: p, tree, {-1: p}, lambda u=u: u).accepted == (0,)  # type: ignore[misc]


def test_unnormalised_probabilities_are_normalised() -> None:
    verdict = reject(lambda node: 3 * P4(()), DraftTree.EMPTY, {}, lambda: 0.999999)
    assert verdict.next_token == 3


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_draw_inverts_the_distribution(weights: list[float], u: float) -> None:
    p = torch.tensor(weights, dtype=torch.float64)
    if p.sum() < 1e-6:
        return
    token = draw(p, u)
    assert p[token] > 0
    below = float(p[:token].sum())
    total = float(p.sum())
    assert below - 1e-9 <= u * total <= below + float(p[token]) + 1e-9


trees = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 30)), max_size=20).map(
    lambda nodes: DraftTree(
        tuple(token for token, _ in nodes), tuple(min(parent, i - 1) for i, (_, parent) in enumerate(nodes))
    )
)


@settings(max_examples=300)
@given(trees, st.integers(0, 1000))
def test_walk_says_what_the_target_says(tree: DraftTree, seed: int) -> None:
    """Against the naive twin: the target's own words, as far as the set of drafted prefixes holds them."""
    asked: list[int] = []

    def says(context: tuple[int, ...]) -> int:
        return int(np.random.default_rng([seed, *context]).integers(0, 4))

    def choice(node: int) -> int:
        asked.append(node)
        return says(tuple(tree.tokens[n] for n in tree.path(node)))

    verdict = walk(choice, tree)
    prefixes = {tuple(tree.tokens[n] for n in tree.path(node)) for node in range(len(tree))}
    expected: tuple[int, ...] = ()
    while True:
        expected = (*expected, says(expected))
        if expected not in prefixes:
            break
    got = (*(tree.tokens[node] for node in verdict.accepted), verdict.next_token)
    # Of equal siblings the first counts, so a draft under the second may be missed, never misread.
    assert got == expected[: len(got)]
    if len({(p, t) for p, t in zip(tree.parents, tree.tokens, strict=True)}) == len(tree):
        assert got == expected
    assert asked == [-1, *verdict.accepted]
