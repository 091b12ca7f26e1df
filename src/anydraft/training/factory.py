"""A fresh network of a kind for a target, from options."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from transformers import PreTrainedModel

from anydraft.errors import OptionConflict
from anydraft.networks.config import NetworkConfig
from anydraft.networks.eagle import EagleConfig, EagleNetwork
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.medusa import MedusaConfig, MedusaNetwork
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.training.batches import Dataset

CONFIGS: dict[str, type[NetworkConfig]] = {"redrafter": RecurrentConfig, "medusa": MedusaConfig, "eagle": EagleConfig}
DECIDED = ("target", "vocabulary_size", "calibration")
"""Fields of the configs that follow from other things."""
KINDS = tuple(CONFIGS)
LEAN = ("state_size", "cell", "context_in_cell", "recall_heads")


def new_network(
    kind: str, model: PreTrainedModel, dataset: Dataset, *, vocabulary: int | None, depth: int, seed: int, **sizes: Any
) -> DrafterNetwork:
    """A network with initial weights in float32, attached to its target.

    Args:
        kind: one of KINDS.
        model: the target.
        dataset: its answers decide which tokens are frequent.
        vocabulary: how many of them the network drafts; None for all.
        depth: Medusa's number of heads.
        seed: of the weights.
        sizes: further fields of the network's config.

    Raises:
        OptionConflict: an unknown kind, or an option out of range or without effect.
    """
    if kind not in KINDS:
        raise OptionConflict(f"a drafter that can be trained is one of {', '.join(KINDS)}; got {kind!r}")
    _check(kind, sizes)
    target = TargetIdentity.of(model)
    ids: torch.Tensor | None = None
    if vocabulary is not None:
        if not 1 <= vocabulary <= target.vocab_size:
            raise OptionConflict(
                f"vocabulary must be in 1..{target.vocab_size} (the target's own), got {vocabulary}; leave it out for "
                "all of it"
            )
        if sizes.get("arch") == "redrafter":
            raise OptionConflict("--vocabulary belongs to --arch lean: Apple's form has a row for every token")
        ids = torch.from_numpy(dataset.most_frequent(vocabulary, target.vocab_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: DrafterNetwork
        if kind == "redrafter":
            config = RecurrentConfig(target=target, vocabulary_size=vocabulary, trained_depth=depth, **sizes)
            network = RecurrentNetwork(config, ids)
            network.float().attach(model)
        elif kind == "medusa":
            network = MedusaNetwork(MedusaConfig(target=target, num_heads=depth, vocabulary_size=vocabulary), ids)
            network.float().initialise(model)
        else:
            network = EagleNetwork(EagleConfig.for_model(model, vocabulary_size=vocabulary, **sizes), ids)
            network.float().attach(model)
    return network.to(model.get_output_embeddings().weight.device).train()


def _check(kind: str, sizes: dict[str, Any]) -> None:
    """Raise OptionConflict for sizes that the kind does not have."""
    decided = (*DECIDED, *(("num_heads",) if kind == "medusa" else ()))
    possible = [field.name for field in fields(CONFIGS[kind]) if field.name not in decided]
    unknown = [name for name in sizes if name not in possible]
    if unknown:
        raise OptionConflict(
            f"{kind} has no option {', '.join(unknown)}; it has "
            f"{', '.join(possible) or 'none but vocabulary and depth'}; leave out what it does not have"
        )
    lean = [name for name in sizes if name in LEAN]
    if sizes.get("arch") == "redrafter" and lean:
        raise OptionConflict(f"{', '.join(lean)} belongs to arch lean, and arch is 'redrafter'; leave one of them out")
