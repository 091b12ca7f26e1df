"""Weights of drafters in int8, for products of a few rows on a CPU that has no products in bfloat16.

There a drafted token takes as long as the drafter's weights take to come from memory, and products of two to eight rows
in float32 take several times as long as those of one. Weights in int8 with a scale per output are a quarter of that,
and torch's kernel for them takes little longer for a few rows than for one. A rounded drafter guesses a little
otherwise; what the target commits is the same. A target is never rounded.
"""

from __future__ import annotations

from typing import Any

import torch

from anydraft.layout import LaidOut, laid_out

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


class Int8Weight(LaidOut):
    """A weight (out, in) as int8, with a scale per output in bfloat16; rows are rounded to bfloat16 as well.

    Args:
        weight: in float32 or bfloat16, of rows whose length is a multiple of `STEP`.

    Attributes:
        many: the same weight, not rounded, for products of more than a few rows; None where there is no layout for it.
    """

    __slots__ = ("_dtype", "many", "scales")

    def __init__(self, weight: torch.Tensor) -> None:
        with torch.inference_mode(False), torch.no_grad():
            whole = weight.detach().float()
            # The kernel wants scales in bfloat16, so they are rounded first, and weights by what became of them.
            self.scales = (whole.abs().amax(1) / LARGEST).bfloat16()
            steps = torch.where(self.scales > 0, self.scales.float(), 1.0)[:, None]
            super().__init__((whole / steps).round_().clamp_(-LARGEST, LARGEST).to(torch.int8).contiguous())
        self.many = laid_out(weight, full=True)
        self._dtype = weight.dtype

    def __call__(self, rows: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in) in the weight's precision to (..., out)."""
        flat = rows.reshape(-1, rows.shape[-1])
        if len(flat) > FEW and self.many is not None:
            return self.many(rows, bias)
        product = torch._weight_int8pack_mm(flat.bfloat16().contiguous(), self.tensor, self.scales)
        product = product.view(*rows.shape[:-1], len(self.tensor))
        return (product if bias is None else product + bias).to(rows.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight that was rounded."""
        return self._dtype

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.tensor.numel() + 2 * len(self.scales) + (0 if self.many is None else self.many.nbytes)

    def dense(self) -> torch.Tensor:
        """The weight as it was where that is still known, else as it was rounded; in new memory."""
        return self.rounded().to(self.dtype) if self.many is None else self.many.dense()

    def rounded(self) -> torch.Tensor:
        """(out, in) what few rows are multiplied with, in float32."""
        return self.tensor.float() * self.scales.float()[:, None]


def rounded(weight: torch.Tensor) -> Int8Weight | None:
    """A drafter's weight (out, in) in int8; None where products are not known to be faster in it."""
    return Int8Weight(weight) if pays(weight) else None


def pays(weight: Any) -> bool:
    """Whether products with a weight (out, in) are faster in int8 on the machine at hand."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and weight.ndim == 2
        and weight.numel() >= LEAST
        and weight.shape[1] % STEP == 0
        and torch.backends.cpu.get_cpu_capability() in MEASURED
        and hasattr(torch, "_weight_int8pack_mm")
    )
