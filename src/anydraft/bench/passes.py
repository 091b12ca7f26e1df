"""What the target's own pass costs by the number of nodes: timed alone, between the runs it is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from anydraft.lm import chain
from anydraft.target import Target


class PassTimer:
    """Times single passes of a target over n nodes behind a context of a given length.

    Args:
        target: as it decodes.
        sizes: numbers of nodes, root included; 1 is always among them.
    """

    def __init__(self, target: Target, sizes: Iterable[int]) -> None:
        self.target = target
        self.sizes = sorted({1, *sizes})
        self._cache = target.new_cache(1, 1024)
        generator = np.random.default_rng(0)
        longest = min(target.context_length, 1 << 16)
        self._tokens = [int(t) for t in generator.integers(0, target.vocab_size, longest)]

    def sweep(self, context: int) -> dict[int, float]:
        """Seconds of one pass by its nodes."""
        length = self._cache.lengths[0]
        if length > context:
            self._cache.cut(0, context)
        elif length < context:
            self.target.prefill(self._cache, 0, self._tokens[length:context])
        return {size: self._timed(size) for size in self.sizes}

    def _timed(self, size: int) -> float:
        nodes = [chain(self._tokens[:size])]
        start = time.perf_counter()
        self.target.score(self._cache, nodes)
        if self.target.device.type == "cuda":
            torch.cuda.synchronize(self.target.device)
        seconds = time.perf_counter() - start
        self._cache.commit(0, [])
        return seconds


def middle(sweeps: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The median of several sweeps, by nodes."""
    sizes = sorted({size for sweep in sweeps for size in sweep})
    return {size: float(np.median([sweep[size] for sweep in sweeps if size in sweep])) for size in sizes}


def seconds_of(nodes: Sequence[int], measured: Mapping[int, float]) -> float:
    """Seconds of passes over so many nodes each; linear between the sizes that were measured."""
    sizes = sorted(measured)
    return float(np.interp(np.asarray(nodes, dtype=float), sizes, [measured[size] for size in sizes]).sum())
