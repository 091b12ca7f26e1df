"""Choices that stand for some steps, of which is learned together: the same lessons, only later."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from simulated import RIGHT, Simulated, World, row_of

from anydraft.growth import Bounds
from anydraft.pacing import Draft, Measured, Outcome, measured
from anydraft.pacing.asking import Asking
from anydraft.pacing.knowledge import Knowledge
from anydraft.pacing.lessons import learn
from anydraft.pacing.measured import SEASONED, TOGETHER
from anydraft.row import Row
from anydraft.tree import DraftTree

GOOD = 0.85


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_what_is_learned_later_is_what_would_have_been_learned_at_once(finish: Any) -> None:
    """Positions, what was still wanted, and whether the text stopped are those of the step."""
    kept = [2, 0, 4, 3]
    found = []
    for late in (False, True):
        known, row = Knowledge(0.01, 20), row_of(0, 13)
        known.times.observe(1, 1, 1.0)
        tree = DraftTree((RIGHT,) * 4, (-1, 0, 1, 2), (-0.1, -0.2, -0.3, -0.4), levels=4, masses=(1.0, 0.9, 0.8, 0.7))
        lessons = []
        for count in kept:
            step = Asking(known, [row], crew_of(tree), {0}, {0}, at_once=not late)
            step.ask(0, [0], [Bounds(4)])
            row.tokens += [RIGHT] * (1 + count)
            row.finish_reason = finish if count == kept[-1] else None
            lessons.append((step, Outcome([row], [Draft(tree, 0)], [list(range(count))], 0.0, 1.0, [row.position])))
            if not late:
                learn(known, *lessons[-1])
        if late:
            for step, outcome in lessons:
                step.timed(step.asked[0])
                learn(known, step, outcome)
        drafter = known.drafters["writer"]
        drafter.record(row).belief.probabilities(tree)  # which keeps what it worked out
        found.append(pickle.dumps((known.now, known.safety, vars(drafter), known.state(row))))
        assert drafter.record(row).drafts == len(kept)
        assert known.form(row, "writer").position == row.position == 13
    assert found[0] == found[1]


def crew_of(tree: DraftTree) -> Any:
    return SimpleNamespace(
        names=("writer",),
        working=[0],
        seconds_start=0.0,
        seconds_last=0.2,
        met=lambda which, row: True,
        propose=lambda which, rows, bounds: [tree] * len(rows),
    )


class Watched(World):
    """A world that keeps the bounds of which drafts were asked."""

    asked: list[tuple[int, Sequence[Bounds]]]

    def propose(self, which: int, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        self.asked = [*getattr(self, "asked", []), (which, tuple(bounds))]
        return super().propose(which, rows, bounds)


def decisions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts choices of drafters, in place."""
    made = [0]
    best = measured.best

    def counted(*args: Any) -> Any:
        made[0] += 1
        return best(*args)

    monkeypatch.setattr(measured, "best", counted)
    return made


@pytest.mark.parametrize("rows", [1, 3])
def test_a_choice_that_pays_stands_for_some_steps(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    world, pacing = Watched([Simulated("a", lambda _: GOOD, step=0.05)]), Measured()
    world.run(pacing, 200, rows)
    made, calls, passes = decisions(monkeypatch), world.drafters[0].calls, world.passes
    world.run(pacing, 400, rows)
    asked = world.asked[calls:]
    assert len(asked) > 0.9 * (world.passes - passes)
    assert len(asked) / TOGETHER <= made[0] < len(asked) / TOGETHER + 0.1 * len(asked) + 3
    assert len({bounds for _, bounds in asked}) <= made[0]


def test_until_a_drafter_is_known_every_step_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    made, world, pacing = decisions(monkeypatch), World([Simulated("a", lambda _: GOOD, step=0.05)]), Measured()
    steps = world.steps(pacing, [row_of(0, 1000)])
    while pacing.known.drafters.get("a") is None or pacing.known.drafters["a"].record(row_of(0, 1)).drafts < SEASONED:
        next(steps)
    assert made[0] >= world.drafters[0].calls - 3  # the first were asked without
    assert made[0] >= SEASONED - 3


def test_nothing_stays_unlearned_when_a_row_is_finished_or_given_up() -> None:
    world, pacing = World([Simulated("a", lambda _: GOOD, step=0.05)]), Measured()
    world.run(pacing, 400)
    record = pacing.known.drafters["a"].record(row_of(0, 1))
    calls, drafts = world.drafters[0].calls, record.drafts
    assert drafts == calls
    row = row_of(0, 400)
    steps = world.steps(pacing, [row])
    while record.drafts == drafts or world.drafters[0].calls == record.drafts:
        next(steps)
    assert world.drafters[0].calls > record.drafts
    report = pacing.report(row)
    assert world.drafters[0].calls == record.drafts
    assert report is not None
    assert report.steps["a"] == world.drafters[0].calls - calls


def test_a_free_drafter_that_wakes_is_asked_at_once() -> None:
    """Where the text begins to repeat itself no choice of before stands in the way."""
    writer = Simulated("writer", lambda _: GOOD, step=0.05)
    world, pacing = Watched([writer, Simulated("copier", lambda _: 0.0, step=0.0)]), Measured()
    for world.working in ([1], [0], [0, 1]):
        world.run(pacing, 400)
    copier = pacing.known.drafters["copier"]
    assert copier.free
    steps, ended, found = world.steps(pacing, [row_of(0, 600)]), False, {True: 0, False: 0}
    while not ended:
        before, awake = len(world.asked), copier.awake <= pacing.known.now
        ended = next(steps, None) is None
        asked = 1 in [which for which, _ in world.asked[before:]]
        assert ended or asked or not awake
        found[asked] += 1
    assert found[True] > 4
    assert found[False] > 20


def test_a_drafter_that_breaks_while_its_choice_stands_is_not_asked_again() -> None:
    world, pacing = Watched([Simulated("a", lambda _: GOOD, step=0.05)]), Measured()
    world.run(pacing, 400)
    steps = world.steps(pacing, [row_of(0, 400)])
    while not any(course.standing is not None for course in pacing._courses.values()):
        next(steps)
    before = len(world.asked)
    world.working = []
    assert [*steps]
    assert len(world.asked) == before
