"""Choices that stand for some steps, of which is learned together: the same lessons, only later."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from simulated import RIGHT, Simulated, World, row_of

from anydraft.growth import Bounds
from anydraft.pacing import Measured, Outcome, measured
from anydraft.pacing.asking import Asking
from anydraft.pacing.course import SEASONED, TOGETHER, Course
from anydraft.row import Row
from anydraft.tree import DraftTree

GOOD = 0.85


def written(masses: Sequence[float]) -> DraftTree:
    """A chain that states these chances of getting to each level, and of the last one's."""
    count = len(masses)
    scores = tuple(-0.1 * (level + 1) for level in range(count))
    return DraftTree((RIGHT,) * count, tuple(range(-1, count - 1)), scores, levels=count, masses=tuple(masses))


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("places", [[0], [0, 1], [1]])
def test_what_is_learned_later_is_what_would_have_been_learned_at_once(
    monkeypatch: pytest.MonkeyPatch, finish: Any, places: list[int]
) -> None:
    """Positions, what was still wanted, and whether the text stopped are those of the step."""
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    trees, kept = [written((1.0, 0.9, 0.8, 0.7)), written((1.0, 0.6, 0.2))], ((2, 0, 4, 3), (1, 3, 0, 2))
    found = []
    for late in (False, True):
        pacing, rows = Measured(), [row_of(0, 13), row_of(1, 13)]
        crew: Any = SimpleNamespace(
            names=("writer",),
            working=[0],
            seconds_start=0.0,
            seconds_last=0.2,
            met=lambda which, row: True,
            propose=lambda which, asked, bounds: [trees[row.index] for row in asked],
        )
        pacing.known.times.observe(2, 1, 1.0)
        course = Course(rows)
        for counts in zip(*kept, strict=True):
            step = Asking(pacing.known, rows, crew, {0}, {0}, at_once=not late)
            step.ask(0, places, [Bounds(4)] * len(places))
            counts = tuple(count if i in places else 0 for i, count in enumerate(counts))
            for row, count in zip(rows, counts, strict=True):
                row.tokens += [RIGHT] * (1 + count)
                row.finish_reason = finish if row.position == 13 else None
            accepted, positions = [list(range(count)) for count in counts], [row.position for row in rows]
            course.lessons.append((step, Outcome(rows, step.drafts, accepted, 0.2, 1.1, positions)))
            if not late:
                pacing._learn(course)
        pacing._learn(course)
        assert not course.lessons
        known, drafter = pacing.known, pacing.known.drafters["writer"]
        drafter.record(rows[0]).belief.probabilities(trees[0])  # which keeps what it worked out
        drafter.record(rows[0]).belief.probabilities(trees[1])
        drafter.times.seconds(2, len(places))
        known.times.table(2)
        ledgers, states = (known.safety, known.exploring, known.doubting), [known.state(row) for row in rows]
        times = (vars(drafter.times), known.times.table(2), known.times._of_rows)
        found.append(
            pickle.dumps((known.now, ledgers, vars(drafter), times, states, known.serving(rows[0])))
        )
        assert drafter.record(rows[0]).drafts == drafter.calls == 4
        for i in places:
            assert known.form(rows[i], "writer").position == rows[i].position
    assert found[0] == found[1]


class Watched(World):
    """A world that keeps of whom drafts were asked, and with what bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked: list[tuple[int, Sequence[Bounds]]] = []

    def propose(self, which: int, rows: Sequence[Row], bounds: Sequence[Bounds]) -> list[DraftTree]:
        self.asked.append((which, tuple(bounds)))
        return super().propose(which, rows, bounds)


def drafted(rows: int = 1, **options: Any) -> tuple[Watched, Measured]:
    """A world with a good drafter, and a pacing that knows it."""
    world, pacing = Watched([Simulated("a", lambda _: GOOD, step=0.05)], **options), Measured()
    world.run(pacing, 400, rows)
    return world, pacing


def decisions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts choices of drafters, in place."""
    made = [0]
    best = measured.best

    def counted(*args: Any) -> Any:
        made[0] += 1
        return best(*args)

    monkeypatch.setattr(measured, "best", counted)
    return made


