"""From records to figures: speed, speedup over both kinds of plain decoding, tau, c, acceptance, where time
went.

Every speedup comes with tau (tokens a pass) and c = tau / speedup over the same engine's plain decoding: tau
travels between machines, c says what this machine and this engine made of it.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from anydraft.bench.measure import Record, Run
from anydraft.bench.statistics import Interval, bootstrap, ratio_of_rates, ratio_of_totals

Runs = dict[str, Run]  # by prompt id


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one contender at one temperature, over the prompts it finished."""

    contender: str
    temperature: float
    prompts: int
    errors: list[str]
    tokens_per_second: Interval | None = None
    tokens_per_pass: Interval | None = None
    speedup: dict[str, Interval]  # over plain decoding of each engine, by name
    cost: float | None = None  # tau / speedup over the own engine's plain decoding
    acceptance_rate: float | None = None
    shares: dict[str, float]  # of the time: prefill, draft, verify, other
    other_per_plain_pass: float | None = (
        None  # other time a pass, in passes of the own engine's plain decoding
    )
    seconds_first_token: float | None = None  # median
    identical: dict[str, tuple[int, int]]  # to plain decoding of each engine: texts, of how many

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("tokens_per_second", "tokens_per_pass"):
            plain[name] = plain[name] and plain[name].to_dict()
        return plain | {"speedup": {name: interval.to_dict() for name, interval in self.speedup.items()}}


def engine(contender: str) -> str:
    """The engine of a contender, also the name of its plain decoding: `anydraft-uag` -> `anydraft`."""
    return contender.partition("-")[0]


def summarise(records: Iterable[Record], *, seed: int = 0) -> list[Row]:
    """One row per temperature and contender, in the order in which they first appear."""
    runs: dict[tuple[float, str], Runs] = {}
    errors: dict[tuple[float, str], list[str]] = {}
    for record in records:
        key = record.task.temperature, record.contender
        runs.setdefault(key, {})
        if record.run is None:
            errors.setdefault(key, []).append(record.error or "")
        else:
            runs[key][record.prompt_id] = record.run
    order = sorted(runs, key=lambda key: key[0])
    return [
        _row(contender, temperature, runs, errors.get((temperature, contender), []), seed)
        for temperature, contender in order
    ]


def _row(
    contender: str, temperature: float, runs: dict[tuple[float, str], Runs], errors: list[str], seed: int
) -> Row:
    mine = runs[temperature, contender]
    plain = {
        name: theirs
        for (at, name), theirs in runs.items()
        if at == temperature and name == engine(name) and mine.keys() & theirs.keys()
    }
    if not mine:
        return Row(
            contender=contender,
            temperature=temperature,
            prompts=0,
            errors=errors,
            speedup={},
            shares={},
            identical={},
        )
    all_mine = list(mine.values())
    tokens, seconds, passes = _columns(all_mine)
    speedup = {name: _speedup(mine, theirs, seed) for name, theirs in plain.items() if name != contender}
    tau = bootstrap(ratio_of_totals, tokens, passes, seed=seed)
    own = plain.get(engine(contender))
    total = sum(seconds)
    spent = {
        part: sum(getattr(run, f"seconds_{part}") for run in all_mine)
        for part in ("prefill", "draft", "verify")
    }
    spent["other"] = max(0.0, total - sum(spent.values()))
    drafted = sum(run.draft_tokens for run in all_mine)
    firsts = [run.seconds_first_token for run in all_mine if run.seconds_first_token is not None]
    return Row(
        contender=contender,
        temperature=temperature,
        prompts=len(mine),
        errors=errors,
        tokens_per_second=bootstrap(ratio_of_totals, tokens, seconds, seed=seed),
        tokens_per_pass=tau,
        speedup=speedup,
        cost=tau.value / speedup[engine(contender)].value if engine(contender) in speedup else None,
        acceptance_rate=sum(run.accepted_tokens for run in all_mine) / drafted if drafted else None,
        shares={part: value / total for part, value in spent.items()},
        other_per_plain_pass=spent["other"] / sum(passes) / _pass_seconds(own.values()) if own else None,
        seconds_first_token=statistics.median(firsts) if firsts else None,
        identical={
            name: _identical(mine, theirs)
            for name, theirs in plain.items()
            # Sampled texts can only be compared where both draw from the same noise.
            if name != contender and (temperature == 0 or engine(contender) == name == "anydraft")
        },
    )


def _columns(runs: Sequence[Run]) -> tuple[list[float], list[float], list[float]]:
    return (
        [float(len(run.tokens)) for run in runs],
        [run.seconds for run in runs],
        [float(run.passes) for run in runs],
    )


def _speedup(mine: Runs, theirs: Runs, seed: int) -> Interval:
    """Over the prompts that both finished."""
    shared = [prompt for prompt in mine if prompt in theirs]
    tokens, seconds, _ = _columns([mine[prompt] for prompt in shared])
    base_tokens, base_seconds, _ = _columns([theirs[prompt] for prompt in shared])
    return bootstrap(ratio_of_rates, tokens, seconds, base_tokens, base_seconds, seed=seed)


def _identical(mine: Runs, theirs: Runs) -> tuple[int, int]:
    shared = [prompt for prompt in mine if prompt in theirs]
    return sum(mine[prompt].tokens == theirs[prompt].tokens for prompt in shared), len(shared)


def _pass_seconds(plain: Iterable[Run]) -> float:
    """Seconds of one pass of plain decoding, all included but the prompt."""
    runs = list(plain)
    return sum(run.seconds - run.seconds_prefill for run in runs) / sum(run.passes for run in runs)


def table(rows: Sequence[Row], title: str) -> Table:
    """The rows for a terminal."""
    engines = sorted({name for row in rows for name in row.speedup})
    made = Table(title=title, title_justify="left")
    for heading in ("T", "contender", "tokens/s", *(f"x {name}" for name in engines)):
        made.add_column(heading, justify="left" if heading == "contender" else "right")
    for heading in (
        "tau",
        "c",
        "accepted",
        "draft/verify/other %",
        "other/pass %",
        "first ms",
        "same text",
        "errors",
    ):
        made.add_column(heading, justify="right")
    for row in rows:
        shares = "/".join(
            f"{100 * row.shares[part]:.0f}" for part in ("draft", "verify", "other") if row.shares
        )
        made.add_row(
            f"{row.temperature:g}",
            row.contender,
            "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}",
            *(f"{row.speedup[name]}" if name in row.speedup else "-" for name in engines),
            "-" if row.tokens_per_pass is None else f"{row.tokens_per_pass}",
            _number(row.cost, ".2f"),
            _number(row.acceptance_rate, ".1%"),
            shares or "-",
            _number(row.other_per_plain_pass, ".0%"),
            _number(row.seconds_first_token and 1000 * row.seconds_first_token, ".0f"),
            ", ".join(f"{same}/{count} {name}" for name, (same, count) in row.identical.items()) or "-",
            f"{len(row.errors)}" if row.errors else "-",
        )
    return made


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else f"{value:{spec}}"
