"""What tokens are worth where free drafters have nothing: the average-reward rule, against texts gone through."""

from __future__ import annotations

import random
from statistics import median
from typing import Any, cast

import pytest
from simulated import Simulated, World, row_of

from anydraft.crew import Crew
from anydraft.pacing import NO_DRAFT, Draft, Measured, Outcome
from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.choosing import Choice, Now
from anydraft.pacing.experience import Experience
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.lessons import learn, learn_plain
from anydraft.pacing.serving import EVEN, START, Gap, Serving
from anydraft.tree import DraftTree


def copying(gap: int, copy: int = 12, passes: float = 1.4) -> Serving:
    """After many gaps of so many tokens, and a copy after each of them."""
    serving = Serving()
    for _ in range(400):
        for token in range(gap):
            serving.add(0.0, 0.0, 1.0, 1.0)
            serving.went(1, ended=token == gap - 1)
        serving.add(1.0, copy, passes, 0.0)
    return serving


@pytest.mark.parametrize("gap", [1, 3, 6])
def test_the_tokens_of_a_gap_and_its_copy_are_worth_their_time(gap: int) -> None:
    serving = copying(gap)
    assert serving.speed == pytest.approx((gap + 13) / (gap + 1.4), rel=0.3)
    worth = serving.gap()
    assert worth.own == pytest.approx(serving.speed)  # as much as the pass that it takes
    assert worth.beyond * 13 == pytest.approx(serving.speed * 1.4)  # thirteen in the time of a copy
    assert 1 - worth.goes_on == pytest.approx(1 / gap, rel=0.1)


@pytest.mark.parametrize(("gap", "pays"), [(1, False), (10, True)])
def test_a_long_gap_is_worth_drafting_in_and_a_short_one_is_not(gap: int, pays: bool) -> None:
    """Five tokens in the time of 3.5 plain passes, where copies make the whole three or eight times as fast as that."""
    serving = copying(gap)
    own = Choice(0, [0], [4.0], 3.5).of_gap(serving.gap(), 1, serving.copied)
    assert (own < 1) == pays
    # The same by going through texts with such gaps: with the draft in every step that has no copy, and without.
    rng, passes = random.Random(0), [0.0, 0.0]
    for _ in range(4000):
        left, length = 1, 4.0 / 5
        while rng.random() >= 1 / gap:
            left += 1
        passes[0] += left
        while left > 0:
            tokens = 1
            while rng.random() < length:
                tokens += 1
            passes[1] += 3.5
            left -= tokens
        passes[1] += max(left, -13) / 13 * 1.4  # what was drafted of the copy
    assert (passes[1] < passes[0]) == pays


def test_a_drafters_gap_takes_what_its_drafts_say() -> None:
    """Without any copies all of a draft is of the gap; where gaps are of one token each, all but the first is not."""
    choice = Choice(0, [0], [4.0], 2.0)
    assert choice.of_gap(EVEN, 1, 1.0) == pytest.approx(2.0 / 5)
    assert choice.of_gap(Gap(0.0), 1, 0.1) == pytest.approx(2.0 - 0.1 * 4)
    assert Choice(0, [0, 1], [4.0, 0.0], 2.0).of_gap(EVEN, 2, 1.0) == pytest.approx(2.0 / 3)
    assert choice.of_gap(Gap(0.5), 1, 0.9) == pytest.approx(2.0 / 5)  # no dearer than copies: they are no better


@pytest.mark.parametrize("goes_on", [0.0, 0.6, 1.0])
def test_the_worth_of_drafted_tokens_is_that_of_each(goes_on: float) -> None:
    gap = Gap(goes_on, 4.0, 0.5)
    assert gap.committed(5) == pytest.approx(sum(gap.token(depth) for depth in range(5)))
    right = 0.7
    by_depth = sum(right**depth * gap.token(depth) for depth in range(1, 200))
    assert gap.drafted(right / (1 - right)) == pytest.approx(by_depth)
    assert EVEN.committed(5) == 5
    assert EVEN.drafted(2.5) == pytest.approx(2.5)


