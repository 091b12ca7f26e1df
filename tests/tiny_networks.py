"""Networks of trained drafters for tiny targets: with random weights, and fitted to a few texts within a second.

Random weights are never right. A fitted network knows given texts nearly by heart, so that long runs are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from anydraft.drafters.protocol import Drafter
from anydraft.drafters.trained import trained_drafter
from anydraft.hidden import LastHidden
from anydraft.networks.eagle import EagleConfig, EagleNetwork
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.medusa import MedusaConfig, MedusaNetwork
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Packed
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.target import Target
from anydraft.verify import Verification

DEPTH = 4


def _recurrent(model: PreTrainedModel, **sizes: Any) -> DrafterNetwork:
    vocabulary = sizes.pop("vocabulary", None)
    return RecurrentNetwork(RecurrentConfig(target=TargetIdentity.of(model), **sizes), vocabulary)


def _medusa(model: PreTrainedModel, **sizes: Any) -> DrafterNetwork:
    vocabulary = sizes.pop("vocabulary", None)
    config = MedusaConfig(target=TargetIdentity.of(model), num_heads=DEPTH, **sizes)
    return MedusaNetwork(config, vocabulary).initialise(model)


def _eagle(model: PreTrainedModel, **sizes: Any) -> DrafterNetwork:
    vocabulary = sizes.pop("vocabulary", None)
    return EagleNetwork(EagleConfig.for_model(model, **sizes), vocabulary)


def _reduced(make: Callable[..., DrafterNetwork], **sizes: Any) -> Callable[[PreTrainedModel], DrafterNetwork]:
    """Two thirds of the vocabulary, in an order of its own."""

    def made(model: PreTrainedModel) -> DrafterNetwork:
        size = TargetIdentity.of(model).vocab_size
        few = torch.randperm(size, generator=torch.Generator().manual_seed(3))[: max(2, 2 * size // 3)]
        return make(model, vocabulary_size=len(few), vocabulary=few, **sizes)

    return made


MAKERS: dict[str, Callable[[PreTrainedModel], DrafterNetwork]] = {
    "redrafter": lambda model: _recurrent(model, arch="redrafter"),
    "sums": lambda model: _recurrent(model, arch="redrafter", rnn=False, exit_dim=24, num_layers=1),
    "lean": lambda model: _recurrent(model, arch="lean"),
    "lean, reduced": _reduced(_recurrent, arch="lean", cell="elman", context_in_cell=False),
    "medusa": _medusa,
    "medusa, reduced": _reduced(_medusa),
    "eagle": _eagle,
    "eagle, reduced": _reduced(_eagle),
}
KINDS = ["redrafter", "lean", "medusa", "eagle"]
ALL = list(MAKERS)


def random_network(kind: str, model: PreTrainedModel, seed: int = 0, scale: float = 1.0) -> DrafterNetwork:
    """Every weight drawn anew, `scale` wide, those that start at zero too."""
    torch.manual_seed(seed)
    network = MAKERS[kind](model)
    with torch.no_grad():
        for parameter in network.parameters():
            width = parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 4.0
            parameter.copy_(scale * torch.randn_like(parameter) / width + (0.0 if parameter.ndim > 1 else 0.5))
    return network.attach(model).eval()


def packed(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Packed:
    """Texts one after the other, every token an answer, with the target's hidden states."""
    features = []
    for text in texts:
        with torch.no_grad(), LastHidden(model).caught() as caught:
            model(input_ids=torch.tensor([list(text)]), use_cache=False)
        features.append(caught[-1][0].float())
    lengths = [len(text) for text in texts]
    tokens = torch.tensor([token for text in texts for token in text])
    return Packed(
        tokens,
        torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(lengths)),
        torch.cat([torch.arange(length) for length in lengths]),
        torch.ones(len(tokens), dtype=torch.bool),
        torch.cat(features),
    )


def fitted_network(
    kind: str, model: PreTrainedModel, texts: Sequence[Sequence[int]], steps: int = 20, rate: float = 2e-2
) -> DrafterNetwork:
    """A network that knows the texts."""
    torch.manual_seed(0)
    network = MAKERS[kind](model).attach(model)
    batch = packed(model, texts)
    columns = torch.arange(network.config.target.vocab_size)
    if network.vocabulary is not None:
        columns = torch.full_like(columns, -100)
        columns[network.vocabulary] = torch.arange(len(network.vocabulary))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(steps):
        loss = torch.zeros(())
        for level in network.levels(batch, DEPTH):
            valid = batch.valid(level.depth)
            wanted = columns[batch.shifted(1 + level.depth)][valid]
            logits = linear(level.inputs[valid], level.weight, level.bias)
            loss = loss + cross_entropy(logits, wanted, ignore_index=-100)
            if level.regression is not None:
                loss = loss + level.regression
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def drafter(network: DrafterNetwork, target: Target, verification: Verification = "exact") -> Drafter:
    """The drafter that decodes with a network."""
    return trained_drafter(target, network, verification=verification)
