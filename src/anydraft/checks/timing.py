"""Short measurements of a pair: passes of several widths, a draft step, and a greedy text both ways."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from anydraft.decoder import Decoder
from anydraft.lm import LanguageModel, chain
from anydraft.sampling import SamplingParams
from anydraft.stats import Stats

__all__ = ["WIDTHS", "Timing", "measure"]

WIDTHS = (1, 4, 8, 16)
CONTEXT = 128
"""Tokens that the timed passes look back on."""
REPEATS = 5


@dataclass(frozen=True)
class Timing:
    """What was measured; seconds are medians.

    Attributes:
        pass_seconds: of the target, by nodes in a pass.
        draft_step_seconds: of the assistant, one token.
        tokens_per_pass, acceptance_rate, drafted_per_pass: over the greedy texts.
        cost: time of a pass with its draft, relative to a plain pass over the same texts (c).
        tokens: number of tokens generated each way.
    """

    pass_seconds: dict[int, float]
    draft_step_seconds: float
    tokens_per_pass: float
    acceptance_rate: float
    drafted_per_pass: float
    cost: float
    tokens: int

    @property
    def gain(self) -> float:
        """Expected speed relative to plain decoding: tau / c."""
        return self.tokens_per_pass / self.cost if self.cost else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"gain": self.gain}


def measure(decoder: Decoder, prompts: Sequence[str], max_new_tokens: int = 48) -> Iterator[Timing | None]:
    """Measure a decoder whose drafter is a model; yields None after each part of the work, at last the result."""
    drafted, plain = Stats(), Stats()
    alone = Decoder(decoder.target)
    limit = decoder.target.context_length
    tokens = [len(decoder.tokenizer(prompt)["input_ids"]) for prompt in prompts]
    for index, (prompt, length) in enumerate(zip(prompts, tokens, strict=True)):
        params = SamplingParams(max_new_tokens=max(1, min(max_new_tokens, limit - length)), ignore_eos=True)
        if index == 0:  # caches of text and kernels are filled by the first use
            decoder.generate(prompt, max_new_tokens=min(8, params.max_new_tokens))
        for total, engine in ((plain, alone), (drafted, decoder))[:: 1 if index % 2 else -1]:
            answer = engine.generate(prompt, params)
            assert not isinstance(answer, list)
            for name, value in vars(total + answer.stats).items():
                setattr(total, name, value)
        yield None
    passes: dict[int, float] = {}
    for width in WIDTHS:
        if decoder.target.fixed_width is None or width <= decoder.target.fixed_width:
            passes[width] = pass_seconds(decoder.target, width)
        yield None
    lm = getattr(decoder.drafter, "lm", None)
    step = pass_seconds(lm, 1) if isinstance(lm, LanguageModel) else 0.0
    yield Timing(
        pass_seconds=passes,
        draft_step_seconds=step,
        tokens_per_pass=drafted.tokens_per_pass,
        acceptance_rate=drafted.acceptance_rate,
        drafted_per_pass=drafted.num_draft_tokens / drafted.num_passes if drafted.num_passes else 0.0,
        cost=_per_pass(drafted) / _per_pass(plain) if _per_pass(plain) else 0.0,
        tokens=drafted.num_tokens,
    )


def pass_seconds(lm: LanguageModel, width: int) -> float:
    """Median seconds of one pass over `width` new tokens behind a short context."""
    cache = lm.new_cache(1)
    context = max(1, min(CONTEXT, lm.context_length - width - 1))
    lm.prefill(cache, 0, [1 % lm.vocab_size] * context)
    times = []
    for repeat in range(REPEATS + 1):
        started = time.perf_counter()
        lm.score(cache, [chain([1 % lm.vocab_size] * width)])
        if lm.device.type == "cuda":
            torch.cuda.synchronize(lm.device)
        if repeat:  # the first one warms up
            times.append(time.perf_counter() - started)
        cache.commit(0, [])
    return statistics.median(times)


def _per_pass(stats: Stats) -> float:
    """Seconds per pass without the prompt."""
    return (stats.seconds_total - stats.seconds_prefill) / stats.num_passes if stats.num_passes else 0.0
