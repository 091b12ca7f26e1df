"""What pacing decides: the real tokens of the embedded models, and a clock that goes on as a model of a machine says.

    python benchmarks/decisions.py --drafter uag                            # greedy, a small target
    python benchmarks/decisions.py --drafter redrafter --temperature 1
    python benchmarks/decisions.py --drafter uag --machine large --max-new-tokens 128
    python benchmarks/decisions.py --drafter lookup --drafter lookup+redrafter --copying --fixed ""   # a mixture
    python benchmarks/decisions.py --drafter lookup --batch 4 --temperature 1 --fixed ""

On a real clock equal contenders differ by some percent, so that a decision which is better by two cannot be told from
luck. Here the only chance is a little noise in what pacing measures; what is told is the time without it. Fixed
settings decode the same texts, and the share of the best one is told. That is about decisions and not about speed: for
that there is pacing.py. See benchmarks/README.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple
from unittest import mock

import typer

from anydraft import Decoder
from anydraft.bench.embedded import Embedded
from anydraft.bench.fixed_settings import fixed_setting
from anydraft.bench.prompts import begun_again, held_out_prompts, read_prompts
from anydraft.bench.surroundings import surround
from anydraft.crew import Crew
from anydraft.drafters.protocol import Drafter
from anydraft.growth import Bounds
from anydraft.pacing import Draft, Measured
from anydraft.pacing.course import Course
from anydraft.row import Row

WIDTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Widths of passes whose times are modelled."""
SETTINGS = ("tree4", "tree8", "tree16", "tree32", "chain8", "chain16")
NOISE, STRAYS, STRAY = 0.06, 0.02, (1.5, 4.0)
"""Standard deviation of a time's logarithm; how many times stray, and how many times as long those are."""

app = typer.Typer(add_completion=False)


class Machine(NamedTuple):
    """Milliseconds.

    Attributes:
        passes: of the target, by rows, in ascending order, and by width (`WIDTHS`); read: of a token of a prompt.
        level, call: of a draft of one row, by drafter; beside: of a level for one more row, as a share.
        deciding: of a step in which a drafter was asked that is not free: half of it before its pass, and half of that
            where a choice stands; half of it for learning, and half of that for what is learned with the step before.
    """

    passes: dict[int, tuple[float, ...]]
    level: dict[str, float]
    call: dict[str, float]
    read: float = 0.02
    beside: float = 0.25
    deciding: float = 0.4

    def of_pass(self, rows: int, width: int) -> float:
        """Of a pass; between numbers of rows that are known what lies between."""
        place = next(place for place, edge in enumerate(WIDTHS) if edge >= width)
        if rows in self.passes:
            return self.passes[rows][place]
        below = max(known for known in self.passes if known < rows)
        above = min(known for known in self.passes if known > rows)
        share = (rows - below) / (above - below)
        return (1 - share) * self.passes[below][place] + share * self.passes[above][place]

    def of_draft(self, name: str, rows: int, levels: int) -> float:
        """Of a drafter's call."""
        level = self.level[name] * levels * (1 + self.beside * (rows - 1))
        return level + self.call[name] * (1 if self.level[name] else rows)


