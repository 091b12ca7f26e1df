"""Bootstrap intervals over prompts (Efron's percentile method).

Prompts differ far more than repetitions of one prompt, so a prompt is what is drawn anew: all contenders'
numbers for it go together, and a ratio of two of them is taken inside each resample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap(
    figure: Callable[..., Array],
    *columns: Sequence[float],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The figure over all prompts and its 95 % interval over resampled prompts.

    `columns` hold one number per prompt, in the same order. `figure` takes them as arrays (..., prompts) and
    reduces the last axis. ValueError for no prompts or columns of different lengths.
    """
    lengths = {len(column) for column in columns}
    if len(lengths) != 1 or not (count := lengths.pop()):
        raise ValueError(f"columns must have one number per prompt, got lengths {sorted(map(len, columns))}")
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    drawn = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(*arrays))
        low, high = np.nanquantile(figure(*(array[drawn] for array in arrays)), [0.025, 0.975])
    return Interval(value, float(low), float(high))


def ratio_of_totals(numerator: Array, denominator: Array) -> Array:
    """Total over total, (..., prompts) to (...): tokens a second, tokens a pass, accepted a drafted token."""
    total: Array = numerator.sum(-1) / denominator.sum(-1)
    return total


def ratio_of_rates(tokens: Array, seconds: Array, base_tokens: Array, base_seconds: Array) -> Array:
    """How many times faster the first is than the second: rates of totals, (..., prompts) to (...)."""
    speedup: Array = ratio_of_totals(tokens, seconds) / ratio_of_totals(base_tokens, base_seconds)
    return speedup
