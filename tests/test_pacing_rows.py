"""What is believed of a row where rows differ: how its paths end, on how little that rests, and that bad luck fades."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Simulated, World, row_of

from anydraft.growth import Bounds
from anydraft.pacing import Measured
from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.belief import Belief
from anydraft.pacing.choosing import best
from anydraft.pacing.experience import Experience, Form, Record
from anydraft.pacing.frailty import Frailty, survived
from anydraft.pacing.knowledge import TRIAL_DRAFTS, Knowledge
from anydraft.pacing.lessons import learn
from anydraft.pacing.now import Free, Now
from anydraft.pacing.probing import OVERDRAFT, due
from anydraft.pacing.protocol import Draft, Outcome
from anydraft.pacing.sums import Runs, Spread
from anydraft.row import Row
from anydraft.tree import DraftTree


def chain(stated: float, length: int) -> DraftTree:
    """A chain of which every token is stated to be as likely, given the one before."""
    scores = tuple(math.log(stated) * (node + 1) for node in range(length))
    return DraftTree((1,) * length, tuple(range(-1, length - 1)), scores)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.floats(0.1, 4.0), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_chances_of_siblings_together_are_those_of_others_to_the_power_of_the_frailty(
    places: list[int], frailty: float, rng: random.Random
) -> None:
    parents = [node - 1 - place if place < node else -1 for node, place in enumerate(places)]
    scores: list[float] = []
    for parent in parents:
        scores.append((scores[parent] if parent >= 0 else 0.0) + math.log(rng.uniform(0.05, 0.9)))
    tree, belief = DraftTree((1,) * len(parents), tuple(parents), tuple(scores)), Belief()
    for _ in range(5):
        belief.observe(chain(rng.uniform(0.1, 0.9), 3), [0, 1][: rng.randint(0, 2)])
    others, own = belief.probabilities(tree), belief.probabilities(tree, frailty)
    for node, parent in enumerate(parents):
        siblings = [other for other, its in enumerate(parents) if its == parent]
        together = sum(others[sibling] for sibling in siblings)
        before, now = (others[parent], own[parent]) if parent >= 0 else (1.0, 1.0)
        assert own[node] == pytest.approx(now * (together / before) ** frailty * others[node] / together)
        assert own[node] <= now


def test_rows_whose_paths_go_on_are_told_from_those_whose_paths_end() -> None:
    rng, belief, tough, frail = random.Random(1), Belief(), Frailty(), Frailty()
    tree = chain(0.8, 6)
    for _ in range(60):
        belief.observe(tree, range(6), tough)
        right = next((level for level in range(6) if rng.random() > 0.6), 6)
        belief.observe(tree, range(right), frail)
    assert tough.factor() < 0.4 < 1.0 < frail.factor()
    deep, shallow = (belief.probabilities(tree, row.factor())[-1] for row in (tough, frail))
    assert shallow < 0.3 < 0.75 < deep  # of others 0.5; of one 0.05, of the other 1


def after_drafts(stated: float, right: float, seed: int) -> tuple[Belief, DraftTree]:
    """What is believed after three rows of four drafts of a drafter that is right so often."""
    rng, belief, tree = random.Random(seed), Belief(), chain(stated, 4)
    for _ in range(3):
        row = Frailty()
        for _ in range(4):
            belief.observe(tree, range(next((level for level in range(4) if rng.random() > right), 4)), row)
    return belief, tree


def test_a_new_row_of_a_modest_drafter_starts_from_what_the_rows_before_it_were() -> None:
    """What is believed lags behind."""
    errors = []
    for seed in range(20):
        belief, tree = after_drafts(0.5, 0.97, seed)
        factor = belief.frailty(Frailty())
        errors.append([math.log(belief.probabilities(tree, f)[-1] / 0.97**4) for f in (1.0, factor)])
    before, now = (sum(column) / len(column) for column in zip(*errors, strict=True))
    assert before < -0.2
    assert abs(now) < 0.5 * abs(before)
    row = Frailty()
    for _ in range(8):  # what it does itself counts more
        belief.observe(tree, (), row)
    assert belief.frailty(row) > 2 > 1 > factor


def test_a_new_row_of_a_drafter_that_was_too_sure_is_not_told_so_twice() -> None:
    belief, _ = after_drafts(0.9, 0.3, 0)
    assert belief.frailty(Frailty()) == 1.0


@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_a_path_ends_where_children_were_verified_and_none_was_right(right: int) -> None:
    """The first of its nodes do not teach what is expected of the others."""
    row, hazard = Frailty(), -math.log(0.5)
    Belief().observe(chain(0.5, 3), range(right), row)
    assert row.ends == (right < 3)
    assert row.expected == pytest.approx(right * hazard + (right < 3) * hazard * survived(hazard))


def test_a_path_that_may_go_on_beside_the_likeliest_node_ends_less_often() -> None:
    row = Frailty()
    tree = DraftTree((1, 2), (-1, -1), (math.log(0.5), math.log(0.3)))
    Belief().observe(tree, [1], row)
    assert row.ends == 0
    assert row.expected == pytest.approx(-math.log(0.8))


def test_a_draft_is_weighed_by_the_frailty_of_its_row() -> None:
    known, row, tree = Knowledge(0.01, 20), row_of(0, 400), chain(0.7, 4)
    known.times.observe(1, 1, 1.0)
    drafter, form = known.drafters.setdefault("writer", Experience()), known.form(row, "writer")
    form.frailty_nodes.ends, form.frailty.expected = 6.0, 9.0
    crew: Any = SimpleNamespace(
        names=("writer",),
        working=[0],
        seconds_start=0.0,
        seconds_last=0.5,
        met=lambda which, row: True,
        propose=lambda which, rows, bounds: [tree],
    )
    step, belief = Asking(known, [row], crew, set(), set()), drafter.record(row).belief
    for _ in range(4):  # of other rows, whose paths went on
        belief.observe(tree, range(4), Frailty())
    step.ask(0, [0], [Bounds(4)])
    assert step.chances == [belief.probabilities(tree, belief.frailty(form.frailty_nodes))]
    assert belief.frailty(form.frailty_nodes) < 0.9 * form.frailty_nodes.factor()
    assert step.chances[0][0] < belief.probabilities(tree)[0]


def test_what_is_expected_of_a_new_text_rests_on_little_where_texts_differ() -> None:
    record, form = Record(drafts=100, texts=10), Form()
    for value in (3.0, -3.0) * 20:
        record.profit.add(value)
    doubts = []
    for errors, drafts in (([0.0, 1.0, 1.0], 1), ([1.0, 1.0, 0.0], 16)):
        record.errors = errors
        assert form.rests(record) == drafts
        doubts.append(form.doubt(record))
    assert doubts[0] == pytest.approx(4 * doubts[1])
    assert doubts[0] == pytest.approx(3.0, rel=0.05)
    for _ in range(4):
        form.runs.add(1, 1, 1, ended=True)
    assert form.rests(record) == pytest.approx(16 + form.runs.ends)
    record.drafts = 2
    assert form.rests(record) == 2


def test_of_one_text_it_is_not_learned_whether_texts_differ() -> None:
    known, rows = Knowledge(0.01, 20), [row_of(i, 400) for i in range(3)]
    crew: Any = SimpleNamespace(names=("writer",), working=[0])
    drafter = known.drafters["writer"] = Experience()
    record, form, rests = drafter.record(rows[0]), Form(), []
    record.errors = [1.0, 1.0, 0.0]  # drafts of the one text were all chance
    for row in rows:
        for _ in range(20):
            step = Asking(known, [row], crew, set(), set())
            step.asked = [Asked(0, "writer", [row], [chain(0.5, 2)], 2, [20], 0.0, 0.0, True, True, True)]
            row.tokens += [1]
            learn(known, step, Outcome([row], [Draft(chain(0.5, 2), 0)], [[]], 0.0, 1.0, [row.position]))
            record.errors = [1.0, 1.0, 0.0]
        rests.append(form.rests(record))
    assert rests == [4.0, 8.0, 12.0]
    assert known.form(rows[0], "writer").rests(record) > 12.0


def hardly_paying(level: float) -> tuple[Knowledge, Experience, Row]:
    """A drafter whose many drafts brought 3.15 tokens on average, at so many plain passes a level, and a new row."""
    known, row = Knowledge(0.016, 20), row_of(0, 256)
    drafter = known.drafters["writer"] = Experience()
    known.times.observe(1, 1, 1.0)
    for levels in (2, 4, 8) * 4:
        drafter.times.observe(1, levels, 0.5 + level * levels)
    record = drafter.record(row)
    record.drafts, record.texts = 3 * TRIAL_DRAFTS, 3 * TRIAL_DRAFTS
    record.runs = Runs(tokens=315.0, levels=750.0, nodes=1170.0, ends=100.0)
    record.errors = [0.0, 1.0, 1.0]  # texts differ
    return known, drafter, row


@pytest.mark.parametrize("texts_differ", [True, False])
def test_a_new_text_is_looked_at_where_texts_differ(texts_differ: bool) -> None:
    """On average the drafter does not quite pay, and probes of those which do not are in debt."""
    known, drafter, row = hardly_paying(0.6)
    for _ in range(12):
        known.times.observe(1, 16, 1.5)
    if not texts_differ:
        drafter.record(row).errors = [1.0, 1.0, 0.0]
    known.exploring.debt = 2.0
    crew: Any = SimpleNamespace(working=[0], names=("writer",), met=lambda which, row: True)
    choice, wait = due(known, Now.of(known, [row]), crew, Free.nothing(1))
    assert (choice is not None) == texts_differ
    assert (wait > 0) != texts_differ


@pytest.mark.parametrize(("wanted", "looked"), [(256, True), (32, False)])
def test_a_text_may_owe_what_the_rest_of_it_pays_back(wanted: int, looked: bool) -> None:
    """A drafter in doubt, of which the probes so far have used up what is allowed else."""
    known, drafter, row = hardly_paying(0.4)
    row.params = replace(row.params, max_new_tokens=wanted)
    drafter.times.observe_start(1.0, len(row.prompt))
    known.doubting.debt = OVERDRAFT
    crew: Any = SimpleNamespace(working=[0], names=("writer",), met=lambda which, row: False)
    choice, _ = due(known, Now.of(known, [row]), crew, Free.nothing(1))
    assert (choice is not None) == looked


@pytest.mark.parametrize("readings", [1, 2])
def test_a_first_reading_that_built_tables_keeps_nobody_from_a_second_text(readings: int) -> None:
    """A drafter in doubt whose probes have cost something. One prompt that took 200 passes says little; two say it."""
    known, drafter, row = hardly_paying(0.4)
    for _ in range(readings):
        drafter.times.observe_start(200.0, len(row.prompt))
    known.doubting.debt = 0.1
    crew: Any = SimpleNamespace(working=[0], names=("writer",), met=lambda which, row: False)
    choice, _ = due(known, Now.of(known, [row]), crew, Free.nothing(1))
    assert (choice is not None) == (readings == 1)


def test_the_luck_of_several_rows_is_surer_than_that_of_one() -> None:
    """How far steps must have strayed for a drafter to be asked that is expected to lose as much with every row."""

    def least(count: int) -> float:
        known, rows = Knowledge(0.01, 20), [row_of(i, 400) for i in range(count)]
        drafter = known.drafters["writer"] = Experience()
        known.times.observe(count, 1, 1.0)
        for _ in range(8):
            drafter.times.observe(count, 2, 1.0)
            known.times.observe(count, 4, 1.1)
        record = drafter.record(rows[0])
        record.runs = Runs(tokens=100.0, levels=200.0, nodes=300.0, ends=100.0)
        crew: Any = SimpleNamespace(working=[0], names=("writer",), met=lambda which, row: True)
        for strays in range(200):
            record.profit = Spread()
            for i in range(60):
                record.profit.add((-1) ** i * 0.01 * strays)
            if best(known, Now.of(known, rows), crew, Free.nothing(count))[0] is not None:
                return 0.01 * strays
        raise AssertionError("never asked")

    assert least(1) > 0.1
    assert least(4) == pytest.approx(2 * least(1), rel=0.1)


def test_bad_luck_fades_while_nobody_drafts() -> None:
    known, row = Knowledge(0.016, 20), row_of(0, 256)
    drafter = known.drafters["writer"] = Experience()
    record, form = drafter.record(row), known.form(row, "writer")
    record.runs = Runs(tokens=200.0, levels=300.0, nodes=400.0, ends=100.0)
    row.tokens += [1] * 50
    form.position = row.position
    for _ in range(10):
        form.runs.add(0, 3, 3, ended=True)
    shunned = known.expected(row, "writer").gain
    assert shunned == known.expected(row, "writer").gain < 0.5  # asking about it changes nothing
    row.tokens += [1] * 20
    later = known.expected(row, "writer").gain
    row.tokens += [1] * 80
    assert shunned < later < 1.9 < known.expected(row, "writer").gain


def test_after_a_bad_stretch_a_drafter_that_pays_elsewhere_is_soon_asked_again() -> None:
    drafter = Simulated("writer", lambda position: 0.0 if 100 <= position < 112 else 0.75, step=0.15)
    world, pacing = World([drafter]), Measured()
    world.run(pacing, 512)
    known, rests = pacing.known, []
    for _ in range(6):
        asked: list[int] = []
        propose = world.propose

        def noted(which: int, rows: Any, bounds: Any, propose: Any = propose, asked: list[int] = asked) -> Any:
            asked.append(rows[0].position)
            return propose(which, rows, bounds)

        world.propose = noted  # type: ignore[method-assign]
        world.run(pacing, 256)
        world.propose = propose  # type: ignore[method-assign]
        rests.append(next(position for position in asked if position >= 113) - 112)
    assert known.drafters["writer"].record(row_of(0, 1)).runs.tokens > 1
    assert sorted(rests)[3] <= 24
