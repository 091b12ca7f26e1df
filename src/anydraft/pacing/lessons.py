"""Lessons: what is learned from one step, once its drafts have been verified."""

from __future__ import annotations

from collections.abc import Sequence

from anydraft.pacing.asking import Asked, Asking
from anydraft.pacing.knowledge import Knowledge, State
from anydraft.pacing.protocol import Outcome
from anydraft.pacing.reach import Path
from anydraft.pacing.serving import Serving
from anydraft.row import Row
from anydraft.tree import DraftTree
from anydraft.verify import walk

FIRST_CALLS = 3
"""Calls of a drafter that count a plain pass at most: they build tables and kernels."""

_NO_TOKEN = -1
"""In place of what was committed after the last token that is known."""

HINDSIGHT = 2
"""Rows of a batch whose drafts are judged in hindsight: with more, looking would cost more than it tells."""


def learn_plain(known: Knowledge, rows: Sequence[Row], steps: int) -> None:
    """Nobody was asked about the rows in so many steps, whose time has been counted."""
    known.safety.passed(steps)
    known.exploring.passed(steps)
    known.doubting.passed(steps)
    serving = known.serving(rows[0])
    for _ in range(steps):
        serving.add(0.0, 0.0, 1.0, 1.0)
    for row in rows:
        state = known.state(row)
        state.report.count("plain", steps=steps)
        for _ in range(steps):
            _pass_by(serving, state, 1, served=False)


def learn_nothing(known: Knowledge, step: Asking, outcome: Outcome) -> None:
    """What `learn` would learn where free drafters were asked and had nothing, which is most often, in less time."""
    count, plain = len(outcome.rows), known.seconds(len(outcome.rows), 1)
    drafting = sum(_seconds(known, asked, count) for asked in step.asked) / plain
    _count(known, 1 + drafting, 1.0)
    seconds = outcome.seconds_draft / len(step.asked) + known.learning.value
    for asked in step.asked:
        _judge(known, asked, outcome.rows[0], 0.0, min(seconds / plain, 1.0), wanted=False, right=False)
    serving = known.serving(outcome.rows[0])
    serving.add(0.0, 0.0, 1.0, 1.0)
    for row in outcome.rows:
        state = known.state(row)
        _pass_by(serving, state, 1, served=False)
        state.rows = count
        state.report.count("plain")


def learn(known: Knowledge, step: Asking, outcome: Outcome) -> None:
    """Count what the step lost or gained, and learn what each drafter's draft was worth."""
    count = len(outcome.rows)
    plain = known.seconds(count, 1)
    passed = known.seconds(count, outcome.width) / plain
    tokens = 1 + step.gained([len(accepted) for accepted in outcome.accepted])
    drafting = sum(_seconds(known, asked, count) for asked in step.asked) + step.costly * known.deciding.value
    taken = drafting / plain + passed
    free, serving = {asked.which for asked in step.asked if not asked.costly}, known.serving(outcome.rows[0])
    served = [had and draft.drafter in free for had, draft in zip(step.served, outcome.drafts, strict=True)]
    worth = without = 0.0
    if step.costly:  # in plain passes
        right = [len(accepted) for accepted in outcome.accepted]
        worth = step.committed(right, served, serving.copied * step.speed) / step.speed
        without = step.committed(right, served, serving.copied * serving.speed, serving.gap()) / serving.speed
        if step.probing and not _on_trial(known, step):
            step.ledger.lost(taken - worth)
    _count(known, taken, tokens)
    _learn_gaps(known, step, outcome, served, passed)
    _learn_free(known, step, outcome, passed)
    names = {asked.which: asked.name for asked in step.asked}
    for place, (row, draft) in enumerate(zip(outcome.rows, outcome.drafts, strict=True)):
        name = "plain" if draft.drafter is None else names[draft.drafter]
        state = known.state(row)
        state.rows = count
        probed = step.probing and any(asked.costly and row in asked.rows for asked in step.asked)
        state.report.count(name, len(draft.tree), probe=probed)
        for asked in step.asked:
            if row in asked.rows and (asked.name == name or asked.costly):
                _learn_draft(known, asked, outcome, place)
    for asked in step.asked:
        if asked.costly:
            _account(known, asked, step, outcome, worth, without, taken)


