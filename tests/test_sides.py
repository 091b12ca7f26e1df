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


def test_branches_that_go_on_are_no_reason_against_branches() -> None:
    """Of an honest drafter, with all certain after the first token: what is stated below a side is not stated of it."""
    chance, sides, shares = random.Random(1), Sides(), []
    scores = tuple(math.log(p) for p in (0.8, 0.2, 0.8, 0.2, 0.8, 0.2))
    tree = DraftTree((1, 2, 1, 1, 1, 1), (-1, -1, 0, 1, 2, 3), scores)
    for _ in range(1000):
        sides.observe(tree, [0, 2, 4] if chance.random() < 0.8 else [1, 3, 5])
        shares.append(sides.share)
    assert sum(shares[200:]) / len(shares[200:]) == pytest.approx(SIDE, rel=0.1)


def test_what_was_rejected_says_nothing_and_every_node_that_was_kept_counts() -> None:
    sides = Sides()
    sides.observe(forked(3, 0.6, 0.2), [])
    assert (sides.seen, sides.stated) == (2.0, 2.0)
    sides.observe(forked(3, 0.6, 0.2), [0, 2])
    assert sides.seen == pytest.approx(0.98 * 2)
    assert sides.stated == pytest.approx(0.98 * 2 + 2 * 0.25)


def test_drafts_that_state_nothing_say_nothing() -> None:
    sides = Sides()
    sides.observe(DraftTree.chain([1, 2, 3]), [0, 1])
    sides.observe(DraftTree((1, 2), (-1, -1)), [0])
    assert (sides.seen, sides.stated) == (2.0, 2.0)
    sides.observe(DraftTree((1, 2), (-1, -1), (-math.inf, -math.inf)), [0])
    assert sides.share == SIDE


@pytest.mark.parametrize("likeliest", [901.0, -1e9])
def test_scores_of_any_size_do_no_harm(likeliest: float) -> None:
    sides = Sides()
    sides.observe(DraftTree((1, 2), (-1, -1), (likeliest, likeliest - 1)), [1])
    assert sides.seen == pytest.approx(0.98 * 2 + 1)
    assert sides.stated == pytest.approx(0.98 * 2 + 1 - 1 / (1 + math.exp(-1)))


@pytest.mark.parametrize("side", [0.0, -1.0, 1.5])
def test_a_side_that_is_no_share_is_refused(side: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Bounds(4, 2, side=side)


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
