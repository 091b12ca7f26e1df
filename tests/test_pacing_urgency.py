"""Pacing of batches: what a token of one row is worth beside one of another, and what probes of one row may take."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import cast
from unittest import mock

import pytest
from simulated import Simulated, World, row_of

from anydraft.crew import Crew
from anydraft.pacing import Measured, measured
from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.choosing import Limits, best, wanted
from anydraft.pacing.experience import Experience
from anydraft.pacing.knowledge import TRIAL_DRAFTS, Knowledge
from anydraft.pacing.lessons import learn
from anydraft.pacing.now import Free, Now
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome
from anydraft.pacing.serving import EVEN, Serving
from anydraft.pacing.urgency import LEAST_SPARED, RUN, spared, urgency
from anydraft.row import Row
from anydraft.tree import DraftTree

LIMITS = Limits(20, 4, 31, 8, 0.0)


def rows_at(*positions: int, passes: int | None = None, tokens: int = 256) -> list[Row]:
    """Rows that have come so far, each in so many passes (one for each token, if not given)."""
    rows = [row_of(i, tokens) for i in range(len(positions))]
    for row, position in zip(rows, positions, strict=True):
        row.tokens += [1] * position
        row.stats.num_passes = position if passes is None else passes
    return rows


def test_rows_abreast_are_worth_the_same() -> None:
    assert urgency(rows_at(40), 0.1) == [1.0]
    assert urgency(rows_at(0, 0, 0, 0), 0.1) == pytest.approx([1.0] * 4)
    assert urgency(rows_at(77, 77, 77), 0.3) == pytest.approx([1.0] * 3)


def test_the_row_that_is_behind_is_worth_most_and_all_are_worth_one_on_average() -> None:
    worth = urgency(rows_at(100, 104, 112, 180, passes=100), 0.1)
    assert worth == sorted(worth, reverse=True)
    assert sum(worth) == pytest.approx(4.0)
    assert worth[0] > 1.5
    assert 0.1 < worth[3] < 0.2
    assert urgency(rows_at(100, 104, 112, 180, passes=100), 1.0) == pytest.approx([1.0] * 4)


def test_a_small_lead_says_more_near_the_end() -> None:
    leads = [urgency(rows_at(place, place + 4, passes=place), 0.0)[0] for place in (50, 200, 245)]
    assert 1.0 < leads[0] < leads[1] < leads[2] < 2.0


def test_a_row_that_is_fast_needs_less_time_for_as_many_tokens() -> None:
    rows = rows_at(100, 100, passes=100)
    rows[1].stats.num_passes = 40
    slow, fast = urgency(rows, 0.0)
    assert slow > 1.05 * fast


def test_a_lead_says_less_where_rows_may_change() -> None:
    """Where drafts gain much texts repeat themselves, and each may start or stop doing so."""
    calm, restless = rows_at(100, 130, passes=100), rows_at(100, 130, passes=25)
    assert urgency(calm, 0.0)[0] > 1.2 * urgency(restless, 0.0)[0]


def saved(rows: list[Row], own: float = 0.0) -> float:
    return spared(rows, urgency(rows, own), own)


def test_what_one_of_several_rows_abreast_gains_now_and_then_saves_less() -> None:
    seldom = [saved(rows_at(*[56] * rows, passes=54)) for rows in (1, 2, 4, 8)]
    assert seldom == sorted(seldom, reverse=True)
    assert seldom[0] == 1.0
    assert seldom[2] < 0.7
    assert saved(rows_at(56, 56, 56, 56, passes=20)) > 0.85  # where drafts are often right
    assert saved(rows_at(56, 56, 56, 56, passes=54), own=0.4) == pytest.approx(0.4 + 0.6 * seldom[2])
    assert saved(rows_at(10, 56, 56, 56, passes=56)) > 0.95  # where it is known which of them will be the last
    assert saved(rows_at(*[255] * 8, passes=255)) == LEAST_SPARED


def test_where_rows_may_stop_by_themselves_nobody_knows_which_is_the_last() -> None:
    rows = rows_at(56, 56, passes=54)
    assert saved(rows) < 1.0
    rows[1].stops = (lambda row: False,)
    assert saved(rows) == 1.0


@pytest.mark.parametrize("rows", [2, 4])
def test_passes_saved_by_the_slowest_of_rows_that_gain_by_runs(rows: int) -> None:
    """The rule against drawing it: twice as many runs for all rows, and how many passes fewer the batch takes."""
    rng, run, wanted = random.Random(0), round(RUN), 256

    def passes(chance: float) -> float:
        total = 0
        for _ in range(1500):
            slowest = 0
            for _ in range(rows):
                tokens = count = 0
                while tokens < wanted:
                    tokens += 1 + (run if rng.random() < chance else 0)
                    count += 1
                slowest = max(slowest, count)
            total += slowest
        return total / 1500

    chance, more = 0.004, 0.008
    alone = wanted / (1 + run * chance) - wanted / (1 + run * more)
    gain = run * (chance + more) / 2
    abreast = rows_at(*[0] * rows)
    for row in abreast:
        row.tokens, row.stats.num_passes = [1] * 100, round(100 / (1 + gain))
        row.params = dataclasses.replace(row.params, max_new_tokens=356)
    assert (passes(chance) - passes(more)) / alone == pytest.approx(saved(abreast), abs=0.12)


def test_free_drafts_of_rows_abreast_are_verified_only_if_they_save_passes() -> None:
    """In use at one row, of no use where three others would wait: there the free drafter rests."""
    asked = []
    for rows in (1, 4):
        copier = Simulated("copier", right=lambda position: 0.7 if position % 40 == 0 else 0.0, fixed=0.002, step=0.0)
        world = World([copier], cost=lambda rows, width: 1 + 0.12 * rows * (width - 1) / (1 + 0.1 * rows))
        pacing = Measured()
        for _ in range(3):
            world.run(pacing, 256, rows)
        report = pacing.known.drafters["copier"]
        asked.append(report.calls / world.passes)
    assert asked[1] < asked[0]


def test_tokens_gained_count_as_much_as_their_rows() -> None:
    rows = rows_at(0, 0)
    step = Asking(Knowledge(0.01, 20), rows, cast(Crew, World([])), set(), set())
    assert step.gained([2, 4]) == pytest.approx(3.0)
    step.urgency = [1.5, 0.5]
    assert step.gained([2, 4]) == pytest.approx(2.5)
    now = Now(rows, 1.0, [1.0] * 20, 2.0, [1.5, 0.5], [EVEN, EVEN])
    assert now.valued([[0.5, 0.25], [0.8]]) == [pytest.approx([0.75, 0.375]), pytest.approx([0.4])]


def test_a_step_is_judged_by_what_its_rows_tokens_are_worth() -> None:
    """Four tokens of a row that counts half are two of all rows': what is lost, and what free drafters had."""
    known, rows = Knowledge(0.01, 20), rows_at(9, 9)
    known.times.observe(2, 1, 1.0)
    known.safety.share = 0.0
    step = Asking(known, rows, cast(Crew, World([])), set(), set())
    step.urgency = [1.5, 0.5]
    tree = DraftTree.chain([1] * 4)
    known.drafters["copier"] = Experience()
    step.asked = [Asked(0, "copier", rows, [DraftTree.EMPTY, tree], 4, [9, 9], 0.0, 0.0, False, True, True)]
    accepted: list[list[int]] = [[], [0, 1, 2, 3]]
    step.served = [False, True]
    learn(known, step, Outcome(rows, [NO_DRAFT, Draft(tree, 0)], accepted, 0.0, 1.0, [0, 0]))
    passed = known.seconds(2, 5)
    assert known.safety.debt == pytest.approx(passed - 2)  # four tokens of one row of two, by half: one more than plain
    served = Serving()
    served.add(0.5, 1.0, passed, 0.5)
    assert known.serving(rows[0]).with_other(1.0) == pytest.approx(served.with_other(1.0))


