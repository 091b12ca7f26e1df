"""Weights of a drafter in int8: the products are those of the rounded weights, and rounding changes little."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as tf
from tiny_networks import random_network
from torch.nn import functional as F

import anydraft
from anydraft import int8
from anydraft.int8 import Int8Weight
from anydraft.networks.folded import FoldedLean, HalfLinear
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.packing import PackedLinear, plain_parameters
from anydraft.pretrained import load_model

pytestmark = pytest.mark.skipif(not int8.pays(torch.zeros(256, 256)), reason="int8 was not found faster on such a CPU")


def weight_of(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    """Rows of different sizes, the last one of zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) * torch.rand(outputs, 1, generator=generator).exp()
    weight[-1] = 0
    return weight


@cache
def wide_model() -> tf.PreTrainedModel:
    """Wide enough for int8."""
    return tiny.make("llama", vocab=512, hidden_size=256)


def network_of(*, recalling: bool) -> RecurrentNetwork:
    """Random."""
    model = wide_model()
    torch.manual_seed(0)
    config = RecurrentConfig(target=TargetIdentity.of(model), state_size=256, recall_heads=4 if recalling else 0)
    network = RecurrentNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return network.attach(model).eval()


@pytest.mark.parametrize("shape", [(256, 256), (2, 32768), (2047, 32), (515, 384)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_rounded_weights(shape: tuple[int, int], bias: bool, dtype: torch.dtype) -> None:
    weight = weight_of(*shape).to(dtype)
    added = torch.randn(shape[0], dtype=dtype) if bias else None
    small = Int8Weight(weight)
    small.many = None
    for leading in [(), (1,), (2, 1), (1, 5), (3, 11), (1, 70), (2, 0)]:
        rows = torch.randn(*leading, shape[1]).bfloat16().to(dtype)
        product = small(rows, added)
        wanted = F.linear(rows.double(), small.rounded().double(), None if added is None else added.double())
        assert product.dtype == dtype
        assert product.shape == (*leading, shape[0])
        if wanted.numel():
            assert float((product - wanted).norm() / wanted.norm()) < 0.005


def test_many_rows_are_multiplied_with_the_weight_itself() -> None:
    weight, rows = weight_of(256, 256), torch.randn(int8.FEW + 1, 256)
    small = Int8Weight(weight)
    torch.testing.assert_close(small(rows), F.linear(rows, weight), atol=1e-4, rtol=1e-4)
    assert float((small(rows[:-1]) - F.linear(rows[:-1], weight)).abs().max()) > 1e-3
    assert torch.equal(small.dense(), weight)


def test_weights_are_rounded_to_the_nearest_step() -> None:
    weight = weight_of(300, 256)
    small = Int8Weight(weight)
    assert ((small.rounded() - weight).abs() <= 0.501 * small.scales.float()[:, None]).all()
    assert (small.rounded()[-1] == 0).all()
    assert small.nbytes < weight.numel() * 5.02
    assert copy.deepcopy([small])[0] is small


def test_weights_that_are_none_stay_visible() -> None:
    weight = weight_of(256, 256)
    weight[3, 5], weight[4, 6] = torch.nan, torch.inf
    product = Int8Weight(weight)(torch.ones(1, 256))
    assert not product[0, 3].isfinite()
    assert not product[0, 4].isfinite()
    assert product[0, 5:].isfinite().all()


def test_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert int8.pays(torch.zeros(256, 256, dtype=torch.bfloat16))
    assert not int8.pays(torch.zeros(256, 255))
    assert not int8.pays(torch.zeros(254, 257 * 32 + 1))
    assert not int8.pays(torch.zeros(255, 256))
    assert not int8.pays(torch.zeros(256, 256, dtype=torch.float64))
    assert not int8.pays(torch.zeros(256, 256, device="meta"))
    assert not int8.pays(torch.zeros(256, 16, 16))
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    assert not int8.pays(torch.zeros(256, 256))


@pytest.mark.parametrize("recalling", [True, False])
def test_a_rounded_drafter_says_nearly_the_same(recalling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(recalling=recalling)
    hidden, tokens = torch.randn(3, 256), torch.randint(0, network.config.target.vocab_size, (3, 2))

    @torch.no_grad()
    def logits(steps: FoldedLean) -> torch.Tensor:
        state = steps.start(hidden)
        for column in tokens.unbind(1):
            found, state = steps.step(state, column[:, None])
        return found

    rounded = network.fold()
    monkeypatch.setattr(int8, "MEASURED", ())
    exact = network.fold()
    assert isinstance(rounded, FoldedLean)
    assert isinstance(exact, FoldedLean)
    count = [sum(isinstance(module, HalfLinear) for module in steps.body.modules()) for steps in (rounded, exact)]
    assert count == [8 if recalling else 3, 0]
    told, wanted = logits(rounded), logits(exact)
    assert 0 < float((told - wanted).norm() / wanted.norm()) < 0.03


def test_assistants_are_rounded_and_targets_never(tmp_path: Path) -> None:
    """Their weights stay what they were for whoever asks, and a copy has no other ones."""
    wide_model().save_pretrained(tmp_path)
    for role in ("target", "assistant"):
        model = load_model(tmp_path, role=role)
        laid = {type(module.laid) for module in model.modules() if isinstance(module, PackedLinear)}
        assert (Int8Weight in laid) is (role == "assistant")
        for (name, wanted), (same, found) in zip(wide_model().named_parameters(), plain_parameters(model), strict=True):
            assert name == same
            assert torch.equal(found, wanted), name
    ids = torch.randint(0, 512, (1, 7))
    with torch.inference_mode():
        told, wanted = model(ids).logits, wide_model()(ids).logits
        assert torch.equal(copy.deepcopy(model)(ids).logits, wanted)
    assert 0 < float((told - wanted).norm() / wanted.norm()) < 0.05
    untouched = load_model(tmp_path, role="assistant", packed=False)
    assert not any(isinstance(module, PackedLinear) for module in untouched.modules())


@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_other_trained_drafters_say_nearly_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(kind, wide_model())
    hidden, tokens = torch.randn(3, 256), torch.randint(0, 512, (3, 2))

    @torch.no_grad()
    def logits() -> torch.Tensor:
        made: Any = network.copied(torch.device("cpu"), torch.float32).attach(wide_model()).eval().prepare()
        if kind == "medusa":
            found: torch.Tensor = made.logits(hidden, 2)
        else:
            found = made.logits(made(tokens, hidden[:, None].expand(3, 2, 256), torch.tensor([[4, 5]] * 3)))
        return found

    told = logits()
    monkeypatch.setattr(int8, "MEASURED", ())
    wanted = logits()
    assert 0 < float((told - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_tokens_are_the_targets(temperature: float) -> None:
    """As with any drafter; this one is random, so most that it says is wrong."""
    network = network_of(recalling=True)
    plain = anydraft.load(wide_model(), None)
    drafted = anydraft.load(wide_model(), network, draft_tokens=3)
    options = {"max_new_tokens": 40, "temperature": temperature, "seed": 3, "ignore_eos": True}
    found = drafted.generate([5, 6, 7], **options)
    assert found.tokens == plain.generate([5, 6, 7], **options).tokens
    assert found.stats.num_draft_tokens > 40