def _count(known: Knowledge, taken: float, tokens: float) -> None:
    """A step took so many plain passes and brought so many tokens a row."""
    known.now += taken
    known.safety.lost(taken - tokens)
    known.safety.passed(taken)
    known.exploring.passed(taken)
    known.doubting.passed(taken)


def _seconds(known: Knowledge, asked: Asked, rows: int) -> float:
    """Seconds of a call: as they are modelled, which strays less, where anything was drafted."""
    drafter, modelled = known.drafters[asked.name], None
    if asked.costly and asked.levels:
        modelled = drafter.times.seconds(asked.levels, len(asked.rows))
    seconds = modelled or asked.seconds
    return seconds if drafter.calls > FIRST_CALLS else min(seconds, known.seconds(rows, 1))


def _learn_free(known: Knowledge, step: Asking, outcome: Outcome, passed: float) -> None:
    """What free drafters had, and whether asking them is of use: tokens gained less what their time was worth.

    A draft that was not verified is held against the tokens that were committed all the same.
    """
    free = [asked for asked in step.asked if not asked.costly]
    count, plain = len(outcome.rows), known.seconds(len(outcome.rows), 1)
    nodes = sum(len(draft.tree) for draft in outcome.drafts)
    for asked in free:
        mine = [0] * count
        verified = drafts = 0
        seen, right, trees = 0, 0, dict(zip(asked.rows, asked.trees, strict=True))
        for i, (row, draft, accepted) in enumerate(zip(outcome.rows, outcome.drafts, outcome.accepted, strict=True)):
            tree = trees.get(row, DraftTree.EMPTY)
            if draft.drafter == asked.which:
                mine[i] = len(accepted)
                drafts += 1
                verified += len(draft.tree)
            elif len(tree) and row.finish_reason is None and seen < HINDSIGHT:
                seen += 1
                committed = row.tokens[outcome.positions[i] - 1 - len(accepted) : outcome.positions[i]]
                right += _in_hindsight(known, asked, row, tree, committed)
        gained = step.spared * step.gained(mine)
        gained -= (passed - 1) * verified / max(1, nodes)
        # Where nobody else was asked, all that was done between the passes was done for free drafters.
        seconds = asked.seconds if step.costly else outcome.seconds_draft / len(free) + known.learning.value
        cost = min(seconds / plain, 1.0)
        _judge(known, asked, outcome.rows[0], gained, cost, wanted=drafts > 0, right=2 * right > seen)


def _learn_gaps(known: Knowledge, step: Asking, outcome: Outcome, served: Sequence[bool], passed: float) -> None:
    """What free drafters had, and where gaps ended.

    Args:
        served: rows with free drafts; passed: time of the pass, in plain ones.
    """
    serving, count = known.serving(outcome.rows[0]), len(outcome.rows)
    gap, within = serving.gap(), 0.0
    for row, accepted, free in zip(outcome.rows, outcome.accepted, served, strict=True):
        _pass_by(serving, known.state(row), 1 + len(accepted), served=free)
        within += 0.0 if free else gap.within(1 + len(accepted))
    copied = [free * len(accepted) for free, accepted in zip(served, outcome.accepted, strict=True)]
    serving.add(sum(served) / count, step.spared * step.gained(copied), passed, within / count)


def _pass_by(serving: Serving, state: State, tokens: int, *, served: bool) -> None:
    """A row has so many tokens more, and had a free draft or was in a gap."""
    if state.in_gap:
        serving.went(state.in_gap, ended=served)
    state.in_gap = 0 if served else tokens