def test_without_free_drafters_all_tokens_are_worth_the_same() -> None:
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    learn_plain(known, [row], 30)
    assert known.serving(row).gap() is EVEN
    assert known.serving(row).speed == 1.0
    assert known.serving(row).with_other(0.25) == 4.0


def test_gaps_are_counted_by_row() -> None:
    """A row's gap ends where a free draft of it is verified; what was committed before that is of it."""
    known, rows = Knowledge(0.01, 20), [row_of(0, 400), row_of(1, 400)]
    known.times.observe(2, 1, 1.0)
    tree = DraftTree.chain([1] * 4)
    known.drafters["copier"] = Experience()

    def step(copied: bool) -> None:
        asking = Asking(known, rows, cast(Crew, World([])), set(), set())
        asking.asked = [Asked(0, "copier", rows, [DraftTree.EMPTY, tree], 4, [9, 9], 0.0, 0.0, False, True, True)]
        drafts = [NO_DRAFT, Draft(tree, 0) if copied else NO_DRAFT]
        accepted: list[list[int]] = [[], [0, 1, 2, 3] if copied else []]
        learn(known, asking, Outcome(rows, drafts, accepted, 0.0, 1.0, [0, 0]))

    serving = known.serving(rows[0])
    for copied in (False, False, True, True):
        step(copied)
    # The second row's gap went on once and ended once; the first row's went on three times.
    assert serving._ends == pytest.approx(1, rel=0.1)
    assert serving._looked == pytest.approx(START + 5, rel=0.1)
    assert known.state(rows[0]).gap == 1
    assert known.state(rows[1]).gap == 0
    learn_plain(known, rows, 1)
    assert known.state(rows[1]).gap == 1


def test_a_step_is_worth_what_its_tokens_are() -> None:
    rows: list[Any] = [row_of(0, 400), row_of(1, 400)]
    step = Asking(Knowledge(0.01, 20), rows, cast(Crew, World([])), set(), set())
    assert step.committed([2, 4]) == pytest.approx(4.0)
    step.gaps, step.urgency = [EVEN, Gap(0.5, 3.0, 1.0)], [1.5, 0.5]
    assert step.committed([2, 2]) == pytest.approx((1 + 1.5 * 2 + 3.0 + 0.5 * (2.0 + 1.5)) / 2)
    assert step.committed([2, 2], EVEN) == pytest.approx((1 + 1.5 * 2 + 1 + 0.5 * 2) / 2)
    now = Now(rows, 1.0, [1.0] * 20, 2.0, [1.5, 0.5]).in_gaps(Gap(0.5, 3.0, 1.0), [0.4, 0.0])
    assert now.gaps == [EVEN, Gap(0.5, 3.0, 1.0)]
    assert now.first == 4.0


def test_a_costly_drafter_makes_gaps_of_a_good_copy_shorter() -> None:
    """Copies of twenty tokens, and gaps of eight between them: what is gained there, and no more, is gained."""

    def copies(position: int) -> float:
        return 0.98 if position % 28 > 7 else 0.02

    def copier() -> Simulated:
        return Simulated("copier", copies, step=0.0)

    found: list[float] = []
    for seed in range(3):
        alone = median(speeds([copier()], seed))
        both = median(speeds([copier(), Simulated("writer", lambda _: 0.75, step=0.12)], seed))
        found.append(both / alone)
    assert median(found) > 1.15


def speeds(drafters: list[Simulated], seed: int) -> list[float]:
    """Of some texts, after the first."""
    world, pacing = World(drafters, cost=lambda rows, width: 1.0 + 0.03 * (rows * width - 1), seed=seed), Measured()
    return [world.run(pacing, 512) for _ in range(6)][1:]
