"""The drafters' benchmark: enlarged drafters draft the same, and its figures are the arithmetic they claim."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from anydraft.bench.enlarge import enlarge
from anydraft.bench.enlarge_network import enlarge_network
from anydraft.errors import UnsupportedModel
from anydraft.networks.eagle import EagleConfig, EagleNetwork
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.medusa import MedusaConfig, MedusaNetwork
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.packed import Packed
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork

VOCAB, WIDTH, WIDE = 96, 48, 120
DEPTH = 3


@cache
def small_target() -> PreTrainedModel:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        intermediate_size=80,
        max_position_embeddings=256,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


@cache
def large_target() -> PreTrainedModel:
    return enlarge(small_target(), width=WIDE, layers=3, heads=10, kv_heads=5)


def network(form: str, model: PreTrainedModel, **sizes: Any) -> DrafterNetwork:
    """A network with random weights everywhere."""
    torch.manual_seed(3)
    identity = TargetIdentity.of(model)
    made: DrafterNetwork
    if form == "medusa":
        made = MedusaNetwork(MedusaConfig(target=identity, num_heads=DEPTH, **sizes))
    elif form == "eagle":
        made = EagleNetwork(EagleConfig.for_model(model, **sizes))
    else:
        arch = "lean" if "lean" in form else "redrafter"
        made = RecurrentNetwork(RecurrentConfig(target=identity, arch=arch, **sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.attach(model).eval()


FORMS: dict[str, dict[str, Any]] = {
    "redrafter": {},
    "redrafter with projection": {"exit_dim": 64},
    "lean": {"state_size": 40},
    "lean of default width": {},
    "lean elman, part of the vocabulary": {"cell": "elman", "context_in_cell": False, "vocabulary_size": 50},
    "medusa": {},
    "eagle": {},
}


@torch.no_grad()
def logits(of: DrafterNetwork, model: PreTrainedModel) -> torch.Tensor:
    """All levels' logits along a text of two documents."""
    tokens = torch.randint(3, VOCAB, (24,), generator=torch.Generator().manual_seed(5))
    features = model.base_model(tokens[None]).last_hidden_state[0]
    documents = torch.arange(24) // 14
    batch = Packed(tokens, documents, torch.arange(24) - 14 * documents, torch.ones(24, dtype=torch.bool), features)
    return torch.stack([level.inputs @ level.weight.T for level in of.levels(batch, DEPTH)])


@pytest.mark.parametrize("form", FORMS)
def test_an_enlarged_drafter_drafts_the_same(form: str) -> None:
    small = network(form, small_target(), **FORMS[form])
    large = enlarge_network(small, large_target()).attach(large_target())
    mine, theirs = logits(small, small_target()), logits(large, large_target())
    torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-4)
    assert torch.equal(theirs.argmax(-1), mine.argmax(-1))
    assert mine.std() > 0.05


@pytest.mark.parametrize("form", ["redrafter", "lean of default width", "medusa", "eagle"])
def test_it_is_as_large_as_a_fresh_one(form: str) -> None:
    large = enlarge_network(network(form, small_target()), large_target())
    fresh = network(form, large_target())
    assert {name: weight.shape for name, weight in large.named_parameters()} == {
        name: weight.shape for name, weight in fresh.named_parameters()
    }
    assert large.config.target == TargetIdentity.of(large_target())


def test_only_for_a_target_that_holds_the_small_one() -> None:
    with pytest.raises(UnsupportedModel, match="hidden size 120"):
        enlarge_network(network("medusa", large_target()), small_target())
