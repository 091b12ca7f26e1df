"""What branches beside the likeliest node are worth: learned from where right paths left the likeliest nodes."""

from __future__ import annotations

import math
import random

import pytest

from anydraft.growth import SIDE, Bounds, Growth, grow
from anydraft.pacing.sides import Sides
from anydraft.tree import DraftTree


def forked(depth: int, likeliest: float, other: float) -> DraftTree:
    """A chain of likeliest nodes with one other beside each."""
    tokens: list[int] = []
    parents: list[int] = []
    scores: list[float] = []
    main, base = -1, 0.0
    for _ in range(depth):
        parents += [main, main]
        tokens += [1, 2]
        scores += [base + math.log(likeliest), base + math.log(other)]
        main, base = len(tokens) - 2, base + math.log(likeliest)
    return DraftTree(tuple(tokens), tuple(parents), tuple(scores))


@pytest.mark.parametrize("leaves", [0.02, 0.25, 0.6])
def test_the_share_follows_how_often_paths_leave_the_likeliest_nodes(leaves: float) -> None:
    """One in four is stated to: where fewer do a branch needs more, up to as much as the likeliest one."""
    chance, sides, shares = random.Random(0), Sides(), []
    tree = forked(4, 0.6, 0.2)
    for _ in range(1000):
        accepted = []
        for depth in range(4):
            left = chance.random() < leaves
            accepted.append(2 * depth + left)
            if left:
                break
        sides.observe(tree, accepted)
        shares.append(sides.share)
    assert sum(shares[200:]) / len(shares[200:]) == pytest.approx(min(1.0, SIDE * 0.25 / leaves), rel=0.25)


def test_what_follows_a_departure_and_what_was_rejected_says_nothing() -> None:
    sides, tree = Sides(), forked(3, 0.6, 0.2)
    before = sides.share
    sides.observe(tree, [])
    assert sides.share == before == SIDE
    # A path that leaves at once and goes on: one departure, of which a quarter was stated.
    left = DraftTree((1, 2, 3, 4), (-1, -1, 1, 2), tuple(map(math.log, (0.6, 0.2, 0.1, 0.05))))
    sides.observe(left, [1, 2, 3])
    assert sides.seen == pytest.approx(0.98 * 2 + 1)
    assert sides.stated == pytest.approx(0.98 * 2 + 0.25)


def test_chains_and_drafts_without_scores_say_nothing() -> None:
    sides = Sides()
    sides.observe(DraftTree.chain([1, 2, 3]), [0, 1])
    sides.observe(DraftTree((1, 2), (-1, -1)), [0])
    assert (sides.seen, sides.stated) == (2.0, 2.0)


@pytest.mark.parametrize(("side", "widths"), [(0.01, [1, 3, 3]), (0.5, [1, 2, 3]), (1.0, [1, 1, 1])])
def test_only_branches_with_that_share_are_gone_on_from(side: float, widths: list[int]) -> None:
    """Children of 0.6, 0.35 and 0.05 of a node; of the second level the best are 0.36, 0.21 and 0.21."""
    steps = grow(Bounds(3, 3, 64, (0.01,), side=side), growth := Growth())
    frontier, seen = next(steps), []
    try:
        while True:
            seen.append(len(frontier))
            children = [(token, math.log(p), False) for token, p in enumerate((0.6, 0.35, 0.05))]
            frontier = steps.send([children for _ in frontier])
    except StopIteration:
        pass
    assert seen == widths
    assert growth.levels == 3


def test_bounds_keep_their_side_when_they_are_tightened() -> None:
    assert Bounds(4, 2, side=0.7).within(3, 8, False).side == 0.7
