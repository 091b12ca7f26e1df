"""Lessons: what is learned from one step, once its drafts have been verified."""

from __future__ import annotations

from collections.abc import Sequence

from anydraft.pacing.asking import MOST_LOST, Asked, Asking
from anydraft.pacing.knowledge import TRIAL_LOSS, Knowledge
from anydraft.pacing.protocol import Draft, Outcome
from anydraft.row import Row

FIRST_CALLS = 3
"""Calls of a drafter that count a plain pass at most: they build tables and kernels."""


def learn_plain(known: Knowledge, row: Row, steps: int) -> None:
    """Nobody was asked about a row, and those beside it, in so many steps."""
    known.safety.passed(steps)
    known.exploring.passed(steps)
    known.doubting.passed(steps)
    serving = known.serving(row)
    for _ in range(steps):
        serving.add(0.0, 0.0, 1.0)


def learn(known: Knowledge, step: Asking, outcome: Outcome) -> None:
    """Count what the step lost or gained, and learn what each drafter's draft was worth."""
    count = len(outcome.rows)
    plain = known.seconds(count, 1)
    passed = known.seconds(count, outcome.width) / plain
    tokens = sum(1 + len(accepted) for accepted in outcome.accepted) / count
    drafting = sum(_seconds(known, asked, count) for asked in step.asked) + step.costly * known.deciding.value
    taken = drafting / plain + passed
    if step.probing and not _on_trial(known, step):
        step.ledger.lost(min(max(0.0, taken - tokens / step.speed), MOST_LOST))
    known.safety.lost(taken - tokens)
    known.safety.passed(taken)
    known.exploring.passed(taken)
    known.doubting.passed(taken)
    _learn_free(known, step, outcome, passed)
    names = {asked.which: asked.name for asked in step.asked}
    for row, draft, accepted in zip(outcome.rows, outcome.drafts, outcome.accepted, strict=True):
        name = "plain" if draft.drafter is None else names[draft.drafter]
        state = known.state(row)
        state.rows = count
        state.report.count(name, len(draft.tree), probe=step.probing and draft.drafter is not None)
        for asked in step.asked:
            if row in asked.rows and (asked.name == name or asked.costly):
                _learn_draft(known, asked, row, draft, accepted, taken, step.speed)


def _seconds(known: Knowledge, asked: Asked, rows: int) -> float:
    """Seconds of a call: as they are modelled, which strays less, where anything was drafted."""
    drafter, modelled = known.drafters[asked.name], None
    if asked.costly and asked.levels:
        modelled = drafter.times.seconds(asked.levels, len(asked.rows))
    most = MOST_LOST if drafter.calls > FIRST_CALLS else 1.0
    return min(modelled or asked.seconds, most * known.seconds(rows, 1))


def _learn_free(known: Knowledge, step: Asking, outcome: Outcome, passed: float) -> None:
    """What free drafters had, and whether asking them is of use: tokens gained less what their time was worth."""
    count, plain = len(outcome.rows), known.seconds(len(outcome.rows), 1)
    free = [asked for asked in step.asked if not asked.costly]
    served = tokens = 0
    for asked in free:
        pairs = zip(outcome.drafts, outcome.accepted, strict=True)
        mine = [len(accepted) for draft, accepted in pairs if draft.drafter == asked.which]
        served, tokens = served + len(mine), tokens + sum(mine)
        gained = sum(mine) / count - (passed - 1) if mine else 0.0
        drafter = known.drafters[asked.name]
        use = drafter.record(outcome.rows[0]).use
        use.add(gained - min(asked.seconds / plain, 1.0))
        drafter.offered(wanted=bool(mine), useful=use.value > 0)
    known.serving(outcome.rows[0]).add(served / count, tokens / count, passed)


def _learn_draft(
    known: Knowledge, asked: Asked, row: Row, draft: Draft, accepted: Sequence[int], taken: float, speed: float
) -> None:
    """What a draft brought one row, in a step of so many plain passes, each of which is worth `speed` tokens of it."""
    drafter, form = known.drafters[asked.name], known.form(row, asked.name)
    record, tokens = drafter.record(row), len(accepted)
    mine = draft.drafter == asked.which
    verified = mine or draft.drafter is None  # else another one's draft was
    on_trial = known.on_trial(record)
    record.drafts += 1
    if on_trial:
        lost = max(0.0, taken * speed - 1 - (tokens if verified else 0)) / len(asked.rows)
        record.trial_loss += min(lost, TRIAL_LOSS / 2)
    paid = verified and 1 + tokens > taken * speed
    form.probed(row.position, paid=paid, on_trial=on_trial, warm=asked.warm)
    if not verified:
        return
    record.gains.lost((taken - (1 + tokens) / known.serving(row).speed) / len(asked.rows))
    # A draft that was right to the end of what was allowed would have gone on being right.
    ended = not mine or tokens < draft.tree.depth or asked.levels < asked.bound
    for runs in (form.runs, record.runs):
        runs.add(tokens, asked.levels, len(draft.tree), ended=ended)
    if mine:
        drafted = asked.trees[asked.rows.index(row)]
        record.belief.observe(draft.tree, accepted, form.luck)
        record.reach.observe(draft.tree, drafted.depth, tokens)


def _on_trial(known: Knowledge, step: Asking) -> bool:
    """Whether a costly drafter of this step is on trial: what that may lose is bounded by itself."""
    costly = [asked for asked in step.asked if asked.costly]
    return any(known.on_trial(known.drafters[asked.name].record(row)) for asked in costly for row in asked.rows)
