"""What pacing decides: the real tokens of the embedded models, and a clock that goes on as a model of a machine says.

    python benchmarks/decisions.py --drafter uag                            # greedy, a small target
    python benchmarks/decisions.py --drafter redrafter --temperature 1
    python benchmarks/decisions.py --drafter uag --machine large --max-new-tokens 128

On a real clock equal contenders differ by some percent, so that a decision which is better by two cannot be told from
luck. Here the only chance is a little noise in what pacing measures. Fixed settings decode the same texts, and the
share of the best one is told. That is about decisions and not about speed: for that there is pacing.py. See
benchmarks/README.md.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple
from unittest import mock

import typer

from anydraft import Decoder
from anydraft.bench.embedded import Embedded
from anydraft.bench.prompts import held_out_prompts, read_prompts
from anydraft.bench.surroundings import surround
from anydraft.crew import Crew
from anydraft.drafters.protocol import Drafter
from anydraft.growth import Bounds
from anydraft.pacing import Draft, Fixed, Measured, Outcome, Pacing, Steady
from anydraft.row import Row

WIDTHS = (1, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Widths of passes whose times are modelled."""
SETTINGS = ("tree4", "tree8", "tree16", "tree32", "chain8", "chain16")
NOISE, STRAYS, STRAY = 0.06, 0.02, (1.5, 4.0)
"""Standard deviation of a time's logarithm; how many times stray, and how many times as long those are."""

app = typer.Typer(add_completion=False)


class Machine(NamedTuple):
    """Milliseconds.

    Attributes:
        passes: of the target, by width (`WIDTHS`); read: of a token of a prompt.
        level, call: of a draft, by drafter.
        deciding: of a step in which a drafter was asked that is not free, half before and half after its pass.
    """

    passes: tuple[float, ...]
    level: dict[str, float]
    call: dict[str, float]
    read: float = 0.02
    deciding: float = 0.4


_LEVEL, _CALL = {"uag": 1.5, "redrafter": 1.0}, {"uag": 0.7, "redrafter": 0.4}
MACHINES = {
    "small": Machine((5.2, 5.4, 5.4, 5.9, 6.2, 6.6, 8.0, 9.2, 10.6, 12.0), _LEVEL, _CALL),
    "large": Machine((43.0, 43.0, 43.0, 51.0, 57.0, 66.0, 80.0, 97.0, 140.0, 180.0), _LEVEL, _CALL),
}
"""As measured in bfloat16 on two cores with AVX-512 (2026-11-29): the embedded target, and enlarged to 415 M."""


class Size(StrEnum):
    """Which machine."""

    SMALL = "small"
    LARGE = "large"


class Clock:
    """Seconds that go by when something is said to take time.

    Args:
        seed: of the noise.
    """

    def __init__(self, seed: int) -> None:
        self.seconds, self._rng = 0.0, random.Random(seed)

    def __call__(self) -> float:
        """In place of `time.perf_counter`."""
        return self.seconds

    def took(self, milliseconds: float) -> None:
        """Something took so long, more or less."""
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
        self._took()
        return drafts

    def observe(self, outcome: Outcome) -> None:
        """Learn."""
        self._took()
        super().observe(outcome)

    def _took(self) -> None:
        if self._step is not None and self._step.costly:
            self._clock.took(self._machine.deciding / 2)


