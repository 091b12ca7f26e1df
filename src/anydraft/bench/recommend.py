"""From a short measurement to advice: which drafter to use, or none, and what to expect of it.

A drafter is recommended when its gain over plain decoding is certain: the lower end of the speed-up's interval, over
all prompts and temperatures together, is above `WORTH`. Of several, the one with the highest lower end is; where it is
not the best at each temperature, that is said. A drafter that broke is never recommended.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anydraft.bench.figures import Figures, finite
from anydraft.bench.measure import Record
from anydraft.bench.report import run_of
from anydraft.bench.statistics import Interval, bootstrap, ratio_of_rates, ratio_of_totals
from anydraft.bench.suite import PLAIN

WORTH = 1.02
Verdict = Literal["recommended", "helps", "uncertain", "slower", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What was found of one candidate, over all temperatures.

    Attributes:
        name: as it is shown; drafter: what `--drafter` takes.
        verdict: "helps" where the gain is certain, though another one's is larger; "uncertain" where the interval
            reaches below `WORTH`; "slower" where all of it lies below 1; "broken" where it failed.
        speedup: over plain decoding; None where it failed.
        by_temperature: the same at each temperature.
        memory: bytes, the largest.
        pacing: by temperature, what the pacing said of its choices.
        problems: what broke.
    """

    name: str
    drafter: str
    verdict: Verdict
    speedup: Interval | None = None
    tokens_per_second: float | None = None
    tau: float | None = None
    by_temperature: dict[float, Interval]
    memory: int | None = None
    pacing: dict[float, str]
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content["speedup"] = None if self.speedup is None else self.speedup.to_dict()
        content["by_temperature"] = {f"{at:g}": interval.to_dict() for at, interval in self.by_temperature.items()}
        content["pacing"] = {f"{at:g}": said for at, said in self.pacing.items()}
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The advice as a whole.

    Attributes:
        drafter: what `--drafter` takes; "none" when none helps.
        command: a call to copy; python: the same in Python.
        reason: one sentence.
        candidates: the recommended one first, then by speed-up.
        plain_tokens_per_second, plain_memory: of plain decoding.
        best_at: by temperature, what `--drafter` takes for the best certain one there; "none" where none is.
        hint: what else to try on this machine.
    """

    target: str
    drafter: str
    command: str
    python: str
    reason: str
    candidates: list[Advice]
    plain_tokens_per_second: float | None
    plain_memory: int | None
    best_at: dict[float, str]
    hint: str | None = None

    @property
    def chosen(self) -> Advice | None:
        """The recommended candidate."""
        return next((advice for advice in self.candidates if advice.verdict == "recommended"), None)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content["candidates"] = [advice.to_dict() for advice in self.candidates]
        content["best_at"] = {f"{at:g}": drafter for at, drafter in self.best_at.items()}
        told: dict[str, Any] = finite(content)
        return told


def recommend(
    target: str,
    drafters: Sequence[tuple[str, str]],
    records: Sequence[Record],
    rows: Sequence[Figures],
    *,
    options: Sequence[str] = (),
    keywords: str = "",
    hint: str | None = None,
    seed: int = 0,
) -> Recommendation:
    """Weigh the candidates.

    Args:
        target: as it was named.
        drafters: name of the contender without its engine, and what `--drafter` takes, for every candidate.
        records, rows: of the measurement, with plain decoding.
        options: further words for the call to copy; keywords: the same for Python, with a comma before them.
        hint: what else to try on this machine.
    """
    found = sorted((_advice(name, drafter, records, rows, seed) for name, drafter in drafters), key=_rank, reverse=True)
    certain = [advice for advice in found if advice.verdict == "helps"]
    best = certain[0] if certain else None
    candidates = [_chosen(advice) if advice is best else advice for advice in found]
    drafter = best.drafter if best is not None else "none"
    temperatures = dict.fromkeys(record.task.temperature for record in records)
    plain = [record for record in records if record.contender == PLAIN and record.run is not None]
    memories = [row.peak_memory for row in rows if row.contender == PLAIN and row.peak_memory is not None]
    return Recommendation(
        target=target,
        drafter=drafter,
        command=shlex.join(["anydraft", "generate", target, "--drafter", drafter, *options]),
        python=_python(target, drafter, keywords),
        reason=_reason(best, found),
        candidates=candidates,
        plain_tokens_per_second=_rate(plain),
        plain_memory=max(memories, default=None),
        best_at={at: _best_at(at, found) for at in temperatures},
        hint=hint,
    )


def _advice(name: str, drafter: str, records: Sequence[Record], rows: Sequence[Figures], seed: int) -> Advice:
    contender = f"{PLAIN}-{name}"
    mine = [row for row in rows if row.contender == contender]
    problems = [problem for row in mine for problem in (*row.errors, *row.failures)]
    speedup = _speedup(contender, records, seed)
    memories = [row.peak_memory for row in mine if row.peak_memory is not None]
    runs = [record for record in records if record.contender == contender and record.run is not None]
    verdict: Verdict
    if problems or speedup is None:
        verdict = "broken"
    elif speedup.low > WORTH:
        verdict = "helps"
    else:
        verdict = "slower" if speedup.high < 1 else "uncertain"
    tokens, passes = sum(len(run_of(r).tokens) for r in runs), sum(run_of(r).passes for r in runs)
    return Advice(
        name=name,
        drafter=drafter,
        verdict=verdict,
        speedup=speedup,
        tokens_per_second=_rate(runs),
        tau=tokens / passes if passes else None,
        by_temperature={row.temperature: row.speedup for row in mine if row.speedup is not None},
        memory=max(memories, default=None),
        pacing={row.temperature: row.pacing for row in mine if row.pacing is not None},
        problems=list(dict.fromkeys(problems)),
    )


def _speedup(contender: str, records: Sequence[Record], seed: int) -> Interval | None:
    """Over plain decoding, every prompt at every temperature as one unit."""
    runs = {
        name: {
            (record.task.temperature, record.prompt_id): run_of(record)
            for record in records
            if record.contender == name and record.run is not None
        }
        for name in (PLAIN, contender)
    }
    shared = [place for place in runs[contender] if place in runs[PLAIN]]
    if not shared:
        return None
    columns = (
        [float(figure) for figure in column]
        for name in (contender, PLAIN)
        for column in (
            [len(runs[name][place].tokens) for place in shared],
            [runs[name][place].seconds for place in shared],
        )
    )
    return bootstrap(ratio_of_rates, *columns, seed=seed)


def _rate(records: Sequence[Record]) -> float | None:
    if not records:
        return None
    tokens, seconds = ([float(len(run_of(r).tokens)) for r in records], [run_of(r).seconds for r in records])
    return bootstrap(ratio_of_totals, tokens, seconds, resamples=1).value


def _rank(advice: Advice) -> tuple[bool, float]:
    return advice.verdict == "helps", advice.speedup.low if advice.speedup is not None else 0.0


def _chosen(advice: Advice) -> Advice:
    kept = {name: getattr(advice, name) for name in advice.__dataclass_fields__}
    return Advice(**{**kept, "verdict": "recommended"})


def _best_at(temperature: float, found: Sequence[Advice]) -> str:
    sound = [advice for advice in found if advice.verdict != "broken" and temperature in advice.by_temperature]
    best = max(sound, key=lambda advice: advice.by_temperature[temperature].low, default=None)
    return best.drafter if best is not None and best.by_temperature[temperature].low > WORTH else "none"


def _reason(best: Advice | None, found: Sequence[Advice]) -> str:
    if best is not None and best.speedup is not None:
        return (
            f"{best.name} is {best.speedup.value:.2f} times as fast as plain decoding here (95 % interval "
            f"{best.speedup.low:.2f} to {best.speedup.high:.2f})"
        )
    if found and all(advice.verdict == "broken" for advice in found):
        return "no candidate worked; see what broke"
    sound = next((advice for advice in found if advice.speedup is not None and advice.verdict != "broken"), None)
    if sound is None or sound.speedup is None:
        return "there was nothing to measure"
    return (
        f"none of the candidates is certain to help: the best, {sound.name}, runs at {sound.speedup.value:.2f} of "
        f"plain decoding's speed (95 % interval {sound.speedup.low:.2f} to {sound.speedup.high:.2f}, and the lower end "
        f"should be above {WORTH:g})"
    )


def _python(target: str, drafter: str, keywords: str) -> str:
    """The call of `anydraft.load`; embedded models are found by `anydraft.models`."""

    def named(name: str, role: str) -> str:
        return f'models.path("{role}")' if name.startswith("embedded") else repr(name)

    roles = {"embedded": "assistant", "embedded-redrafter": "redrafter"}
    parts = [named(part, roles.get(part, "")) for part in drafter.split(",")]
    given = "None" if drafter == "none" else parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"
    call = f"anydraft.load({named(target, 'target')}, drafter={given}{keywords})"
    return f"from anydraft import models; {call}" if "models.path(" in call else call
