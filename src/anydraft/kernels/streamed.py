"""One matrix in a layout of its own, from which products of a few rows take as long as memory does.

oneDNN's products of a few rows in bfloat16 read half to two thirds of what memory gives on processors with AVX-512 BF16
and without AMX; the kernel here (`few_rows.c`) reads nearly all (docs/lab-notes.md, "Products as fast as memory"). It
sums up in oneDNN's order, so that the numbers are the same bit by bit. Where on trial with a shape they are not, or
where the kernel cannot be built, weights are laid out for oneDNN.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from anydraft.kernels.build import CannotBuild, built
from anydraft.kernels.openmp import OpenMP, of_torch
from anydraft.onednn import LaidOut

logger = logging.getLogger(__name__)

FLAGS = ("-O3", "-shared", "-fPIC", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16")

NEEDED, BETTER_WITHOUT = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16"}, {"amx_bf16"}
"""Of a processor, in the words of Linux. With AMX oneDNN is fast by itself."""

WIDTH = 32
"""Outputs of a block, as in the kernel."""

CHUNKS = (1024, 512, 256, 2048, 4096)
"""Inputs that oneDNN may sum up at once, beside all of them; likelier ones first."""

TRIED_ROWS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 33, 48, 64)

TRIED_OUTPUTS, DIFFERENT = 16384, 256
"""Outputs that a shape is tried with at most, and so many of them different."""

ALIASED, ROOM = 2048, 6
"""Rows that start a multiple of this apart lie on the same lines of the first cache, where few have room."""


class Kernel(NamedTuple):
    """The product, and the functions of torch's OpenMP that it takes."""

    multiply: Callable[..., None]
    openmp: OpenMP


class Streamed(LaidOut):
    """A weight (out, in) in bfloat16 in the kernel's layout.

    Args:
        weight: of which `in` is even.
        alone, among: inputs that are summed up at once, in products of one row and of more.
    """

    __slots__ = ("_alone", "_among", "_kernel", "_shape")

    def __init__(self, weight: torch.Tensor, kernel: Kernel, *, alone: int = 0, among: int = 0) -> None:
        outs, length = weight.shape
        whole = outs // WIDTH * WIDTH
        with torch.inference_mode(False), torch.no_grad():
            pairs = weight.detach().reshape(outs, length // 2, 2)
            laid = pairs.new_zeros(-(-outs // WIDTH), length // 2, WIDTH, 2)
            # (block, output, pair, 2) -> (block, pair, output, 2)
            laid[: outs // WIDTH] = pairs[:whole].view(outs // WIDTH, WIDTH, length // 2, 2).transpose(1, 2)
            if whole < outs:
                laid[-1, :, : outs - whole] = pairs[whole:].transpose(0, 1)
        super().__init__(laid)
        self._shape = outs, length
        self._alone, self._among = alone or length, among or length
        self._kernel = kernel

    def product(self, rows: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(..., in) in bfloat16 to (..., out)."""
        outs, length = self._shape
        if rows.shape[-1] != length or rows.dtype != torch.bfloat16 or not rows.is_cpu:
            raise RuntimeError(
                f"a weight of {outs} x {length} in bfloat16 on the CPU cannot be multiplied with "
                f"{tuple(rows.shape)} in {rows.dtype} on {rows.device}"
            )
        flat = rows.reshape(-1, length)
        count = flat.shape[0]
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        if count > ROOM and flat.stride(0) % ALIASED == 0:
            flat = torch.constant_pad_nd(flat, (0, WIDTH))
        product = rows.new_empty(*rows.shape[:-1], outs)
        added = 0
        if bias is not None:
            if bias.shape != (outs,) or bias.dtype != torch.bfloat16 or not bias.is_cpu:
                raise RuntimeError(
                    f"a product of {outs} outputs in bfloat16 has no bias of {tuple(bias.shape)} in {bias.dtype}"
                )
            bias = bias.contiguous()
            added = bias.data_ptr()
        self._kernel.multiply(
            self.tensor.data_ptr(), flat.data_ptr(), added, product.data_ptr(), count, flat.stride(0), length, outs,
            self._alone if count == 1 else self._among, torch.get_num_threads(), *self._kernel.openmp,
        )  # fmt: skip
        return product

    def sums_up(self, chunk: int) -> None:
        """Sum up so many inputs at once from now on."""
        self._alone = self._among = chunk

    def dense(self) -> torch.Tensor:
        """The weight as it was, in new memory."""
        outs, length = self._shape
        with torch.inference_mode(False), torch.no_grad():
            return self.tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format).view(-1, length)[:outs]


def streamed(weight: torch.Tensor) -> Streamed | None:
    """A weight (out, in) in the kernel's layout; None where it has too few blocks, or products would not be torch's."""
    outs, length = weight.shape
    threads = torch.get_num_threads()
    if weight.dtype != torch.bfloat16 or length % 2 or outs < WIDTH * threads:
        return None
    kernel = few_rows()
    if kernel is None:
        return None
    try:
        chunks = _chunks(min(outs, TRIED_OUTPUTS), length, threads)
        return None if chunks is None else Streamed(weight, kernel, alone=chunks[0], among=chunks[1])
    except RuntimeError as failure:
        logger.info("a weight of %d x %d is left to oneDNN: %s", outs, length, failure)
        return None


@cache
def few_rows() -> Kernel | None:
    """The kernel, built where it was not yet; None where it cannot be had or is not needed."""
    flags = _processor()
    if not flags >= NEEDED or flags & BETTER_WITHOUT:
        reason = "they need no other, or this is no Linux on x86-64 with AVX-512 BF16"
    elif (openmp := of_torch()) is None:
        reason = "torch's OpenMP was not found"
    else:
        try:
            library = built(Path(__file__).with_name("few_rows.c"), FLAGS, " ".join(sorted(flags)))
            return Kernel(_declared(library), openmp)
        except CannotBuild as failure:
            reason = str(failure)
    logger.info("products of a few rows are oneDNN's: %s", reason)
    return None


def _processor() -> set[str]:
    """What the processor has, in the words of Linux on x86-64; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())


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
    different, row = (
        torch.randn(count, length, generator=numbers, device="cpu").bfloat16() for count in (min(outs, DIFFERENT), 1)
    )
    weight = different.repeat(-(-outs // DIFFERENT), 1)[:outs]
    opposite = -F.linear(row, weight)[0]  # taken away, it leaves the digits that had been rounded away
    mine = Streamed(weight, kernel)
    found = []
    for counts in ((1,), TRIED_ROWS):
        copies = [row.expand(count, -1).contiguous() for count in counts]
        products = [F.linear(rows, weight, opposite) for rows in copies]
        for chunk in (length, *(chunk for chunk in CHUNKS if chunk < length)):
            mine.sums_up(chunk)
            if all(torch.equal(mine(rows, opposite), product) for rows, product in zip(copies, products, strict=True)):
                found.append(chunk)
                break
    logger.debug("%d x %d on %d threads: torch sums up %s inputs at once", outs, length, threads, found)
    return (found[0], found[1]) if len(found) == 2 else None