@app.command()
def main(
    drafter: Annotated[str, typer.Option(help="uag or redrafter.")] = "uag",
    temperature: float = 0.0,
    machine: Size = Size.SMALL,
    prompts: Annotated[str, typer.Option(help="A .jsonl file, or 'held-out'.")] = "held-out",
    decoders: Annotated[int, typer.Option(min=1, help="New ones, each with texts of its own.")] = 3,
    texts: Annotated[int, typer.Option(min=2, help="Texts of a decoder, of which the first does not count.")] = 7,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    fixed: Annotated[list[str], typer.Option(help="chainN or treeN; may be repeated.")] = list(SETTINGS),  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Decode with pacing and with fixed settings, and say what share of the best one pacing reaches."""
    model = MACHINES[machine]
    if drafter not in model.level:
        raise typer.BadParameter(f"--drafter is one of {', '.join(model.level)}, got {drafter!r}")
    try:
        precision = surround("bfloat16", threads)
        count = decoders * texts
        chosen = held_out_prompts(limit=count) if prompts == "held-out" else read_prompts(Path(prompts))
        settings: dict[str, Pacing | None] = {name: setting(name) for name in fixed}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if len(chosen.prompts) < count:
        raise typer.BadParameter(f"{count} prompts are needed (--decoders x --texts), got {len(chosen.prompts)}")
    bench, clock = Embedded(precision, 0.0, None, seed), Clock(seed)
    with mock.patch("time.perf_counter", clock):
        made = bench.drafters(drafter)
        _modelled(bench, made[0], clock, model, drafter)

        def seconds(decoder: Decoder, place: int) -> float:
            before = clock.seconds
            options = {"seed": 0} if temperature else {}
            decoder.generate(
                chosen.prompts[place].text,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                ignore_eos=True,
                **options,
            )
            return clock.seconds - before

        timed = [place for place in range(count) if place % texts]
        found = {"plain": [seconds(Decoder(bench.target), place) for place in timed]}
        for name, pacing in settings.items():
            found[name] = [seconds(Decoder(bench.target, made, pacing=pacing), place) for place in timed]
        found["pacing"] = []
        for first in range(0, count, texts):
            decoder = Decoder(bench.target, made, pacing=Decided(clock, model))
            found["pacing"] += [seconds(decoder, place) for place in range(first, first + texts)][1:]
    typer.echo(table(found))


def setting(name: str) -> Pacing:
    """A fixed pacing by its name: chainN or treeN.

    Raises:
        ValueError: there is none of that name.
    """
    found = re.fullmatch(r"(chain|tree)([1-9]\d*)", name)
    if found is None:
        raise ValueError(f"a fixed setting is chainN or treeN, such as tree16, got {name!r}")
    size = int(found[2])
    return Fixed.chain(size) if found[1] == "chain" else Steady(nodes=size - 1)


def table(found: dict[str, list[float]]) -> str:
    """Speeds over plain decoding, and those of pacing over the best of the fixed ones."""
    plain = found["plain"]
    lines = ["| | all texts | median |", "|---|---|---|"]
    figures = {}
    for name, times in found.items():
        ratios = [before / after for before, after in zip(plain, times, strict=True)]
        figures[name] = (sum(plain) / sum(times), median(ratios))
        lines.append(f"| {name} | {figures[name][0]:.2f}x | {figures[name][1]:.2f}x |")
    for place, words in enumerate(("all texts", "median")):
        name = max((name for name in figures if name not in ("plain", "pacing")), key=lambda name: figures[name][place])
        lines.append(f"\nof the best, {words}: {figures['pacing'][place] / figures[name][place]:.1%} ({name})")
    return "\n".join(lines)


def _modelled(bench: Embedded, drafter: Drafter, clock: Clock, machine: Machine, name: str) -> None:
    """Let the clock go on with what target and drafter are asked for."""
    target: Any = bench.target
    made: Any = drafter
    score, prefill, start, propose = target.score, target.prefill_rows, made.start, made.propose

    def scored(cache: Any, nodes: Any, **options: Any) -> Any:
        width = max(len(tokens) for tokens, _ in nodes)
        clock.took(next(ms for edge, ms in zip(WIDTHS, machine.passes, strict=True) if edge >= width))
        return score(cache, nodes, **options)

    def prefilled(cache: Any, rows: Any, **options: Any) -> Any:
        clock.took(2 + machine.read * sum(map(len, rows)))
        return prefill(cache, rows, **options)

    def started(rows: Sequence[Row]) -> None:
        clock.took(1 + machine.read * sum(len(row.prompt) for row in rows))
        start(rows)

    def proposed(rows: Sequence[Row], bounds: Sequence[Bounds]) -> Any:
        trees = propose(rows, bounds)
        levels = max((tree.levels or tree.depth for tree in trees), default=0)
        clock.took(machine.call[name] + machine.level[name] * levels)
        return trees

    target.score, target.prefill_rows, made.start, made.propose = scored, prefilled, started, proposed


if __name__ == "__main__":
    app()
