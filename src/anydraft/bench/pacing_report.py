"""What pacing is to reach, held against runs: never slower than plain, as good as the best fixed length, mixtures.

Speeds are per prompt over plain decoding of the same prompt (and batch) in the same run; the median over prompts
decides.
Contenders are called `anydraft` (plain), `anydraft-DRAFTER` (with the default pacing), `anydraft-DRAFTER@FIXED`, and
`anydraft-again` (plain once more).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anydraft.bench.measure import Record, Run
from anydraft.bench.statistics import Array, Interval, bootstrap

PLAIN, AGAIN = "anydraft", "anydraft-again"
"""Plain decoding, and plain decoding once more: how far that is from 1 is chance."""

FINAL = "final"
"""Part in which the best fixed settings of a sweep are measured on other prompts; there they count, for the best of
many settings is so partly by the luck of the prompts on which it was."""

NEVER_SLOWER, OF_BEST_FIXED = 0.97, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingRow:
    """One contender in one part of the benchmark, at one temperature and batch size.

    Attributes:
        speedup: median over prompts, and its interval over resampled prompts.
        overall: speed on all prompts together, over that of plain decoding on them.
        ratios: speed over that of plain decoding, by prompt.
        tau: tokens per pass; drafted: share of the time spent on drafts.
        identical: prompts whose tokens are plain decoding's, of how many.
    """

    part: str
    contender: str
    temperature: float
    batch: int
    prompts: int
    speedup: Interval
    overall: float
    slowest: float
    ratios: dict[str, float]
    tau: float
    drafted: float
    identical: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return own | {"speedup": self.speedup.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """An aim, what was found, and whether it holds."""

    aim: str
    found: str
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"aim": self.aim, "found": self.found, "holds": self.holds}


def summarise_pacing(part: str, records: Sequence[Record], *, seed: int = 0) -> list[PacingRow]:
    """A row for every contender but plain decoding, in the order in which they first appear."""
    runs: dict[tuple[float, int, str], dict[str, Run]] = {}
    for record in records:
        if record.run is not None:
            key = (record.task.temperature, record.task.batch, record.contender)
            runs.setdefault(key, {})[record.prompt_id] = record.run
    rows = []
    for (temperature, batch, name), mine in runs.items():
        plain = runs.get((temperature, batch, PLAIN), {})
        shared = [prompt for prompt in mine if prompt in plain]
        if name == PLAIN or not shared:
            continue
        ratios = {prompt: plain[prompt].seconds / mine[prompt].seconds for prompt in shared}
        seconds = sum(run.seconds for run in mine.values())
        together = sum(mine[prompt].seconds for prompt in shared)
        rows.append(
            PacingRow(
                part=part,
                contender=name,
                temperature=temperature,
                batch=batch,
                prompts=len(shared),
                speedup=bootstrap(_median, [*ratios.values()], seed=seed),
                overall=sum(plain[prompt].seconds for prompt in shared) / together,
                slowest=min(ratios.values()),
                ratios=ratios,
                tau=sum(len(run.tokens) for run in mine.values()) / sum(run.passes for run in mine.values()),
                drafted=sum(run.seconds_draft for run in mine.values()) / seconds,
                identical=sum(mine[prompt].tokens == plain[prompt].tokens for prompt in shared),
            )
        )
    return rows


def reached(rows: Sequence[PacingRow]) -> list[Reached]:
    """The aims of each part, one by one."""
    return [*_never_slower(rows), *_best_fixed(rows), *_mixed(rows)]


def _never_slower(rows: Sequence[PacingRow]) -> Iterator[Reached]:
    for row in rows:
        if "@" not in row.contender and row.contender != AGAIN:
            where = f"{row.part}, T={row.temperature:g}" + (f", batch {row.batch}" if row.batch > 1 else "")
            yield Reached(
                aim=f"{where}: {_drafter(row)} at least {NEVER_SLOWER}x of plain (median over prompts)",
                found=f"{row.speedup}",
                holds=row.speedup.value >= NEVER_SLOWER,
            )


def _best_fixed(rows: Sequence[PacingRow]) -> Iterator[Reached]:
    for row in rows:
        fixed = _fixed(rows, row)
        final = dataclasses.replace(row, part=FINAL)
        prompts = [prompt for prompt in row.ratios if all(prompt in other.ratios for other in fixed)]
        if "@" in row.contender or not (fixed and prompts) or (row.part != FINAL and _fixed(rows, final)):
            continue
        best = max(fixed, key=lambda other: other.speedup.value)
        share = bootstrap(_share, *([each.ratios[prompt] for prompt in prompts] for each in (row, *fixed)))
        together = row.overall / max(1.0, *(other.overall for other in fixed))
        many = f"the sweep's {len(fixed)} best" if row.part == FINAL else f"{len(fixed)}"
        yield Reached(
            aim=f"{row.part}, T={row.temperature:g}: {_drafter(row)} at least {OF_BEST_FIXED:.0%} of the best of plain "
            f"decoding and {many} fixed settings ({len(prompts)} prompts)",
            found=(
                f"{share:.0%} of {best.contender.partition('@')[2]} ({best.speedup.value:.2f}x)"
                if best.speedup.value > 1
                else f"{share:.0%} of plain decoding"
            )
            + f"; {together:.0%} of the best by all prompts together",
            holds=share.value >= OF_BEST_FIXED,
        )


def best_settings(rows: Sequence[PacingRow], drafter: str, temperature: float, count: int) -> list[str]:
    """The fixed settings of a drafter with the largest medians over a sweep's prompts, the best first."""
    fixed = [row for row in rows if "@" in row.contender and row.part != FINAL]
    fixed = [row for row in fixed if _drafter(row) == drafter and row.temperature == temperature]
    fixed.sort(key=lambda row: -row.speedup.value)
    return [row.contender.partition("@")[2] for row in fixed[:count]]


