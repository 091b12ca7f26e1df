"""The comparison with llama.cpp as Markdown, and what it was to show.

Speed is given twice. Tokens a second count the whole run, prompt included; "after the prompt" leaves out the target's
pass over the prompt, because the two engines differ more there than in decoding. That pass gives llama.cpp and
transformers their first token, which is left out with it; anydraft's stops before the last token of the prompt and
gives none. What a drafter does with the prompt stays in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anydraft.bench.aims import Aim
from anydraft.bench.measure import Record, Run
from anydraft.bench.report import Row, engine, summarise
from anydraft.bench.statistics import Interval, bootstrap, ratio_of_rates, ratio_of_totals

RIVAL = "llamacpp"
LEAST = {"anydraft": 0.8, "anydraft-uag": 1.5, "anydraft-redrafter": 1.5}  # times llama.cpp's plain decoding
COLUMNS = (
    "contender",
    "tokens/s",
    "x llama.cpp",
    "after the prompt: tokens/s",
    "x llama.cpp",
    "x transformers",
    "tau",
    "c",
    "first token",
    "same text",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A contender's figures beside llama.cpp's.

    Attributes:
        row: the figures of the whole runs.
        rate: tokens a second after the prompt.
        over: that rate over llama.cpp's, on the prompts that both finished.
    """

    row: Row
    rate: Interval | None = None
    over: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        after = {"rate": self.rate, "over": self.over}
        return self.row.to_dict() | {
            "after_prompt": {name: None if found is None else found.to_dict() for name, found in after.items()}
        }


def beside(records: Sequence[Record], *, seed: int = 0) -> list[Beside]:
    """The figures by temperature and contender, in the order in which they first appear."""
    runs: dict[tuple[float, str], dict[str, Run]] = {}
    for record in records:
        if record.run is not None:
            runs.setdefault((record.task.temperature, record.contender), {})[record.prompt_id] = record.run
    made = []
    for row in summarise(records, seed=seed):
        mine = runs.get((row.temperature, row.contender), {})
        theirs = runs.get((row.temperature, RIVAL), {})
        shared = [prompt for prompt in mine if prompt in theirs]
        made.append(
            Beside(
                row=row,
                rate=bootstrap(ratio_of_totals, *_after(row.contender, mine.values()), seed=seed) if mine else None,
                over=bootstrap(
                    ratio_of_rates,
                    *_after(row.contender, (mine[prompt] for prompt in shared)),
                    *_after(RIVAL, (theirs[prompt] for prompt in shared)),
                    seed=seed,
                )
                if shared and row.contender != RIVAL
                else None,
            )
        )
    return made


def _after(contender: str, runs: Iterable[Run]) -> tuple[list[float], list[float]]:
    """Tokens and seconds after the target's pass over the prompt."""
    kept = list(runs)
    given = 0.0 if engine(contender) == "anydraft" else 1.0  # tokens by the pass over the prompt itself
    return [len(run.tokens) - given for run in kept], [run.seconds - run.seconds_prefill for run in kept]


def aims(found: Sequence[Beside]) -> list[Aim]:
    """Each contender against its share of llama.cpp's speed; it holds only if it does both ways."""
    return [
        Aim(
            aim=f"{of.row.contender} at least {LEAST[of.row.contender]:g}x of llama.cpp, temperature "
            f"{of.row.temperature:g}",
            found=f"{of.row.speedup[RIVAL]:.2f}; after the prompt {of.over:.2f}",
            holds=min(of.row.speedup[RIVAL].value, of.over.value) >= LEAST[of.row.contender],
        )
        for of in found
        if of.row.contender in LEAST and RIVAL in of.row.speedup and of.over is not None
    ]


def markdown(found: Sequence[Beside], title: str, logits: Mapping[str, Mapping[str, float]]) -> str:
    """A table per temperature, how near the logits of the engines are, and the aims."""
    parts = [f"# {title}", ""]
    for temperature in dict.fromkeys(of.row.temperature for of in found):
        chosen = [of for of in found if of.row.temperature == temperature]
        parts += [f"## Temperature {temperature:g}, {max(of.row.prompts for of in chosen)} prompts", ""]
        parts += [_line(COLUMNS), _line(["---"] + ["--:"] * (len(COLUMNS) - 1))]
        parts += [_line(_cells(of)) for of in chosen]
        errors = [f"- {of.row.contender}: {error}" for of in chosen for error in sorted(set(of.row.errors))]
        parts += ["", *errors, *([""] if errors else [])]
    parts += ["## Logits beside those of the same weights in float32", ""]
    parts += [_line(["engine", "positions", "same choice", "mean, nats", "largest, nats"])]
    parts += [_line(["---"] + ["--:"] * 4)]
    parts += [
        _line([name, f"{of['positions']:.0f}", f"{of['same_choice']:.1%}", f"{of['mean']:.4f}", f"{of['largest']:.3f}"])
        for name, of in logits.items()
    ]
    parts += ["", "## Aims", "", _line(["aim", "found", "holds"]), _line(["---"] * 3)]
    parts += [_line([aim.aim, aim.found, "yes" if aim.holds else "no"]) for aim in aims(found)]
    return "\n".join(parts) + "\n"


def _cells(of: Beside) -> list[str]:
    row, same = of.row, of.row.identical.get(RIVAL)
    first = row.seconds_first_token
    return [
        row.contender,
        _interval(row.tokens_per_second, ".1f"),
        _interval(row.speedup.get(RIVAL)),
        _interval(of.rate, ".1f"),
        _interval(of.over),
        _interval(row.speedup.get("transformers")),
        _interval(row.tokens_per_pass),
        _interval(row.cost),
        "-" if first is None else f"{1000 * first:.0f} ms",
        "-" if same is None else f"{same[0]}/{same[1]}",
    ]


def _interval(interval: Interval | None, spec: str = ".2f") -> str:
    return "-" if interval is None else f"{interval:{spec}}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
