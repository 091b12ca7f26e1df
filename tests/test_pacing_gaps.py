"""What tokens are worth where free drafters have nothing: the average-reward rule, against texts gone through."""

from __future__ import annotations

from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import pytest
from simulated import Simulated, World, row_of

from anydraft.crew import Crew
from anydraft.growth import Bounds
from anydraft.pacing import NO_DRAFT, Draft, Measured, Outcome
from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.choosing import Choice, Limits, best, wanted
from anydraft.pacing.experience import LONGEST_PAUSE, Experience
from anydraft.pacing.knowledge import TRIAL_DRAFTS, Knowledge
from anydraft.pacing.lessons import learn, learn_plain
from anydraft.pacing.now import Free, Now
from anydraft.pacing.probing import BEATEN, due
from anydraft.pacing.serving import EVEN, START, Gap, Serving
from anydraft.pacing.sums import Runs
from anydraft.row import Row
from anydraft.tree import DraftTree

LIMITS = Limits(20, 4, 31, 8, 0.007)


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
    worth = serving.gap()
    assert gap * worth.own + 13 * worth.beyond == pytest.approx(serving.speed * (gap + 1.4))
    assert serving.copied == pytest.approx(1.4 / 13)
    assert 1 - worth.goes_on == pytest.approx(1 / gap, rel=0.1)
    # What is remembered ends with a copy, so that it has more of them than the whole, the more so of long gaps.
    assert (gap + 13) / (gap + 1.4) < serving.speed < 1.3 * (gap + 13) / (gap + 1.4)
    faster = serving.gap(0.5)
    assert gap * faster.own + 13 * faster.beyond == pytest.approx(serving.with_other(0.5) * (gap * 0.5 + 1.4))


@pytest.mark.parametrize(("gap", "pays"), [(1, False), (10, True)])
def test_a_long_gap_is_worth_drafting_in_and_a_short_one_is_not(gap: int, pays: bool) -> None:
    """Five tokens in the time of 3.5 plain passes, where copies make the whole three or eight times as fast as that."""
    serving = copying(gap)
    own = Choice(0, [0], [4.0], 3.5).of_gap(step(1), serving.gap(), serving.copied)
    assert (own < 1) == pays


def test_a_drafters_gap_takes_what_its_drafts_say() -> None:
    """Without any copies all of a draft is of the gap; where gaps are of one token each, all but the first is not."""
    choice = Choice(0, [0], [4.0], 2.0)
    assert choice.of_gap(step(1), EVEN, 1.0) == pytest.approx(2.0 / 5)
    assert choice.of_gap(step(1), Gap(0.0), 0.1) == pytest.approx(2.0 - 0.1 * 4)
    assert choice.of_gap(step(1), Gap(0.5), 0.9) == pytest.approx(2.0 / 5)  # no dearer than copies: they are no better
    of_two = Choice(0, [0, 1], [4.0, 0.0], 2.0)
    assert of_two.of_gap(step(2), EVEN, 1.0) == pytest.approx(2 * 2.0 / 6)
    assert of_two.of_gap(step(2)._replace(urgency=[1.5, 0.5]), EVEN, 1.0) == pytest.approx(2 * 2.0 / 8)


def step(rows: int) -> Now:
    """A step of so many rows, with nothing known but that passes take longer the wider they are."""
    ratios = [1 + 0.03 * place for place in range(30)]
    return Now([row_of(i, 400) for i in range(rows)], 1.0, ratios, float(rows), [1.0] * rows, [EVEN] * rows)


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

    def passed(copied: bool) -> None:
        asking = Asking(known, rows, cast(Crew, World([])), set(), set())
        asking.asked = [Asked(0, "copier", rows, [DraftTree.EMPTY, tree], 4, [9, 9], 0.0, 0.0, False, True, True)]
        asking.served = [False, copied]
        drafts = [NO_DRAFT, Draft(tree, 0) if copied else NO_DRAFT]
        accepted: list[list[int]] = [[], [0, 1, 2, 3] if copied else []]
        learn(known, asking, Outcome(rows, drafts, accepted, 0.0, 1.0, [0, 0]))

    serving = known.serving(rows[0])
    for copied in (False, False, True, True):
        passed(copied)
    # The second row's gap went on once and ended once; the first row's went on three times.
    assert serving._ends == pytest.approx(1, rel=0.1)
    assert serving._looked == pytest.approx(START + 5, rel=0.1)
    assert serving._gap == pytest.approx(START + 1 + 1 + 0.5 + 0.5, rel=0.15)  # of a row
    assert [known.state(row).in_gap for row in rows] == [1, 0]
    learn_plain(known, rows, 1)
    assert [known.state(row).in_gap for row in rows] == [1, 1]


