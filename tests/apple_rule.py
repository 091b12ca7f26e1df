"""ReDrafter's published rule for temperatures above zero, in own words: kept as the counter-example.

arXiv 2403.09919 and apple/ml-recurrent-drafter (2024): a beam search picks W beams by the drafter's Q; every beam and
position has a coin of its own and is accepted with probability min(1, P / Q); the beam with the longest accepted run
wins; the next token comes from the positive part of P - Q at the place where the run broke off, or from P after a
whole beam. Since the coins are independent, the law of what is said can be enumerated instead of sampled.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

Law = dict[tuple[int, ...], float]
Model = Callable[[tuple[int, ...]], torch.Tensor]
"""Tokens so far to probabilities (vocab,) float64 of the next one."""


@dataclass(frozen=True)
class Outcome:
    """The winning beam, how many of its tokens are kept, and the law (vocab,) of the token after them."""

    beam: int
    kept: int
    following: torch.Tensor


def beam_search(q: Model, width: int, depth: int, context: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """The `width` likeliest continuations as a beam search finds them, best first."""
    beams: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(depth):
        grown = [
            ((*beam, token), score + float(weight))
            for beam, score in beams
            for token, weight in enumerate(q((*context, *beam)).log())
        ]
        beams = sorted(grown, key=lambda entry: -entry[1])[:width]
    return [beam for beam, _ in beams]


def ratios(p: Model, q: Model, beams: Sequence[tuple[int, ...]]) -> list[list[float]]:
    """P / Q of every token of every beam."""
    return [
        [float(p(beam[:i])[token] / q(beam[:i])[token]) for i, token in enumerate(beam)] for beam in beams
    ]


def run_length(accepted: Sequence[bool]) -> int:
    """Accepted tokens before the first refused one."""
    return next((i for i, good in enumerate(accepted) if not good), len(accepted))


def choose(p: Model, q: Model, beams: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> Outcome:
    """The longest run wins, the first of equals; then the law of the next token."""
    beam = max(range(len(beams)), key=lambda i: (lengths[i], -i))
    kept = lengths[beam]
    path = beams[beam][:kept]
    following = p(path) if kept == len(beams[beam]) else (p(path) - q(path)).clamp(min=0)
    # Where P nowhere exceeds Q the published code divides by zero; P itself is what it would need.
    following = following if following.sum() > 0 else p(path)
    return Outcome(beam, kept, following / following.sum())


def apply(p: Model, q: Model, beams: Sequence[tuple[int, ...]], coins: Sequence[Sequence[float]]) -> Outcome:
    """The rule with given coins (beams, depth)."""
    lengths = [
        run_length([coin < ratio for coin, ratio in zip(row, wanted, strict=True)])
        for row, wanted in zip(coins, ratios(p, q, beams), strict=True)
    ]
    return choose(p, q, beams, lengths)


def outcomes(p: Model, q: Model, beams: Sequence[tuple[int, ...]]) -> Iterator[tuple[Outcome, float]]:
    """Every outcome with its probability: beams are independent, and so are the places of one beam."""
    laws = []
    for wanted in ratios(p, q, beams):
        chances = [min(1.0, ratio) for ratio in wanted]
        law, reached = [], 1.0
        for chance in chances:
            law.append(reached * (1 - chance))
            reached *= chance
        laws.append([*law, reached])
    for lengths in itertools.product(*(range(len(law)) for law in laws)):
        weight = 1.0
        for law, length in zip(laws, lengths, strict=True):
            weight *= law[length]
        if weight > 0:
            yield choose(p, q, beams, lengths), weight


def first_token(p: Model, q: Model, width: int, depth: int) -> tuple[Law, float]:
    """Exact law of the first token under the rule, and the probability that a drafted token is kept."""
    beams = beam_search(q, width, depth)
    law: Law = defaultdict(float)
    kept = 0.0
    for outcome, weight in outcomes(p, q, beams):
        if outcome.kept:
            law[beams[outcome.beam][:1]] += weight
            kept += weight
        else:
            for token, share in enumerate(outcome.following.tolist()):
                law[(token,)] += weight * share
    return dict(law), kept
