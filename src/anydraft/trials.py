"""Trials: whether layers of a shape are better packed, by what their products are and how long they take."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from anydraft.kernels.streamed import TRIED_ROWS
from anydraft.layout import laid_out
from anydraft.onednn import LaidOut

logger = logging.getLogger(__name__)

PROBED_ROWS = (1, *TRIED_ROWS)

ROUNDING = 1e-4
"""By how much products in float32 may differ, of their own size; sums of thousands of numbers differ by 1e-6."""

TIMED_ROWS, TIMED_LAYERS, TIMED_ROUNDS = (1, 8), 6, 7
"""Rows of the products that are timed, of so many layers of a shape one after the other, so often."""

LONGER, SHORTER = 1.05, 0.9
"""How much longer products of one row may seem to take, as clocks stray so much; and at most how long those of several
take, for what gains next to nothing is not worth other digits."""


def helps(layers: Sequence[nn.Linear], laid: LaidOut, always: bool) -> bool:
    """Whether layers of one shape are better packed; `laid` is the first one's weight."""
    try:
        if laid.dtype == torch.bfloat16:
            return _agrees(layers[0].weight, laid)
        if not _repeats(layers[0].weight, laid):
            return False
        return always or _faster(layers[0].weight.shape, min(len(layers), TIMED_LAYERS), torch.get_num_threads())
    except RuntimeError as failure:
        logger.info("weights of %s stay as they are: %s", tuple(layers[0].weight.shape), failure)
        return False


@torch.inference_mode()
def _agrees(weight: torch.Tensor, laid: LaidOut) -> bool:
    """Whether products with a packed weight are those with the plain one, down to the digits that bfloat16 drops."""
    row = _rows(1, weight)
    # What is left when the rounded product is taken away again are the digits that had been rounded away.
    opposite = -F.linear(row, weight)[0]
    copies = (row.expand(count, -1).contiguous() for count in PROBED_ROWS)
    return all(torch.equal(F.linear(rows, weight, opposite), laid(rows, opposite)) for rows in copies)


@torch.inference_mode()
def _repeats(weight: torch.Tensor, laid: LaidOut) -> bool:
    """Whether rows have the same product alone and among others, and that of the plain weight but for rounding."""
    rows = _rows(max(PROBED_ROWS), weight)
    all_rows, plain = laid(rows), F.linear(rows, weight)
    close = (all_rows - plain).abs().max() <= ROUNDING * plain.abs().max()
    return bool(close) and all(torch.equal(laid(rows[:count]), all_rows[:count]) for count in PROBED_ROWS)


@cache
@torch.inference_mode()
def _faster(shape: torch.Size, layers: int, threads: int) -> bool:
    """Whether products in float32 from oneDNN's layout take no longer for one row, and less for several.

    Asked once for a shape, so that models of one process are packed alike. Layers follow each other as in a model, so
    that their weights come from memory as they do there.

    Args:
        layers: of that shape; threads: of torch, with which it is timed.
    """
    plain = [torch.ones(shape, dtype=torch.float32, device="cpu") for _ in range(layers)]
    laid = [found for weight in plain if (found := laid_out(weight, full=True)) is not None]
    ratios = []
    for count in TIMED_ROWS:
        rows = _rows(count, plain[0])
        pairs = [(_seconds(F.linear, rows, plain), _seconds(_product, rows, laid)) for _ in range(TIMED_ROUNDS + 1)]
        before, after = zip(*pairs[1:], strict=True)  # the first ones make kernels
        ratios.append(statistics.median(after) / statistics.median(before))
    return bool(ratios[0] <= LONGER and ratios[1] <= SHORTER)


def _product(rows: torch.Tensor, laid: LaidOut) -> torch.Tensor:
    return laid(rows)


def _seconds(product: Callable[[torch.Tensor, Any], torch.Tensor], rows: torch.Tensor, weights: Sequence[Any]) -> float:
    started = time.perf_counter()
    for weight in weights:
        product(rows, weight)
    return time.perf_counter() - started


def _rows(count: int, weight: torch.Tensor) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(0)
    return torch.randn(count, weight.shape[1], generator=numbers, device="cpu").to(weight.dtype)