def test_a_step_is_worth_what_its_tokens_are() -> None:
    rows: list[Any] = [row_of(0, 400), row_of(1, 400)]
    asking = Asking(Knowledge(0.01, 20), rows, cast(Crew, World([])), set(), set())
    nobody = [False, False]
    assert asking.committed([2, 4], nobody, 1.0) == pytest.approx(4.0)
    asking.gaps, asking.urgency = [EVEN, Gap(0.5, 3.0, 1.0)], [1.5, 0.5]
    assert asking.committed([2, 2], nobody, 1.0) == pytest.approx((1 + 1.5 * 2 + 3.0 + 0.5 * (2.0 + 1.5)) / 2)
    without = (1 + 1.5 * 2 + 5.0 + 0.5 * (3.5 + 2.75)) / 2
    assert asking.committed([2, 2], nobody, 1.0, Gap(0.5, 5.0, 2.0)) == pytest.approx(without)
    # What a free drafter copied is worth the time that copies take, so that nobody else takes credit for it.
    asking.spared = 0.5
    assert asking.committed([2, 0], [True, False], 0.2) == pytest.approx((0.2 * (1 + 0.5 * 1.5 * 2) + 3.0) / 2)


@pytest.mark.parametrize("worth_it", [True, False])
def test_a_weak_copy_that_is_verified_beside_others_ends_no_gap(worth_it: bool) -> None:
    known, rows = Knowledge(0.01, 20), [row_of(0, 400)]
    known.times.observe(1, 1, 1.0)
    tree = DraftTree.chain([1] * 4)
    known.drafters["copier"] = Experience()
    learn_plain(known, rows, 3)
    asking = Asking(known, rows, cast(Crew, World([])), set(), set())
    asking.asked = [Asked(0, "copier", rows, [tree], 4, [9], 0.0, 0.0, False, True, True)]
    asking.served = [worth_it]
    learn(known, asking, Outcome(rows, [Draft(tree, 0)], [[0]], 0.0, 1.0, [0]))
    assert (known.serving(rows[0])._ends > 0) == worth_it
    assert known.state(rows[0]).in_gap == (0 if worth_it else 2)


def test_a_step_of_several_tokens_that_ended_a_gap_ended_it_in_its_middle() -> None:
    serving = Serving()
    serving.went(5, ended=True)
    assert serving._looked == pytest.approx(START * (1 - 1 / 64) + 3)


def test_beside_a_copy_the_other_rows_pay_for_a_plain_pass_alone() -> None:
    """Eight rows, of which one copies twelve tokens in every step, in two plain passes: 20 tokens by 8 rows in two."""
    serving = Serving()
    for _ in range(400):
        serving.add(1 / 8, 12 / 8, 2.0, 7 / 8)
    assert serving.speed == pytest.approx(20 / 8 / 2.0, rel=0.01)


def known_writer(rows: int, serving: Serving) -> tuple[Knowledge, list[Row]]:
    """A drafter whose drafts of three levels bring 1.5 tokens, for 0.15 plain passes a level."""
    known, active = Knowledge(0.01, 20), [row_of(i, 400) for i in range(rows)]
    writer = known.drafters["writer"] = Experience()
    for width in range(1, 20):
        for _ in range(8):
            known.times.observe(rows, width, 1.0 + 0.03 * (width - 1))
    for levels in (1, 2, 4) * 4:
        writer.times.observe(rows, levels, 0.15 * levels)
    record = writer.record(active[0])
    record.drafts, record.texts = 3 * TRIAL_DRAFTS, 5
    record.runs = Runs(tokens=150.0, levels=300.0, nodes=300.0, ends=100.0)
    known._serving[0.0] = serving
    return known, active


def crew_of(*names: str) -> Any:
    """Drafters that have met all rows."""
    return SimpleNamespace(working=[*range(len(names))], names=names, met=lambda which, row: True)