def _fixed(rows: Sequence[PacingRow], row: PacingRow) -> list[PacingRow]:
    """The fixed settings of a row's drafter at the same place."""
    same = [other for other in rows if _place(other) == _place(row) and _drafter(other) == _drafter(row)]
    return [other for other in same if "@" in other.contender]


def _mixed(rows: Sequence[PacingRow]) -> Iterator[Reached]:
    for row in rows:
        members = _drafter(row).split("+")
        single = [other for other in rows if _place(other) == _place(row) and _drafter(other) in members]
        if row.part != "mixed" or len(members) < 2 or not single:
            continue
        best = max(single, key=lambda other: other.speedup.value)
        shared = [row.ratios[prompt] / best.ratios[prompt] for prompt in row.ratios if prompt in best.ratios]
        beside = f"; by prompt {bootstrap(_median, shared)}" if shared else ""
        yield Reached(
            aim=f"mixed, T={row.temperature:g}: {_drafter(row)} at least as fast as the better of the two",
            found=f"{row.speedup.value:.2f}x against {best.speedup.value:.2f}x ({_drafter(best)}){beside}",
            holds=row.speedup.value >= best.speedup.value,
        )


def pacing_table(rows: Sequence[PacingRow], aims: Sequence[Reached], title: str) -> str:
    """Everything as Markdown."""
    lines = [f"### {title}", ""]
    for part in dict.fromkeys(row.part for row in rows):
        lines += [
            f"**{part}**",
            "",
            "| T | batch | drafter | x plain (median over prompts) | all together | slowest prompt | tau | drafting | "
            "same tokens |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            if row.part == part:
                name = "plain, again" if row.contender == AGAIN else row.contender.removeprefix(f"{PLAIN}-")
                lines.append(
                    f"| {row.temperature:g} | {row.batch} | {name} | {row.speedup} | "
                    f"{row.overall:.2f} | {row.slowest:.2f} | {row.tau:.2f} | {row.drafted:.0%} | "
                    f"{row.identical}/{row.prompts} |"
                )
        lines.append("")
    lines += ["**Aims**", "", "| aim | found | holds |", "|---|---|---|"]
    lines += [f"| {aim.aim} | {aim.found} | {'yes' if aim.holds else 'no'} |" for aim in aims]
    return "\n".join([*lines, ""])


def _median(ratios: Array) -> Array:
    found: Array = np.median(ratios, axis=-1)
    return found


def _share(mine: Array, *fixed: Array) -> Array:
    """Of the best of plain decoding and fixed settings, by medians."""
    found: Array = _median(mine) / np.maximum(1.0, np.max([_median(each) for each in fixed], axis=0))
    return found


def _drafter(row: PacingRow) -> str:
    return row.contender.removeprefix(f"{PLAIN}-").partition("@")[0]


def _place(row: PacingRow) -> tuple[str, float, int]:
    return row.part, row.temperature, row.batch
