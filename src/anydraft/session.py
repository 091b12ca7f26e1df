"""Session: one batch being decoded. Prefill, then draft -> verify -> commit until every row is done.

Plain decoding is this loop with empty drafts; there is no other one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from anydraft.choice import Choices, ScoreLog, greedy_choices
from anydraft.drafters.protocol import Drafter, ReadsHidden
from anydraft.errors import DraftError
from anydraft.lm import Nodes, Pass
from anydraft.noise import mix64
from anydraft.pacing import Pacing
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
        drafter: None decodes plainly.
        pacing: bounds of each draft.
        rows: sequences that have not been started.
        verification: "exact" (drafter-invariant) or "rejection" (distribution-exact).
        logs: per row, where to keep logits and scores of committed tokens.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None,
        pacing: Pacing,
        rows: Sequence[Row],
        *,
        verification: Verification = "exact",
        logs: Sequence[ScoreLog] | None = None,
    ) -> None:
        self.target = target
        self.drafter = drafter
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
        self._reader = drafter if isinstance(drafter, ReadsHidden) else None
        started = time.perf_counter()
        prompts = [row.prompt[:-1] for row in rows]
        read = None if self._reader is None else self._reader.hidden
        states = target.prefill_rows(self.cache, prompts, hidden=read)
        prefilled = time.perf_counter()
        if drafter is not None:
            try:
                drafter.start(rows)
                for row, hidden in zip(rows, states, strict=bool(states)):
                    self._hand_over(row, hidden)
            except BaseException:
                drafter.stop(rows)
                raise
        self._spread("seconds_prefill", prefilled - started)
        self._spread("seconds_draft", time.perf_counter() - prefilled)
        self._spread("seconds_total", time.perf_counter() - started)

    def step(self) -> list[RowStep]:
        """One draft and one pass over all active rows."""
        rows = self.active
        started = time.perf_counter()
        trees = self._draft(rows)
        drafted = time.perf_counter()
        logits, hidden = self._score(rows, trees)
        greedy = None
        if self.verification == "exact" and any(not r.processors.sample and r.processors.trivial for r in rows):
            greedy = greedy_choices(logits)
        elif logits.device.type == "cuda":
            torch.cuda.synchronize(logits.device)  # so that the times of drafting and verifying mean something
        verified = time.perf_counter()
        steps = [self._commit(row, tree, logits, greedy) for row, tree in zip(rows, trees, strict=True)]
        if hidden is not None:
            for i, step in enumerate(steps):
                if step.row.finish_reason is None:
                    self._hand_over(step.row, hidden[i, [0, *(node + 1 for node in step.accepted)]])
        self.pacing.observe(
            rows, trees, [len(s.accepted) for s in steps], drafted - started, verified - drafted
        )
        self._spread("seconds_draft", drafted - started)
        self._spread("seconds_verify", verified - drafted)
        self._spread("seconds_total", time.perf_counter() - started)
        self._leave([row for row in rows if row.finish_reason is not None])
        return steps

    def close(self) -> None:
        """Abort what is unfinished and let the drafter forget it; safe to call twice."""
        for row in self.active:
            row.finish_reason = row.finish_reason or "aborted"
        self._leave(list(self.active))

    def _draft(self, rows: list[Row]) -> list[DraftTree]:
        if self.drafter is None:
            return [DraftTree.EMPTY] * len(rows)
        limit = (self.target.fixed_width or 1 << 30) - 1
        bounds = []
        for row, bound in zip(rows, self.pacing.plan(rows), strict=True):
            chain_only = self.target.structure == "chain" or self.target.fixed_width is not None
            bounds.append(bound.within(row.remaining - 1, limit, chain_only))
        trees = self.drafter.propose(rows, bounds)
        if len(trees) != len(rows):
            raise DraftError(f"drafter {self.drafter.name!r} returned {len(trees)} drafts for {len(rows)} rows")
        return [self._checked(row, tree, limit) for row, tree in zip(rows, trees, strict=True)]

    def _checked(self, row: Row, tree: DraftTree, limit: int) -> DraftTree:
        name = self.drafter.name if self.drafter is not None else ""
        if not isinstance(tree, DraftTree):
            raise DraftError(f"drafter {name!r} returned {type(tree).__name__} instead of a DraftTree")
        if any(not 0 <= token < self.target.vocab_size for token in tree.tokens):
            raise DraftError(
                f"drafter {name!r} proposed token ids outside the target's vocabulary of {self.target.vocab_size}"
            )
        if self.verification == "rejection" and row.processors.sample and not {*tree.parents} <= {*(tree.probs or {})}:
            raise DraftError(
                f"drafter {name!r} gave no probabilities of its proposals to reject with; use verification='exact'"
            )
        tree = tree.cut(row.remaining - 1)
        if self.target.structure == "chain" or self.target.fixed_width is not None:
            if not tree.is_chain:
                raise DraftError(f"drafter {name!r} proposed a tree where only chains can be verified")
            tree = tree.cut(limit)
        return tree

    def _hand_over(self, row: Row, hidden: torch.Tensor) -> None:
        """Give the drafter the hidden states (n, H) of tokens that came into the row's cache."""
        if self._reader is not None and len(hidden):
            self._reader.read(row, hidden if self._reader.hidden == "all" else hidden[-1:])

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
        scored = self.target.score(self.cache, nodes, hidden=self._reader is not None)
        if len(rows) == len(self._cached):
            return scored
        chosen = [self._cached.index(row) for row in rows]
        return Pass(scored.logits[chosen], None if scored.hidden is None else scored.hidden[chosen])

    def _commit(
        self, row: Row, tree: DraftTree, logits: torch.Tensor, greedy: list[list[int]] | None
    ) -> RowStep:
        i = self.active.index(row)
        use_greedy = greedy is not None and not row.processors.sample and row.processors.trivial
        choices = Choices(row, tree, logits[i], greedy[i] if use_greedy and greedy is not None else None)
        verdict = self._verdict(row, tree, choices)
        position = row.position
        name = self.drafter.name if self.drafter is not None else "target"
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
        if self.drafter is not None:
            self.drafter.stop(rows)
        self.active = [row for row in self.active if row not in rows]
        if self.active and self.target.fixed_width is None:
            self.cache.keep_rows([self._cached.index(row) for row in self.active])
            self._cached = list(self.active)

