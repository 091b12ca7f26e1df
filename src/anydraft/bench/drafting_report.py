"""From drafting runs to figures: what drafts cost above the target's own pass, and what each depth was worth.

Beside speedup, tau and c (`anydraft.bench.report`), by number of verified nodes:

- *own pass*: the target's pass over as many nodes, timed alone in the same run, in plain passes;
- *step cost*: all else that a step takes (drafting, hidden states, choosing, keeping), in plain passes;
- *draft*: the drafting in it;
- *saved*: nodes that were not verified because paths share their beginnings.

Of the first three, seconds are corrected by how fast the machine was just then: the passes timed before a run, over the
median of those before all runs of the prompt. Speedup and c are as the clock had them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anydraft.bench.drafting import PLAIN, DraftedRun
from anydraft.bench.measure import Record
from anydraft.bench.passes import middle, seconds_of
from anydraft.bench.report import Row, summarise
from anydraft.bench.statistics import Array, Interval, bootstrap, ratio_of_rates, ratio_of_totals

Runs = dict[str, DraftedRun]  # by prompt id


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRow:
    """The figures of one drafter at one number of nodes, on one set of prompts and at one temperature.

    Attributes:
        source: the set.
        drafter, nodes: plain decoding has nodes "1".
        row: speed, tau, c and whether texts are plain decoding's.
        nodes_per_pass: verified, root included; with fewer left to write than that, or an ended draft, there are fewer.
        own_pass, step_cost, draft_cost: see above. The drafter's reading of the prompt is in the speedup but in none of
            these.
        acceptance: by depth, share of the drafts that got there of which the token there was kept.
        levels_per_pass, bytes_per_level, bytes_per_pass, bytes_per_token: weights read per drafted level, per pass and
            per drafted token that was verified.
        saved: 1 - tree nodes / nodes of its paths one by one, the root left out of both.
        tau_over: tokens per pass over those of other drafters at the same nodes.
    """

    source: str
    temperature: float
    drafter: str
    nodes: str
    row: Row
    parameters: int = 0
    nodes_per_pass: float | None = None
    own_pass: Interval | None = None
    step_cost: Interval | None = None
    draft_cost: Interval | None = None
    acceptance: list[float] = field(default_factory=list)
    levels_per_pass: float = 0.0
    bytes_per_level: float = 0.0
    bytes_per_pass: float = 0.0
    bytes_per_token: float | None = None
    saved: Interval | None = None
    tau_over: dict[str, Interval] = field(default_factory=dict)

    @property
    def speedup(self) -> Interval | None:
        """Over plain decoding."""
        return self.row.speedup.get(PLAIN)

    def to_dict(self) -> dict[str, Any]:
        """One flat object, ready for JSON."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "row"}
        figures = {name: value.to_dict() if isinstance(value, Interval) else value for name, value in own.items()}
        figures["tau_over"] = {name: interval.to_dict() for name, interval in self.tau_over.items()}
        return {**self.row.to_dict(), **figures}


def summarise_drafting(
    records: Sequence[Record], *, baselines: Iterable[tuple[str, str]] = (), seed: int = 0
) -> list[DraftRow]:
    """Rows by set of prompts (what is before the first colon of their ids), temperature and contender.

    `baselines` are pairs of drafters: the first one's tokens per pass are also given over the second one's.
    """
    rows: list[DraftRow] = []
    pairs = list(baselines)
    for source in dict.fromkeys(source_of(record) for record in records):
        of_source = [record for record in records if source_of(record) == source]
        runs: dict[tuple[float, str], Runs] = {}
        for record in of_source:
            mine = runs.setdefault((record.task.temperature, record.contender), {})
            if isinstance(record.run, DraftedRun):
                mine[record.prompt_id] = record.run
        own = {at: _own_passes(runs, at) for at in {temperature for temperature, _ in runs}}
        for row in summarise(of_source, seed=seed):
            others = {name: mine for (at, name), mine in runs.items() if at == row.temperature}
            rows.append(_row(source, row, others, own[row.temperature], pairs, seed))
    return rows


def source_of(record: Record) -> str:
    """The set of prompts that a record's prompt is from."""
    return record.prompt_id.partition(":")[0]


def split_name(contender: str) -> tuple[str, str]:
    """`anydraft-redrafter@8` -> ("redrafter", "8"); plain decoding verifies one node."""
    drafter, _, nodes = contender.removeprefix(f"{PLAIN}-").partition("@")
    return ("plain", "1") if contender == PLAIN else (drafter, nodes)


def _own_passes(runs: dict[tuple[float, str], Runs], temperature: float) -> dict[str, dict[int, float]]:
    """By prompt, the target's own passes: the median over those timed before every run of it."""
    sweeps: dict[str, list[dict[int, float]]] = {}
    for (at, _), of_contender in runs.items():
        for prompt, run in of_contender.items():
            if at == temperature and run.own_passes:
                sweeps.setdefault(prompt, []).append(run.own_passes)
    return {prompt: middle(timed) for prompt, timed in sweeps.items()}


