"""Contenders that draft for one and the same target, with all that their drafts tell: nodes, levels, paths.

How much is drafted is set by the number of nodes that a pass verifies, the root included: a contender of 8 nodes drafts
7. Given a number, the tree is filled with the best that was found, however unlikely; `None` is the library's own
pacing. When drafting ends (`Steady`, which learns what a level costs) is the same for all.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from anydraft.bench.measure import Run, Task
from anydraft.bench.passes import PassTimer
from anydraft.bench.weights import Weights
from anydraft.crew import Crew
from anydraft.decoder import Decoder
from anydraft.pacing import Draft, Outcome, Pacing, PacingReport, Steady
from anydraft.row import Row
from anydraft.tree import DraftTree

PLAIN = "anydraft"


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedRun(Run):
    """A run with its drafts.

    Attributes:
        nodes: verified by each pass, root included.
        unmerged: drafted nodes that each pass would have verified had every path of its tree been a beam of its own.
        reached, accepted_at: by depth, drafts that got there and tokens accepted there.
        levels: drafted; a head of Medusa is one.
        bytes_per_level: weights read for one.
        parameters: the drafter's own.
        seconds_start: of the drafter's preparation before its first draft (a part of `seconds_draft`).
        own_passes: seconds of the target's own pass by nodes, timed just before this run.
    """

    nodes: list[int] = field(default_factory=list)
    unmerged: list[int] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    levels: int = 0
    bytes_per_level: float = 0.0
    parameters: int = 0
    seconds_start: float = 0.0
    own_passes: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # JSON makes numbers of nodes into texts.
        object.__setattr__(self, "own_passes", {int(size): seconds for size, seconds in self.own_passes.items()})


class DraftingContender:
    """A decoder of a given number of nodes; several may share target and drafter.

    Args:
        drafter: name; the contender's own is made of it and the nodes.
        decoder: its pacing is replaced.
        nodes: verified a pass, root included; None for the library's own pacing.
        timer: times the target's own passes before every run.
    """

    def __init__(self, drafter: str, decoder: Decoder, nodes: int | None, timer: PassTimer | None = None) -> None:
        self.name = contender_name(drafter, nodes) if decoder.drafter is not None else PLAIN
        self.decoder = decoder
        self.nodes = nodes
        self.timer = timer
        self.weights = Weights.of(decoder.drafter)
        self._own_pacing = copy.deepcopy(decoder.pacing)

    def prepare(self, temperature: float) -> None:
        """Forget what the pacing has learned; the warm-up teaches it again."""
        if self.nodes is None:
            self.decoder.pacing = copy.deepcopy(self._own_pacing)
        else:
            self.decoder.pacing = Steady(nodes=self.nodes - 1, min_node=0.0)

    def run(self, prompt: Sequence[int], task: Task) -> DraftedRun:
        """Time the target's own passes, then decode once."""
        passes = self.timer.sweep(len(prompt) + task.max_new_tokens // 2) if self.timer is not None else {}
        with self._recorded() as record, self.weights.counting():
            start = time.perf_counter()
            generation: Any = self.decoder.generate(
                list(prompt),
                temperature=task.temperature,
                max_new_tokens=task.max_new_tokens,
                seed=task.seed,
                ignore_eos=True,
            )
            seconds = time.perf_counter() - start
        stats = generation.stats
        return DraftedRun(
            tokens=list(generation.tokens),
            seconds=seconds,
            passes=stats.num_passes,
            draft_tokens=stats.num_draft_tokens,
            accepted_tokens=stats.num_accepted_tokens,
            seconds_prefill=stats.seconds_prefill,
            seconds_draft=stats.seconds_draft,
            seconds_verify=stats.seconds_verify,
            nodes=[1 + len(tree) for tree in record.trees],
            unmerged=[unmerged(tree) for tree in record.trees],
            reached=list(stats.num_drafts_per_pos),
            accepted_at=list(stats.num_accepted_tokens_per_pos),
            levels=self.weights.levels,
            bytes_per_level=self.weights.bytes_per_level,
            parameters=self.weights.parameters,
            seconds_start=max(0.0, stats.seconds_draft - record.seconds_draft),
            own_passes=passes,
        )

    @contextmanager
    def _recorded(self) -> Iterator[_Recorder]:
        pacing = self.decoder.pacing
        self.decoder.pacing = recorder = _Recorder(pacing)
        try:
            yield recorder
        finally:
            self.decoder.pacing = pacing


class _Recorder:
    """A pacing that keeps what it is told and passes it on."""

    def __init__(self, pacing: Pacing) -> None:
        self.pacing = pacing
        self.trees: list[DraftTree] = []
        self.seconds_draft = 0.0

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        return self.pacing.draft(rows, crew)

    def observe(self, outcome: Outcome) -> None:
        self.trees += (draft.tree for draft in outcome.drafts)
        self.seconds_draft += outcome.seconds_draft
        self.pacing.observe(outcome)

    def report(self, row: Row) -> PacingReport | None:
        return self.pacing.report(row)


def contender_name(drafter: str, nodes: int | None) -> str:
    """`redrafter`, 8 -> `anydraft-redrafter@8`; the part before the hyphen is the engine (see `report`)."""
    return f"{PLAIN}-{drafter}@{nodes or 'default'}"


def unmerged(tree: DraftTree) -> int:
    """Nodes of all paths from the root's children to the leaves, each path by itself."""
    inner = set(tree.parents)
    return sum(depth for node, depth in enumerate(tree.depths) if node not in inner)


def sizes_of(nodes: Iterable[int | None]) -> list[int]:
    """Numbers of nodes whose passes are timed: powers of two up to the largest, and those asked for."""
    asked = [32 if count is None else count for count in nodes]
    most = max(asked, default=1)
    return sorted({*asked, *(1 << power for power in range(most.bit_length()) if 1 << power <= most)})
