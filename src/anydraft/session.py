"""Session: one batch being decoded. Prefill, then draft -> verify -> commit until every row is done.

Plain decoding is this loop with empty drafts; there is no other one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from anydraft.choice import Choices, ScoreLog, greedy_choices
from anydraft.crew import Crew
from anydraft.drafters.protocol import Drafter
from anydraft.lm import Nodes, Pass
from anydraft.noise import mix64
from anydraft.pacing.protocol import NO_DRAFT, Draft, Outcome, Pacing
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree
from anydraft.verify import Verdict, Verification, reject, walk


@dataclass(frozen=True)
class RowStep:
    """What one pass did for one row: committed tokens with their proposers, the draft and what was kept of it."""

    row: Row
    tokens: list[int]
    proposers: list[str]
    draft: DraftTree
    accepted: list[int]


class Session:
    """Decodes rows together; iterate `step()` while `active`.

    Args:
        target: the model that decides.
        drafter: one, or several of which the pacing chooses; None decodes plainly.
        pacing: who drafts, and how much.
        rows: sequences that have not been started.
        verification: "exact" (drafter-invariant) or "rejection" (distribution-exact).
        logs: per row, where to keep logits and scores of committed tokens.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | Sequence[Drafter] | None,
        pacing: Pacing,
        rows: Sequence[Row],
        *,
        verification: Verification = "exact",
        logs: Sequence[ScoreLog] | None = None,
    ) -> None:
        self.target = target
        self.crew = Crew(target, listed(drafter), verification)
        self.crew.rows = list(rows)
        self.pacing = pacing
        self.active = list(rows)
        self.verification = verification
        self._logs = dict(zip(rows, logs, strict=True)) if logs is not None else {}
        self._draws: dict[Row, int] = {}
        slots = max(len(row.prompt) + row.params.max_new_tokens for row in rows) + 64
        self.cache = target.new_cache(len(rows), min(slots, 4096))
        self.cache.fixed_span = slots
        # With fixed shapes the batch keeps its rows, so that results do not depend on when a neighbour finishes.
        self._cached = list(rows)
        started = time.perf_counter()
        states = target.prefill_rows(self.cache, [row.prompt[:-1] for row in rows], hidden=self.crew.reads)
        for row, hidden in zip(rows, states, strict=bool(states)):
            self.crew.hearing.keep(row, hidden)
        self._spread("seconds_prefill", time.perf_counter() - started)
        self._spread("seconds_total", time.perf_counter() - started)

    def step(self) -> list[RowStep]:
        """One draft and one pass over all active rows."""
        rows = self.active
        started = time.perf_counter()
        reading, converting = self.crew.seconds_start, self.crew.seconds_convert
        drafts = self.pacing.draft(rows, self.crew) if self.crew.drafters else [NO_DRAFT] * len(rows)
        reading = self.crew.seconds_start - reading
        drafted = time.perf_counter()
        trees = [draft.tree for draft in drafts]
        logits, hidden = self._score(rows, trees)
        greedy = None
        if self.verification == "exact" and any(not r.processors.sample and r.processors.trivial for r in rows):
            greedy = greedy_choices(logits)
        elif logits.device.type == "cuda":
            torch.cuda.synchronize(logits.device)  # so that the times of drafting and verifying mean something
        verified = time.perf_counter()
        steps = [self._commit(row, draft, logits, greedy) for row, draft in zip(rows, drafts, strict=True)]
        accepted = [step.accepted for step in steps]
        if hidden is not None:
            self.crew.hearing.keep_pass(rows, hidden, accepted)
        ended = time.perf_counter()
        positions = [row.position for row in rows]
        self.pacing.observe(Outcome(rows, drafts, accepted, drafted - started - reading, ended - drafted, positions))
        self._spread("seconds_draft", drafted - started)
        self._spread("seconds_convert", self.crew.seconds_convert - converting)
        self._spread("seconds_verify", verified - drafted)
        self._spread("seconds_choose", ended - verified)
        self._spread("seconds_total", time.perf_counter() - started)
        self._leave([row for row in rows if row.finish_reason is not None])
        return steps

    def close(self) -> None:
        """Abort what is unfinished and let the drafters forget it; safe to call twice."""
        for row in self.active:
            row.finish_reason = row.finish_reason or "aborted"
        self._leave(list(self.active))

    def _score(self, rows: list[Row], trees: list[DraftTree]) -> Pass:
        """Logits, and hidden states where the drafter reads them, of the roots and nodes of all active rows."""
        by_row = dict(zip(rows, trees, strict=True))
        nodes: list[Nodes] = []
        for row in self._cached:
            tree = by_row.get(row)
            if tree is None:
                nodes.append(([], []))
            else:
                nodes.append(([row.root, *tree.tokens], [-1, *(parent + 1 for parent in tree.parents)]))
        scored = self.target.score(self.cache, nodes, hidden=self.crew.reads is not None)
        if len(rows) == len(self._cached):
            return scored
        chosen = [self._cached.index(row) for row in rows]
        return Pass(scored.logits[chosen], None if scored.hidden is None else scored.hidden[chosen])

    def _commit(
        self, row: Row, draft: Draft, logits: torch.Tensor, greedy: list[list[int]] | None
    ) -> RowStep:
        tree = draft.tree
        i = self.active.index(row)
        use_greedy = greedy is not None and not row.processors.sample and row.processors.trivial
        choices = Choices(row, tree, logits[i], greedy[i] if use_greedy and greedy is not None else None)
        verdict = self._verdict(row, tree, choices)
        position = row.position
        name = "target" if draft.drafter is None else self.crew.names[draft.drafter]
        kept: list[int] = []
        for node in verdict.accepted:
            self._log(row, choices, kept[-1] if kept else -1)
            kept.append(node)
            if row.append(tree.tokens[node], name):
                cached = kept[:-1]  # the last committed token is the root, whose keys are not cached
                break
        else:
            self._log(row, choices, kept[-1] if kept else -1)
            row.append(verdict.next_token, "target")
            cached = kept
        self.cache.commit(self._cached.index(row), [0, *(node + 1 for node in cached)])
        row.stats.record(len(row.tokens) - position, len(tree), tree.depth, len(kept))
        return RowStep(row, row.tokens[position:], row.proposers[position:], tree, kept)

    def _verdict(self, row: Row, tree: DraftTree, choices: Choices) -> Verdict:
        if self.verification == "exact" or not row.processors.sample:
            return walk(choices, tree)
        return reject(choices.probabilities, tree, tree.probs or {}, lambda: self._uniform(row))

    def _uniform(self, row: Row) -> float:
        count = self._draws.get(row, 0)
        self._draws[row] = count + 1
        seed = row.noise.seed if row.noise is not None else 0
        return (mix64(seed, count, 0x7E1EC7) >> 11) * 2.0**-53

    def _log(self, row: Row, choices: Choices, node: int) -> None:
        log = self._logs.get(row)
        if log is not None:
            log.logits.append(choices.logits[node + 1].to(torch.float32, copy=True))
            log.scores.append(choices.scores(node))

    def _spread(self, name: str, seconds: float) -> None:
        for row in self.active:
            setattr(row.stats, name, getattr(row.stats, name) + seconds / len(self.active))

    def _leave(self, rows: list[Row]) -> None:
        if not rows:
            return
        for row in rows:
            row.stats.pacing = self.pacing.report(row) if self.crew.drafters else None
        self.crew.leave(rows)
        self.active = [row for row in self.active if row not in rows]
        if self.active and self.target.fixed_width is None:
            self.cache.keep_rows([self._cached.index(row) for row in self.active])
            self._cached = list(self.active)


def listed(drafter: Drafter | Sequence[Drafter] | None) -> list[Drafter]:
    """One drafter, several or none, as a list."""
    if drafter is None:
        return []
    return list(drafter) if isinstance(drafter, list | tuple) else [drafter]  # type: ignore[list-item]
