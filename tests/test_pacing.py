"""What the measured pacing decides, in a simulated world: never slower, and as good as the best fixed length."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
from simulated import Simulated, World, row_of

from anydraft.growth import Bounds
from anydraft.pacing import Fixed, Measured
from anydraft.tree import DraftTree

NEVER, OFTEN = 0.0, 0.8


def wide_is_dear(rows: int, width: int) -> float:
    """As in float32 on a CPU: a pass over two tokens costs two of one."""
    return 1.0 if rows * width == 1 else 2.2 + 0.05 * rows * width


def wide_is_cheap(rows: int, width: int) -> float:
    """As in bfloat16."""
    return 1.0 + 0.04 * (rows * width - 1) ** 0.8


def speeds(
    drafters: list[Simulated], *, tokens: int = 256, rows: int = 1, runs: int = 5, **options: Any
) -> list[float]:
    """Speed of one pacing over plain decoding, request by request: the first knows nothing yet."""
    world, pacing = World(drafters, **options), Measured()
    return [world.run(pacing, tokens, rows) for _ in range(runs)]


# Never slower. ----------------------------------------------------------------------------------

BAD = {
    "wrong and sure of it": lambda: Simulated("a", lambda _: NEVER, lambda _: 0.99),
    "wrong, sure and free": lambda: Simulated("a", lambda _: NEVER, lambda _: 0.99, step=0.0),
    "random": lambda: Simulated("a", lambda _: 0.02, lambda _: 0.3),
    "right and as costly as the target": lambda: Simulated("a", lambda _: 0.97, step=1.0, start=4.0),
    "wrong and as costly as the target": lambda: Simulated("a", lambda _: NEVER, lambda _: 0.99, step=1.0, start=4.0),
    "seldom right and slow": lambda: Simulated("a", lambda _: 0.35, step=0.3, fixed=0.1, start=1.0),
}


@pytest.mark.parametrize("cost", [wide_is_cheap, wide_is_dear])
@pytest.mark.parametrize("name", BAD)
def test_bad_drafters_cost_next_to_nothing(name: str, cost: Any) -> None:
    """Later requests lose at most 1.5 % to looking again, the first one a bounded number of passes on top.

    Those are most, about a tenth, with a drafter as costly as the target that takes four passes to read a prompt.
    """
    first, later = [], []
    for seed in range(4):
        ran = speeds([BAD[name]()], cost=cost, seed=seed)
        first.append(ran[0])
        later += ran[1:]
    assert median(later) > 0.985
    assert min(later) > 0.955
    assert median(first) > 0.88


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_batches_with_a_bad_drafter(rows: int) -> None:
    assert median(speeds([BAD["wrong and sure of it"]()], rows=rows, cost=wide_is_cheap)[1:]) > 0.985


def test_a_bad_drafter_is_asked_again_now_and_then() -> None:
    """It may have become good: what was wrong for a thousand tokens and then is right is found out."""
    drafter = Simulated("a", lambda _: NEVER, lambda _: 0.9, step=0.05)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    world.run(pacing, 1000)
    drafter.right = lambda _: 0.95
    world.run(pacing, 600)
    assert world.run(pacing, 300) > 2


@pytest.mark.parametrize("seed", range(3))
def test_texts_that_take_turns_do_not_silence_each_other(seed: int) -> None:
    """As with two requests to a server: in one text the drafter pays, in another, which is sampled, it never does."""

    def passes(texts: list[float]) -> int:
        """Of the first text, while all are decoded in turns."""
        drafter = Simulated("a", lambda _: 0.8, step=0.1, lost=lambda row: row.noise is not None)
        world, pacing = World([drafter], cost=wide_is_cheap, seed=seed), Measured()
        world.run(pacing, 400)
        rows = [row_of(i, 1000, temperature) for i, temperature in enumerate(texts)]
        runs = [world.steps(pacing, [row]) for row in rows]
        made = 0
        while rows[0].remaining > 0:
            made += 1
            for run in runs:
                next(run, None)
        return made

    assert passes([0.0, 1.0]) < 1.15 * passes([0.0])


def test_a_plain_pass_after_another_sessions_draft_is_not_timed() -> None:
    """It finds the machine's caches full of other things, whoever drafted."""
    drafter = Simulated("a", lambda _: 0.8, step=0.1, lost=lambda row: row.noise is not None)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    world.run(pacing, 400)
    timed: list[int] = []
    pacing.known.times.observe = lambda rows, width, seconds: timed.append(width)  # type: ignore[method-assign]
    runs = [world.steps(pacing, [row_of(i, 500, temperature)]) for i, temperature in enumerate([0.0, 1.0])]
    after_drafts = 0
    for _ in range(60):
        calls = []
        for run in runs:
            timed.clear()
            calls.append(drafter.calls)
            next(run)
        if calls[1] > calls[0] and drafter.calls == calls[1]:  # the first drafted, and the second did not
            after_drafts += 1
            assert timed == []
    assert after_drafts > 20


