"""Plain decoding and the drafter on the same prompts in turn, for `anydraft demo`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from anydraft.decoder import Decoder
from anydraft.generation import Step
from anydraft.stats import Stats

Watch = Callable[[str, Step], None]
"""Told of every step while it happens: who ("plain" or "drafted"), and what."""


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
    """One prompt at one temperature, decoded both ways."""

    prompt: str
    temperature: float
    seed: int | None
    plain: Lap
    drafted: Lap

    @property
    def identical(self) -> bool:
        """Token by token."""
        return self.plain.tokens == self.drafted.tokens

    @property
    def ratio(self) -> float:
        """How many times as fast as plain decoding."""
        return self.plain.stats.seconds_total / self.drafted.stats.seconds_total


@dataclass
class Race:
    """All heats of one temperature."""

    temperature: float
    heats: list[Heat] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether all heats were."""
        return all(heat.identical for heat in self.heats)

    @property
    def ratio(self) -> float:
        """Median speed ratio of the heats."""
        return statistics.median(heat.ratio for heat in self.heats)

    @property
    def stats(self) -> Stats:
        """Counters of the drafted answers."""
        return sum((heat.drafted.stats for heat in self.heats), Stats())

    @property
    def plain_stats(self) -> Stats:
        """Counters of the plain answers."""
        return sum((heat.plain.stats for heat in self.heats), Stats())

    @property
    def tokens_of_passes(self) -> list[int]:
        """Tokens that each pass of the drafted answers committed."""
        return [len(step.tokens) for heat in self.heats for step in heat.drafted.steps]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "temperature": self.temperature,
            "identical": self.identical,
            "speed_ratio": self.ratio,
            "tokens_per_pass": self.stats.tokens_per_pass,
            "acceptance_rate": self.stats.acceptance_rate,
            "plain": self.plain_stats.to_dict(),
            "drafted": self.stats.to_dict(),
            "heats": [
                {
                    "prompt": heat.prompt,
                    "seed": heat.seed,
                    "identical": heat.identical,
                    "speed_ratio": heat.ratio,
                    "tokens": heat.drafted.tokens,
                }
                for heat in self.heats
            ],
        }


def lap(decoder: Decoder, prompt: str, options: dict[str, Any], watch: Callable[[Step], None] | None = None) -> Lap:
    """Decode once; the watcher's time counts, so none should watch what is to be timed."""
    found = Lap()
    started = time.perf_counter()
    for step in decoder.stream(prompt, **options):
        found.steps.append(step)
        found.stats.record(len(step.tokens), len(step.draft), step.draft.depth, len(step.accepted))
        if watch is not None:
            watch(step)
    found.stats.seconds_total = time.perf_counter() - started
    return found


def run(
    decoder: Decoder, prompts: list[str], temperatures: list[float], max_new_tokens: int, seed: int
) -> Iterator[tuple[Race, Heat]]:
    """Decode every prompt both ways at every temperature, who begins taking turns; yields after each heat."""
    plain = Decoder(decoder.target)
    for temperature in temperatures:
        race = Race(temperature)
        for index, prompt in enumerate(prompts):
            sampled = temperature > 0
            options: dict[str, Any] = {
                "temperature": temperature,
                "seed": seed + index if sampled else None,
                "max_new_tokens": max_new_tokens,
                "ignore_eos": True,
            }
            laps = {}
            for name, engine in (("plain", plain), ("drafted", decoder))[:: -1 if index % 2 else 1]:
                laps[name] = lap(engine, prompt, options)
            heat = Heat(prompt, temperature, options["seed"], laps["plain"], laps["drafted"])
            race.heats.append(heat)
            yield race, heat
