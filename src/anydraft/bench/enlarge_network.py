"""Gives a trained drafter the size it would have for an enlarged target, without changing what it drafts.

A target made by `anydraft.bench.enlarge` has the small one's embeddings, hidden states and LM head followed by zeros. A
network for it is laid out as a fresh one of that width, the trained weights stand at the first places of every part
(of [h ; s] at the first places of both halves) and all others are zero. Dense products do not look at what they
multiply, so a draft costs what it costs for a target of that shape; which drafts are made stays as it was:

- *Apple's recurrent form*: all matrices and the head grow with the width;
- *lean form*: its state takes the default size for the width; its norms average over more places, which is undone;
- *Medusa*: blocks and heads grow with the width;
- *EAGLE*: projection, attention heads and MLP grow as the target's layers do (`anydraft.bench.shape`).

A drafter trained for a real target of that size would draft for other, harder texts: say so next to a number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from anydraft.bench.enlarge import places
from anydraft.bench.shape import Shape
from anydraft.errors import UnsupportedModel
from anydraft.networks.eagle import EagleConfig, EagleNetwork
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.lean import LeanBody, normalised
from anydraft.networks.medusa import MedusaConfig, MedusaNetwork
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.recall import Memory
from anydraft.networks.recurrent import WIDEST_STATE, RecurrentNetwork
from anydraft.networks.state import State

Place = Callable[[str, torch.Size], tuple[torch.Tensor, ...]]
"""Of a weight's name and small shape: for each of its dimensions, where the small one's entries go."""


def enlarge_network(network: DrafterNetwork, large: PreTrainedModel) -> DrafterNetwork:
    """Return a new network for the enlarged target, drafting what the given one drafts; not attached yet.

    Raises:
        UnsupportedModel: another kind of network, or a target that is not wider nor of the same vocabulary.
    """
    small, identity = network.config.target, TargetIdentity.of(large)
    if identity.hidden_size < small.hidden_size or identity.vocab_size != small.vocab_size:
        raise UnsupportedModel(
            f"a drafter for hidden size {small.hidden_size} and vocabulary {small.vocab_size} cannot be enlarged for a "
            f"target of {identity.hidden_size} and {identity.vocab_size}"
        )
    grown: DrafterNetwork
    if isinstance(network, RecurrentNetwork):
        grown = _recurrent(network, identity)
    elif isinstance(network, MedusaNetwork):
        grown = _medusa(network, identity)
    elif isinstance(network, EagleNetwork):
        grown = _eagle(network, identity)
    else:
        raise UnsupportedModel(f"cannot enlarge a {type(network).__name__}")
    return grown.eval().requires_grad_(False)


def _recurrent(network: RecurrentNetwork, identity: TargetIdentity) -> RecurrentNetwork:
    config = network.config
    width, wide = config.target.hidden_size, identity.hidden_size
    state = config.state_size or 0
    sizes: dict[str, Any] = {"target": identity}
    if config.arch == "redrafter":
        sizes["exit_dim"] = (config.exit_dim or 2 * width) * wide // width
    else:  # a size that is not the default grows in proportion
        default = state == min(width, WIDEST_STATE)
        sizes["state_size"] = min(wide, WIDEST_STATE) if default else state * wide // width
    grown = RecurrentNetwork(dataclasses.replace(config, **sizes), network.vocabulary)
    if config.arch == "redrafter":
        _fill(grown, network, _by_halves(width, wide, f"body.lm_head.{config.num_layers}.weight"))
        return grown
    large_state = grown.config.state_size or 0

    def place(name: str, shape: torch.Size) -> tuple[torch.Tensor, ...]:
        if name.startswith(("body.token_in", "body.context_in", "body.recurrent")):  # a block of rows for every gate
            gates = torch.arange(shape[0] // state)[:, None] * large_state + torch.arange(state)
            return gates.flatten(), *map(torch.arange, shape[1:])
        return tuple(map(torch.arange, shape))

    body = _PaddedLean(
        wide,
        large_state,
        config.num_layers,
        gated=config.cell == "gated",
        context_in_cell=config.context_in_cell,
        recall_heads=config.recall_heads or 0,
    )
    body.undo = math.sqrt(wide / width), math.sqrt(state / large_state)
    grown.body = body
    readers = ("token_in", "context_in", "first", "context_out", "recall.key", "recall.value", "recall.follower")
    _fill(grown, network, place, {f"body.{name}.weight": math.sqrt(width / wide) for name in readers})
    return grown


class _PaddedLean(LeanBody):
    """A lean body whose inputs and state end in zeros, over which its norms must not average.

    Attributes:
        undo: factors of the inputs before their norm (so that its epsilon weighs what it did; the weights behind undo
            it again) and of the state after its own.
    """

    undo = (1.0, 1.0)

    def start(self, hidden: torch.Tensor, memory: Memory | None = None) -> State:
        return super().start(hidden * self.undo[0], memory)

    def remembered(self, hidden: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().remembered(hidden * self.undo[0], following * self.undo[0])

    def tokens(self, embedded: torch.Tensor) -> torch.Tensor:
        return super().tokens(embedded * self.undo[0])

    def narrow(self, state: State, added: torch.Tensor) -> tuple[torch.Tensor, State]:
        context, *gates = state.context
        if gates:
            added = added + gates[0]
        cell = self.cell(state.cell, added)
        if self.recall is not None and state.memory is not None:
            cell = cell + self.recall(normalised(cell) * self.undo[1], state.memory)
        x = normalised(cell + context) * self.undo[1]
        for block in self.blocks:
            x = block(x)
        return normalised(x) * self.undo[1], state._replace(cell=cell)


def _medusa(network: MedusaNetwork, identity: TargetIdentity) -> MedusaNetwork:
    config: MedusaConfig = dataclasses.replace(network.config, target=identity)
    grown = MedusaNetwork(config, network.vocabulary)
    _fill(grown, network, lambda name, shape: tuple(map(torch.arange, shape)))
    return grown


def _eagle(network: EagleNetwork, identity: TargetIdentity) -> EagleNetwork:
    config = network.config
    width, wide = config.target.hidden_size, identity.hidden_size
    small = Shape(
        width=width,
        layers=1,
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        intermediate=config.intermediate_size,
    )
    shape = small.grown(width=wide)
    sizes: EagleConfig = dataclasses.replace(
        config,
        target=identity,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        rms_norm_eps=config.rms_norm_eps * width / wide,
    )
    grown = EagleNetwork(sizes, network.vocabulary)
    of_layer = places(small, shape, 0, torch.device("cpu"))
    halves = _by_halves(width, wide)

    def place(name: str, size: torch.Size) -> tuple[torch.Tensor, ...]:
        module = name.split(".")[-2]
        return of_layer[module][: len(size)] if module in of_layer else halves(name, size)

    _fill(grown, network, place, {"layer.post_attention_layernorm.weight": math.sqrt(width / wide)})
    return grown


def _by_halves(width: int, wide: int, head: str = "") -> Place:
    """First places everywhere, but [h ; s] of width 2H in two halves; rows of the `head` are tokens."""
    halves = torch.cat([torch.arange(width), torch.arange(width) + wide])

    def place(name: str, shape: torch.Size) -> tuple[torch.Tensor, ...]:
        found = [halves if size == 2 * width else torch.arange(size) for size in shape]
        return (torch.arange(shape[0]), *found[1:]) if name == head else tuple(found)

    return place


@torch.no_grad()
def _fill(
    grown: DrafterNetwork, network: DrafterNetwork, place: Place, factors: dict[str, float] | None = None
) -> None:
    """Write the small network's weights to their places, zeros elsewhere, in its precision and on its device."""
    own = next(network.parameters())
    targets = dict(grown.to(own.device, own.dtype).named_parameters())
    for name, weight in network.named_parameters():
        target = targets.pop(name)
        target.zero_()  # written, not only promised: pages of zeros that were never written are not read either
        at = tuple(index.to(own.device) for index in place(name, weight.shape))
        value = weight * (factors or {}).get(name, 1.0)
        target[at if weight.ndim == 1 else (at[0][:, None], at[1])] = value
    if targets:
        raise UnsupportedModel(f"no weights for {', '.join(targets)} in a {type(network).__name__}")
