"""From records to figures: speed, speedup over plain decoding of either engine, tau, c, acceptance, where time went.

A speedup comes with tau (tokens a pass) and c = tau / speedup over the same engine's plain decoding: tau travels
between machines, c says what this machine and this engine made of it.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anydraft.bench.measure import Record, Run
from anydraft.bench.statistics import Array, Interval, bootstrap, ratio_of_rates, ratio_of_totals

Finished = dict[str, Record]  # records with a run, by prompt id


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one contender at one temperature, over the prompts it finished.

    Attributes:
        prompts: finished; of a batch, how many times so many prompts.
        speedup: over plain decoding of each engine, by the engine's name; prompts that both finished.
        cost: c, over plain decoding of the own engine.
        shares: of the time: prefill, draft, verify, other.
        other_per_plain_pass: other time a pass, as a share of a pass of the own engine's plain decoding.
        seconds_first_token: median.
        excess_nats: what a sampled token costs the judge above its entropy; 0 but for chance if the texts are its own.
        excess_z: that in standard deviations of chance.
        identical: texts equal to those of each engine's plain decoding, and how many were compared.
    """

    contender: str
    temperature: float
    batch: int = 1
    prompts: int
    errors: tuple[str, ...] = ()
    tokens_per_second: Interval | None = None
    tokens_per_pass: Interval | None = None
    speedup: dict[str, Interval]
    cost: Interval | None = None
    acceptance_rate: float | None = None
    shares: dict[str, float]
    other_per_plain_pass: float | None = None
    seconds_first_token: float | None = None
    excess_nats: Interval | None = None
    excess_z: float | None = None
    identical: dict[str, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.to_dict()
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def engine(contender: str) -> str:
    """The engine of a contender, also the name of its plain decoding: `anydraft-uag` -> `anydraft`."""
    return contender.partition("-")[0]


def summarise(records: Iterable[Record], *, seed: int = 0) -> list[Row]:
    """One row per batch size, temperature and contender, in the order in which they first appear."""
    finished: dict[tuple[int, float], dict[str, Finished]] = {}
    errors: dict[tuple[tuple[int, float], str], list[str]] = {}
    for record in records:
        at, name = (record.task.batch, record.task.temperature), record.contender
        mine = finished.setdefault(at, {}).setdefault(name, {})
        if record.run is not None:
            mine[record.prompt_id] = record
        else:
            errors.setdefault((at, name), []).append(record.error or "unknown error")
    return [
        _row(name, at, contenders, tuple(errors.get((at, name), ())), seed)
        for at, contenders in finished.items()
        for name in contenders
    ]


def run_of(record: Record) -> Run:
    """The run of a record that has one."""
    if record.run is None:
        raise ValueError(f"{record.contender} has no run of {record.prompt_id}, but an error: {record.error}")
    return record.run


def _row(name: str, at: tuple[int, float], contenders: dict[str, Finished], errors: tuple[str, ...], seed: int) -> Row:
    batch, temperature = at
    place: dict[str, Any] = {"contender": name, "batch": batch, "temperature": temperature, "errors": errors}
    mine = contenders[name]
    if not mine:
        return Row(**place, prompts=0, speedup={}, shares={}, identical={})
    plain = {other: base for other, base in contenders.items() if other == engine(other) and mine.keys() & base.keys()}
    rivals = {other: base for other, base in plain.items() if other != name}
    own = plain.get(engine(name))
    runs = [run_of(record) for record in mine.values()]
    tokens, seconds, passes = _columns(runs)
    shares = _shares(runs)
    drafted = sum(run.draft_tokens for run in runs)
    firsts = [run.seconds_first_token for run in runs if run.seconds_first_token is not None]
    judged = [(record, record.surprise) for record in mine.values() if record.surprise is not None]
    excess = [surprise.nats - surprise.expected for _, surprise in judged]
    deviation = math.sqrt(sum(surprise.variance for _, surprise in judged))
    lengths = [float(len(run_of(record).tokens)) for record, _ in judged]
    return Row(
        **place,
        prompts=len(mine),
        tokens_per_second=bootstrap(ratio_of_totals, tokens, seconds, seed=seed),
        tokens_per_pass=bootstrap(ratio_of_totals, tokens, passes, seed=seed),
        speedup={other: _against(_speedup, mine, base, seed) for other, base in rivals.items()},
        cost=_against(_cost, mine, own, seed) if own is not None and own is not mine else None,
        acceptance_rate=sum(run.accepted_tokens for run in runs) / drafted if drafted else None,
        shares=shares,
        other_per_plain_pass=shares["other"] * sum(seconds) / sum(passes) / _pass_seconds(own) if own else None,
        seconds_first_token=statistics.median(firsts) if firsts else None,
        excess_nats=bootstrap(ratio_of_totals, excess, lengths, seed=seed) if judged else None,
        excess_z=sum(excess) / deviation if deviation else None,
        # Sampled texts can only be compared where both draw from the same noise.
        identical={
            other: _identical(mine, base)
            for other, base in rivals.items()
            if temperature == 0 or engine(name) == other == "anydraft"
        },
    )


def _columns(runs: Sequence[Run]) -> tuple[list[float], list[float], list[float]]:
    """Tokens, seconds and passes, each by prompt."""
    tokens = [float(len(run.tokens)) for run in runs]
    return tokens, [run.seconds for run in runs], [float(run.passes) for run in runs]


def _against(figure: Callable[..., Array], mine: Finished, base: Finished, seed: int) -> Interval:
    """A figure of tokens, seconds and passes of two contenders, over the prompts that both finished."""
    shared = [prompt for prompt in mine if prompt in base]
    return bootstrap(
        figure,
        *_columns([run_of(mine[prompt]) for prompt in shared]),
        *_columns([run_of(base[prompt]) for prompt in shared]),
        seed=seed,
    )


def _speedup(tokens: Array, seconds: Array, _: Array, base_tokens: Array, base_seconds: Array, __: Array) -> Array:
    return ratio_of_rates(tokens, seconds, base_tokens, base_seconds)


def _cost(tokens: Array, seconds: Array, passes: Array, base_tokens: Array, base_seconds: Array, _: Array) -> Array:
    cost: Array = ratio_of_totals(tokens, passes) / ratio_of_rates(tokens, seconds, base_tokens, base_seconds)
    return cost


def _shares(runs: Sequence[Run]) -> dict[str, float]:
    total = sum(run.seconds for run in runs)
    parts = ("prefill", "draft", "verify")
    shares = {part: sum(getattr(run, f"seconds_{part}") for run in runs) / total for part in parts}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def _pass_seconds(plain: Finished) -> float:
    """Seconds of one pass of plain decoding, all included but the prompt."""
    runs = [run_of(record) for record in plain.values()]
    return sum(run.seconds - run.seconds_prefill for run in runs) / sum(run.passes for run in runs)


def _identical(mine: Finished, base: Finished) -> tuple[int, int]:
    """Texts that are the same, and those compared; a batch has several."""
    same = [
        one == other
        for prompt, record in mine.items()
        if prompt in base
        for one, other in zip(run_of(record).texts(record.task), run_of(base[prompt]).texts(record.task), strict=True)
    ]
    return sum(same), len(same)
