"""One matrix in a layout of its own, from which products of a few rows take as long as memory does.

oneDNN's products of a few rows in bfloat16 read half to two thirds of what memory gives on processors with AVX-512 BF16
and without AMX; the kernel here (`few_rows.c`) reads nearly all (docs/lab-notes.md, "Products as fast as memory"). It
sums up in oneDNN's order, so that the numbers are the same bit by bit. Where on trial with a shape they are not, or
where the kernel cannot be built, weights are laid out for oneDNN.
"""

from __future__ import annotations

import ctypes
import logging
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from anydraft.kernels.build import CannotBuild, built
from anydraft.kernels.openmp import of_torch
from anydraft.onednn import LaidOut

logger = logging.getLogger(__name__)

FLAGS = ("-O3", "-shared", "-fPIC", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16")

WIDTH = 32
"""Outputs of a block, as in the kernel."""

CHUNKS = (1024, 512, 256, 2048, 4096)
"""Inputs that oneDNN may sum up at once, beside all of them; likelier ones first."""

TRIED_ROWS = (2, 3, 4, 6, 8, 12, 16, 32, 64)

TRIED_OUTPUTS, DIFFERENT = 16384, 256
"""Outputs that a shape is tried with at most, and so many of them different."""

ALIASED, ROOM = 2048, 6
"""Rows whose length is a multiple of this lie on the same lines of the first cache, where few have room."""


class Kernel(NamedTuple):
    """The product, and the numbers of torch's OpenMP that it takes."""

    multiply: Callable[..., None]
    parallel: int
    thread: int
    threads: int


class Streamed(LaidOut):
    """A weight (out, in) in bfloat16 in the kernel's layout.

    Args:
        weight: of which `in` is even.
        alone, among: inputs that are summed up at once, in products of one row and of more.
    """

    __slots__ = ("_alone", "_among", "_arguments", "_multiply", "_shape")

    def __init__(self, weight: torch.Tensor, kernel: Kernel, *, alone: int, among: int) -> None:
        outs, length = weight.shape
        blocks = -(-outs // WIDTH)
        with torch.inference_mode(False), torch.no_grad():
            whole = weight.detach()
            if outs % WIDTH:
                whole = torch.cat([whole, whole.new_zeros(blocks * WIDTH - outs, length)])
            # (block, output, pair, 2) -> (block, pair, output, 2)
            super().__init__(whole.view(blocks, WIDTH, length // 2, 2).transpose(1, 2).contiguous())
        self._shape = outs, length
        self._alone, self._among = alone, among
        self._multiply = kernel.multiply
        self._arguments = kernel.parallel, kernel.thread, kernel.threads

    def __call__(self, rows: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in) in bfloat16 to (..., out)."""
        if bias is not None and rows.ndim > 2 and not rows.is_contiguous():
            return self(rows) + bias  # as torch does, rounding twice
        outs, length = self._shape
        flat = rows.reshape(-1, length)
        count = flat.shape[0]
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        if count > ROOM and length % ALIASED == 0:
            flat = torch.constant_pad_nd(flat, (0, WIDTH))
        product = torch.empty((*rows.shape[:-1], outs), dtype=torch.bfloat16)
        if bias is not None:
            bias = bias.contiguous()
        self._multiply(
            self.tensor.data_ptr(), flat.data_ptr(), 0 if bias is None else bias.data_ptr(), product.data_ptr(), count,
            flat.stride(0), length, outs, self._alone if count == 1 else self._among, torch.get_num_threads(),
            *self._arguments,
        )  # fmt: skip
        return product

    def dense(self) -> torch.Tensor:
        """The weight as it was, in new memory."""
        outs, length = self._shape
        with torch.inference_mode(False), torch.no_grad():
            return self.tensor.transpose(1, 2).reshape(-1, length)[:outs].clone()


def streamed(weight: torch.Tensor) -> Streamed | None:
    """A weight (out, in) in the kernel's layout; None where it fills no block, or products would not be torch's."""
    outs, length = weight.shape
    if weight.dtype != torch.bfloat16 or length % 2 or outs < WIDTH:
        return None
    kernel = few_rows()
    if kernel is None:
        return None
    chunks = _chunks(outs, length, torch.get_num_threads())
    return None if chunks is None else Streamed(weight, kernel, alone=chunks[0], among=chunks[1])


@cache
def few_rows() -> Kernel | None:
    """The kernel, built where it was not yet; None where it cannot be had or is not needed."""
    reason = None
    if sys.platform != "linux" or platform.machine() != "x86_64":
        reason = "it is for Linux on x86-64"
    elif (openmp := of_torch()) is None:
        reason = "torch's OpenMP was not found"
    else:
        try:
            library = built(Path(__file__).with_name("few_rows.c"), FLAGS)
            if library.supported():
                return Kernel(_declared(library), *openmp)
            reason = "this CPU has no AVX-512 BF16, or has AMX"
        except CannotBuild as failure:
            reason = str(failure)
    logger.info("products of a few rows are oneDNN's: %s", reason)
    return None


def _declared(library: ctypes.CDLL) -> Callable[..., None]:
    pointer, number = ctypes.c_void_p, ctypes.c_long
    multiply = library.multiply
    multiply.argtypes = [*[pointer] * 4, *[number] * 5, ctypes.c_uint, *[pointer] * 3]
    multiply.restype = None
    return multiply


@cache
@torch.inference_mode()
def _chunks(outs: int, length: int, threads: int) -> tuple[int, int] | None:
    """How many inputs torch sums up at once with a weight of a shape, in products of one row and of more.

    None where no number gives the same bits, down to the digits that bfloat16 drops.
    """
    kernel = few_rows()
    if kernel is None:
        return None
    numbers = torch.Generator().manual_seed(0)
    outs = min(outs, TRIED_OUTPUTS)
    different = torch.randn(min(outs, DIFFERENT), length, generator=numbers).bfloat16()
    weight = different.repeat(-(-outs // DIFFERENT), 1)[:outs]
    row = torch.randn(1, length, generator=numbers).bfloat16()
    opposite = -F.linear(row, weight)[0]  # taken away, it leaves the digits that had been rounded away
    found = []
    for counts in ((1,), TRIED_ROWS):
        products = {count: F.linear(row.expand(count, -1).contiguous(), weight, opposite) for count in counts}
        for chunk in (length, *(chunk for chunk in CHUNKS if chunk < length)):
            mine = Streamed(weight, kernel, alone=chunk, among=chunk)
            if all(torch.equal(mine(row.expand(n, -1).contiguous(), opposite), products[n]) for n in counts):
                found.append(chunk)
                break
    logger.debug("%d x %d on %d threads: torch sums up %s inputs at once", outs, length, threads, found)
    return (found[0], found[1]) if len(found) == 2 else None
