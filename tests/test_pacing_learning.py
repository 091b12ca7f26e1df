"""What the measured pacing learns from drafts: runs that end, levels that bring something, the worth of time."""

from __future__ import annotations

import math
import random

import pytest

from anydraft.pacing.belief import MEMORY, PRIOR, SURE, UNSCORED, Belief
from anydraft.pacing.draft_times import DraftTimes
from anydraft.pacing.experience import Form, Record
from anydraft.pacing.frailty import Frailty
from anydraft.pacing.reach import GUESSED, LEAST, NONE, Hazards, Path, Reach
from anydraft.pacing.times import EDGES, PassTimes
from anydraft.tree import DraftTree


def right_in_a_row(rng: random.Random, right: float, most: int) -> int:
    """Tokens accepted of a chain of so many."""
    count = 0
    while count < most and rng.random() < right:
        count += 1
    return count


@pytest.mark.parametrize("right", [0.5, 0.8, 0.95])
def test_short_drafts_tell_how_long_ones_would_do(right: float) -> None:
    """Runs cut off after three tokens give the mean of runs of twenty."""
    rng, record, form = random.Random(0), Record(), Form()
    for _ in range(400):
        count = right_in_a_row(rng, right, 3)
        record.runs.add(count, 3, 3, ended=count < 3)
    expected = form.expected(record, depth=20)
    means = [right_in_a_row(rng, right, 20) for _ in range(4000)]
    assert expected.gain == pytest.approx(sum(means) / len(means), rel=0.3)
    assert expected.levels <= 20


def test_a_row_of_its_own_outweighs_the_others() -> None:
    record, form = Record(), Form()
    for _ in range(100):
        record.runs.add(0, 4, 4, ended=True)
    before = form.expected(record, 20).gain
    for _ in range(20):
        form.runs.add(6, 8, 8, ended=True)
    assert before < 0.1
    assert form.expected(record, 20).gain > 3


def levels(masses: list[float]) -> DraftTree:
    """A verified chain whose levels had these masses."""
    count = len(masses)
    return DraftTree((1,) * count, tuple(range(-1, count - 1)), levels=count, masses=tuple(masses))


def saw(
    reach: Reach, tree: DraftTree, depth: int, accepted: int, frailty: Frailty | None = None, wanted: int | None = None
) -> None:
    """One verified draft."""
    path = Path.of(tree, depth, accepted, wanted)
    hazards = reach.hazards().along(path)
    reach.observe(path, hazards)
    if frailty is not None:
        frailty.observe(hazards.together, ended=path.ended)


@pytest.mark.parametrize("depth", [0.02, 0.3])
@pytest.mark.parametrize("stated", [0.1, 1.0, 2.0])
def test_how_paths_end_is_learned_from_how_they_ended(stated: float, depth: float) -> None:
    """A right path ends at a level with a hazard of its own and one for each nat by which the stated mass falls."""
    rng, reach = random.Random(1), Reach(fading=0.998)
    for _ in range(6000):
        masses = [1.0]
        for _ in range(7):
            masses.append(masses[-1] * math.exp(-rng.choice([0.0, 0.05, 1.0])))
        accepted = 0
        while accepted < 7:
            drop = math.log(masses[accepted] / masses[accepted + 1])
            if rng.random() > math.exp(-stated * drop - depth):
                break
            accepted += 1
        saw(reach, levels(masses if accepted < 7 else masses[:7]), 8, accepted)
    found = reach.hazards()
    assert found.stated == pytest.approx(stated, rel=0.25, abs=0.1)
    assert found.depth[:5] == pytest.approx([depth] * 5, rel=0.35, abs=0.03)


def test_drafts_that_are_right_to_their_ends_go_on_whatever_they_state() -> None:
    reach = Reach()
    for _ in range(20):
        saw(reach, levels([0.8**level for level in range(12)]), 12, 12)
    before, after = (hazards.least_masses(0.5, [1.0] * 20) for hazards in (GUESSED, reach.hazards()))
    assert after[11] < 0.05 < 0.5 < before[11]
    assert list(after) == sorted(after)