_LEVEL = {"uag": 1.5, "redrafter": 1.0, "lookup": 0.0}
_CALL = {"uag": 0.7, "redrafter": 0.4, "lookup": 0.02}
_SMALL = {
    1: (5.2, 5.4, 5.4, 5.4, 5.9, 6.2, 6.6, 8.0, 9.2, 10.6, 12.0),
    2: (7.9, 7.9, 7.9, 8.3, 8.7, 9.4, 10.6, 13.0, 15.5, 20.0, 25.0),
    4: (6.8, 7.2, 8.2, 8.8, 9.5, 11.0, 13.2, 17.0, 21.5, 30.0, 39.0),
    8: (9.2, 12.8, 14.5, 17.6, 18.3, 22.9, 28.3, 39.0, 50.0, 72.0, 95.0),
}
_LARGE = {1: (43.0, 43.0, 43.0, 43.0, 51.0, 57.0, 66.0, 80.0, 97.0, 140.0, 180.0)}
_FLOAT32 = {
    1: (6.6, 7.8, 8.5, 8.5, 9.1, 9.8, 10.7, 12.1, 13.9, 17.3, 20.7),
    2: (7.5, 9.2, 9.6, 11.0, 12.3, 13.4, 15.0, 17.8, 21.1, 28.6, 35.5),
    4: (9.2, 11.3, 13.4, 15.4, 16.9, 19.7, 22.7, 29.0, 36.2, 50.1, 65.6),
    8: (10.7, 16.4, 18.9, 24.1, 29.2, 38.4, 42.9, 55.0, 68.3, 101.1, 127.7),
}
MACHINES = {
    "small": Machine(_SMALL, _LEVEL, _CALL),
    "float32": Machine(_FLOAT32, _LEVEL | {"redrafter": 0.75}, _CALL | {"redrafter": 0.6}),
    "large": Machine(_LARGE, {"uag": 1.5, "redrafter": 3.0, "lookup": 0.0}, _CALL),
}
"""As measured on two cores (2026-11-29), in bfloat16 with AVX-512 and in float32 with AVX2: the embedded target, and
enlarged to 415 M. Guessed are in bfloat16 widths above 16 for several rows, in float32 what UAG takes, and the levels
of a ReDrafter that was enlarged with its target."""


class Size(StrEnum):
    """Which machine."""

    SMALL = "small"
    FLOAT32 = "float32"
    LARGE = "large"


class Clock:
    """Seconds that go by when something is said to take time.

    Args:
        seed: of the noise.

    Attributes:
        seconds: as they are measured; exact: without noise.
    """

    def __init__(self, seed: int) -> None:
        self.seconds, self.exact, self._rng = 0.0, 0.0, random.Random(seed)

    def __call__(self) -> float:
        """In place of `time.perf_counter`."""
        return self.seconds

    def took(self, milliseconds: float) -> None:
        """Something took so long, more or less."""
        self.exact += milliseconds / 1000
        stray = self._rng.uniform(*STRAY) if self._rng.random() < STRAYS else 1.0
        self.seconds += milliseconds / 1000 * math.exp(self._rng.gauss(0.0, NOISE)) * stray


class Decided(Measured):
    """The measured pacing, whose deciding takes a modelled time."""

    def __init__(self, clock: Clock, machine: Machine) -> None:
        super().__init__()
        self._clock, self._machine = clock, machine

    def draft(self, rows: Sequence[Row], crew: Crew) -> list[Draft]:
        """Decide, and ask."""
        drafts = super().draft(rows, crew)
        if self._step is not None and self._step.costly:
            self._took(1.0 if self._step.at_once else 0.5)
        return drafts

    def _learn(self, course: Course) -> None:
        costly = sum(step.costly for step, _ in course.lessons)
        if costly:
            self._took(0.5 + 0.5 * costly)
        super()._learn(course)

    def _took(self, share: float) -> None:
        self._clock.took(share * self._machine.deciding / 2)


