"""Pacing: what it decides, in a simulated world; and that nothing it decides changes a token, in the real one."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from statistics import median
from typing import Any

import pytest
import tiny
from drafters_for_tests import Adversarial, Noisy, Oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Simulated, World
from test_promise import SETTINGS, mixed, reference, universal
from tiny import RAGGED

import anydraft
from anydraft import Decoder, OptionConflict, models
from anydraft.crew import Crew
from anydraft.drafters import AssistantDrafter, LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.lm import LanguageModel
from anydraft.pacing import Draft, Fixed, Measured, Outcome, PacingReport, Steady
from anydraft.pacing.belief import Belief, Luck
from anydraft.pacing.ledger import Ledger
from anydraft.pacing.pruning import kept, worth
from anydraft.pacing.times import DraftTimes, PassTimes
from anydraft.row import Row
from anydraft.tree import Bounds, DraftTree

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
    """Later requests lose at most 2.5 % to looking again, the first one a bounded number of passes on top."""
    first, later = [], []
    for seed in range(4):
        ran = speeds([BAD[name]()], cost=cost, seed=seed)
        first.append(ran[0])
        later += ran[1:]
    assert median(later) > 0.975
    assert min(later) > 0.955
    assert median(first) > 0.92


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_batches_with_a_bad_drafter(rows: int) -> None:
    assert median(speeds([BAD["wrong and sure of it"]()], rows=rows, cost=wide_is_cheap)[1:]) > 0.97


def test_a_bad_drafter_is_asked_again_now_and_then() -> None:
    """It may have become good: what was wrong for a thousand tokens and then is right is found out."""
    drafter = Simulated("a", lambda _: NEVER, lambda _: 0.9, step=0.05)
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    world.run(pacing, 1000)
    drafter.right = lambda _: 0.95
    world.run(pacing, 600)
    assert world.run(pacing, 300) > 2


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
    found = [speed for seed in range(4) for speed in speeds([GOOD[name]()], cost=cost, seed=seed)[1:]]
    assert best > 1.05
    # Where wide passes are dear, drafting gains little, and looking again costs a good part of that.
    assert median(found) > (0.92 if cost is wide_is_cheap else 0.82) * best


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


def test_a_drafter_as_costly_as_the_target_is_not_started_for_every_row() -> None:
    drafter = BAD["wrong and as costly as the target"]()
    world, pacing = World([drafter], cost=wide_is_cheap), Measured()
    for _ in range(10):
        world.run(pacing, 64)
    assert len(world.known) <= 4


# The parts. ---------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.floats(0.0, 1.0), max_size=20), min_size=1, max_size=4),
    st.floats(0.1, 3.0),
    st.floats(0.0, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_the_best_width(chances: list[list[float]], rate: float, slope: float) -> None:
    """Against all widths that could be chosen, one by one."""

    def seconds(width: int) -> float:
        return 1 + slope * (width - 1)

    longest = 1 + max(map(len, chances))
    width, tokens = worth(chances, rate, seconds)

    def value(width: int) -> float:
        return sum(sum(sorted(row, reverse=True)[: width - 1]) for row in chances) - rate * seconds(width)

    assert 1 <= width <= longest
    assert tokens == pytest.approx(value(width) + rate * seconds(width))
    edges = [w for w in (1, 2, 3, 4, 6, 8, 12, 16, longest) if w <= longest]
    assert value(width) == pytest.approx(max(map(value, edges)))


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
    assert not belief.trusted
    assert belief.as_stated(0.25) > 0.7
    assert belief.as_stated(1.5) == 1.5


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
    ledger.tokens(450)
    assert ledger.allows(0.4)
    assert not ledger.allows(0.6)
    ledger.tokens(60)
    assert ledger.allows(50)


def test_reports_add_up() -> None:
    one = PacingReport(steps={"plain": 3, "lookup": 1}, probes=1, expected_speedup={"lookup": 2.0})
    two = PacingReport(steps={"lookup": 5}, expected_speedup={"lookup": 3.0}, expected_tokens={"lookup": 4.0})
    both = one + two
    assert both.steps == {"plain": 3, "lookup": 6}
    assert both.chosen == "lookup"
    assert str(both) == "lookup 67%, plain 33% (expected: lookup: 4.0 tokens a pass, 3.00x plain)"
    assert both.to_dict()["probes"] == 1


# The promise, whatever is decided. ------------------------------------------------------------------


class Restless:
    """Decides at random: who drafts, how much, what is left of it, or nobody; row by row and step by step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        drafts = [Draft(DraftTree.EMPTY) for _ in rows]
        for which in crew.working:
            places = [i for i in range(len(rows)) if self.rng.random() < 0.5]
            rng = self.rng
            bounds = [Bounds(rng.randint(0, 6), rng.randint(1, 4), rng.randint(0, 14)) for _ in places]
            trees = crew.propose(which, [rows[i] for i in places], bounds)
            for i, tree in zip(places, trees, strict=True):
                size = self.rng.randint(0, len(tree))
                drafts[i] = Draft(tree.keep(range(size)), which)
        return drafts

    def observe(self, outcome: Outcome) -> None:
        for draft, accepted in zip(outcome.drafts, outcome.accepted, strict=True):
            assert all(0 <= node < len(draft.tree) for node in accepted)

    def report(self, row: Row) -> PacingReport | None:
        return None