# As fast as the best fixed length. ----------------------------------------------------------------

GOOD = {
    "good and cheap": lambda: Simulated("a", lambda _: OFTEN, step=0.05, start=1.0),
    "very good and dear": lambda: Simulated("a", lambda _: 0.9, step=0.3, start=1.0),
    "modest about it": lambda: Simulated("a", lambda _: OFTEN, lambda _: 0.5, step=0.05, start=1.0),
}


@pytest.mark.parametrize("cost", [wide_is_cheap, wide_is_dear])
@pytest.mark.parametrize("name", GOOD)
def test_good_drafters_are_used_as_well_as_with_the_best_fixed_length(name: str, cost: Any) -> None:
    def fixed(length: int) -> float:
        pacing = Fixed(Bounds(length, 1, length, branch=1))
        return median(World([GOOD[name]()], cost=cost, seed=seed).run(pacing, 2000) for seed in range(2))

    best = max(fixed(length) for length in (1, 2, 3, 4, 6, 8, 12, 16, 20))
    found = [speed for seed in range(8) for speed in speeds([GOOD[name]()], cost=cost, seed=seed)[1:]]
    assert best > 1.05
    # Where wide passes are dear, drafting gains little, and looking again costs a good part of that.
    assert median(found) > (0.9 if cost is wide_is_cheap else 0.8) * best