@app.command()
def main(
    drafter: Annotated[
        list[str], typer.Option(help="uag, redrafter or lookup, or several as a+b; may be repeated.")
    ] = ["uag"],  # noqa: B006
    temperature: float = 0.0,
    machine: Size = Size.SMALL,
    prompts: Annotated[str, typer.Option(help="A .jsonl file, or 'held-out'.")] = "held-out",
    decoders: Annotated[int, typer.Option(min=1, help="New ones, each with texts of its own.")] = 3,
    texts: Annotated[int, typer.Option(min=2, help="Texts of a decoder, of which the first does not count.")] = 7,
    batch: Annotated[int, typer.Option(min=1, max=8, help="Rows: every text with others beside it.")] = 1,
    copying: Annotated[bool, typer.Option("--copying", help="The first half of every prompt comes once more.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    fixed: Annotated[list[str], typer.Option(help="chainN or treeN; may be repeated; '' for none.")] = list(SETTINGS),  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Decode with pacing and with fixed settings, and say what share of the best one pacing reaches."""
    model = MACHINES[machine]
    unknown = sorted({name for names in drafter for name in names.split("+")} - {*model.level})
    if unknown:
        raise typer.BadParameter(f"--drafter is made of {', '.join(model.level)}, got {unknown[0]!r}")
    if batch > max(model.passes):
        raise typer.BadParameter(f"--machine {machine} has no times of more rows, got --batch {batch}")
    settled = [name for name in fixed if name]
    if settled and any("+" in names for names in drafter):
        raise typer.BadParameter("a fixed setting is of one drafter; with several give --fixed ''")
    try:
        precision = surround("bfloat16", threads)
        count = decoders * texts
        chosen = held_out_prompts(limit=count) if prompts == "held-out" else read_prompts(Path(prompts))
        settings = {name: fixed_setting(name) for name in settled}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if len(chosen.prompts) < count:
        raise typer.BadParameter(f"{count} prompts are needed (--decoders x --texts), got {len(chosen.prompts)}")
    bench, clock = Embedded(precision, 0.0, None, seed), Clock(seed)
    written = [begun_again(prompt.text) if copying else prompt.text for prompt in chosen.prompts]
    others = [written[place :] + written[:place] for place in range(0, len(written), max(1, len(written) // batch))]
    with mock.patch("time.perf_counter", clock):
        _model_target(bench, clock, model)

        def seconds(decoder: Decoder, place: int) -> float:
            before = clock.exact
            options = {"seed": 0} if temperature else {}
            decoder.generate(
                [texts[place] for texts in others[:batch]],
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                ignore_eos=True,
                **options,
            )
            return clock.exact - before

        timed = [place for place in range(count) if place % texts]
        plain = [seconds(Decoder(bench.target), place) for place in timed]
        for names in drafter:
            made = [_modelled(bench.drafters(name)[0], name, clock, model) for name in names.split("+")]
            found = {"plain": plain}
            for name, pacing in settings.items():
                found[name] = [seconds(Decoder(bench.target, made, pacing=pacing), place) for place in timed]
            found["pacing"] = []
            for first in range(0, count, texts):
                decoder = Decoder(bench.target, made, pacing=Decided(clock, model))
                found["pacing"] += [seconds(decoder, place) for place in range(first, first + texts)][1:]
            typer.echo(f"{names}\n\n{table(found)}\n")


def table(found: dict[str, list[float]]) -> str:
    """Speeds over plain decoding, and those of pacing over the best of the fixed ones."""
    plain = found["plain"]
    lines = ["| | all texts | median |", "|---|---|---|"]
    figures = {}
    for name, times in found.items():
        ratios = [before / after for before, after in zip(plain, times, strict=True)]
        figures[name] = (sum(plain) / sum(times), median(ratios))
        lines.append(f"| {name} | {figures[name][0]:.2f}x | {figures[name][1]:.2f}x |")
    fixed = [name for name in figures if name not in ("plain", "pacing")]
    for place, words in enumerate(("all texts", "median") if fixed else ()):
        name = max(fixed, key=lambda name: figures[name][place])
        lines.append(f"\nof the best, {words}: {figures['pacing'][place] / figures[name][place]:.1%} ({name})")
    return "\n".join(lines)


def _model_target(bench: Embedded, clock: Clock, machine: Machine) -> None:
    """Let the clock go on with what the target is asked for."""
    target: Any = bench.target
    score, prefill = target.score, target.prefill_rows

    def scored(cache: Any, nodes: Any, **options: Any) -> Any:
        clock.took(machine.of_pass(len(nodes), max(len(tokens) for tokens, _ in nodes)))
        return score(cache, nodes, **options)

    def prefilled(cache: Any, rows: Any, **options: Any) -> Any:
        clock.took(2 + machine.read * sum(map(len, rows)))
        return prefill(cache, rows, **options)

    target.score, target.prefill_rows = scored, prefilled


def _modelled(drafter: Drafter, name: str, clock: Clock, machine: Machine) -> Drafter:
    """The drafter, with whose calls the clock goes on."""
    made: Any = drafter
    start, propose = made.start, made.propose

    def started(rows: Sequence[Row]) -> None:
        clock.took(1 + machine.read * sum(len(row.prompt) for row in rows) if machine.level[name] else 0.1 * len(rows))
        start(rows)

    def proposed(rows: Sequence[Row], bounds: Sequence[Bounds]) -> Any:
        trees = propose(rows, bounds)
        levels = max((tree.levels or tree.depth for tree in trees), default=0)
        clock.took(machine.of_draft(name, len(rows), levels))
        return trees

    made.start, made.propose = started, proposed
    return drafter


if __name__ == "__main__":
    app()
