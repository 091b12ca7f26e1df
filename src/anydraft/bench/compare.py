"""Two measurements side by side, before and after a change: what both measured, over the prompts they share.

Runs of different processes, perhaps of different days, are compared here, and a machine's speed drifts. So beside the
ratio of speeds stands the ratio of speed-ups, each over the plain decoding of its own run, in which drift cancels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anydraft.bench.bench_table import FULL_WIDTH
from anydraft.bench.measure import Record
from anydraft.bench.report import engine, run_of
from anydraft.bench.statistics import Array, Interval, bootstrap, ratio_of_rates, ratio_of_totals
from anydraft.bench.store import RUNS, SETTINGS, read_runs
from anydraft.errors import OptionConflict

Place = tuple[str, float, int, int]
"""Contender, temperature, batch size and new tokens of a prompt: what must be the same on both sides."""
Runs = dict[str, Record]  # by prompt id
LISTED = ("models", "prompts_digest", "max_new_tokens", "seed", "dtype", "device", "threads", "exact", "draft_tokens")
"""Settings that make two measurements hard to compare where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One contender before and after, over the prompts that both finished.

    Attributes:
        prompts: shared ones (a batch counts once).
        speed: tokens per second after / before.
        speedup: speed-up over the own engine's plain decoding, after / before; None for plain decoding.
        tau, cost: before and after.
        same: texts that are equal before and after, and how many were compared.
        equal: texts equal to plain decoding's, before and after, each with how many were compared.
    """

    contender: str
    temperature: float
    batch: int
    prompts: int
    speed: Interval
    speedup: Interval | None
    tau: tuple[float, float]
    cost: tuple[float | None, float | None]
    same: tuple[int, int]
    equal: tuple[tuple[int, int] | None, tuple[int, int] | None]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value.to_dict() if isinstance(value, Interval) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes, what only one side has, and settings that differ."""

    before: str
    after: str
    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    settings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return content | {"changes": [change.to_dict() for change in self.changes]}


def compare(before: Path, after: Path, *, seed: int = 0) -> Comparison:
    """Compare two folders of `anydraft bench`, or their `runs.jsonl`.

    Raises:
        OptionConflict: a side has no runs, or they share nothing.
    """
    sides = [_by_place(_runs(path)) for path in (before, after)]
    shared = [place for place in sides[0] if place in sides[1] and sides[0][place].keys() & sides[1][place].keys()]
    if not shared:
        raise OptionConflict(
            f"{str(before)!r} and {str(after)!r} have no contender with a prompt, temperature, batch size and "
            "number of new tokens in common; compare measurements of the same prompts with the same options"
        )
    return Comparison(
        str(before),
        str(after),
        [_change(place, sides[0], sides[1], seed) for place in shared],
        [_named(place) for place in sides[0] if place not in shared],
        [_named(place) for place in sides[1] if place not in shared],
        _settings(before, after),
    )


def _runs(path: Path) -> list[Record]:
    file = path / RUNS if path.is_dir() else path
    if not file.is_file():
        raise OptionConflict(f"{str(path)!r} has no runs to compare; give a folder of anydraft bench, or its {RUNS}")
    records = [record for record in read_runs(file) if record.run is not None]
    if not records:
        raise OptionConflict(f"{str(file)!r} has no run that succeeded")
    return records


def _by_place(records: Sequence[Record]) -> dict[Place, Runs]:
    places: dict[Place, Runs] = {}
    for record in records:
        task = record.task
        place = (record.contender, task.temperature, task.batch, task.max_new_tokens)
        places.setdefault(place, {})[record.prompt_id] = record
    return places


def _change(place: Place, before: Mapping[Place, Runs], after: Mapping[Place, Runs], seed: int) -> Change:
    name, temperature, batch, length = place
    own = engine(name)
    bases = [side.get((own, temperature, batch, length), {}) for side in (before, after)]
    prompts = [prompt for prompt in before[place] if prompt in after[place]]
    mine = [_columns(side[place], prompts) for side in (before, after)]
    common = [prompt for prompt in prompts if all(prompt in base for base in bases)]
    speedup: Interval | None = None
    costs: tuple[float | None, float | None] = (None, None)
    if name != own and common:
        columns = [_columns(side, common) for side in (after[place], bases[1], before[place], bases[0])]
        speedup = bootstrap(_speedups, *(column for side in columns for column in side[:2]), seed=seed)
        costs = _cost(before[place], bases[0], common), _cost(after[place], bases[1], common)
    pairs = [
        pair
        for prompt in prompts
        for pair in zip(_texts(before[place][prompt]), _texts(after[place][prompt]), strict=False)
    ]
    return Change(
        contender=name,
        temperature=temperature,
        batch=batch,
        prompts=len(prompts),
        speed=bootstrap(ratio_of_rates, *mine[1][:2], *mine[0][:2], seed=seed),
        speedup=speedup,
        tau=(sum(mine[0][0]) / sum(mine[0][2]), sum(mine[1][0]) / sum(mine[1][2])),
        cost=costs,
        same=(sum(one == other for one, other in pairs), len(pairs)),
        equal=(_equal(name, temperature, before[place], bases[0]), _equal(name, temperature, after[place], bases[1])),
    )


