"""The parts of the measured pacing: times, credit, ledgers, pruning, reports; fast ones against naive twins."""

from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import RIGHT, row_of

from anydraft.pacing import NO_DRAFT, Draft, Outcome, PacingReport
from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.belief import Belief, Luck
from anydraft.pacing.draft_times import DraftTimes
from anydraft.pacing.experience import Experience
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.lessons import learn
from anydraft.pacing.pruning import kept, worth
from anydraft.pacing.times import EDGES, PassTimes, edge
from anydraft.tree import DraftTree


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
    rng, belief, luck = random.Random(0), Belief(), Luck()
    log = math.log(0.9)
    tree = DraftTree((1, 1, 1), (-1, 0, 1), (log, 2 * log, 3 * log))
    assert belief.probabilities(tree) == pytest.approx([0.9, 0.81, 0.729], rel=0.01)
    for _ in range(300):
        accepted = list(itertools.takewhile(lambda _: rng.random() < 0.25, range(3)))
        belief.observe(tree, accepted, luck)
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


def test_a_free_drafter_rests_longer_each_time_and_wakes_when_it_was_right() -> None:
    drafter, rests = Experience(), []
    for wanted, right in [(False, False)] * 6 + [(False, True)] * 3 + [(True, False)]:
        drafter.offered(100.0, wanted=wanted, right=right, useful=False)
        rests.append(drafter.awake - 100.0)
    assert rests == [1, 3, 7, 15, 16, 16, 8, 4, 2, 0]


@pytest.mark.parametrize("chosen", [0, None])
def test_what_a_free_drafter_would_have_brought_is_seen_in_what_was_committed(chosen: int | None) -> None:
    """Another one's draft, or none, was verified: with it four more tokens are known, the first of them as drafted."""
    known, crew = Knowledge(0.01, 20), SimpleNamespace(names=("writer", "copier"), working=[0, 1])
    row = row_of(0, 64)
    known.drafters["copier"] = Experience()
    tree = DraftTree.chain([RIGHT, 0, 0, 0])
    for _ in range(30):
        step = Asking(known, [row], cast(Any, crew), set())
        step.asked = [Asked(1, "copier", [row], [tree], 4, [20], 0.0, 0.0, False, True)]
        mine = Draft(DraftTree.chain([RIGHT] * 4), 0) if chosen == 0 else NO_DRAFT
        accepted = [0, 1, 2, 3] if chosen == 0 else []
        if chosen == 0:
            known.drafters.setdefault("writer", Experience())
            step.asked.append(Asked(0, "writer", [row], [mine.tree], 4, [20], 0.0, 0.0, True, True))
        row.tokens += [RIGHT] * (1 + len(accepted))
        learn(known, step, Outcome([row], [mine], [accepted], 0.0, 1.0))
    chances = known.drafters["copier"].record(row).belief.probabilities(tree)
    assert chances[0] > 0.8
    second = chances[1] / chances[0]
    assert second < 0.2 if chosen == 0 else second > 0.5  # without a draft nothing is known of second tokens
