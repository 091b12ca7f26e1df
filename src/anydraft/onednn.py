"""One matrix in the layout that oneDNN multiplies from, for products of a few rows on a CPU.

torch lays a bfloat16 weight out anew at every product, which takes half the time of a product of a few rows. Done once,
the numbers are the same bit by bit: measured for single threads at all sizes but the smallest, which torch multiplies
without oneDNN, and for up to 64 rows nearly always on several threads (`trials.py` tries each shape of a target before
use).

In float32 torch asks another library, whose products of two to eight rows take two or three times as long as those of
one on the CPUs that were measured, and round otherwise than those of one. From the layout they take a third more than
one to twice as long, and a row gives the same bits however many others there are.
"""

from __future__ import annotations

import logging
from typing import Any, Self

import torch

logger = logging.getLogger(__name__)

ROWS_HINT = 8
"""Rows of a product that the layout is chosen for. For 1, oneDNN chose another one, with other sums beyond 32 rows."""


class LaidOut:
    """A weight (out, in) in oneDNN's layout, or another one in what derives from this; copies of a holder share it."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __call__(self, rows: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """(..., in) in the same precision to (..., out)."""
        if self.dtype == torch.bfloat16 and bias is not None and rows.ndim > 2 and not rows.is_contiguous():
            return self.product(rows, None) + bias  # as torch does, rounding twice
        return self.product(rows, bias)

    def product(self, rows: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The same, rounding once."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.tensor, bias, "none", [], "")
        return product

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.tensor.dtype

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.tensor.numel() * self.tensor.element_size()

    def dense(self) -> torch.Tensor:
        """The weight as it was, in new memory."""
        with torch.inference_mode(False), torch.no_grad():
            return self.tensor.to_dense()

    @classmethod
    def of(cls, weight: torch.Tensor) -> LaidOut | None:
        """A weight (out, in) in oneDNN's layout; None where it cannot be."""
        try:
            with torch.inference_mode(False), torch.no_grad():
                return LaidOut(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS_HINT))
        except RuntimeError as failure:
            logger.info("a weight of %s cannot be packed: %s", tuple(weight.shape), failure)
            return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def missing(dtype: torch.dtype = torch.bfloat16) -> str | None:
    """What this torch or this CPU lacks to multiply from the layout in a precision; None when nothing."""
    if dtype not in (torch.bfloat16, torch.float32):
        return f"there is no layout for {dtype}"
    if not _has_onednn():
        return "torch has no oneDNN here, or it is switched off"
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return "this torch has no products from oneDNN's layout"
    if dtype == torch.bfloat16 and not makes_kernels(dtype):
        return "oneDNN has no bfloat16 for this CPU"
    return None


def makes_kernels(dtype: torch.dtype) -> bool:
    """Whether oneDNN makes the products of a half precision on this CPU, and kernels for every shape of them."""
    names = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if dtype not in names or not _has_onednn():
        return False
    supported = getattr(torch.ops.mkldnn, names[dtype], None)
    return supported is None or bool(supported())  # where nobody can say, as if it did


def _has_onednn() -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available and torch.backends.mkldnn.enabled)


def half_precision_hint(dtype: torch.dtype, device: str) -> str | None:
    """What to try where a model is multiplied in half precision on a CPU that oneDNN has no products of it for."""
    if not device.startswith("cpu") or dtype not in (torch.bfloat16, torch.float16) or makes_kernels(dtype):
        return None
    name = str(dtype).removeprefix("torch.")
    better = "bfloat16" if makes_kernels(torch.bfloat16) else "float32, at twice the memory or more,"
    return (
        f"products in {name} are made up from float32 on this machine, so a pass over drafted tokens takes many times "
        f"as long as one over a single token: in {better} drafts may gain more"
    )