def _row(
    source: str,
    row: Row,
    contenders: dict[str, Runs],
    own: dict[str, dict[int, float]],
    baselines: Sequence[tuple[str, str]],
    seed: int,
) -> DraftRow:
    drafter, nodes = split_name(row.contender)
    place: dict[str, Any] = {
        "source": source,
        "temperature": row.temperature,
        "drafter": drafter,
        "nodes": nodes,
        "row": row,
    }
    mine, plain = contenders[row.contender], contenders.get(PLAIN, {})
    runs = list(mine.values())
    if not runs:
        return DraftRow(**place)
    passes, levels = sum(run.passes for run in runs), sum(run.levels for run in runs)
    drafted = sum(run.draft_tokens for run in runs)
    read = sum(run.levels * run.bytes_per_level for run in runs)
    timed = [prompt for prompt in mine if prompt in plain and prompt in own]
    own_pass = step = draft = None
    if timed:
        pace = {prompt: slowness(mine[prompt], own[prompt]) for prompt in timed}
        steps = [step_seconds(mine[prompt]) / pace[prompt] for prompt in timed]
        alone = [seconds_of(mine[prompt].nodes, own[prompt]) for prompt in timed]
        counts = [float(mine[prompt].passes) for prompt in timed]
        base = [step_seconds(plain[prompt]) / slowness(plain[prompt], own[prompt]) for prompt in timed]
        base_counts = [float(plain[prompt].passes) for prompt in timed]
        drafting = [(mine[prompt].seconds_draft - mine[prompt].seconds_start) / pace[prompt] for prompt in timed]
        draft = bootstrap(ratio_of_times, drafting, counts, base, base_counts, seed=seed)
        own_pass = bootstrap(ratio_of_times, alone, counts, base, base_counts, seed=seed)
        step = bootstrap(cost_above, steps, alone, counts, base, base_counts, seed=seed)
    tree = [float(sum(run.nodes) - len(run.nodes)) for run in runs]
    return DraftRow(
        **place,
        parameters=runs[0].parameters,
        nodes_per_pass=sum(map(sum, (run.nodes for run in runs))) / passes,
        own_pass=own_pass,
        step_cost=step,
        draft_cost=draft,
        acceptance=acceptance(runs),
        levels_per_pass=levels / passes,
        bytes_per_level=runs[0].bytes_per_level,
        bytes_per_pass=read / passes,
        bytes_per_token=read / drafted if drafted else None,
        saved=bootstrap(saved_share, tree, [float(sum(run.unmerged)) for run in runs], seed=seed) if drafted else None,
        tau_over={
            base: _tau_over(mine, contenders[other], seed)
            for first, base in baselines
            if first == drafter and contenders.get(other := f"{PLAIN}-{base}@{nodes}", {}).keys() & mine.keys()
        },
    )


def step_seconds(run: DraftedRun) -> float:
    """Seconds of all steps of a run: without reading the prompt, by the target or by the drafter."""
    return run.seconds - run.seconds_prefill - run.seconds_start


def slowness(run: DraftedRun, own: Mapping[int, float]) -> float:
    """How much slower the target's passes were just before this run than they usually were."""
    ratios = [seconds / own[size] for size, seconds in run.own_passes.items()]
    return statistics.median(ratios) if ratios else 1.0


def acceptance(runs: Sequence[DraftedRun]) -> list[float]:
    """By depth, tokens accepted there over drafts that got there."""
    depth = max((len(run.reached) for run in runs), default=0)
    totals = [
        (
            sum(run.accepted_at[i] for run in runs if i < len(run.accepted_at)),
            sum(run.reached[i] for run in runs if i < len(run.reached)),
        )
        for i in range(depth)
    ]
    return [accepted / reached if reached else 0.0 for accepted, reached in totals]


def ratio_of_times(seconds: Array, passes: Array, base_seconds: Array, base_passes: Array) -> Array:
    """Seconds a pass over seconds a pass of plain decoding."""
    return ratio_of_rates(base_passes, base_seconds, passes, seconds)


def cost_above(steps: Array, alone: Array, passes: Array, base_seconds: Array, base_passes: Array) -> Array:
    """What a step takes beyond the target's own pass over its nodes, in plain passes."""
    return ratio_of_times(steps - alone, passes, base_seconds, base_passes)


def saved_share(tree: Array, paths: Array) -> Array:
    """Share of the paths' nodes that the tree does not have."""
    share: Array = 1 - ratio_of_totals(tree, paths)
    return share


def _tau_over(mine: Runs, base: Runs, seed: int) -> Interval:
    shared = [prompt for prompt in mine if prompt in base]
    columns = [
        [float(value) for value in values]
        for runs in (mine, base)
        for values in ([len(runs[prompt].tokens) for prompt in shared], [runs[prompt].passes for prompt in shared])
    ]
    return bootstrap(ratio_of_rates, *columns, seed=seed)