def crowd(arch: str, truth: dict[int, list[int]]) -> list[Drafter]:
    """Drafters of every kind."""
    same = AssistantDrafter(
        LanguageModel(tiny.relative(arch)), vocab_size=tiny.VOCAB, eos_token_ids=frozenset({tiny.EOS})
    )
    return [
        LookupDrafter(min_ngram=1),
        same,
        universal(),
        Adversarial(tiny.VOCAB, truth),
        Noisy(tiny.VOCAB, truth),
        Oracle(tiny.VOCAB, truth, decoys=2),
    ]


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3", "mistral"])
@pytest.mark.parametrize("pacing", ["restless", "measured"])
def test_tokens_are_those_of_plain_decoding(arch: str, pacing: str) -> None:
    names = [(setting, i) for setting in SETTINGS for i in range(len(RAGGED))]
    truth = {place: reference(arch, setting)[i] for place, (setting, i) in enumerate(names)}
    how = Restless(seed=len(arch)) if pacing == "restless" else Measured()
    decoder = Decoder(tiny.target(arch), crowd(arch, truth), pacing=how)
    for _ in range(2):  # what was learned of the first batch decides in the second
        for (setting, i), result in mixed(decoder).items():
            assert result.tokens == reference(arch, setting)[i], (setting, i)


def test_who_drafted_is_said() -> None:
    plain = tiny.decoder("llama").generate([5, 6, 7], max_new_tokens=40, ignore_eos=True)
    assert isinstance(plain, anydraft.Generation)
    oracle = Oracle(tiny.VOCAB, {0: plain.tokens})
    decoder = Decoder(tiny.target("llama"), [Adversarial(tiny.VOCAB, {0: plain.tokens}), oracle])
    result = decoder.generate([5, 6, 7], max_new_tokens=40, ignore_eos=True)
    assert isinstance(result, anydraft.Generation)
    assert result.tokens == plain.tokens
    assert result.proposers.count("oracle") > 10
    report = result.stats.pacing
    assert report is not None
    assert report.steps["oracle"] >= 1
    assert sum(report.steps.values()) == result.stats.num_passes
    assert result.stats.to_dict()["pacing"]["chosen"] in {"oracle", "plain", "adversarial"}


def test_several_drafters_by_name() -> None:
    target = str(models.path("target"))
    decoder = anydraft.load(target, ["lookup", str(models.path("redrafter")), str(models.path("assistant"))])
    assert [drafter.name for drafter in decoder.drafters] == ["lookup", "redrafter", "universal"]
    for bad, message in (
        ({"drafter": []}, "a list of drafters holds"),
        ({"drafter": ["lookup", None]}, "a list of drafters holds"),
        ({"drafter": ["lookup", "lookup"], "draft_tokens": 3}, "a fixed draft length is for one drafter"),
        ({"drafter": ["lookup", "lookup"], "pacing": Steady()}, "a fixed draft length is for one drafter"),
        ({"drafter": ["lookup"], "assistant": target}, "takes no assistant= beside it"),
    ):
        with pytest.raises(OptionConflict, match=message):
            anydraft.load(target, **bad)
