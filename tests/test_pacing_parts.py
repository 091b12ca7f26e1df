"""The parts of the measured pacing: times, credit, ledgers, pruning, reports; fast ones against naive twins."""

from __future__ import annotations

import itertools
import math
import pickle
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import RIGHT, Simulated, World, row_of

from anydraft.pacing import NO_DRAFT, Draft, Measured, Outcome, PacingReport
from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.belief import Belief
from anydraft.pacing.choosing import SHORTEST, Limits, best, wanted
from anydraft.pacing.draft_times import DraftTimes
from anydraft.pacing.experience import (
    LONGER,
    LONGEST_PAUSE,
    LONGEST_REST,
    TRIAL_PAUSE,
    USELESS,
    Expected,
    Experience,
    Form,
)
from anydraft.pacing.knowledge import TRIAL_DRAFTS, Knowledge
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.lessons import learn, learn_nothing
from anydraft.pacing.now import Free, Now
from anydraft.pacing.probing import Look
from anydraft.pacing.pruning import kept, worth
from anydraft.pacing.reach import GUESSED, LEAST, NONE
from anydraft.pacing.sums import Runs
from anydraft.pacing.times import EDGES, PassTimes, edge
from anydraft.row import Row
from anydraft.tree import DraftTree

LIMITS = Limits(20, 4, 31, 8, 0.007)


