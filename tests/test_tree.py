"""Trees against naive twins: sets of prefixes, paths, brute force."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anydraft.errors import DraftError
from anydraft.growth import SIDE, Bounds, Children, Growth, grow
from anydraft.tree import DraftTree, visibility

beams = st.lists(st.lists(st.integers(0, 2), max_size=5).map(tuple), max_size=8)
trees = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 30)), max_size=16).map(
    lambda nodes: DraftTree(
        tuple(token for token, _ in nodes),
        tuple(min(parent, i - 1) for i, (_, parent) in enumerate(nodes)),
        tuple(-float(i) for i in range(len(nodes))),
    )
)


def words(tree: DraftTree) -> list[tuple[int, ...]]:
    """The tokens from the root to each node."""
    return [tuple(tree.tokens[n] for n in tree.path(node)) for node in range(len(tree))]


@given(beams)
def test_from_beams_is_the_set_of_prefixes(beams: list[tuple[int, ...]]) -> None:
    tree = DraftTree.from_beams(beams)
    prefixes = {beam[:size] for beam in beams for size in range(1, len(beam) + 1)}
    assert sorted(words(tree)) == sorted(prefixes)
    if beams:
        assert words(tree)[: len(beams[0])] == [beams[0][:size] for size in range(1, len(beams[0]) + 1)]


@given(trees)
def test_what_follows_from_the_parents(tree: DraftTree) -> None:
    mask = tree.ancestors()
    for node in range(len(tree)):
        path = tree.path(node)
        assert path[-1] == node
        assert tree.parents[path[0]] == -1
        assert all(tree.parents[b] == a for a, b in itertools.pairwise(path))
        assert tree.depths[node] == len(path)
        assert set(mask[node].nonzero()[0].tolist()) == set(path)
    assert (mask == visibility(tree.parents)).all()
    assert tree.depth == max((len(tree.path(node)) for node in range(len(tree))), default=0)
    assert tree.is_chain == all(tree.depths[node] == node + 1 for node in range(len(tree)))
    for parent, children in tree.children.items():
        for token, node in children.items():
            equal = [n for n in range(len(tree)) if tree.parents[n] == parent and tree.tokens[n] == token]
            assert node == min(equal)
    assert {n for n, p in enumerate(tree.parents) if p == -1 and tree.tokens.index(tree.tokens[n]) == n} <= set(
        tree.children.get(-1, {}).values()
    )


@given(trees, st.integers(0, 6))
def test_cut_keeps_the_short_words(tree: DraftTree, depth: int) -> None:
    cut = tree.cut(depth)
    assert words(cut) == [word for word in words(tree) if len(word) <= depth]
    assert cut.scores == tuple(s for s, d in zip(tree.scores or (), tree.depths, strict=True) if d <= depth)
    assert cut.depth <= depth


@given(trees, st.data())
def test_keep_is_the_subtree(tree: DraftTree, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, max(0, len(tree) - 1)))) if len(tree) else set()
    closed = sorted({n for node in chosen for n in tree.path(node)})
    probs = {node: torch.tensor([float(node)]) for node in range(-1, len(tree))}
    whole = DraftTree(tree.tokens, tree.parents, tree.scores, probs)
    kept = whole.keep(closed)
    assert words(kept) == [words(tree)[node] for node in closed]
    assert kept.scores == tuple((tree.scores or ())[node] for node in closed)
    assert {node: float(q) for node, q in (kept.probs or {}).items()} == {
        -1: -1.0,
        **{new: float(old) for new, old in enumerate(closed)},
    }


def test_broken_trees_are_refused() -> None:
    with pytest.raises(DraftError, match="as many parents, got 1"):
        DraftTree((1, 2), (-1,))
    with pytest.raises(DraftError, match="parent 1 for node 1"):
        DraftTree((1, 2), (-1, 1))
    with pytest.raises(DraftError, match="parent -2 for node 0"):
        DraftTree((1,), (-2,))


def test_chain_and_empty() -> None:
    assert DraftTree.chain([3, 1, 3]) == DraftTree((3, 1, 3), (-1, 0, 1))
    assert DraftTree.chain([]) == DraftTree.EMPTY == DraftTree.from_beams([])
    assert DraftTree.EMPTY.is_chain
    assert DraftTree.EMPTY.depth == 0


# grow() against brute force. ----------------------------------------------------------------------


class Language:
    """A fixed random language: children of a word with log probabilities; some words end."""

    def __init__(self, seed: int, vocab: int = 4, ends: float = 0.15) -> None:
        self.seed, self.vocab, self.ends = seed, vocab, ends

    def children(self, word: tuple[int, ...]) -> list[tuple[int, float, bool]]:
        rng = random.Random(f"{self.seed} {word}")
        weights = [rng.random() ** 3 + 1e-3 for _ in range(self.vocab)]
        return sorted(
            ((t, math.log(w / sum(weights)), rng.random() < self.ends) for t, w in enumerate(weights)),
            key=lambda child: -child[1],
        )


def run(language: Language, bounds: Bounds) -> tuple[Growth, int]:
    """Drive `grow`; returns the growth and how many nodes were expanded."""
    growth = Growth()
    steps = grow(bounds, growth)
    expanded = 0
    try:
        frontier = next(steps)
        while True:
            expanded += len(frontier)
            answers: list[Children] = []
            for node in frontier:
                word = []
                while node >= 0:
                    word.append(growth.tokens[node])
                    node = growth.parents[node]
                answers.append(language.children(tuple(word[::-1])))
            frontier = steps.send(answers)
    except StopIteration:
        return growth, expanded


def all_words(language: Language, depth: int) -> dict[tuple[int, ...], float]:
    found: dict[tuple[int, ...], float] = {}
    frontier = [((), 0.0)]
    for _ in range(depth):
        fresh = []
        for word, score in frontier:
            for token, log, final in language.children(word):
                found[(*word, token)] = score + log
                if not final:
                    fresh.append(((*word, token), score + log))
        frontier = fresh
    return found


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 25))
def test_growing_wide_enough_finds_the_best_nodes(seed: int, depth: int, nodes: int) -> None:
    """With all nodes of a level expanded the tree is that of brute force, though hopeless nodes are left out."""
    language = Language(seed)
    growth, expanded = run(language, Bounds(depth, 4**depth, nodes))
    tree = growth.tree(nodes)
    everything = all_words(language, depth)
    best = sorted(everything, key=lambda word: -everything[word])[:nodes]
    assert sorted(words(tree)) == sorted(best)
    assert expanded <= 1 + nodes * depth
    for word, score in zip(words(tree), tree.scores or (), strict=True):
        assert score == pytest.approx(everything[word])


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 5), st.integers(1, 12))
def test_growth_respects_its_bounds(seed: int, depth: int, width: int, nodes: int) -> None:
    growth, expanded = run(Language(seed), Bounds(depth, width, nodes))
    tree = growth.tree(nodes)
    assert len(tree) <= nodes
    assert tree.depth <= depth
    assert expanded <= max(0, 1 + width * (depth - 1)) if depth else expanded == 0
    kept = set(growth.best(nodes))
    assert all(growth.parents[node] in kept or growth.parents[node] == -1 for node in kept)
    for node, parent in enumerate(growth.parents):
        assert not (parent >= 0 and growth.final[parent])
        assert parent < 0 or growth.scores[node] <= growth.scores[parent]
    chain, _ = run(Language(seed), Bounds(depth, 1, 1 << 20))
    level = [node for node in range(len(chain.tokens)) if any(p == node for p in chain.parents)]
    assert all(a < b for a, b in itertools.pairwise(level))


def test_growing_stops_where_too_little_is_likely() -> None:
    language = Language(4, ends=0.0)
    masses = []
    for least in (0.0, 0.05, 0.3, 0.9, 1.0):
        growth, _ = run(language, Bounds(6, 1, 64, (least,)))
        masses.append(DraftTree(tuple(growth.tokens), tuple(growth.parents)).depth)
    assert masses == sorted(masses, reverse=True)
    assert masses[0] == 6
    assert masses[-1] == 1


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.4]))
def test_masses_are_those_of_what_was_expanded(seed: int, depth: int, width: int, least: float) -> None:
    """Of all levels, by what was asked for; no branch is expanded that is unlikelier than a tenth of the least mass, or
    of the likeliest one."""
    growth, steps = Growth(), None
    language, asked = Language(seed, ends=0.0), []
    steps = grow(Bounds(depth, width, 64, (least,)), growth)
    frontier = next(steps)
    try:
        while True:
            asked.append([math.exp(growth.scores[node]) if node >= 0 else 1.0 for node in frontier])
            frontier = steps.send([language.children((node,)) for node in frontier])
    except StopIteration:
        pass
    assert growth.masses == pytest.approx([sum(likely) for likely in asked])
    assert growth.levels == len(asked)
    assert all(likely >= SIDE * least for level in asked for likely in level if likely < max(level))
    assert least == 0 or all(likely >= 0.999 * SIDE * max(level) for level in asked for likely in level)
    assert growth.tree(64).masses == tuple(growth.masses)
    assert growth.tree(64).cut(1).masses == tuple(growth.masses)


def test_least_masses_by_level() -> None:
    """The last one is for all levels after it."""
    language = Language(4, ends=0.0)
    whole, _ = run(language, Bounds(6, 1, 64))
    for stop in range(1, 6):
        masses = (0.0,) * stop + (2.0,)
        growth, _ = run(language, Bounds(6, 1, 64, masses).within(6, 64, False))
        assert growth.masses == whole.masses[:stop]


def test_unlikely_branches_are_not_expanded() -> None:
    wide, _ = run(Language(4, ends=0.0), Bounds(4, 4, 64))
    narrow, _ = run(Language(4, ends=0.0), Bounds(4, 4, 64, (0.4,)))
    assert narrow.levels >= 2
    assert len(narrow.tokens) < len(wide.tokens)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_the_likeliest_path_comes_first(seed: int, nodes: int) -> None:
    """Its nodes lie where plain decoding would put them, and the tree is the same set of words."""
    growth, _ = run(Language(seed), Bounds(4, 3, nodes))
    tree = growth.tree(nodes)
    scores = tree.scores or ()
    node, length = -1, 0
    while tree.children.get(node):
        node = max(tree.children[node].values(), key=lambda child: scores[child])
        assert node == length
        length += 1
    assert sorted(scores) == pytest.approx(sorted(growth.scores[node] for node in growth.best(nodes)))


def test_scores_above_zero_cannot_break_the_order() -> None:
    growth = Growth()
    steps = grow(Bounds(2, 1, 3), growth)
    next(steps)
    steps.send([[(1, -1.0, False)]])
    with pytest.raises(StopIteration):
        steps.send([[(2, 5.0, False)]])
    assert growth.scores == [-1.0, -1.0]
    assert growth.best(1) == [0]


def test_bounds_within_the_rows_wish() -> None:
    bounds = Bounds(8, 3, 24, 0.1)
    assert bounds.within(5, 7, False) == Bounds(8, 3, 7, 0.1, target_depth=5)
    chain = bounds.within(5, 7, True)
    # Draft tokens may be shorter than the target's, so twice as many may be drafted as can be verified.
    assert (chain.depth, chain.width, chain.nodes, chain.chain_only, chain.branch) == (8, 1, 7, True, 1)
    assert bounds.within(5, 3, True).depth == 6
    assert bounds.within(-1, 7, False).target_depth == 0