@pytest.mark.parametrize(("ahead", "verified"), [(False, True), (True, False)])
def test_free_drafts_of_a_row_that_is_ahead_make_no_pass_wider(ahead: bool, verified: bool) -> None:
    world = World([Simulated("copier", right=lambda position: 0.6 if position > 60 else 0.0, fixed=0.001, step=0.0)])
    world.cost = lambda rows, width: 1 + 0.1 * (width - 1)
    world.noise = 0.0
    pacing = Measured()
    for width in (1, 2, 4, 8, 16):
        for _ in range(20):
            pacing.known.times.observe(2, width, world.cost(2, width))
    drafter = pacing.known.drafters["copier"] = Experience()
    drafter.free = True
    rows = rows_at(61, 60, passes=60) if not ahead else rows_at(180, 60, passes=60)
    with mock.patch.object(measured, "best", wraps=best) as asked:
        drafts = pacing.draft(rows, cast(Crew, world))
    step = pacing._step
    assert step is not None
    kept = sum(step.chances[0][: len(drafts[0].tree)])
    given_up = asked.call_args_list[0].args[3].tokens[0]  # for a draft of another one
    assert given_up == pytest.approx(kept * step.urgency[0] * step.spared)
    assert list(step.urgency) == list(Now.of(pacing.known, rows).urgency) != [1.0, 1.0]
    assert (len(drafts[0].tree) > 0) is verified