def test_of_two_rows_the_one_in_a_gap_is_drafted_for() -> None:
    """The other one has a copy of nine tokens; beside it a draft is worth its time, though not one a plain pass."""
    known, rows = known_writer(2, copying(6))
    now = Now.of(known, rows)
    assert now.worth > 2 * 2
    free = Free([9.0, 0.0], 10)
    choice, now = best(known, now, crew_of("writer"), free)
    assert choice is not None
    assert choice.places == [1]
    assert now.gaps[0] == EVEN
    assert now.gaps[1].own > 2 > now.gaps[1].beyond
    assert now.worth / 2 >= known.serving(rows[0]).speed
    without = now.first + 9.0 - now.worth * now.passes(10)
    assert choice.tokens(now, free) - now.worth * choice.passes > without
    # With tokens worth one each it would not be asked.
    assert 2 + 9.0 + choice.gains[0] - now.worth * choice.passes < 2 + 9.0 - now.worth * now.passes(10)


def test_alone_a_drafter_makes_time_worth_what_its_drafts_bring() -> None:
    """Whoever is behind counts more, there as well."""
    known, rows = known_writer(2, Serving())
    rows[0].tokens += [1] * 200
    for row, passes in zip(rows, (60, 60), strict=True):
        row.stats.num_passes = passes
    now = Now.of(known, rows)
    choice, found = best(known, now, crew_of("writer"), Free.nothing(2))
    assert choice is not None
    tokens = choice.tokens(now, Free.nothing(2))
    assert found.worth == pytest.approx(tokens / choice.passes)
    assert found.first == pytest.approx(2)


def test_in_a_gap_deeper_levels_are_worth_less() -> None:
    """By depth in the target's tokens, of which a level may be half a one."""
    known, (row,) = known_writer(1, Serving())
    even = Now.of(known, [row])
    gap = even._replace(worth=4.0, gaps=[Gap(0.7, 4.0, 0.4)])
    flat, steep = (
        wanted(known, now, "writer", 0, 1, LIMITS, probing=False).min_masses for now in (even, gap)
    )
    assert steep[0] > flat[0]
    assert steep[3] / flat[3] > 1.5 * steep[0] / flat[0]
    reach = known.drafters["writer"].record(row).reach
    reach._drafted, reach._tokens, reach._hazards = 2.0, 1.0, None
    even_half, half = (
        wanted(known, now, "writer", 0, 1, LIMITS, probing=False).min_masses for now in (even, gap)
    )
    assert half[3] / even_half[3] < steep[3] / flat[3]


def test_nodes_count_what_their_tokens_are_worth() -> None:
    """Those of a draft that there was, too, so that a long copy and a short draft are held against each other."""
    row = row_of(0, 400)
    world = World([Simulated("copier", lambda _: 0.9, step=0.0), Simulated("writer", lambda _: 0.9)])
    asking = Asking(Knowledge(0.01, 20), [row], cast(Crew, world), set(), set())
    asking.ask(0, [0], [Bounds(6, 1, 6, (0.0,) * 6)])
    (chances,) = (list(row) for row in asking.chances)
    gap = Gap(0.5, 4.0, 0.4)
    asking.value([gap])
    assert asking.chances[0] == pytest.approx([chance * gap.token(i + 1) for i, chance in enumerate(chances)])
    asking.ask(1, [0], [Bounds(20, 1, 20, (0.0,) * 20)])
    assert asking.drafts[0].drafter == 1
    assert len(asking.chances[0]) > 6
    assert max(asking.chances[0]) < 4.0


@pytest.mark.parametrize(("copied", "waits"), [(2.0, LONGEST_PAUSE), (12.0, BEATEN)])
def test_a_drafter_waits_longest_where_a_copy_is_better_than_it_can_be(copied: float, waits: int) -> None:
    known, (row,) = known_writer(1, copying(3))
    record = known.drafters["writer"].record(row)
    record.drafts, record.runs = 2, Runs(tokens=1.0, levels=6.0, nodes=6.0, ends=2.0)  # on trial, and unlucky
    free = Free([copied], 1 + round(copied))
    now = Now.of(known, [row]).in_gaps(known.serving(row).gap(), free)
    for position in range(0, waits + 1, 8):
        row.tokens[:] = [1] * position
        choice, wait = due(known, now, crew_of("writer"), free)
        assert (choice is not None) == (position >= waits)
        assert wait == 0  # in the next step there may be a gap
    row.tokens[:] = [1]
    assert due(known, now, crew_of("writer"), Free.nothing(1))[0] is not None


