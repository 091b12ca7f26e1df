"""SamplingParams: what the user asks for, checked once. The words are vLLM's and transformers'."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Self

import torch

from anydraft.errors import OptionConflict

TokenProcessor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A transformers `LogitsProcessor`: (1, length) ids and (1, vocab) scores to (1, vocab) scores."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens and when to stop.

    Args:
        temperature: 0 is greedy; otherwise scores are divided by it.
        top_k, top_p, min_p, typical_p: restrict sampling as in transformers; 0, 1.0, 0.0 and 1.0 switch them off.
        repetition_penalty: as in transformers (over prompt and output).
        presence_penalty, frequency_penalty: as in OpenAI's API (over the output only).
        no_repeat_ngram_size: no n-gram of this size occurs twice.
        logit_bias: token id to a number added to its logit.
        bad_words: strings or token id sequences that must not occur.
        max_new_tokens, min_new_tokens: bounds on the answer's length; 0 new tokens is an error.
        stop: strings after which generation ends; they stay in the answer, as in transformers.
        stop_token_ids: further ids that end the answer.
        ignore_eos: go on after the end-of-sequence token.
        seed: of the noise; None draws one.
        n: answers per prompt.
        logits_processors: any transformers `LogitsProcessor`; it sees the path of each drafted token. It must
            be a function of its arguments (one that keeps a state between calls cannot be verified in trees).

    Raises:
        OptionConflict: a value out of range, or options that contradict each other.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: Sequence[str | Sequence[int]] = ()
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    seed: int | None = None
    n: int = 1
    logits_processors: Sequence[TokenProcessor] = ()

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if isinstance(self.bad_words, str):
            object.__setattr__(self, "bad_words", (self.bad_words,))
        for name, (good, allowed) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not good(value):
                raise OptionConflict(f"{name} must be {allowed}, got {value!r}")
        for name in ("top_k", "no_repeat_ngram_size", "max_new_tokens", "min_new_tokens", "n"):
            if not isinstance(getattr(self, name), int):
                raise OptionConflict(f"{name} must be an integer, got {getattr(self, name)!r}")
        if self.seed is not None:
            if isinstance(self.seed, bool) or not isinstance(self.seed, Integral):
                raise OptionConflict(f"seed must be an integer or None, got {self.seed!r}")
            object.__setattr__(self, "seed", int(self.seed))  # one of numpy's would overflow in the hash
        if not isinstance(self.ignore_eos, bool):
            raise OptionConflict(f"ignore_eos must be True or False, got {self.ignore_eos!r}")
        for name in ("bad_words", "stop", "stop_token_ids", "logits_processors"):
            if not isinstance(getattr(self, name), Collection):
                raise OptionConflict(f"{name} takes a list, got {getattr(self, name)!r}")
        if self.min_new_tokens > self.max_new_tokens:
            raise OptionConflict(
                f"min_new_tokens={self.min_new_tokens} exceeds max_new_tokens={self.max_new_tokens}; raise the latter"
            )
        if self.greedy:
            set_ = [name for name in ("top_k", "top_p", "min_p", "typical_p") if getattr(self, name) != _DEFAULTS[name]]
            if set_:
                raise OptionConflict(
                    f"{', '.join(set_)} restrict sampling, but temperature is 0 (greedy); set temperature > 0 or leave "
                    "them out"
                )
            if self.n > 1:
                raise OptionConflict(f"n={self.n} greedy answers would be identical; set temperature > 0")
        if any(not isinstance(stop, str) or not stop for stop in self.stop):
            raise OptionConflict(f"stop takes non-empty strings, got {list(self.stop)!r}")
        if any(not isinstance(words, Collection) for words in self.bad_words):
            raise OptionConflict(f"bad_words takes strings or lists of token ids, got {list(self.bad_words)!r}")
        if any(len(words) == 0 for words in self.bad_words):
            raise OptionConflict("bad_words holds an empty entry, which would forbid everything")
        if any(not callable(processor) for processor in self.logits_processors):
            raise OptionConflict(f"logits_processors takes LogitsProcessors, got {list(self.logits_processors)!r}")
        if not isinstance(self.logit_bias, Mapping):
            raise OptionConflict(f"logit_bias maps token ids to numbers, got {self.logit_bias!r}")
        for token, bias in self.logit_bias.items():
            if not isinstance(token, int) or not isinstance(bias, Real) or math.isnan(bias):
                raise OptionConflict(f"logit_bias maps token ids to numbers, got {token!r}: {bias!r}")

    @property
    def greedy(self) -> bool:
        """Whether no noise is used."""
        return self.temperature == 0

    @classmethod
    def of(cls, params: SamplingParams | None, options: Mapping[str, Any]) -> Self | SamplingParams:
        """`params` with `options` on top; unknown options are errors."""
        if params is not None and not isinstance(params, cls):
            raise OptionConflict(
                f"params must be SamplingParams, got {type(params).__name__}; options go in by name: max_new_tokens=64"
            )
        known = {f.name for f in fields(cls)}
        unknown = [name for name in options if name not in known]
        if unknown:
            raise OptionConflict(f"unknown option {unknown[0]!r}; sampling options are {', '.join(sorted(known))}")
        return cls(**options) if params is None else replace(params, **options)


_DEFAULTS: dict[str, float] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda v: 0 <= v < math.inf, ">= 0 (0 is greedy)"),
    "top_k": (lambda v: v >= 0, ">= 0 (0 is off)"),
    "top_p": (lambda v: 0 < v <= 1, "in (0, 1] (1 is off)"),
    "min_p": (lambda v: 0 <= v <= 1, "in [0, 1] (0 is off)"),
    "typical_p": (lambda v: 0 < v <= 1, "in (0, 1] (1 is off)"),
    "repetition_penalty": (lambda v: 0 < v < math.inf, "> 0 (1 is off)"),
    "presence_penalty": (lambda v: abs(v) <= 2, "in [-2, 2] (0 is off)"),
    "frequency_penalty": (lambda v: abs(v) <= 2, "in [-2, 2] (0 is off)"),
    "no_repeat_ngram_size": (lambda v: v >= 0, ">= 0 (0 is off)"),
    "max_new_tokens": (lambda v: v >= 1, ">= 1"),
    "min_new_tokens": (lambda v: v >= 0, ">= 0"),
    "n": (lambda v: v >= 1, ">= 1"),
}