def test_several_rows_are_expected_to_gain_no_more_than_their_nodes() -> None:
    known, rows = Knowledge(0.01, 20), rows_at(9, 9, 9, 9)
    world = World([Simulated("writer", right=lambda position: 0.99)])
    drafter = known.drafters["writer"] = Experience()
    known.times.observe(4, 1, 1.0)
    for count in (1, 2, 3, 4):
        drafter.times.observe(count, 3, 0.03)
    record = drafter.record(rows[0])
    record.drafts = TRIAL_DRAFTS
    for _ in range(60):
        record.runs.add(11, 13, 11, ended=False)
    choice, _ = best(known, Now.of(known, rows), cast(Crew, world), Free.nothing(4))
    assert choice is not None
    assert 4 * 10 < choice.tokens(Now.of(known, rows), Free.nothing(4)) < 4 * 13
    known.state(rows[0]).rows = 4
    known.state(rows[0]).report.steps["writer"] = 1
    report = known.report(rows[0])
    assert report is not None
    assert 10 < report.expected_tokens["writer"] < 13


def test_the_row_that_is_behind_is_drafted_for_first_and_further() -> None:
    known, rows = Knowledge(0.01, 20), rows_at(200, 60, passes=60)
    world = World([Simulated("writer", right=lambda position: 0.5)])
    drafter = known.drafters["writer"] = Experience()
    for _ in range(20):
        for width in (1, 2, 4, 8, 16):
            known.times.observe(2, width, 1.0 + 0.05 * (width - 1))
        for count in (1, 2):
            drafter.times.observe(count, 3, 0.3 * count)  # the second costs as much as the first
    record = drafter.record(rows[0])
    record.drafts = TRIAL_DRAFTS
    for _ in range(20):
        record.runs.add(1, 3, 4, ended=True)
    now = Now.of(known, rows)
    choice, now = best(known, now, cast(Crew, world), Free.nothing(2))
    assert choice is not None
    assert choice.places == [1]
    gain = known.expected(rows[1], "writer").gain
    assert choice.tokens(now, Free.nothing(2)) == pytest.approx(2 + now.urgency[1] * gain)
    ahead, behind = (wanted(known, now, "writer", place, 2, LIMITS, probing=False) for place in (0, 1))
    assert all(a > b for a, b in zip(ahead.min_masses, behind.min_masses, strict=True))


def test_no_more_is_expected_of_a_draft_than_it_may_have_nodes() -> None:
    """Several rows have fewer each: where drafts are right to their ends nothing else would keep the estimate down."""
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    record = known.drafters.setdefault("writer", Experience()).record(row)
    for _ in range(60):
        record.runs.add(11, 13, 11, ended=False)
    gains = {rows: known.expected(row, "writer", rows) for rows in (1, 2, 4, 8)}
    assert gains[1] == gains[2]  # twenty nodes, and as many levels
    for rows, most in ((1, 20), (4, 12), (8, 7)):
        assert 0.8 * most < gains[rows].gain < most
        assert gains[rows].levels <= most + 1e-9
        assert LIMITS.bounds(rows, 20, (0.1,)).nodes == {1: 31, 4: 12, 8: 7}[rows]


@pytest.mark.parametrize("seed", range(3))
def test_what_one_row_gains_alone_does_not_make_the_batch_slower(seed: int) -> None:
    """A free drafter is right in one row only: that row is done earlier, by passes which are wider for all."""
    copier = Simulated(
        "copier",
        right=lambda position: 0.7 if position // 8 % 4 == 0 else 0.0,
        fixed=0.002,
        step=0.0,
        lost=lambda row: row.index > 0,
    )
    world, pacing = World([copier], cost=lambda rows, width: 1 + 0.03 * (rows * width - 1), seed=seed), Measured()
    world.run(pacing, 256, rows=4)
    before = world.seconds
    world.run(pacing, 512, rows=4)
    assert world.seconds - before < 1.01 * 512 * world.cost(4, 1)  # 1.02 to 1.03 if all tokens counted the same


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_probe_of_one_row_is_as_wide_as_if_there_were_no_others(count: int) -> None:
    """It finds out for all of them, and what less likely tokens bring nobody knows unless they are verified."""
    world = World(
        [Simulated("writer", right=lambda position: 0.6, step=0.05)],
        cost=lambda rows, width: 1 + 0.15 * (width - 1),
        noise=0.0,
    )
    pacing = Probed()
    for width in (1, 2, 4, 8, 16):
        for _ in range(20):
            pacing.known.times.observe(count, width, world.cost(count, width))
    for _ in world.steps(pacing, [row_of(i, 200) for i in range(count)]):
        pass
    assert pacing.probes[0] == (3, 3)
    assert len(pacing.probes) <= 3  # soon it is known to pay


class Probed(Measured):
    """Keeps what was drafted and verified to find out, in nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.probes: list[tuple[int, int]] = []

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        drafts, step = super().draft(rows, crew), self._step
        if step is not None and step.probing:
            self.probes.append((max(map(len, step.asked[0].trees)), max(len(draft.tree) for draft in drafts)))
        return drafts