def _judge(known: Knowledge, asked: Asked, row: Row, gained: float, cost: float, *, wanted: bool, right: bool) -> None:
    """Whether a free drafter rests now.

    Args:
        gained: tokens that its drafts were worth, less their time in the pass; cost: plain passes that asking took.
        wanted: some of its nodes were verified; right: some would have been kept that were not.
    """
    drafter = known.drafters[asked.name]
    use = drafter.record(row).use
    use.add(gained - cost)
    drafter.offered(known.now, cost, wanted=wanted, right=right, useful=use.value > 0)


def _in_hindsight(known: Knowledge, asked: Asked, row: Row, tree: DraftTree, committed: Sequence[int]) -> bool:
    """Hold a draft against tokens that were committed; whether any of it was right."""
    tokens = iter(committed)
    right = walk(lambda node: next(tokens, _NO_TOKEN), tree).accepted
    known.drafters[asked.name].record(row).belief.observe(tree, right, depth=len(committed))
    return bool(right)


def _account(
    known: Knowledge, asked: Asked, step: Asking, outcome: Outcome, worth: float, without: float, taken: float
) -> None:
    """Who drafted is charged with what the whole step lost, and when it is due again depends on whether the step paid.

    Args:
        worth: plain passes that the tokens of the step are worth; without: those that they would take without costly
            drafters; taken: those that the step took.
    """
    record, gained = known.drafters[asked.name].record(asked.rows[0]), worth - taken
    on_trial, lost = known.on_trial(record), max(0.0, -gained)
    if on_trial:
        record.trial_loss += lost
    record.drafts += 1
    record.profit.add(gained)
    if step.ledger is not record.gains:  # else it is there already
        record.gains.lost(taken - without)
    paid = gained > 0
    for row, position in zip(outcome.rows, outcome.positions, strict=True):
        if row in asked.rows:
            known.form(row, asked.name).probed(position, lost, paid=paid, on_trial=on_trial, again=asked.again)


def _learn_draft(known: Knowledge, asked: Asked, outcome: Outcome, at: int) -> None:
    """What a draft brought the row at a place."""
    row, draft, accepted, position = outcome.rows[at], outcome.drafts[at], outcome.accepted[at], outcome.positions[at]
    mine = draft.drafter == asked.which
    if not mine and draft.drafter is not None:
        return  # another one's draft was verified
    drafter, form, place = known.drafters[asked.name], known.form(row, asked.name), asked.rows.index(row)
    record, tokens, drafted = drafter.record(row), len(accepted), asked.trees[place]
    if not asked.costly:
        record.drafts += 1
    # A draft that was right to the end of what was allowed would have gone on being right.
    levels = drafted.levels or drafted.depth
    ended = not mine or tokens < min(draft.tree.depth, len(drafted.masses) or levels) or levels < asked.allowed[place]
    record.texts += not form.drafted
    form.drafted, form.position = True, position
    record.foretold(form.runs, tokens, ended=ended)
    for runs in (form.runs, record.runs):
        runs.add(tokens, asked.levels, len(draft.tree), ended=ended)
    stopped = row.finish_reason == "stop" and position == row.position
    if mine and not stopped:  # of a draft in which the row stopped only a part was looked at
        record.belief.observe(draft.tree, accepted, form.frailty_nodes)
        path = Path.of(draft.tree, drafted.depth, tokens, row.params.max_new_tokens - position + tokens)
        hazards = record.reach.hazards().along(path)
        record.reach.foretold(path, hazards, form.frailty.factor())
        form.frailty.observe(hazards.together, ended=path.ended)
        record.reach.observe(path, hazards)
        record.sides.observe(draft.tree, accepted)


def _on_trial(known: Knowledge, step: Asking) -> bool:
    """Whether a costly drafter of this step is on trial: what that may lose is bounded by itself."""
    costly = [asked for asked in step.asked if asked.costly]
    return any(known.on_trial(known.drafters[asked.name].record(row)) for asked in costly for row in asked.rows)