@given(
    st.lists(st.lists(st.floats(0.0, 1.0), max_size=20), min_size=1, max_size=4),
    st.floats(0.1, 3.0),
    st.floats(0.0, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_the_best_width(chances: list[list[float]], rate: float, slope: float) -> None:
    """Against all widths that could be chosen, one by one."""

    ratios = [1 + slope * (place - 1) for place in EDGES]
    longest = 1 + max(sum(chance > 0 for chance in row) for row in chances)
    width, tokens, found = worth(chances, rate, ratios)

    def value(width: int) -> float:
        ratio = ratios[EDGES.index(edge(width))]
        return sum(sum(sorted(row, reverse=True)[: width - 1]) for row in chances) - rate * ratio

    assert 1 <= width <= longest
    assert found == pytest.approx(value(width))
    assert tokens == pytest.approx(value(width) + rate * ratios[EDGES.index(edge(width))])
    assert value(width) == pytest.approx(max(value(w) for w in {*EDGES, longest} if w <= longest))


def test_kept_nodes_are_closed_under_ancestors() -> None:
    rng = random.Random(0)
    for _ in range(50):
        parents = [-1, *(rng.randint(-1, node - 1) for node in range(1, 20))]
        likely: list[float] = []
        for parent in parents:
            likely.append(rng.random() * 0.995 * (likely[parent] if parent >= 0 else 1.0))
        for width in (1, 2, 5, 20, 40):
            nodes = kept(likely, width)
            assert len(nodes) == min(width - 1, 20)
            assert all(parents[node] == -1 or parents[node] in nodes for node in nodes)


def test_times_of_passes_survive_drift_strays_and_slow_first_uses() -> None:
    times, rng = PassTimes(), random.Random(1)
    assert times.seconds(1, 1) is None
    for step in range(600):
        width = rng.choice([1, 1, 4, 8])
        drift = 1 + step / 300  # everything becomes three times as slow, as with a growing context
        true = 0.005 * drift * {1: 1.0, 4: 1.5, 8: 2.0}[width]
        stray = 6.0 if rng.random() < 0.03 or step < 4 else math.exp(rng.gauss(0, 0.1))
        times.observe(1, width, true * stray)
    now = 0.005 * 3
    assert times.seconds(1, 1) == pytest.approx(now, rel=0.2)
    assert times.seconds(1, 4) == pytest.approx(1.5 * now, rel=0.2)
    assert times.seconds(1, 8) == pytest.approx(2 * now, rel=0.2)
    between = times.seconds(1, 6)
    assert between is not None
    assert 1.4 * now < between < 2.2 * now
    assert times.seen(1) == [1, 4, 8]


def test_a_width_whose_first_passes_were_slow_is_looked_at_again() -> None:
    times = PassTimes()
    for _ in range(40):
        times.observe(1, 1, 1.0)
        times.observe(1, 8, 1.3)
    for _ in range(3):  # they made kernels
        times.observe(1, 4, 1.29)
    plain = times.seconds(1, 1) or 0
    assert 1.3 ** (2 / 3) - 0.01 < (times.seconds(1, 4) or 0) / plain < 1.25
    assert times.table(1)[1][EDGES.index(4)] * plain == pytest.approx(times.seconds(1, 4))
    for _ in range(30):  # no, they are as slow as that
        times.observe(1, 1, 1.0)
        times.observe(1, 4, 1.29)
    assert (times.seconds(1, 4) or 0) / (times.seconds(1, 1) or 1) == pytest.approx(1.29, rel=0.02)


def test_widths_that_are_padded_to_the_same_are_one() -> None:
    """A pass over nine nodes tells of one over sixteen, and so nothing between eight and sixteen seems cheaper."""
    times, free = PassTimes(), PassTimes()
    times.pad(lambda width, rows: next(edge for edge in (1, 2, 4, 8, 16, 32, 1024) if edge >= width))
    for seen in (times, free):
        for _ in range(40):
            seen.observe(1, 1, 1.0)
            seen.observe(1, 8, 1.2)
            seen.observe(1, 9, 1.5)
    by_edge = dict(zip(EDGES, times.table(1)[1], strict=True))
    assert by_edge[12] == by_edge[16] == pytest.approx(1.5, rel=0.02)
    assert by_edge[6] == by_edge[8] == pytest.approx(1.2, rel=0.02)
    assert times.seconds(1, 10) == times.seconds(1, 16)
    assert times.seen(1) == [1, 8, 16]
    assert free.seen(1) == [1, 8, 12]
    assert (free.seconds(1, 16) or 0) > (free.seconds(1, 12) or 0)
    # So a pass is filled: eleven nodes would cost as much as fifteen.
    likely = [0.5 * 0.9**node for node in range(15)]
    assert worth([likely], 1.0, times.table(1)[1])[0] == 16


def test_a_plain_pass_stands_for_itself_whatever_it_is_padded_to() -> None:
    """Passes of two to four nodes follow drafts, and are slower than plain ones of the same shape."""
    times = PassTimes()
    times.pad(lambda width, rows: max(4, width) if rows < 3 else width)
    for _ in range(40):
        times.observe(1, 1, 1.0)
        times.observe(1, 3, 1.2)
    assert times.seen(1) == [1, 4]
    assert times.seconds(1, 1) == pytest.approx(1.0, rel=0.02)
    assert times.seconds(1, 2) == times.seconds(1, 4) == pytest.approx(1.2, rel=0.02)
    times.observe(4, 1, 1.0)
    times.observe(4, 3, 1.2)
    assert times.seen(4)[-1] == 3


def test_pacing_asks_the_target_what_it_pads_to() -> None:
    world, pacing = World([Simulated("a", lambda _: 0.9)]), Measured()
    world.target.padded_width = lambda width, rows: 1 if width == 1 else 32 * -(-width // 32)
    world.run(pacing, 100)
    assert pacing.known.times.seen(1) == [1, 32]


@pytest.mark.parametrize("width", [4, 16])
def test_a_width_that_was_seen_on_a_busy_machine_is_looked_at_again(width: int) -> None:
    """As the widest one, and between others; and when it is as slow as it was, it is believed for long."""
    times = PassTimes()
    widths = [1, 8] if width == 16 else [1, 2, 8]

    def others(count: int) -> None:
        for _ in range(count):
            for other in widths:
                times.observe(1, other, 1.0 + 0.02 * other)

    def ratio() -> float:
        return (times.seconds(1, width) or 0) / (times.seconds(1, 1) or 1)

    others(20)
    for _ in range(12):
        times.observe(1, width, 2.0)
    assert ratio() > 1.9
    others(400)
    assert ratio() < 1.5
    for _ in range(2):
        times.observe(1, width, 1.0 + 0.02 * width)
    assert ratio() == pytest.approx(1.0 + 0.02 * width, rel=0.2)
    for _ in range(30):
        times.observe(1, width, 2.0)
    others(400)
    times.observe(1, width, 2.0)
    others(8)
    assert ratio() > 1.6


def test_what_seldom_passes_add_is_learned_without_much_of_a_bias() -> None:
    """As with lookup at temperature 1, of whose drafts one in fifteen is verified, in all widths.

    Shorter times are believed sooner. If they were believed at once, it would be 0.86 of what it is.
    """
    true = {1: 7.5, 2: 9.2, 3: 9.4, 4: 9.6, 6: 11.0, 8: 12.3, 12: 13.4, 16: 15.0, 24: 17.8}
    found = []
    for seed in range(10):
        times, rng = PassTimes(), random.Random(seed)
        for step in range(1500):
            width = rng.choice([2, 3, 3, 4, 4, 6, 8, 12, 16, 24]) if step > 6 and rng.random() < 1 / 15 else 1
            if width > 1 or step % 4 == 0:
                stray = rng.uniform(1.5, 4.0) if rng.random() < 0.02 else math.exp(rng.gauss(0, 0.12))
                times.observe(2, width, true[width] * stray)
            if step > 200 and step % 20 == 0:
                ratios = {width: times.seconds(2, width) / times.seconds(2, 1) for width in (3, 4, 6, 8, 12)}  # type: ignore[operator]
                found += [(ratio - 1) / (true[width] / true[1] - 1) for width, ratio in ratios.items()]
    assert 0.9 < sum(found) / len(found) < 1.05


def test_a_width_where_every_pass_but_a_plain_one_is_dear_is_believed_at_once() -> None:
    times = PassTimes()
    for _ in range(20):
        times.observe(1, 1, 1.0)
    for _ in range(2):
        times.observe(1, 8, 3.0)
    assert (times.seconds(1, 8) or 0) == pytest.approx(3.0, rel=0.05)


def test_what_a_width_took_at_first_does_not_make_everything_seem_faster_later() -> None:
    times = PassTimes()
    for _ in range(40):
        times.observe(1, 1, 1.0)
        times.observe(1, 8, 1.3)
    for seconds in (1.8, 1.8, 1.19, 1.19, 1.19, 1.19):
        times.observe(1, 4, seconds)
    assert times.seconds(1, 1) == pytest.approx(1.0, rel=0.06)


def test_a_width_between_well_known_ones_costs_no_less_than_the_narrower_one() -> None:
    times = PassTimes()
    for _ in range(20):
        for width, seconds in ((1, 1.0), (4, 1.2), (16, 1.5)):
            times.observe(1, width, seconds)
    times.observe(1, 8, 1.9)
    times.observe(1, 8, 1.9)
    assert 1.3 < (times.seconds(1, 8) or 0) < 1.45


def test_times_of_rows_never_seen_follow_those_that_were() -> None:
    times = PassTimes()
    for _ in range(20):
        for width, seconds in ((1, 1.0), (4, 1.2), (8, 1.6), (16, 2.4)):
            times.observe(1, width, seconds)
    assert times.seconds(4, 1) == pytest.approx(1.2, rel=0.1)
    assert times.seconds(4, 2) == pytest.approx(1.6, rel=0.1)
    assert times.seconds(2, 8) == pytest.approx(2.4, rel=0.1)


def test_times_of_drafts_are_a_line() -> None:
    times, rng = DraftTimes(), random.Random(0)
    assert times.seconds(3, 1) is None
    for _ in range(60):
        levels = rng.randint(1, 12)
        stray = 8.0 if rng.random() < 0.03 else math.exp(rng.gauss(0, 0.05))
        times.observe(1, levels, (0.4 + 0.1 * levels) * stray)
    assert times.seconds(10, 1) == pytest.approx(1.4, rel=0.2)
    step = times.step(1)
    assert step is not None
    assert 0.05 < step < 0.15


def test_credit_is_what_was_seen() -> None:
    """A drafter says 0.9 and is right every fourth time: it is believed a quarter, and less further down."""
    rng, belief = random.Random(0), Belief()
    log = math.log(0.9)
    tree = DraftTree((1, 1, 1), (-1, 0, 1), (log, 2 * log, 3 * log))
    assert belief.probabilities(tree) == pytest.approx([0.9, 0.81, 0.729], rel=0.01)
    for _ in range(300):
        accepted = list(itertools.takewhile(lambda _: rng.random() < 0.25, range(3)))
        belief.observe(tree, accepted)
    first, second, third = belief.probabilities(tree)
    assert first == pytest.approx(0.25, abs=0.12)
    assert second < 0.6 * first
    assert third < second


def test_siblings_together_are_at_most_sure() -> None:
    tree = DraftTree((1, 2, 3, 4), (-1, -1, -1, 0), None)
    likely = Belief().probabilities(tree)
    assert sum(likely[:3]) <= 0.995 + 1e-9
    assert likely[3] < likely[0]


def test_a_ledger_allows_what_was_paid_back() -> None:
    ledger = Ledger(0.01)
    assert ledger.allows(50)
    ledger.lost(5)
    assert not ledger.allows(0.1)
    ledger.passed(450)
    assert ledger.allows(0.4)
    assert not ledger.allows(0.6)
    ledger.passed(60)
    assert ledger.allows(50)


def test_reports_add_up() -> None:
    one = PacingReport(steps={"plain": 3, "lookup": 1}, probes=1, expected_speedup={"lookup": 2.0})
    two = PacingReport(steps={"lookup": 5}, expected_speedup={"lookup": 3.0}, expected_tokens={"lookup": 4.0})
    both = one + two
    assert both.steps == {"plain": 3, "lookup": 6}
    assert both.chosen == "lookup"
    assert str(both) == "lookup 67%, plain 33% (expected: lookup: 4.0 tokens a pass, 3.00x plain)"
    assert both.to_dict()["probes"] == 1


def test_plain_passes_are_due_for_every_number_of_rows_and_after_many_drafts() -> None:
    times = PassTimes()
    for _ in range(3):
        assert times.wants_plain(1)
        times.observe(1, 1, 1.0)
    assert not times.wants_plain(1)
    assert times.wants_plain(2)
    for _ in range(200):
        times.observe(1, 8, 1.5)
    assert times.wants_plain(1)
    times.observe(1, 1, 1.0)
    assert not times.wants_plain(1)


def test_a_slow_first_draft_is_not_believed() -> None:
    times = DraftTimes()
    times.observe(1, 3, 60.0)
    times.observe(1, 3, 0.3)
    assert times.seconds(3, 1) == pytest.approx(0.3)


def test_of_the_first_drafts_the_quickest_is_believed() -> None:
    """They build tables and kernels, and none took so much less than the one before that this was clear at once."""
    times = DraftTimes()
    for levels, seconds in ((3, 0.7), (1, 0.25), (3, 0.6), (6, 0.65), (3, 0.5)):
        times.observe(1, levels, seconds)
    assert times.seconds(6, 1) == pytest.approx(0.65)
    times.forget()
    assert times.seconds(6, 1) is None
    times.observe(1, 6, 1.3)
    assert times.seconds(6, 1) == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("cost", "longest"), [(0.02, LONGEST_REST), (0.1, 0.1 / USELESS), (0.5, LONGER * LONGEST_REST)]
)
def test_a_free_drafter_rests_longer_each_time_and_wakes_when_it_was_right(cost: float, longest: float) -> None:
    """Longest where asking takes long, as it does of many rows."""
    drafter, rests = Experience(), []
    for verified, right in [(False, False)] * 7 + [(False, True)] * 3 + [(True, False)]:
        drafter.offered(100.0, cost, wanted=verified, right=right, useful=False)
        rests.append(drafter.awake - 100.0)
    most = [min(rest, longest) for rest in (1, 3, 7, 15, 31, 63, 127)]
    assert rests == pytest.approx([*most, longest // 2, longest // 4, longest // 8, 0])


COPIER, WRITER = 1, 0


def a_step(known: Knowledge, rows: list[Row], trees: list[DraftTree], drafts: Sequence[Draft] | None = None) -> Asking:
    """A step in which the copier drafted for all rows for free, and the writer too where its drafts are verified."""
    step = Asking(known, rows, cast(Any, SimpleNamespace(names=("writer", "copier"), working=[0, 1])), set(), set())
    for name in ("writer", "copier"):
        known.drafters.setdefault(name, Experience())
    step.asked = [Asked(COPIER, "copier", rows, trees, 4, [20] * len(rows), 0.0, 0.0, False, True, True)]
    if drafts is not None:
        theirs = [draft.tree for draft in drafts]
        step.asked.append(Asked(WRITER, "writer", rows, theirs, 4, [20] * len(rows), 0.0, 0.0, True, True, True))
    return step


def committed(known: Knowledge, step: Asking, drafts: list[Draft], kept: int, passed: float = 1.0) -> None:
    """The target commits so many right tokens of every draft, and one more."""
    for row in step.rows:
        row.tokens += [RIGHT] * (1 + kept)
    positions = [row.position for row in step.rows]
    learn(known, step, Outcome(step.rows, drafts, [list(range(kept))] * len(drafts), 0.0, passed, positions))


@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_learned_of_free_drafters_that_had_nothing_is_what_is_learned_of_any_step(rows: int) -> None:
    found = []
    for lesson in (learn, learn_nothing):
        known, texts = Knowledge(0.01, 20), [row_of(i, 400) for i in range(rows)]
        known.times.observe(rows, 1, 1.0)
        known.learning.add(0.1)
        for seconds in (0.3, 0.1, 7.0, 0.2):
            step = a_step(known, texts, [DraftTree.EMPTY] * rows)
            step.asked[0].seconds = seconds / 2
            lesson(known, step, Outcome(texts, [NO_DRAFT] * rows, [[]] * rows, seconds, 1.0, [0] * rows))
        ledgers = (known.safety, known.exploring, known.doubting)
        states = [known.state(row) for row in texts]
        found.append(pickle.dumps((known.now, ledgers, known.drafters, known.serving(texts[0]), states)))
        assert known.now > 4
        assert known.drafters["copier"].record(texts[0]).use.value < 0
        assert all(state.report.steps == {"plain": 4} for state in states)
    assert found[0] == found[1]


@pytest.mark.parametrize("paid_from_gains", [True, False])
def test_a_probe_that_pays_gives_back_what_others_lost(paid_from_gains: bool) -> None:
    """One of four tokens gains three of the four passes that are owed, in one ledger or the other."""
    known, row, tree = Knowledge(0.01, 20), row_of(0, 400), DraftTree.chain([RIGHT] * 4)
    known.times.observe(1, 1, 1.0)
    step = a_step(known, [row], [DraftTree.EMPTY], [Draft(tree, WRITER)])
    record = known.drafters["writer"].record(row)
    record.drafts, record.gains.debt = TRIAL_DRAFTS, -4.0
    known.doubting.debt, known.doubting.share = 4.0, 0.0
    step.probing = step.costly = True
    step.ledger = record.gains if paid_from_gains else known.doubting
    committed(known, step, [Draft(tree, WRITER)], 3)
    gained = 4 - known.seconds(1, 5)
    assert known.doubting.debt == pytest.approx(4.0 if paid_from_gains else 4.0 - gained)
    assert record.gains.debt == pytest.approx(-4.0 - gained)


@pytest.mark.parametrize("verified", [True, False])
def test_what_a_free_drafter_would_have_brought_is_seen_in_what_was_committed(verified: bool) -> None:
    """Another one's draft, or none, was verified: with it four more tokens are known, the first of them as drafted."""
    known, row, tree = Knowledge(0.01, 20), row_of(0, 400), DraftTree.chain([RIGHT, 0, 0, 0])
    for _ in range(30):
        drafts = [Draft(DraftTree.chain([RIGHT] * 4), WRITER)] if verified else [NO_DRAFT]
        step = a_step(known, [row], [tree], drafts if verified else None)
        committed(known, step, drafts, 4 if verified else 0)
    chances = known.drafters["copier"].record(row).belief.probabilities(tree)
    assert chances[0] > 0.8
    second = chances[1] / chances[0]
    assert second < 0.2 if verified else second > 0.5  # without a draft nothing is known of second tokens
    assert known.now >= 30


@pytest.mark.parametrize(("right", "rests"), [((0, 0, 1, 1, 1, 1), True), ((1, 0, 0, 0, 0, 0), True), ((1, 1), False)])
def test_a_free_drafter_of_a_batch_wakes_when_most_that_is_looked_at_was_right(right: Any, rests: bool) -> None:
    """That is two rows: to look at all would cost more than it tells."""
    known, rows = Knowledge(0.01, 20), [row_of(i, 400) for i in range(len(right))]
    trees = [DraftTree.chain([RIGHT if good else 0]) for good in right]
    for _ in range(8):
        committed(known, a_step(known, rows, trees), [NO_DRAFT] * len(rows), 0)
    assert (known.drafters["copier"].awake > known.now) is rests


def test_what_learning_takes_counts_against_free_drafters() -> None:
    uses = []
    for seconds in (0.0, 0.5):
        known, row = Knowledge(0.01, 20), row_of(0, 400)
        known.times.observe(1, 1, 1.0)
        known.learning.add(seconds)
        for _ in range(20):
            committed(known, a_step(known, [row], [DraftTree.chain([0])]), [NO_DRAFT], 0)
        uses.append(known.drafters["copier"].record(row).use.value)
    assert uses[1] < uses[0] - 0.2


def test_where_a_row_stops_inside_a_draft_nobody_was_wrong() -> None:
    seen = []
    for reason in (None, "stop"):
        known, row = Knowledge(0.01, 20), row_of(0, 400)
        masses = (1.0, 1.0, 1.0, 1.0)
        tree = DraftTree((RIGHT,) * 4, (-1, 0, 1, 2), levels=4, masses=masses)
        for _ in range(10):
            row.finish_reason = cast(Any, reason)
            committed(known, a_step(known, [row], [DraftTree.EMPTY], [Draft(tree, WRITER)]), [Draft(tree, WRITER)], 1)
        record = known.drafters["writer"].record(row)
        form = known.form(row, "writer")
        assert form.position == row.position
        seen.append((record.reach.hazards(), form.frailty.factor(), form.frailty_nodes.factor()))
    assert seen[0][0].depth[1] > 0.15
    assert seen[0][2] != 1.0
    assert seen[1] == (GUESSED, 1.0, 1.0)


def test_a_row_whose_paths_live_longer_is_drafted_for_further() -> None:
    known, tough, frail = Knowledge(0.01, 20), row_of(0, 400), row_of(1, 400)
    drafter = known.drafters["writer"] = Experience()
    known.times.observe(1, 1, 1.0)
    for _ in range(4):
        drafter.times.observe(1, 4, 1.2)
    record = drafter.record(tough)
    record.drafts = TRIAL_DRAFTS
    known.form(tough, "writer").frailty.expected = 6.0
    known.form(frail, "writer").frailty.ends = 6.0
    deep, shallow = (
        wanted(known, Now.of(known, [row]), "writer", 0, 1, LIMITS, probing=False) for row in (tough, frail)
    )
    assert all(a < b for a, b in zip(deep.min_masses, shallow.min_masses, strict=True))


@pytest.mark.parametrize(("texts_differ", "counts"), [(True, 1.0), (False, 16.0)])
def test_what_all_rows_brought_counts_as_much_as_it_foretells(texts_differ: bool, counts: float) -> None:
    rng, record = random.Random(3), Experience().record(row_of(0, 400))
    for text in range(30):
        form = Form()
        for _ in range(20):
            tokens = (0, 8)[text % 2] if texts_differ else rng.choice((0, 1, 2, 3))
            record.foretold(form.runs, tokens, ended=True)
            for runs in (form.runs, record.runs):
                runs.add(tokens, 4, 4, ended=True)
    assert record.general == counts


def test_an_error_is_none_where_a_draft_was_right_to_its_end_and_more_was_to_be_expected() -> None:
    record, form = Experience().record(row_of(0, 400)), Form()
    for _ in range(20):
        record.runs.add(9, 9, 9, ended=True)
    record.foretold(form.runs, 3, ended=False)
    assert record.errors == [0.0] * 3
    record.foretold(form.runs, 3, ended=True)
    assert min(record.errors) > 20


@pytest.mark.parametrize(("strays", "asked"), [(0.0, False), (3.0, True)])
def test_a_drafter_that_may_only_have_had_bad_luck_is_still_asked(strays: float, asked: bool) -> None:
    """It is expected to lose a tenth of a token; how wrong that may be depends on how far its steps have strayed."""
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    drafter = known.drafters["writer"] = Experience()
    known.times.observe(1, 1, 1.0)
    for _ in range(8):
        drafter.times.observe(1, 2, 1.0)
        known.times.observe(1, 4, 1.1)
    record = drafter.record(row)
    record.runs = Runs(tokens=100.0, levels=200.0, nodes=300.0, ends=100.0)
    for i in range(60):
        record.profit.add((-1) ** i * strays)
    crew: Any = SimpleNamespace(working=[0], names=("writer",), met=lambda which, row: True)
    now = Now.of(known, [row])
    lost = known.expected(row, "writer")
    assert 0.02 < 1.0 + now.passes(lost.width) - (1 + lost.gain) < 0.2
    assert (best(known, now, crew, Free.nothing(1))[0] is not None) == asked


def test_forecasts_are_held_against_what_came_of_them() -> None:
    pacing = Measured()
    World([Simulated("writer", lambda _: 0.7, step=0.1)]).run(pacing, 256)
    (record,) = pacing.known.drafters["writer"]._records.values()
    assert record.drafts > 20
    assert record.profit.weight > 10
    assert min(record.errors) > 0
    assert min(record.reach._surprise) > 0


def test_a_drafter_is_in_doubt_while_its_tokens_may_be_right_more_often_than_it_seemed() -> None:
    """One token in two drafts may be the lack of luck; where that goes on for fifty drafts nobody hopes for more."""
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    drafter = known.drafters["writer"] = Experience()
    known.times.observe(1, 1, 1.0)
    for levels in (1, 2, 4) * 3:
        drafter.times.observe(1, levels, 0.2 + 0.3 * levels)
    now = Now.of(known, [row])
    look = Look(known, now, Free.nothing(1), "writer", drafter, 0)
    assert [look.may_pay(Expected(0.5, 2.0, 3.0), drafts) for drafts in (2, 10, 50)] == [True, True, False]
    assert look.may_pay(Expected(2.5, 6.0, 7.0), 50)  # it would pay as it is
    assert not look.may_pay(Expected(0.0, 2.0, 3.0), 2)  # never right: no matter of luck


def test_passes_of_a_mean_width_take_what_lies_between() -> None:
    now = Now([], 1.0, [1.0, 1.1, 1.2, 1.2, 1.4, 1.4, 1.6, 1.6, 3.0, *[9.0] * 8], 1.0, [], [])
    assert [now.passes(width) for width in (1.0, 1.5, 8.0, 7.0, 10.0, 20.0)] == pytest.approx(
        [1.0, 1.05, 1.4, 1.4, 1.5, 2.3]
    )
    assert now.passes(1000.0) == 9.0
    assert now.node(16.0) == pytest.approx((9.0 - 1.4) / 24)
    assert now.node(2.0) == now.node(8.0) == pytest.approx((1.6 - 1.2) / 12)  # not the step from one to two


def test_a_level_is_worth_the_time_of_verifying_its_nodes_too() -> None:
    """Wider passes that are dear make for shorter drafts, the more nodes a level has."""
    least = {}
    for slope in (0.0, 0.05):
        for nodes in (4.0, 20.0):
            known, row = Knowledge(0.01, 20), row_of(0, 400)
            for _ in range(30):
                for width in (1, 8, 16, 32):
                    known.times.observe(1, width, 1.0 + slope * (width - 1))
            drafter = known.drafters["writer"] = Experience()
            for levels in (3, 5, 4, 3, 5, 4):
                drafter.times.observe(1, levels, 0.1 * levels)
            drafter.record(row).runs.add(8.0, 16.0, 4 * nodes, ended=True)
            now = Now.of(known, [row])._replace(worth=1.0)
            least[slope, nodes] = wanted(known, now, "writer", 0, 1, LIMITS, probing=False).min_masses[1]
    assert least[0.05, 20.0] > 1.1 * least[0.0, 20.0]
    assert least[0.05, 4.0] < least[0.05, 20.0]


def test_a_draft_has_at_most_twice_the_nodes_that_are_expected() -> None:
    for rows in (1, 2, 4, 8):
        for width in (1.0, 3.4, 3.6, 7.5, 9.9, 15.4, 15.5, 15.6, 40.0):
            most = LIMITS.bounds(rows, 5, (0.1,)).nodes
            assert LIMITS.bounds(rows, 5, (0.1,), width=width).nodes == min(most, max(7, 2 * round(width)))


@pytest.mark.parametrize(("depth", "nodes"), [(1, 31), (2, 31), (20, 1), (20, 4), (20, 31)])
def test_no_draft_is_deeper_or_larger_than_was_asked_for(depth: int, nodes: int) -> None:
    """Not the first one, nor one that is made to find out."""
    drafter = Simulated("a", lambda _: 0.5)
    world, pacing, seen = World([drafter]), Measured(depth, nodes=nodes), []
    tree = world._tree
    world._tree = lambda *asked: seen.append(tree(*asked)) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    world.run(pacing, 300)
    assert 0 < max(tree.levels for tree in seen) <= min(depth, nodes)


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"nodes": 0}, {"width": 0}, {"branch": 0}, {"min_node": 1.5}])
def test_limits_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Measured(**wrong)


def test_what_is_known_has_its_own_overhead_depth_and_nodes() -> None:
    known = Measured(depth=8, nodes=12).known
    assert Measured(depth=8, nodes=12, known=known).known is known
    for options in ({"depth": 8, "nodes": 12, "overhead": 0.1}, {"depth": 9, "nodes": 12}, {"depth": 8}):
        with pytest.raises(ValueError, match="known"):
            Measured(known=known, **options)  # type: ignore[arg-type]


def test_a_draft_as_large_as_was_allowed_has_not_ended() -> None:
    """Eight rows may have seven nodes each: a right chain of those would have gone on being right."""
    world, pacing = World([Simulated("a", lambda _: 0.999)], noise=0.0), Measured(depth=20, nodes=7)
    world.run(pacing, 400)
    assert pacing.known.drafters["a"].record(row_of(0, 1)).runs.ends < 3


def test_probes_are_counted_for_the_rows_that_were_probed() -> None:
    """The writer is asked about the second row, and says nothing; the first one has what the copier found."""
    known, rows, tree = Knowledge(0.01, 20), [row_of(0, 400), row_of(1, 400)], DraftTree.chain([RIGHT])
    step = a_step(known, rows, [tree, DraftTree.EMPTY])
    step.asked.append(Asked(WRITER, "writer", rows[1:], [DraftTree.EMPTY], 0, [20], 0.0, 0.0, True, True, True))
    step.probing = True
    committed(known, step, [Draft(tree, COPIER), NO_DRAFT], 0)
    assert [known.state(row).report.probes for row in rows] == [0, 1]


@pytest.mark.parametrize("again", [True, False])
def test_a_first_draft_of_a_session_is_followed_by_another_at_once(again: bool) -> None:
    """Even where the drafter is warm because another session has just asked it."""
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    step = a_step(known, [row], [DraftTree.EMPTY])
    step.asked.append(Asked(WRITER, "writer", [row], [DraftTree.chain([0])], 1, [20], 0.0, 0.0, True, True, again))
    committed(known, step, [Draft(DraftTree.chain([0]), WRITER)], 0)
    assert (known.form(row, "writer").due > row.position) is again


def test_a_free_drafter_pays_for_the_time_of_its_own_nodes() -> None:
    uses = []
    for others in (0, 15):
        known, rows = Knowledge(0.01, 20), [row_of(0, 400), row_of(1, 400)]
        known.times.observe(2, 1, 1.0)
        for _ in range(40):
            known.times.observe(2, 16, 2.0)
        drafts = [Draft(DraftTree.chain([0]), COPIER), Draft(DraftTree.chain([0] * 15), WRITER) if others else NO_DRAFT]
        for _ in range(20):
            step = a_step(known, rows, [drafts[0].tree, DraftTree.EMPTY])
            step.asked.append(Asked(WRITER, "writer", rows[1:], [drafts[1].tree], 1, [20], 0.0, 0.0, True, True, True))
            committed(known, step, drafts, 0)
        uses.append(known.drafters["copier"].record(rows[0]).use.value)
    assert uses[1] == pytest.approx(-1 / 16, abs=0.04)
    assert -0.2 < uses[0] < 0.0


def test_a_row_that_wants_one_token_is_not_drafted_for() -> None:
    drafter, asked = Simulated("a", lambda _: 0.9), []
    world, pacing = World([drafter], cost=lambda rows, width: 1.0), Measured()
    world.run(pacing, 200, rows=3)
    propose = world.propose
    world.propose = lambda which, rows, bounds: asked.extend(rows) or propose(which, rows, bounds)  # type: ignore
    rows = [row_of(i, 100) for i in range(3)]
    for row in rows:
        world.known.add((0, row))
    rows[1].tokens = [RIGHT] * 99
    sum(world.steps(pacing, rows))
    assert rows[0] in asked
    assert rows[1] not in asked


def test_a_draft_is_at_most_twice_as_deep_as_the_deepest_so_far() -> None:
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    drafter = known.drafters["writer"] = Experience()
    known.times.observe(1, 1, 1.0)
    drafter.record(row).runs.tokens = 40.0
    depths = []
    for levels in (4, 2, 7):
        drafter.times.observe(1, levels, 0.01 * levels)
        depths.append(wanted(known, Now.of(known, [row]), "writer", 0, 1, LIMITS, probing=False).depth)
    assert depths == [8, 8, 14]


def test_what_branches_are_worth_is_learned_of_drafts_and_asked_of_the_next() -> None:
    known, row = Knowledge(0.01, 20), row_of(0, 400)
    scores = tuple(math.log(p) for p in (0.5, 0.25, 0.5, 0.25))
    tree = DraftTree((RIGHT, RIGHT, 2, 2), (-1, 0, -1, 0), scores, levels=2, masses=(1.0, 1.0))
    for _ in range(60):
        draft = Draft(tree, WRITER)
        committed(known, a_step(known, [row], [DraftTree.EMPTY], [draft]), [draft], 2)
    known.times.observe(1, 1, 1.0)
    known.drafters["writer"].times.observe(1, 2, 0.2)
    share = known.drafters["writer"].record(row).sides.share
    assert 0.5 < share <= 1.0  # half of it was stated to be beside, and none was
    for probing in (False, True):
        bounds = wanted(known, Now.of(known, [row]), "writer", 0, 1, LIMITS, probing=probing)
        assert bounds.side == share


def test_while_all_drafts_are_equally_deep_a_part_of_their_time_is_fixed() -> None:
    times = DraftTimes()
    for _ in range(5):
        times.observe(1, 6, 0.65)
    assert times.seconds(12, 1) == pytest.approx(1.25)  # of so few less is guessed
    times = DraftTimes()
    for _ in range(7):
        times.observe(1, 6, 0.7)
    assert times.seconds(6, 1) == pytest.approx(0.7)
    assert times.seconds(12, 1) == pytest.approx(1.3)
    short = DraftTimes()
    for _ in range(10):
        short.observe(1, 2, 0.3)
    assert short.seconds(12, 1) == pytest.approx(1.3)
    for _ in range(40):
        times.observe(1, 6, 0.7)
        times.observe(1, 3, 0.4)
    assert times.seconds(12, 1) == pytest.approx(1.3, rel=0.01)  # as it was measured: 0.1 and 0.1 a level
    for _ in range(80):
        times.observe(1, 2, 0.2)
        times.observe(1, 8, 0.8)
    assert times.seconds(12, 1) == pytest.approx(1.2, rel=0.03)


def test_a_trial_waits_the_longer_the_more_it_lost() -> None:
    form, gaps = Form(), []
    for lost in (0.0, 1.0, 2.5, 9.0):
        form.probed(100, lost, paid=False, on_trial=True, again=True)
        gaps.append(form.due - 100)
    assert gaps == [TRIAL_PAUSE, TRIAL_PAUSE, round(2.5 * TRIAL_PAUSE), LONGEST_PAUSE]


@pytest.mark.parametrize(("step", "tells"), [(0.4, True), (1.2, False)])
def test_a_probe_of_one_row_of_four_tells_of_the_next_levels(step: float, tells: bool) -> None:
    known, rows = Knowledge(0.01, 20), [row_of(i, 400) for i in range(4)]
    known.times.observe(4, 1, 1.0)
    known.drafters["writer"] = Experience()
    for _ in range(8):
        known.drafters["writer"].times.observe(1, 2, 3 * step)
    bounds = wanted(known, Now.of(known, rows), "writer", 0, 1, LIMITS, probing=True)
    assert (bounds.min_masses[:SHORTEST] == (LEAST,) * SHORTEST) is tells
    assert (bounds.min_masses[0] == NONE) is not tells
