"""Folded form of the lean recurrent drafter, for decoding.

Everything between a token id and the gates is one row of a table, W_e norm(E) + b for the whole vocabulary, and
everything between the last narrow layer and the logits is one matrix, head x P. Bytes read per drafted token then do
not depend on the target's width H. Memory held for it, in numbers of the network's precision: V * 3r (V * r for the
Elman cell) and V' * r; with V = 8 k, r = 384 in float32 38 MB and 13 MB, with V = 150 k, r = 512 in bfloat16 460 MB
and at most 154 MB. Where a CPU has no products in bfloat16 the latter is in float32, and a quarter more where it is
rounded as well (`int8.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from anydraft.int8 import rounded
from anydraft.layout import laid_out
from anydraft.networks.lean import LeanBody, normalised
from anydraft.networks.recall import Memory
from anydraft.networks.state import State
from anydraft.onednn import LaidOut

if TYPE_CHECKING:
    from anydraft.networks.recurrent import RecurrentNetwork

FOLDED = ("token_in", "out", "first", "context_out", "context_in")
"""Layers of the body that decoding takes from the table, the head, or all at once."""

CHUNK = 8192
"""Rows folded at once, in float32."""


class FoldedLean:
    """Steps of a lean network over folded weights; a snapshot, so fold again after changing the weights."""

    @torch.no_grad()
    def __init__(self, network: RecurrentNetwork) -> None:
        body = network.body
        if not isinstance(body, LeanBody):
            raise TypeError("only a lean network folds")
        dtype = body.scale.dtype
        token_in = body.token_in.weight  # not the layer, which may be rounded
        tables = (normalised(rows.to(body.scale.device, dtype)) for rows in _chunks(network.embedding))
        self.table = torch.cat([F.linear(rows, token_in, body.token_in.bias) for rows in tables])
        self.body = copy.deepcopy(body)
        layers = [layer for layer in (body.first, body.context_out, body.context_in) if layer is not None]
        self._sizes = [layer.out_features for layer in layers]
        self._starts = fast(_together(layers))
        for name in FOLDED:
            setattr(self.body, name, None)  # its weights are elsewhere now
        for parent in list(self.body.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, fast(layer))
        if dtype == torch.bfloat16 and body.scale.device.type == "cpu":
            self.body.float()  # what is between the products and the attention takes a third of the time in float32
        projection = body.out.weight.float() * body.scale.float()
        heads = (rows.to(projection.device).float() for rows in _chunks(network.head))
        self.head = fast(_layer(torch.cat([(rows @ projection).to(dtype) for rows in heads])))

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        """State before the first token, from the target's last hidden states (B, H)."""
        hidden = normalised(hidden[:, None].to(self.body.scale.dtype))
        first, *context = self._starts(hidden).split(self._sizes, -1)
        return State(torch.tanh(first), tuple(context), memory)

    def step(self, state: State, tokens: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Read tokens (B, W), target ids; logits (B, W, V') of what follows them, and the new state."""
        y, state = self.body.narrow(state, F.embedding(tokens, self.table).to(state.cell.dtype))
        return self.head(y), state


class FastLinear(nn.Module):
    """A linear layer from float32 to float32 that multiplies in bfloat16 from oneDNN's layout, or with int8.

    Between two drafts the target's weights have gone through the caches, so that every weight comes from memory, and
    half of it comes in half the time.

    Args:
        laid: the weight (out, in).
        bias: (out,), or None.
    """

    def __init__(self, laid: LaidOut, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.laid = laid
        self._bias = None if bias is None else bias.detach()  # not registered, for it stays in its precision

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        dtype = self.laid.dtype
        return self.laid(rows if rows.dtype == dtype else rows.to(dtype), self._bias).float()


def fast(layer: nn.Linear) -> nn.Module:
    """A layer for products of a few rows; on a CPU it takes float32 and gives float32."""
    weight = layer.weight.detach()
    small = rounded(weight)
    if small is not None:
        return FastLinear(small, layer.bias)
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
        laid = laid_out(weight)
        if laid is not None:
            return FastLinear(laid, layer.bias)
        layer, weight = copy.deepcopy(layer).float(), weight.float()
    layer.weight = nn.Parameter(by_columns(weight), requires_grad=False)
    return layer


def by_columns(weight: torch.Tensor) -> torch.Tensor:
    """The same matrix by columns in float32: a product with a few rows then takes about half the time on a CPU."""
    return weight.t().contiguous().t() if weight.dtype == torch.float32 else weight


def _together(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer without bias that gives what several give, one behind the other."""
    return _layer(torch.cat([layer.weight for layer in layers]))


def _layer(weight: torch.Tensor) -> nn.Linear:
    """A layer without bias."""
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    found.weight = nn.Parameter(weight, requires_grad=False)
    return found


def _chunks(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