def test_a_row_that_ends_less_often_than_others_is_drafted_further() -> None:
    rng, reach, tough, frail = random.Random(2), Reach(), Frailty(), Frailty()
    tree = levels([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    for _ in range(60):
        saw(reach, tree, 6, 6 if rng.random() < 0.8 else 5, tough)
        saw(reach, tree, 6, right_in_a_row(rng, 0.6, 6), frail)
    hazards = reach.hazards()
    assert tough.factor() < 0.6 < 1.2 < frail.factor()
    deep, shallow = (hazards.least_masses(0.4, [1.0] * 8, row.factor()) for row in (tough, frail))
    assert all(a < b for a, b in zip(deep, shallow, strict=True))


@pytest.mark.parametrize("doubts_hold", [True, False])
def test_a_rows_factor_is_on_what_is_stated_only_where_that_foretells(doubts_hold: bool) -> None:
    """Two texts whose paths end seldom where the drafter is sure; its doubts are right in one, and not in the other."""
    rng, reach, frailty = random.Random(4), Reach(), Frailty()
    hazards = Hazards(stated=1.0, depth=(0.1,) * len(GUESSED.depth))
    for _ in range(300):
        masses, accepted, ended = [1.0], 0, False
        for _ in range(8):
            masses.append(masses[-1] * (0.6 if rng.random() < 0.1 else 1.0))
        while accepted < 8 and not ended:
            drop = math.log(masses[accepted] / masses[accepted + 1])
            ended = rng.random() < 1 - math.exp(-(drop if doubts_hold else 0.3 * drop) - 0.01)
            accepted += not ended
        path = Path.of(levels(masses if ended else masses[:8]), 9, accepted)
        reach.foretold(path, hazards.along(path), frailty.factor())
        frailty.observe(hazards.along(path).together, ended=path.ended)
    assert frailty.factor() < 0.8
    assert reach.frailties(0.5) == ((0.5, 1.0) if doubts_hold else (0.5, 0.5))
    unlike = [hazards.least_masses(0.4, [1.0] * 8, 0.5, of_stated)[3] for of_stated in (0.5, 1.0)]
    assert unlike[0] < unlike[1] < hazards.least_masses(0.4, [1.0] * 8)[3]


@pytest.mark.parametrize(("accepted", "ended"), [(4, False), (2, True), (0, True)])
def test_how_surprising_a_path_was_is_worked_out_by_level(accepted: int, ended: bool) -> None:
    """With a row's factor on hazards of depth, and on those of what is stated as well."""
    hazards = Hazards(stated=0.7, depth=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7))
    masses, factor, reach = [1.0, 0.8, 0.5, 0.4], 0.6, Reach()
    path = Path.of(levels(masses), 4, accepted)
    assert path.ended == ended
    reach.foretold(path, hazards.along(path), factor)
    for found, of_stated in zip(reach._surprise, (1.0, factor), strict=True):
        expected = 0.0
        for level in range(accepted + ended):
            drop = math.log(masses[level] / masses[level + 1]) if level < 3 else hazards.drop
            hazard = of_stated * 0.7 * drop + factor * hazards.depth[level]
            expected += hazard if level < accepted else -math.log(1 - math.exp(-hazard))
        assert found == pytest.approx(expected)


def test_what_was_left_out_of_a_draft_says_nothing() -> None:
    reach = Reach()
    tree = DraftTree((1,), (-1,), levels=4, masses=(1.0, 1.0, 0.4, 0.3))
    for _ in range(100):
        saw(reach, tree, 4, 1)  # four levels were drafted, one node was verified
    assert reach.hazards().depth[0] < 0.02
    assert len({*reach.hazards().depth}) == 1  # of further levels nothing is known but that


def test_a_draft_that_is_full_and_right_has_not_ended() -> None:
    """Only first tokens are ever right, and then all; the last level that was asked for had no room in the draft."""
    reach = Reach()
    tree = DraftTree((1,) * 3, (-1, 0, 1), levels=4, masses=(1.0, 0.6, 0.55, 0.5))
    for _ in range(300):
        saw(reach, tree, 3, 1)
    assert reach.hazards().least_masses(0.3, [1.0] * 4)[1] > 0.7
    for _ in range(300):
        saw(reach, tree, 3, 3)
    assert reach.hazards().least_masses(0.3, [1.0] * 4)[3] < 0.1


def test_tokens_of_a_level() -> None:
    """Twice as many levels as tokens; not learned where the row wanted no more, and a tree may not count its levels."""
    shorter, ending, uncounted = Reach(), Reach(), Reach()
    for _ in range(100):
        tree = DraftTree((1,) * 4, (-1, 0, 1, 2), levels=8, masses=(1.0, 1.0, 0.9))
        saw(shorter, tree, 4, 2, wanted=90)
        saw(ending, tree, 4, 2, wanted=4)
        saw(uncounted, DraftTree((1,) * 4, (-1, 0, 1, 2)), 4, 2, wanted=90)
    assert shorter.hazards().tokens == pytest.approx(0.5, abs=0.05)
    assert ending.hazards().tokens == uncounted.hazards().tokens == 1
    assert Hazards(tokens=0.5).least_masses(0.5, [1.0] * 3) == (NONE,) * 3 != Hazards().least_masses(0.5, [1.0] * 3)


def test_a_last_level_of_which_nothing_is_stated_is_no_end() -> None:
    """Its text may be cut off in the middle of a token."""
    reach = Reach()
    for _ in range(100):
        saw(reach, DraftTree((1,) * 3, (-1, 0, 1), levels=3, masses=(1.0, 1.0)), 3, 2)
    assert max(reach.hazards().depth) < 0.02


def test_no_level_is_worth_more_than_a_token() -> None:
    assert GUESSED.least_masses(2.0, [1.0] * 3) == (NONE,) * 3
    reach = Reach()
    for _ in range(200):
        saw(reach, levels([1.0, 0.95, 0.95]), 3, 3)
    assert reach.hazards().least_masses(0.02, [1.0] * 3) == (LEAST,) * 3


def test_a_draft_that_was_not_verified_is_judged_in_hindsight() -> None:
    """Of a chain of four, three tokens are known to be right; what follows says nothing."""
    chain = DraftTree((1,) * 4, tuple(range(-1, 3)), tuple(math.log(0.5) * (node + 1) for node in range(4)))
    seen, believed = Belief(), Belief()
    for _ in range(50):
        seen.observe(chain, [0, 1, 2], depth=3)
        believed.observe(chain, [0, 1, 2, 3])
    assert seen.probabilities(chain)[2] > 0.8
    assert seen.probabilities(chain)[3] < believed.probabilities(chain)[3]
    wrong = Belief()
    for _ in range(50):
        wrong.observe(chain, [0], depth=2)
    assert wrong.probabilities(chain)[1] < 0.15


def test_slow_first_drafts_are_forgotten_and_strays_count_little() -> None:
    times = DraftTimes()
    for seconds in (60.0, 45.0, 0.3):
        times.observe(1, 3, seconds)
    assert times.seconds(3, 1) == pytest.approx(0.3)
    for _ in range(30):
        times.observe(1, 3, 0.3)
    times.observe(1, 3, 100.0)
    assert times.seconds(3, 1) == pytest.approx(0.3, rel=0.1)


def test_the_table_of_widths_is_what_is_expected_of_each() -> None:
    rng, times = random.Random(3), PassTimes()
    for _ in range(300):
        width = rng.choice([1, 2, 4, 16])
        times.observe(2, width, (1 + 0.05 * width) * math.exp(rng.gauss(0, 0.05)))
    plain, ratios = times.table(2)
    for edge, ratio in zip(EDGES, ratios, strict=True):
        assert ratio == pytest.approx(math.exp(times._log_ratio(times._of_rows[2], 2, edge)), rel=0.05), edge
        assert times.seconds(2, edge) == pytest.approx(plain * ratio), edge
    assert times.table(3)[0] > 0


def test_probabilities_are_those_of_the_definition() -> None:
    """The lines of a cell against shares with priors, worked out for each node anew."""
    rng, belief = random.Random(5), Belief()
    seen: list[tuple[float, int, bool]] = []
    for _ in range(60):
        stated = rng.choice([0.15, 0.5, 0.9])
        tree = DraftTree((1, 1), (-1, 0), (math.log(stated), 2 * math.log(stated)))
        accepted = list(range(right_in_a_row(rng, 0.6, 2)))
        belief.observe(tree, accepted)
        seen += [(stated, 1, bool(accepted))] + ([(stated, 2, len(accepted) > 1)] if accepted else [])

    def share(of: list[bool], prior: float) -> float:
        trials = hits = 0.0
        for hit in of:
            trials, hits = trials * (1 - 1 / MEMORY) + 1, hits * (1 - 1 / MEMORY) + hit
        return (hits + PRIOR * prior) / (trials + PRIOR) if of else prior

    for stated in (0.15, 0.5, 0.9):
        tree = DraftTree((1, 1), (-1, 0), (math.log(stated), 2 * math.log(stated)))
        chance, expected = 1.0, []
        for depth in (1, 2):
            column = share([hit for s, _, hit in seen if s == stated], stated)
            chance *= min(share([hit for s, d, hit in seen if s == stated and d == depth], column), SURE)
            expected.append(chance)
        assert belief.probabilities(tree) == pytest.approx(expected)
    unscored = DraftTree((1,), (-1,))
    assert belief.probabilities(unscored) == pytest.approx(
        belief.probabilities(DraftTree((1,), (-1,), (math.log(UNSCORED),)))
    )


def test_what_follows_an_unlikely_node_is_not_looked_at() -> None:
    log = math.log(0.05)
    tree = DraftTree((1,) * 5, (-1, 0, 1, 2, 3), tuple(log * (node + 1) for node in range(5)))
    whole, short = Belief().probabilities(tree), Belief().probabilities(tree, least=0.01)
    assert short[:2] == whole[:2]
    assert short[2:] == [0.0, 0.0, 0.0]
    assert min(whole) > 0
