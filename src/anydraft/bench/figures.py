"""What `anydraft bench` says of a contender, as it is written to `summary.json` and drawn on the page.

`summary.json` is one object:

    {"title", "provenance", "measured": [done, planned], "memory": meaning of peak_memory,
     "rows": [Figures ...], "examples": [see anydraft.bench.examples]}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anydraft.bench.differences import Place, rival
from anydraft.bench.measure import Record, Run
from anydraft.bench.memory import MEANING
from anydraft.bench.report import Row, engine, run_of, summarise
from anydraft.bench.statistics import Interval

PARTS = ("prefill", "draft", "convert", "target", "verify", "other")
"""Where time goes. draft: without convert; target: forwards; verify: choosing from their scores, keeping the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One contender at one temperature and batch size.

    Attributes:
        contender: name; its engine's for plain decoding, or begins with that and a hyphen.
        engine: "anydraft" or a peer's name.
        prompts: finished ones, all rows of a batch counted.
        errors, failures: runs that failed, and drafters that broke within a run and were left out; each message once,
            with how many runs it befell.
        tokens_per_second: new tokens over wall time, the prompt included. Bounds of intervals are not-a-number where
            there was one prompt, or one batch, only.
        speedup: over plain decoding by the same engine at the same batch size; None for plain decoding.
        speedup_transformers: over plain decoding by transformers.
        tau: tokens per target pass (of a row).
        cost: c = tau / speedup.
        acceptance: by depth, share of the drafts that got there whose token there was kept.
        reached: by depth, drafts that got there.
        acceptance_rate: accepted / drafted tokens.
        seconds_per_token: by `PARTS`.
        first_token: median seconds.
        peak_memory: bytes.
        equal: texts equal to plain decoding's, and how many were compared (see `differences`).
        first_difference: the first one that was not.
        pacing: what the pacing of the last run says of its choices.
        excess_z: how far sampled texts are from what the target would say, in standard deviations of chance.
    """

    contender: str
    engine: str
    temperature: float
    batch: int
    prompts: int
    errors: list[str]
    failures: list[str]
    tokens_per_second: Interval | None = None
    speedup: Interval | None = None
    speedup_transformers: Interval | None = None
    tau: Interval | None = None
    cost: Interval | None = None
    acceptance: list[float]
    reached: list[int]
    acceptance_rate: float | None = None
    seconds_per_token: dict[str, float]
    first_token: float | None = None
    peak_memory: int | None = None
    equal: tuple[int, int] | None = None
    first_difference: dict[str, Any] | None = None
    pacing: str | None = None
    excess_z: float | None = None

    @property
    def broken(self) -> bool:
        """Whether any of its runs failed, or lost its drafter."""
        return bool(self.errors or self.failures)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value.to_dict() if isinstance(value, Interval) else value for name, value in values.items()}


def figures(
    records: Sequence[Record], differences: Mapping[Place, dict[str, Any]] | None = None, *, seed: int = 0
) -> list[Figures]:
    """Figures by batch size, temperature and contender."""
    by_place: dict[Place, list[Record]] = {}
    for record in records:
        by_place.setdefault((record.contender, record.task.temperature, record.task.batch), []).append(record)
    return [
        _figures(row, by_place[row.contender, row.temperature, row.batch], differences or {})
        for row in summarise(records, seed=seed)
    ]


def _figures(row: Row, records: Sequence[Record], differences: Mapping[Place, dict[str, Any]]) -> Figures:
    runs = [run_of(record) for record in records if record.run is not None]
    reached, accepted = (_added([getattr(run, name) for run in runs]) for name in ("reached", "accepted_at"))
    own = engine(row.contender)
    peaks = [run.peak_memory for run in runs if run.peak_memory is not None]
    failures = Counter(failure for run in runs for failure in run.failures)
    return Figures(
        contender=row.contender,
        engine=own,
        temperature=row.temperature,
        batch=row.batch,
        prompts=row.prompts * row.batch,
        errors=_counted(Counter(row.errors), len(records)),
        failures=_counted(failures, len(records)),
        tokens_per_second=_known(row.tokens_per_second, row.prompts),
        speedup=_known(row.speedup.get(own), row.prompts),
        speedup_transformers=_known(row.speedup.get("transformers"), row.prompts),
        tau=_known(row.tokens_per_pass, row.prompts),
        cost=_known(row.cost, row.prompts),
        acceptance=[kept / drafts if drafts else 0.0 for kept, drafts in zip(accepted, reached, strict=True)],
        reached=reached,
        acceptance_rate=row.acceptance_rate,
        seconds_per_token=_parts(runs),
        first_token=row.seconds_first_token,
        peak_memory=max(peaks, default=None),
        equal=row.identical.get(rival(row.contender, row.temperature)),
        first_difference=differences.get((row.contender, row.temperature, row.batch)),
        pacing=next((run.pacing for run in reversed(runs) if run.pacing is not None), None),
        excess_z=row.excess_z,
    )


def _known(interval: Interval | None, units: int) -> Interval | None:
    """Without its bounds where there was one prompt (or batch) only: how much they differ is not known then."""
    return Interval(interval.value, math.nan, math.nan) if interval is not None and units < 2 else interval


def _parts(runs: Sequence[Run]) -> dict[str, float]:
    tokens = sum(len(run.tokens) for run in runs)
    if not tokens:
        return {}
    named = {
        "prefill": sum(run.seconds_prefill for run in runs),
        "draft": sum(max(0.0, run.seconds_draft - run.seconds_convert) for run in runs),
        "convert": sum(run.seconds_convert for run in runs),
        "target": sum(run.seconds_verify for run in runs),
        "verify": sum(run.seconds_choose for run in runs),
    }
    named["other"] = max(0.0, sum(run.seconds for run in runs) - sum(named.values()))
    return {part: named[part] / tokens for part in PARTS}


def _added(columns: Sequence[Sequence[int]]) -> list[int]:
    depth = max(map(len, columns), default=0)
    return [sum(column[i] for column in columns if i < len(column)) for i in range(depth)]


def _counted(messages: Counter[str], runs: int) -> list[str]:
    return [f"{message} ({count} of {runs} runs)" for message, count in messages.items()]


def summary(
    rows: Sequence[Figures],
    *,
    title: str,
    provenance: dict[str, Any],
    examples: Sequence[dict[str, Any]],
    measured: tuple[int, int],
) -> dict[str, Any]:
    """The object of `summary.json`; `measured` runs of how many."""
    told = {
        "title": title,
        "provenance": provenance,
        "measured": list(measured),
        "memory": MEANING,
        "rows": [row.to_dict() for row in rows],
        "examples": list(examples),
    }
    content: dict[str, Any] = finite(told)
    return content


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON has not: infinite ones and not-a-number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value