def _columns(runs: Runs, prompts: Sequence[str]) -> tuple[list[float], list[float], list[float]]:
    chosen = [run_of(runs[prompt]) for prompt in prompts]
    return [float(len(run.tokens)) for run in chosen], [r.seconds for r in chosen], [float(r.passes) for r in chosen]


def _texts(record: Record) -> list[list[int]]:
    return run_of(record).texts(record.task)


def _speedups(*columns: Array) -> Array:
    """Tokens and seconds of (after, its plain, before, its plain) to the ratio of the two speed-ups."""
    gained: Array = ratio_of_rates(*columns[:4]) / ratio_of_rates(*columns[4:])
    return gained


def _cost(runs: Runs, base: Runs, prompts: Sequence[str]) -> float:
    tokens, seconds, passes = (np.asarray(column) for column in _columns(runs, prompts))
    base_tokens, base_seconds, _ = (np.asarray(column) for column in _columns(base, prompts))
    return float(ratio_of_totals(tokens, passes) / ratio_of_rates(tokens, seconds, base_tokens, base_seconds))


def _equal(name: str, temperature: float, runs: Runs, base: Runs) -> tuple[int, int] | None:
    if name == engine(name) or (temperature > 0 and engine(name) != "anydraft"):
        return None
    same = [
        one == other
        for prompt, record in runs.items()
        if prompt in base
        for one, other in zip(_texts(record), _texts(base[prompt]), strict=False)
    ]
    return (sum(same), len(same)) if same else None


def _named(place: Place) -> str:
    return f"{place[0]} at T={place[1]:g}, batch {place[2]}, {place[3]} tokens"


def _settings(before: Path, after: Path) -> list[str]:
    """Settings that differ, where both folders have them."""
    found = []
    for path in (before, after):
        file = (path if path.is_dir() else path.parent) / SETTINGS
        try:
            found.append(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return []
    return [
        f"{name}: {json.dumps(found[0].get(name))[:60]} before, {json.dumps(found[1].get(name))[:60]} after"
        for name in LISTED
        if found[0].get(name) != found[1].get(name)
    ]


def show(found: Comparison, console: Console) -> None:
    """Print the changes as a table, then what is to be said in words."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    headings = ("T", "batch", "contender", "prompts", "speed", "speed-up", "tau", "c", "same text", "equal to plain")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "contender" else "right", no_wrap=True)
    for change in found.changes:
        table.add_row(
            f"{change.temperature:g}",
            str(change.batch),
            change.contender,
            str(change.prompts),
            _ratio(change.speed),
            _ratio(change.speedup),
            f"{change.tau[0]:.2f} → {change.tau[1]:.2f}",
            "-" if None in change.cost else f"{change.cost[0]:.2f} → {change.cost[1]:.2f}",
            f"{change.same[0]}/{change.same[1]}",
            "-" if change.equal == (None, None) else " → ".join(_share(equal) for equal in change.equal),
        )
    if not console.is_terminal:
        console = Console(width=FULL_WIDTH)  # a file has no width
    console.print(Text(f"{found.after} over {found.before}", style="bold"), table)
    for title, names in (("only before", found.only_before), ("only after", found.only_after)):
        if names:
            console.print(f"{title}: {'; '.join(names)}", markup=False, style="dim")
    for difference in found.settings:
        console.print(Text(f"settings differ, {difference}", style="yellow"))


def _ratio(interval: Interval | None) -> Text:
    if interval is None:
        return Text("-")
    return Text(f"{interval:.3f}", style="green" if interval.low > 1 else "red" if interval.high < 1 else "")


def _share(equal: tuple[int, int] | None) -> str:
    return "-" if equal is None else f"{equal[0]}/{equal[1]}"
