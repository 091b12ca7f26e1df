"""Groups of the benchmark of pacing: contenders that decode the same prompts at the same time, and those prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from anydraft import Decoder
from anydraft.bench.contenders import AnydraftContender
from anydraft.bench.embedded import Embedded
from anydraft.bench.fixed_settings import fixed_setting
from anydraft.bench.measure import Plan
from anydraft.bench.pacing_report import AGAIN, FINAL, PLAIN, PacingRow, best_settings
from anydraft.bench.prompts import PromptSet, begun_again
from anydraft.pacing import Pacing

CHAINS, TREES = (1, 2, 4, 8, 16), (4, 8, 16, 32)
"""Fixed settings that pacing is held against: lengths of chains, and nodes of trees."""

FINALISTS = 2
"""Settings of a sweep that meet pacing in the final."""


class Part(StrEnum):
    """What is measured."""

    BAD = "bad"
    GOOD = "good"
    MIXED = "mixed"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Group:
    """Contenders that decode together: one part, or what of it belongs together.

    Attributes:
        part: that it belongs to.
        drafters: by name, several with "+" between them.
        prompts: places of those that are timed.
        temperatures: at which each is decoded.
        batch: prompts that are decoded together.
        settings: fixed ones of each drafter.
        final: whether these are those that were best in another group.
    """

    part: Part
    drafters: tuple[str, ...]
    prompts: range
    temperatures: Sequence[float]
    batch: int = 1
    settings: tuple[str, ...] = ()
    final: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        more = {Part.GOOD: f"-{self.drafters[0]}", Part.BATCH: f"-{self.batch}"}
        return self.part + more.get(self.part, "") + (f"-final-{self.temperatures[0]:g}" if self.final else "")

    @property
    def row_part(self) -> str:
        """What its rows are under."""
        return FINAL if self.final else self.part


def groups_of(part: Part, batches: Sequence[int], limit: int, temperatures: Sequence[float]) -> list[Group]:
    """The groups of a part, on the first `limit` prompts."""
    alone, common = ("uag", "redrafter", "lookup"), (range(limit), temperatures)
    if part is Part.BAD:
        return [Group(part, ("wrong", "random", "expensive", "mismatched"), *common)]
    if part is Part.GOOD:
        settings = (*(f"chain{size}" for size in CHAINS), *(f"tree{nodes}" for nodes in TREES))
        return [Group(part, (name,), *common, settings=settings) for name in alone[:2]]
    mixture = (*alone, "lookup+redrafter")
    return [Group(part, mixture, *common, batch) for batch in (batches if part is Part.BATCH else (1,))]


def finals_of(group: Group, rows: Sequence[PacingRow], count: int) -> list[Group]:
    """What is measured after a sweep, by temperature: its best settings, on so many prompts after its own."""
    if group.part is not Part.GOOD or not count:
        return []
    first = group.prompts.stop + 1  # the one before warmed up
    finals = [
        dataclasses.replace(
            group,
            prompts=range(first, first + count),
            temperatures=[temperature],
            settings=tuple(best_settings(rows, group.drafters[0], temperature, FINALISTS)),
            final=True,
        )
        for temperature in group.temperatures
    ]
    return [one for one in finals if one.settings]  # none where the sweep was broken off


def contenders_of(bench: Embedded, group: Group) -> list[AnydraftContender]:
    """Plain decoding first, then the group's own; none share a drafter, for all decode at the same time."""
    made = [AnydraftContender(PLAIN, Decoder(bench.target))]
    for name, pacing in settings_of(group):
        drafters = bench.drafters(name.partition("@")[0])
        if drafters:
            made.append(AnydraftContender(f"{PLAIN}-{name}", Decoder(bench.target, drafters, pacing=pacing)))
    return [*made, AnydraftContender(AGAIN, Decoder(bench.target))]


def settings_of(group: Group) -> Iterator[tuple[str, Pacing | None]]:
    """Names of contenders and their pacing; None is the default."""
    for name in group.drafters:
        yield name, None
        for setting in group.settings:
            yield f"{name}@{setting}", fixed_setting(setting)


def plan_of(bench: Embedded, chosen: PromptSet, group: Group, max_new_tokens: int, seed: int) -> Plan:
    """The group's prompts and all that is done with them, in batches where it has some.

    A batch is a prompt with others after it, which come round again where there are too few. The prompt after those
    that are timed warms up; batches do with the last ones.
    """
    batch, copying, limit = group.batch, group.part is Part.MIXED, len(group.prompts)
    texts = [(prompt.id, begun_again(prompt.text) if copying else prompt.text) for prompt in chosen.prompts]
    encoded = [(name, list(bench.tokenizer(text)["input_ids"])) for name, text in texts]
    tokens: list[tuple[str, Any]] = encoded[group.prompts.start : group.prompts.stop]
    warm_up: Any = encoded[group.prompts.stop][1]
    if batch > 1:
        others = [[encoded[(i + j * limit) % len(encoded)][1] for j in range(batch)] for i in range(limit)]
        tokens = [(name, rows) for (name, _), rows in zip(tokens, others, strict=True)]
        warm_up = [encoded[-1 - j % len(encoded)][1] for j in range(batch)]
    return Plan(
        prompts=tokens,
        temperatures=group.temperatures,
        max_new_tokens=max_new_tokens,
        warm_up=warm_up,
        seed=seed,
        batch=batch,
    )