@pytest.mark.parametrize("verification", ["exact", "rejection"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_choice_that_pays_stands_for_some_steps(
    monkeypatch: pytest.MonkeyPatch, rows: int, verification: str
) -> None:
    world, pacing = drafted(rows, verification=verification)
    made, calls, passes = decisions(monkeypatch), len(world.asked), world.passes
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


def standing(world: World, pacing: Measured, row: Row) -> tuple[Any, Course]:
    """Steps of the row, up to the first one whose choice stands."""
    steps = world.steps(pacing, [row])
    while (course := pacing._found(row)) is None or course.standing is None:
        next(steps)
    assert len(course.lessons) == 1
    return steps, course


def test_nothing_stays_unlearned_when_a_row_is_finished_or_given_up() -> None:
    world, pacing = drafted()
    record = pacing.known.drafters["a"].record(row_of(0, 1))
    calls = world.drafters[0].calls
    assert record.drafts == calls
    row = row_of(0, 400)
    standing(world, pacing, row)
    assert world.drafters[0].calls > record.drafts
    report = pacing.report(row)
    assert world.drafters[0].calls == record.drafts
    assert report is not None
    assert report.steps["a"] == world.drafters[0].calls - calls


def beside_a_copier() -> tuple[Watched, Measured]:
    """A world with a good drafter and a free one, and a pacing that knows both; the free one rests for long."""
    writer = Simulated("writer", lambda _: GOOD, step=0.05)
    world, pacing = Watched([writer, Simulated("copier", lambda _: 0.0, step=0.0)]), Measured()
    for world.working in ([1], [0], [0, 1]):
        world.run(pacing, 400)
    copier = pacing.known.drafters["copier"]
    assert copier.free
    copier.awake = pacing.known.now + 1000
    return world, pacing


def test_a_free_drafter_is_asked_when_its_rest_is_over_by_what_steps_were_expected_to_take() -> None:
    world, pacing = beside_a_copier()
    steps, course = standing(world, pacing, row_of(0, 600))
    assert course.standing is not None
    pacing.known.drafters["copier"].awake = pacing.known.now + 1.5 * course.standing.choice.passes
    before = len(world.asked)
    next(steps)
    next(steps)
    assert [which for which, _ in world.asked[before : before + 2]] == [0, 1]


def test_while_a_choice_stands_tokens_of_a_gap_are_worth_what_they_were() -> None:
    world, pacing = beside_a_copier()
    row = row_of(0, 600)
    serving = pacing.known.serving(row)
    for _ in range(40):  # copies of some time ago, after gaps of six tokens
        serving.went(6, ended=True)
        serving.add(1.0, 9.0, 1.2, 0.0)
        for _ in range(6):
            serving.add(0.0, 0.0, 1.0, 1.0)
    steps, course = standing(world, pacing, row)
    first, _ = course.lessons[0]
    assert first.gaps[0].own > first.gaps[0].beyond
    assert 0 < first.gaps[0].goes_on < 1
    next(steps)
    again, _ = course.lessons[1]
    assert again.gaps == first.gaps
    belief = pacing.known.drafters["writer"].record(row).belief
    (tree,) = again.asked[0].trees
    likely = belief.probabilities(tree, belief.frailty(pacing.known.form(row, "writer").frailty_nodes), 0.0)
    worth = [first.gaps[0].token(depth) for depth in tree.depths]
    assert again.chances[0] == pytest.approx([a * b for a, b in zip(likely, worth, strict=True)])


def test_passes_without_a_question_are_reported_of_every_row() -> None:
    world, pacing = World([Simulated("a", lambda _: 0.02, step=0.3)]), Measured()
    world.run(pacing, 400, 3)
    rows, passes = [row_of(i, 200) for i in range(3)], world.passes
    steps, counted = world.steps(pacing, rows), 0
    for _ in range(120):
        next(steps)
        course = pacing._found(rows[0])
        assert course is not None
        counted = max(counted, course.idled)
        if course.idled > 8:
            break
    assert counted > 8
    reports = [pacing.report(row) for row in reversed(rows)]
    for report in reports:
        assert report is not None
        assert sum(report.steps.values()) == world.passes - passes
    assert course.idled == 0


def test_no_draft_is_made_for_a_last_token() -> None:
    """A choice that stands ends before it, as nobody would have chosen it then."""
    (world, pacing), found = drafted(), 0
    for tokens in range(40, 140):
        row, calls = row_of(0, tokens), {}
        for _ in world.steps(pacing, [row]):
            calls[row.remaining] = len(world.asked)
        found += 1 in calls
        assert calls.get(1, calls[0]) == calls[0]
    assert found > 10


def test_a_drafter_that_breaks_while_its_choice_stands_is_not_asked_again() -> None:
    world, pacing = drafted()
    steps, _ = standing(world, pacing, row_of(0, 400))
    next(steps)
    before, calls = len(world.asked), pacing.known.drafters["a"].calls
    world.working = []
    assert [*steps]
    assert len(world.asked) <= before + 1
    assert pacing.known.drafters["a"].calls >= calls + 1  # those before it broke are learned from


def test_sessions_in_turn_learn_each_of_their_own_steps() -> None:
    world, pacing = drafted()
    record, calls = pacing.known.drafters["a"].record(row_of(0, 1)), world.drafters[0].calls
    running = [world.steps(pacing, [row_of(i, 200 + 40 * i)]) for i in range(3)]
    while running:
        running = [steps for steps in running if next(steps, None) is not None]
    assert world.drafters[0].calls > calls + 3 * TOGETHER
    assert record.drafts == world.drafters[0].calls


def test_a_session_that_is_dropped_in_the_middle_goes_with_its_rows() -> None:
    world, pacing = drafted()
    row = row_of(0, 400)
    steps, course = standing(world, pacing, row)
    next(steps)
    gone = weakref.ref(row)
    steps.close()
    del row, course, steps, world
    gc.collect()
    assert gone() is None
