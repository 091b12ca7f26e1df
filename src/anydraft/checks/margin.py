"""How close the two best scores were at one place of a text, by a plain forward in float32.

Where two texts part in bfloat16, the margin tells rounding (scores that are nearly equal) from a fault (scores
that are not).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from anydraft.noise import Noise
from anydraft.packing import plain_parameters
from anydraft.processors import Processors
from anydraft.sampling import SamplingParams
from anydraft.target import Target

logger = logging.getLogger(__name__)

UPCAST_LIMIT = 2_000_000_000
"""Models up to this size are computed in float32 for the margin; that takes a second copy of the weights."""
SOURCES = (RuntimeError, TypeError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Margin:
    """The two best tokens at a place, and what separates them (after processors, with the noise when sampling)."""

    best: int
    second: int
    gap: float


def margin(target: Target, prompt: Sequence[int], tokens: Sequence[int], params: SamplingParams) -> Margin:
    """The margin at the token after `prompt + tokens`, as plain decoding with these parameters would see it."""
    processors = Processors.of_params(
        params,
        prompt_length=len(prompt),
        vocab_size=target.vocab_size,
        eos_token_ids=sorted(target.eos_token_ids),
        tokenizer=target.tokenizer,
        device=target.device,
    )
    path = [*prompt, *tokens]
    scores = processors(path, float_logits(target, path))
    if not params.greedy and params.seed is not None:
        scores = scores + Noise(params.seed, target.vocab_size, target.device).at(len(tokens))
    values, ids = scores.topk(2)
    return Margin(int(ids[0]), int(ids[1]), float(values[0] - values[1]))


@torch.inference_mode()
def float_logits(target: Target, tokens: Sequence[int]) -> torch.Tensor:
    """Logits (vocab,) float32 after the tokens, by one plain forward without any cache.

    In float32 where the model is small enough and takes it; else in its own precision. The model stays as it is.
    """
    ids = torch.tensor([list(tokens)], device=target.device)
    options = {"use_cache": False, "logits_to_keep": 1} if takes_keep(target) else {"use_cache": False}
    if target.dtype != torch.float32 and target.num_parameters <= UPCAST_LIMIT:
        try:
            weights = {name: p.float() for name, p in plain_parameters(target.model)}
            output = torch.func.functional_call(target.model, weights, (ids,), options)
            logits: torch.Tensor = output.logits[0, -1]
            return logits.float()
        except SOURCES as problem:  # quantized weights, say
            logger.info("margin in %s, because float32 failed: %s", target.dtype, problem)
    logits = target.model(ids, **options).logits[0, -1]
    return logits.float()


def takes_keep(target: Target) -> bool:
    """Whether the model can be asked for the last position's logits only."""
    return bool(target._takes_keep)
