"""Weights of a drafter in int8, for products of a few rows on a CPU that has no products in bfloat16.

There a drafted level takes as long as its weights take to come from memory, and products of two to eight rows in
float32 several times as long as those of one. Weights in int8 with a scale per output are a quarter of that, and the
kernel for them (torch's, x86 with AVX2) takes little longer for a few rows than for one. A rounded drafter guesses a
little otherwise; what the target commits is the same.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

MEASURED = ("AVX2",)
"""Instruction sets of CPUs on which this was found faster than torch's products, as torch calls them."""

LEAST = 1 << 16
"""Numbers of a weight from which on it is rounded: below, a product takes as long as calling it."""

STEP = 32
"""Length of rows is a multiple of this: the kernel reads so many numbers at once."""

MANY = 32
"""Rows beyond which the weight is unrolled to float32 for a product."""

LARGEST = 127.0
"""Largest int8 that is used."""


class Int8Linear(nn.Module):
    """A linear layer from float32 to float32 whose weights are int8 and whose rows are rounded to bfloat16.

    Args:
        weight: (out, in).
        bias: (out,), or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach().float()
        whole = weight.detach().float()
        # The kernel wants scales in bfloat16, so they are rounded first, and weights by what became of them.
        scales = (whole.abs().amax(1) / LARGEST).bfloat16()
        steps = torch.where(scales > 0, scales.float(), 1.0)[:, None]
        self.scales = scales
        self.weight = (whole / steps).round().clamp(-LARGEST, LARGEST).to(torch.int8).contiguous()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it never changes

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        flat = rows.reshape(-1, rows.shape[-1])
        if len(flat) > MANY:
            product = F.linear(flat.float(), self.dense())
        else:
            product = torch._weight_int8pack_mm(flat.bfloat16().contiguous(), self.weight, self.scales).float()
        if self.bias is not None:
            product += self.bias
        return product.view(*rows.shape[:-1], len(self.scales))

    def dense(self) -> torch.Tensor:
        """(out, in) the weights that are multiplied with, in float32."""
        return self.weight.float() * self.scales.float()[:, None]


def pays(weight: torch.Tensor) -> bool:
    """Whether products with a weight (out, in) are faster in int8 on the machine at hand."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and weight.numel() >= LEAST
        and weight.shape[1] % STEP == 0
        and torch.backends.cpu.get_cpu_capability() in MEASURED
        and hasattr(torch, "_weight_int8pack_mm")
    )