def test_of_several_drafters_the_one_that_pays_at_the_moment_drafts() -> None:
    """A free one that is right every other sixty-four tokens beside one that is right fairly often."""

    def by_phase(position: int) -> float:
        return 0.95 if (position // 64) % 2 else 0.05

    def copier() -> Simulated:
        return Simulated("copier", by_phase, step=0.0)

    def writer() -> Simulated:
        return Simulated("writer", lambda _: 0.7, step=0.08, start=1.0)

    alone = [median(speeds([one], cost=wide_is_cheap, tokens=512)[1:]) for one in (copier(), writer())]
    world, pacing = World([copier(), writer()], cost=wide_is_cheap), Measured()
    both = median([world.run(pacing, 512) for _ in range(5)][1:])
    assert both > 1.1 * max(alone)
    assert all(drafter.calls > 20 for drafter in world.drafters)


@pytest.mark.parametrize("behind", [0.0, 0.03])
def test_texts_that_begin_hard_and_become_easy(behind: float) -> None:
    """What is right from the sixty-fifth token on is found out, also by a drafter that has to catch up first."""

    def right(position: int) -> float:
        return 0.05 if position < 64 else 0.85

    def later(seed: int) -> list[float]:
        drafter = Simulated("a", right, step=0.15, start=1.0, behind=behind)
        return speeds([drafter], cost=wide_is_cheap, tokens=512, runs=4, seed=seed)[1:]

    assert median(speed for seed in range(4) for speed in later(seed)) > 1.4


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("better", ["strong", "copier"])
def test_a_better_drafter_is_found_beside_one_that_pays_whoever_is_named_first(better: str, rows: int) -> None:
    """Nobody would look for another one otherwise, as long as the first one pays."""
    made = {
        "weak": lambda: Simulated("weak", lambda _: 0.6, step=0.12),
        "strong": lambda: Simulated("strong", lambda _: 0.85, step=0.08),
        "copier": lambda: Simulated("copier", lambda _: 0.85, step=0.0),
    }

    def speed(*names: str) -> float:
        found: list[float] = []
        for seed in range(2):
            drafters = [made[name]() for name in names]
            found += speeds(drafters, cost=wide_is_cheap, tokens=512, rows=rows, runs=4, seed=seed)[1:]
        return median(found)

    alone = speed(better)
    assert alone > 1.4 * speed("weak")
    assert speed(better, "weak") > 0.88 * alone
    assert speed("weak", better) > 0.88 * alone


def test_a_mixture_is_as_fast_as_its_better_half() -> None:
    """A free one copies twenty tokens now and then; a costly one always brings some, and is slower than that."""

    def copies(position: int) -> float:
        return 0.98 if position % 30 > 4 else 0.02

    def copier() -> Simulated:
        return Simulated("copier", copies, step=0.0)

    def writer() -> Simulated:
        return Simulated("writer", lambda _: 0.7, step=0.3, start=1.0)

    for seed in range(2):
        alone = median(speeds([copier()], cost=wide_is_cheap, tokens=512, seed=seed)[1:])
        slower = median(speeds([writer()], cost=wide_is_cheap, tokens=512, seed=seed)[1:])
        both = median(speeds([copier(), writer()], cost=wide_is_cheap, tokens=512, seed=seed)[1:])
        assert alone > 1.3 * slower > 1.3
        assert both > 0.95 * alone


def test_a_costly_drafter_goes_on_after_a_step_that_a_free_one_served() -> None:
    """A few tokens are copied every now and then; in all other steps the costly one is asked."""

    def copies(position: int) -> float:
        return 0.98 if position % 16 < 4 else 0.02

    copier, writer = Simulated("copier", copies, step=0.0), Simulated("writer", lambda _: 0.8, step=0.08)
    world, pacing = World([copier, writer], cost=wide_is_cheap), Measured()
    for _ in range(3):
        world.run(pacing, 512)
    passes, calls = world.passes, writer.calls
    world.run(pacing, 512)
    assert writer.calls - calls > 0.6 * (world.passes - passes)


def test_a_drafter_as_costly_as_the_target_is_not_started_for_every_row() -> None:
    drafter = BAD["wrong and as costly as the target"]()
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    for _ in range(10):
        world.run(pacing, 64)
    assert len(world.known) <= 4


def test_a_good_drafter_beside_a_free_one_that_always_has_something() -> None:
    """It is tried on steps that a free draft serves, too, once it has waited for long."""
    alone: list[float] = []
    both: list[float] = []
    for seed in range(3):
        writer = Simulated("writer", lambda _: 0.85, step=0.1)
        alone += speeds([writer], cost=wide_is_cheap, tokens=512, seed=seed)[1:]
        copier, writer = Simulated("copier", lambda _: 0.6, step=0.0), Simulated("writer", lambda _: 0.85, step=0.1)
        both += speeds([copier, writer], cost=wide_is_cheap, tokens=512, seed=seed)[1:]
        assert writer.calls > 20
    assert median(both) > 0.95 * median(alone)


@pytest.mark.parametrize("start", [20.0, 50.0])
def test_a_drafter_whose_reading_takes_many_passes(start: float) -> None:
    """An assistant and a long prompt: read seldom, and never for nothing twice."""
    drafter = Simulated("a", lambda _: NEVER, lambda _: 0.9, step=0.1, start=start)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    runs = [world.run(pacing, 256) for _ in range(10)]
    plain = sum(256 / speed for speed in runs[1:])
    assert 256 * len(runs[1:]) / plain > 0.96


@pytest.mark.parametrize("right", [0.3, 0.9])
def test_batches_with_a_drafter_that_takes_its_time_for_every_row(right: float) -> None:
    """What a probe of some rows brings is weighed against the time of all."""
    later = [
        speed
        for seed in range(3)
        for speed in speeds(
            [Simulated("a", lambda _: right, step=0.15, by_row=True)], rows=8, cost=wide_is_cheap, seed=seed, runs=3
        )[1:]
    ]
    assert median(later) > 0.97


def test_a_first_request_that_ends_at_once_makes_nobody_free() -> None:
    """Asked for the last token only, a drafter has nothing to draft and takes no time."""
    drafter = Simulated("a", lambda _: 0.3, step=0.2)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    for _ in range(6):
        world.run(pacing, 5)
    assert median([world.run(pacing, 128) for _ in range(5)]) > 0.95


def test_without_time_for_finding_out_there_is_another_pacing() -> None:
    with pytest.raises(ValueError, match="use Fixed or Steady"):
        Measured(overhead=0.0)


# What a session meets. ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_another_number_of_rows(seed: int) -> None:
    """What was learned with one row must not mislead with eight, where only wide passes are dear."""

    def cost(rows: int, width: int) -> float:
        return max(1.0, rows * width / 8)

    world, pacing = World([Simulated("a", lambda _: OFTEN, step=0.05)], cost=cost, seed=seed), Measured()
    world.run(pacing, 256)
    world.run(pacing, 256)
    world.run(pacing, 128, rows=8)
    assert world.run(pacing, 128, rows=8) > 0.95


def test_a_slow_first_use_is_forgiven() -> None:
    """The first draft builds tables and takes two hundred times as long."""
    drafter = Simulated("a", lambda _: OFTEN, step=10.0)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()

    def propose(*arguments: Any) -> list[DraftTree]:
        trees = World.propose(world, *arguments)
        drafter.step = 0.05
        return trees

    world.propose = propose  # type: ignore[method-assign]
    assert median([world.run(pacing, 256) for _ in range(5)][1:]) > 1.8


def test_a_drafter_that_seldom_says_anything_and_takes_its_time() -> None:
    drafter = Simulated("a", lambda _: NEVER, fixed=5.0)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()

    def propose(which: int, rows: Any, bounds: Any) -> list[DraftTree]:
        World.propose(world, which, rows, bounds)
        return [DraftTree.EMPTY] * len(rows)

    world.propose = propose  # type: ignore[method-assign]
    assert median([world.run(pacing, 256) for _ in range(5)][1:]) > 0.96


def test_a_costly_drafter_beside_a_good_free_one_is_let_be() -> None:
    copier = Simulated("copier", lambda _: 0.9, step=0.0)
    silent = Simulated("silent", lambda _: NEVER, lambda _: 0.9, step=1.0)
    alone = World([copier], cost=wide_is_cheap)
    both, pacing = World([copier, silent], cost=wide_is_cheap), Measured()
    best = alone.run(Measured(), 1000)
    both.run(pacing, 1000)
    assert both.run(pacing, 1000) > 0.9 * best
