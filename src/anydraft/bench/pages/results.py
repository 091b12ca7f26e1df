"""The summary of a benchmark, read leniently: whatever a failed contender lacks is None or empty.

A figure that is not a finite number counts as missing, so that no drawing has to ask again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anydraft.bench.pages.markup import visible
from anydraft.bench.statistics import Interval

PARTS = ("target", "draft", "convert", "verify", "other", "prefill")
"""Of the time, in the order of the drawing."""
PLAIN = "plain decoding"


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What the reader of the page chooses."""

    temperature: float
    batch: int

    def __str__(self) -> str:
        return f"temperature {self.temperature:g}, batch {self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One contender at one setting; seconds, bytes, and intervals of 95 %.

    Attributes:
        contender: as it is shown (`shown_name`).
        plain: whether this is its engine's plain decoding, with which the engine's others are compared.
        speedup: over plain decoding of the same engine; None for plain decoding itself.
        speedup_transformers: over transformers' own `generate`.
        acceptance: by depth, of the drafts that reached it (`reached`).
        equal: texts equal to plain decoding's, and how many were compared.
        excess_z: how far sampled texts are from what the target would say, in standard deviations of chance.
    """

    contender: str
    plain: bool
    engine: str
    setting: Setting
    prompts: int
    problems: tuple[str, ...]
    tokens_per_second: Interval | None
    speedup: Interval | None
    speedup_transformers: Interval | None
    tau: Interval | None
    cost: Interval | None
    acceptance: tuple[float, ...]
    reached: tuple[int, ...]
    acceptance_rate: float | None
    seconds_per_token: dict[str, float]
    first_token: float | None
    peak_memory: float | None
    equal: tuple[int, int] | None
    first_difference: Mapping[str, Any]
    excess_z: float | None

    @property
    def measured(self) -> bool:
        """Whether there is a speed to show."""
        return self.tokens_per_second is not None


def read(summary: Mapping[str, Any]) -> list[Result]:
    """The rows of a summary."""
    return [_result(row) for row in mappings(summary.get("rows"))]


def _result(row: Mapping[str, Any]) -> Result:
    reached = [int(count) for value in sequence(row.get("reached")) if (count := number(value)) is not None]
    acceptance = [number(value) or 0.0 for value in sequence(row.get("acceptance"))]
    deep = sum(count > 0 for count in reached) if reached else len(acceptance)
    spent = row.get("seconds_per_token")
    spent = spent if isinstance(spent, Mapping) else {}
    equal = [number(value) for value in sequence(row.get("equal"))]
    difference = row.get("first_difference")
    name = str(row.get("contender") or "unnamed")
    engine = str(row.get("engine") or name.partition("-")[0])
    return Result(
        contender=visible(shown_name(name, engine)),
        plain=name == engine,
        engine=engine,
        setting=Setting(number(row.get("temperature")) or 0.0, int(number(row.get("batch")) or 1)),
        prompts=int(number(row.get("prompts")) or 0),
        problems=tuple(
            dict.fromkeys(visible(str(text)) for key in ("errors", "failures") for text in sequence(row.get(key)))
        ),
        tokens_per_second=interval(row.get("tokens_per_second")),
        speedup=interval(row.get("speedup")),
        speedup_transformers=interval(row.get("speedup_transformers")),
        tau=interval(row.get("tau")),
        cost=interval(row.get("cost")),
        acceptance=tuple(acceptance[:deep]),
        reached=tuple(reached[:deep]),
        acceptance_rate=number(row.get("acceptance_rate")),
        seconds_per_token={part: seconds for part in PARTS if (seconds := number(spent.get(part))) is not None},
        first_token=number(row.get("first_token")),
        peak_memory=number(row.get("peak_memory")),
        equal=(int(equal[0]), int(equal[1])) if len(equal) == 2 and equal[0] is not None and equal[1] else None,
        first_difference=difference if isinstance(difference, Mapping) else {},
        excess_z=number(row.get("excess_z")),
    )


def shown_name(contender: str, engine: str = "anydraft") -> str:
    """`anydraft-lookup` is lookup, `anydraft` plain decoding; a peer keeps its name: `transformers + lookup`."""
    if engine != "anydraft":
        return contender.replace(f"{engine}-", f"{engine} + ", 1) if contender.startswith(f"{engine}-") else contender
    return PLAIN if contender == engine else contender.removeprefix(f"{engine}-")


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def interval(value: object) -> Interval | None:
    """A figure with its interval; the interval is the figure itself where none is known."""
    if not isinstance(value, Mapping) or (middle := number(value.get("value"))) is None:
        return None
    low, high = number(value.get("low")), number(value.get("high"))
    return Interval(middle, middle if low is None else low, middle if high is None else high)


def sequence(value: object) -> Sequence[Any]:
    """A list, or nothing."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [item for item in sequence(value) if isinstance(item, Mapping)]
