"""The plan of a distillation: which prompts are answered how, together, and in which order.

All of it follows from the settings and the prompts, so that a resumed run makes the batches it would have made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from anydraft.errors import OptionConflict
from anydraft.noise import mix64
from anydraft.sampling import SamplingParams
from anydraft.target import Target
from anydraft.training.prompts import PromptSet, token_ids

logger = logging.getLogger(__name__)

WINDOW = 1024
"""Prompts of a kind that are sorted by length together; fixed, so that the order of answers is."""
COIN = 0xC014


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """What answers depend on, beside target and prompts.

    Args:
        sampled_share: share of the answers that are sampled; the others are greedy.
        temperature: of sampled answers.
        max_new_tokens: longest answer.
        seed: of coins and noise.
    """

    sampled_share: float = 0.5
    temperature: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sampled_share <= 1:
            raise OptionConflict(f"sampled_share must be between 0 and 1, got {self.sampled_share}")
        if self.sampled_share and not self.temperature > 0:
            raise OptionConflict(
                f"temperature must be > 0 for sampled answers, got {self.temperature}; sampled_share=0 makes all greedy"
            )
        self.params(True)

    def sampled(self, index: int) -> bool:
        """Whether the answer to the prompt at that place is sampled."""
        return (mix64(self.seed, index, COIN) >> 11) * 2.0**-53 < self.sampled_share

    def noise_seed(self, index: int) -> int:
        """Seed of the noise of the answer to the prompt at that place."""
        return mix64(self.seed, index) >> 1

    def params(self, sampled: bool, seed: int = 0) -> SamplingParams:
        """How one answer is made."""
        temperature = self.temperature if sampled else 0.0
        return SamplingParams(temperature=temperature, max_new_tokens=self.max_new_tokens, seed=seed)


@dataclass(frozen=True)
class Planned:
    """A prompt in its place: index among all prompts, id, token ids, and whether the answer is sampled."""

    index: int
    id: str
    ids: list[int]
    sampled: bool


class Plan:
    """The plan: batches in a fixed order, each all greedy or all sampled and of similar length."""

    def __init__(self, target: Target, prompts: PromptSet, settings: AnswerSettings, limit: int | None) -> None:
        self.target = target
        self.items = prompts.items[:limit]
        self.settings = settings
        self.total = len(self.items)
        self.skipped = 0

    def batches(self, size: int) -> Iterator[list[Planned]]:
        """Slices of windows; the order of prompts does not depend on `size`."""
        for window in self._windows():
            for start in range(0, len(window), size):
                yield window[start : start + size]

    def _windows(self) -> Iterator[list[Planned]]:
        waiting: dict[bool, list[Planned]] = {False: [], True: []}
        room = self.target.context_length - self.settings.max_new_tokens
        for index, item in enumerate(self.items):
            ids = token_ids(item, self.target.tokenizer, self.target.vocab_size)
            if len(ids) > room:
                self.skipped += 1
                logger.info("prompt %r of %d tokens is too long for the context", item.id, len(ids))
                continue
            sampled = self.settings.sampled(index)
            window = waiting[sampled]
            window.append(Planned(index, item.id, ids, sampled))
            if len(window) == WINDOW:
                yield _by_length(window)
                waiting[sampled] = []
        for window in waiting.values():
            yield _by_length(window)


def _by_length(window: list[Planned]) -> list[Planned]:
    return sorted(window, key=lambda planned: (len(planned.ids), planned.index))