def test_beside_a_drafter_that_pays_only_others_are_looked_at_that_are_unknown_or_on_trial() -> None:
    known, (row,) = known_writer(1, Serving())
    now, free, both = Now.of(known, [row]), Free.nothing(1), crew_of("writer", "other")
    choice, _ = due(known, now, both, free, besides=0)
    assert choice is not None
    assert choice.which == 1
    other = known.drafters["other"] = Experience()
    other.times.observe(1, 1, 0.1)
    choice, _ = due(known, now, both, free, besides=0)
    assert choice is not None
    assert choice.which == 1
    other.record(row).drafts = TRIAL_DRAFTS
    assert due(known, now, both, free, besides=0)[0] is None
    # Who pays is asked to gain, on trial or not.
    known.drafters["writer"].record(row).drafts = 1
    assert due(known, now, crew_of("writer"), free, besides=0)[0] is None
    assert due(known, now, crew_of("writer"), free)[0] is not None


def test_gains_do_not_pay_for_looking_where_a_copy_is_better() -> None:
    known, (row,) = known_writer(1, copying(3))
    row.tokens[:] = [1] * 300
    for ledger in (known.exploring, known.doubting):
        ledger.debt = 5.0
    known.drafters["writer"].record(row).gains.debt = -8.0
    found = []
    for free in (Free.nothing(1), Free([12.0], 13)):
        now = Now.of(known, [row]).in_gaps(known.serving(row).gap(), free)
        found.append(due(known, now, crew_of("writer"), free))
    assert found[0][0] is not None
    assert found[1][0] is None
    assert found[1][1] == 0  # the next step may be in a gap


@pytest.mark.parametrize(("rows", "faster"), [(1, 1.3), (2, 1.15)])
def test_a_costly_drafter_makes_gaps_of_a_good_copy_shorter(rows: int, faster: float) -> None:
    """Copies of twenty tokens, and gaps of eight between them."""

    def copies(position: int) -> float:
        return 0.98 if position % 28 > 7 else 0.02

    def copier() -> Simulated:
        return Simulated("copier", copies, step=0.0)

    found: list[float] = []
    for seed in range(3):
        alone = median(speeds([copier()], seed, rows))
        both = median(speeds([copier(), Simulated("writer", lambda _: 0.75, step=0.12)], seed, rows))
        found.append(both / alone)
    assert median(found) > faster


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("right", [0.02, 0.35])
def test_a_bad_drafter_beside_a_good_copy_costs_next_to_nothing(right: float, rows: int) -> None:
    """Of one that is right now and then it takes longer to be told that it does not pay in gaps."""

    def copies(position: int) -> float:
        return 0.98 if position % 28 > 7 else 0.02

    found: list[float] = []
    for seed in range(6):
        copier = Simulated("copier", copies, step=0.0)
        writer = Simulated("writer", lambda _: right, lambda _: 0.8, step=0.4)
        alone, both = speeds([copier], seed, rows), speeds([copier, writer], seed, rows)
        found += [beside / before for beside, before in zip(both, alone, strict=True)]
    assert median(found) > 0.97


def speeds(drafters: list[Simulated], seed: int, rows: int) -> list[float]:
    """Of some texts, after the first."""
    world, pacing = World(drafters, cost=lambda rows, width: 1.0 + 0.03 * (rows * width - 1), seed=seed), Measured()
    return [world.run(pacing, 512, rows) for _ in range(6)][1:]


@pytest.mark.parametrize("waits", [False, True])
def test_a_weak_copy_in_a_gap_is_verified_whether_costly_drafters_wait_or_not(waits: bool) -> None:
    """It is right once in six times: at one token each it is not worth its time, in a gap of a good copy it is."""
    world = World([Simulated("copier", lambda _: 0.16, step=0.0)], cost=lambda rows, width: 1.0 + 0.05 * (width - 1))
    pacing, row = Measured(), row_of(0, 400)
    known = pacing.known
    for width in (1, 2, 4, 8) * 20:
        known.times.observe(1, width, world.cost(1, width))
    known.drafters["copier"] = Experience()
    known.drafters["copier"].free = True
    widths = []
    for serving in (Serving(), copying(6)):
        known._serving[0.0] = serving
        pacing.draft([row], cast(Crew, world))
        course = pacing._found(row)
        assert course is not None
        course.wait = 5 if waits else 0
        # At a speed of five a token would have to be right once in four times.
        serving.speed = 5.0
        widths.append(len(pacing.draft([row], cast(Crew, world))[0].tree))
    assert widths[0] == 0
    assert widths[1] > 0
