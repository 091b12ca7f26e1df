"""Which layout a weight is multiplied from on a CPU: the one of a kernel of our own, or oneDNN's."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from anydraft.kernels.streamed import streamed
from anydraft.onednn import LaidOut, missing

LARGEST_PLAIN = 4096
"""Numbers of a weight up to which torch multiplies a single row by itself."""


def laid_out(weight: torch.Tensor, *, full: bool = False, own: bool = True) -> LaidOut | None:
    """A weight (out, in) in the layout that is fastest; None where it would not help, not be the same, or cannot be.

    Args:
        full: in float32 as well, where products round otherwise than torch's and may take longer: to be tried.
        own: in the layout of a kernel of our own, where there is one.
    """
    if weight.ndim != 2 or weight.numel() <= LARGEST_PLAIN or weight.layout != torch.strided:
        return None
    if weight.shape[0] == 1:  # products with a vector are added up otherwise on some CPUs, and have nothing to gain
        return None
    if weight.device.type != "cpu" or missing(weight.dtype) is not None:
        return None
    if weight.dtype == torch.float32 and not full:
        return None
    return (streamed(weight) if own else None) or LaidOut.of(weight)


def linear(
    rows: torch.Tensor, weight: torch.Tensor, laid: LaidOut | None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`torch.nn.functional.linear`, from the layout where there is one and nothing is to be learned."""
    if laid is None or rows.dtype != laid.dtype or (rows.requires_grad and torch.is_grad_enabled()):
        return F.linear(rows, weight, bias)
    return laid(rows, bias)
