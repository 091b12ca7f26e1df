"""Weights of drafters in int8, for products of a few rows on a CPU that has no products in bfloat16.

There a drafted token takes as long as the drafter's weights take to come from memory, and products of two to eight rows
in float32 take several times as long as those of one. Weights in int8 with a scale per output are a quarter of that,
and torch's kernel for them takes little longer for a few rows than for one. A rounded drafter guesses a little
otherwise, and what the target commits is the same (with verification="rejection", of the same distribution). A target
is never rounded.
"""

from __future__ import annotations

import sys

import torch

from anydraft.layout import laid_out
from anydraft.onednn import LaidOut

MEASURED = ("AVX2",)
"""Instruction sets of CPUs on which this was found faster than torch's products, as torch calls them."""

LEAST = 1 << 16
"""Numbers of a weight from which on it is rounded: below, a product takes as long as calling it."""

STEP = 32
"""Length of rows is a multiple of this: the kernel reads so many numbers at once."""

FEW = 8
"""Rows up to which a product is made in int8 where it can be made from oneDNN's layout too: beyond, that is faster."""

LARGEST = 127.0
"""Largest int8 that is used."""

ALIGNED = 16
"""Bytes of which the kernel's rows start at a multiple: it loads so many at once."""

CHUNK = 8192
"""Outputs that are rounded at once, in float32."""


class Int8Weight(LaidOut):
    """A weight (out, in) as int8, with a scale per output in bfloat16; rows are rounded to bfloat16 as well.

    Args:
        weight: in float32 or bfloat16, of rows whose length is a multiple of `STEP`.
        many: the same weight, not rounded, for products of more than `FEW` rows; None to round for all.
    """

    __slots__ = ("_dtype", "_many", "_scales")

    def __init__(self, weight: torch.Tensor, many: LaidOut | None = None) -> None:
        with torch.inference_mode(False), torch.no_grad():
            parts = [_rounded(rows) for rows in torch.split(weight.detach(), CHUNK)]
            super().__init__(torch.cat([small for small, _ in parts]))
            self._scales = torch.cat([scales for _, scales in parts])
        self._many = many
        self._dtype = weight.dtype

    def __call__(self, rows: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in) in the weight's precision to (..., out)."""
        # A product takes as long as a few calls that do nothing, so there are none of those.
        flat = rows.reshape(-1, rows.shape[-1])
        if self._many is not None and flat.shape[0] > FEW:
            return self._many(rows, bias)
        flat = flat.bfloat16().contiguous()
        if flat.data_ptr() % ALIGNED:
            flat = flat.clone()
        product: torch.Tensor = torch._weight_int8pack_mm(flat, self.tensor, self._scales)
        if rows.ndim != 2:
            product = product.view(*rows.shape[:-1], len(self.tensor))
        if bias is not None:
            product = product + bias
        return product if product.dtype == rows.dtype else product.to(rows.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight that was rounded."""
        return self._dtype

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.tensor.numel() + 2 * len(self._scales) + (0 if self._many is None else self._many.nbytes)

    def dense(self) -> torch.Tensor:
        """The weight as it was where that is still known, else as it was rounded; in new memory."""
        return self.small().to(self.dtype) if self._many is None else self._many.dense()

    def small(self) -> torch.Tensor:
        """(out, in) what few rows are multiplied with, in float32."""
        return self.tensor.float() * self._scales.float()[:, None]


def rounded(weight: torch.Tensor, *, layout: bool = True) -> Int8Weight | None:
    """A drafter's weight (out, in) in int8; None where products are not known to be faster in it.

    Args:
        layout: make one for products of many rows, where there is one.
    """
    if not pays(weight):
        return None
    return Int8Weight(weight, laid_out(weight, full=True) if layout else None)


def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (out, in) in int8, and their scales (out,)."""
    whole = weight.float()
    # The kernel wants scales in bfloat16, so they are rounded first, and weights by what became of them.
    scales = (whole.abs().amax(1) / LARGEST).bfloat16()
    steps = torch.where(scales > 0, scales.float(), 1.0)[:, None]
    return (whole / steps).round_().clamp_(-LARGEST, LARGEST).to(torch.int8).contiguous(), scales


def pays(weight: torch.Tensor) -> bool:
    """Whether products with a weight (out, in) are faster in int8 on the machine at hand."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and weight.ndim == 2
        and weight.numel() >= LEAST
        and weight.shape[1] % STEP == 0
        and torch.backends.cpu.get_cpu_capability() in MEASURED
        and sys.platform != "win32"  # there torch's kernel is a plain loop
        and hasattr(torch, "_weight_int8pack_mm")
    )
