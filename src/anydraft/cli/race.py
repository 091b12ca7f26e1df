"""Plain decoding and any number of drafters on the same prompts in turn, for `anydraft demo`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anydraft.decoder import Decoder
from anydraft.generation import Step
from anydraft.stats import Stats

PLAIN = "plain"


@dataclass
class Lap:
    """One answer: its steps, their counters and its seconds."""

    steps: list[Step] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)

    @property
    def tokens(self) -> list[int]:
        """All tokens."""
        return [token for step in self.steps for token in step.tokens]


@dataclass
class Heat:
    """One prompt at one temperature, decoded plainly and with every drafter, by name."""

    prompt: str
    temperature: float
    seed: int | None
    plain: Lap
    drafted: dict[str, Lap]

    @property
    def identical(self) -> bool:
        """Token by token, with all drafters."""
        return all(self.same(name) for name in self.drafted)

    def same(self, name: str) -> bool:
        """Token by token, with this drafter."""
        return self.plain.tokens == self.drafted[name].tokens

    def ratio(self, name: str) -> float:
        """How many times as fast as plain decoding."""
        return self.plain.stats.seconds_total / self.drafted[name].stats.seconds_total


@dataclass(frozen=True)
class Score:
    """One drafter's part in all heats of one temperature."""

    name: str
    heats: Sequence[Heat]

    @property
    def identical(self) -> bool:
        """Whether all its answers were."""
        return all(heat.same(self.name) for heat in self.heats)

    @property
    def ratio(self) -> float:
        """Median speed ratio of the heats."""
        return statistics.median(heat.ratio(self.name) for heat in self.heats)

    @property
    def stats(self) -> Stats:
        """Counters of its answers."""
        return sum((heat.drafted[self.name].stats for heat in self.heats), Stats())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        stats = self.stats
        return {
            "identical": self.identical,
            "speed_ratio": self.ratio,
            "tokens_per_pass": stats.tokens_per_pass,
            "acceptance_rate": stats.acceptance_rate,
            "stats": stats.to_dict(),
        }


@dataclass
class Race:
    """All heats of one temperature."""

    temperature: float
    heats: list[Heat] = field(default_factory=list)

    @property
    def scores(self) -> list[Score]:
        """One per drafter."""
        return [Score(name, self.heats) for name in self.heats[0].drafted] if self.heats else []

    @property
    def identical(self) -> bool:
        """Whether all heats were."""
        return all(heat.identical for heat in self.heats)

    @property
    def plain_stats(self) -> Stats:
        """Counters of the plain answers."""
        return sum((heat.plain.stats for heat in self.heats), Stats())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "temperature": self.temperature,
            "identical": self.identical,
            "plain": self.plain_stats.to_dict(),
            "drafters": {score.name: score.to_dict() for score in self.scores},
            "heats": [_heat_dict(heat) for heat in self.heats],
        }


def _heat_dict(heat: Heat) -> dict[str, Any]:
    return {
        "prompt": heat.prompt,
        "seed": heat.seed,
        "identical": heat.identical,
        "tokens": heat.plain.tokens,
        "drafters": {
            name: {"identical": heat.same(name), "speed_ratio": heat.ratio(name), "tokens": lap.tokens}
            for name, lap in heat.drafted.items()
        },
    }


def lap(decoder: Decoder, prompt: str, options: dict[str, Any]) -> Lap:
    """Decode once."""
    found = Lap()
    started = time.perf_counter()
    for step in decoder.stream(prompt, **options):
        found.steps.append(step)
        found.stats.record(len(step.tokens), len(step.draft), step.draft.depth, len(step.accepted))
    found.stats.seconds_total = time.perf_counter() - started
    return found


def run(
    drafted: Mapping[str, Decoder], prompts: list[str], temperatures: list[float], max_new_tokens: int, seed: int
) -> Iterator[tuple[Race, Heat]]:
    """Decode every prompt in all ways at every temperature, who begins taking turns; yields after each heat.

    Args:
        drafted: decoders on one and the same target, by name; plain decoding comes by itself.
        prompts, temperatures, max_new_tokens: of the heats.
        seed: of the first prompt's noise.
    """
    starters = [(PLAIN, plain_of(drafted)), *drafted.items()]
    for temperature in temperatures:
        race = Race(temperature)
        for index, prompt in enumerate(prompts):
            options: dict[str, Any] = {
                "temperature": temperature,
                "seed": seed + index if temperature > 0 else None,
                "max_new_tokens": max_new_tokens,
                "ignore_eos": True,
            }
            first = index % len(starters)
            laps = {name: lap(decoder, prompt, options) for name, decoder in starters[first:] + starters[:first]}
            heat = Heat(prompt, temperature, options["seed"], laps[PLAIN], {name: laps[name] for name in drafted})
            race.heats.append(heat)
            yield race, heat


def plain_of(drafted: Mapping[str, Decoder]) -> Decoder:
    """Plain decoding on the drafters' target."""
    return Decoder(next(iter(drafted.values())).target)
