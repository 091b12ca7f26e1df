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
from safetensors.torch import load_file
from tiny_networks import random_network
from torch.nn import functional as F

import anydraft
from anydraft import int8
from anydraft.drafters.assistant import AssistantDrafter
from anydraft.errors import UnsupportedModel
from anydraft.int8 import Int8Weight
from anydraft.lm import LanguageModel
from anydraft.networks.folded import FastLinear, FoldedLean
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.recurrent import RecurrentConfig, RecurrentNetwork
from anydraft.packing import PackedLinear, pack, plain_parameters, unpack
from anydraft.pretrained import load_model

CPU = torch.backends.cpu.get_cpu_capability()
pytestmark = pytest.mark.skipif(
    not CPU.startswith("AVX") or not hasattr(torch, "_weight_int8pack_mm"), reason="torch has no int8 kernel here"
)


@pytest.fixture(autouse=True)
def as_if_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products are right on CPUs as well on which nobody measured them."""
    monkeypatch.setattr(int8, "MEASURED", (CPU,))


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
    roundings = 2 if bias and dtype == torch.bfloat16 else 1  # of products, which are in bfloat16, and of sums
    for leading in [(), (1,), (2, 1), (1, 5), (3, 11), (1, 70), (2, 0)]:
        rows = torch.randn(*leading, shape[1]).bfloat16().to(dtype)
        product = small(rows, added)
        wanted = F.linear(rows.double(), small.small().double())
        size = wanted.norm()
        if added is not None:
            wanted, size = wanted + added.double(), size + added.double().norm()
        assert product.dtype == dtype
        assert product.shape == (*leading, shape[0])
        if wanted.numel():
            assert float((product - wanted).norm() / size) < roundings * 2**-8 + 0.001


def test_many_rows_are_multiplied_with_the_weight_itself() -> None:
    weight, rows = weight_of(256, 256), torch.randn(int8.FEW + 1, 256)
    small = int8.rounded(weight)
    assert small is not None
    torch.testing.assert_close(small(rows), F.linear(rows, weight), atol=1e-4, rtol=1e-4)
    assert float((small(rows[:-1]) - F.linear(rows[:-1], weight)).abs().max()) > 1e-3
    assert torch.equal(small.dense(), weight)


def test_weights_are_rounded_to_the_nearest_step() -> None:
    weight = weight_of(300, 256)
    small = Int8Weight(weight)
    assert ((small.small() - weight).abs() <= 0.501 * small._scales.float()[:, None]).all()
    assert (small.small()[-1] == 0).all()
    assert small.nbytes < weight.numel() * 1.02
    assert copy.deepcopy([small])[0] is small


def test_rows_may_begin_anywhere() -> None:
    weight = weight_of(256, 256)
    rows = torch.randn(1, 257).bfloat16()[:, 1:]
    assert torch.equal(Int8Weight(weight.bfloat16())(rows), Int8Weight(weight.bfloat16())(rows.clone()))


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
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    assert not int8.pays(torch.zeros(256, 256))


@pytest.mark.parametrize("recalling", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rounded_drafter_says_nearly_the_same(
    recalling: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared as it is for decoding; what is looked up for tokens is not rounded at all."""
    network = network_of(recalling=recalling)
    hidden, tokens = torch.randn(3, 256), torch.randint(0, network.config.target.vocab_size, (3, 2))

    def folded() -> FoldedLean:
        made = network.copied(torch.device("cpu"), dtype).attach(wide_model()).eval().prepare().fold()
        assert isinstance(made, FoldedLean)
        return made

    @torch.no_grad()
    def logits(steps: FoldedLean) -> torch.Tensor:
        state = steps.start(hidden)
        for column in tokens.unbind(1):
            found, state = steps.step(state, column[:, None])
        return found.float()

    def small(steps: FoldedLean) -> int:
        layers = [*steps.body.modules(), steps.head]
        return sum(isinstance(layer, FastLinear) and isinstance(layer.laid, Int8Weight) for layer in layers)

    rounded = folded()
    assert small(rounded) == (9 if recalling else 4)
    monkeypatch.setattr(int8, "MEASURED", ())
    exact = folded()
    assert small(exact) == 0
    torch.testing.assert_close(rounded.table, exact.table, atol=1e-5, rtol=1e-5)
    wanted = logits(exact)
    assert 0 < float((logits(rounded) - wanted).norm() / wanted.norm()) < 0.04


def kinds(model: torch.nn.Module) -> set[type]:
    return {type(module.laid) for module in model.modules() if isinstance(module, PackedLinear)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_assistants_are_rounded_and_targets_never(dtype: str, tmp_path: Path) -> None:
    """Weights stay what they were for whoever asks, saves, copies or unpacks."""
    plain = copy.deepcopy(wide_model()).to(getattr(torch, dtype))
    plain.save_pretrained(tmp_path / "plain")
    assert Int8Weight not in kinds(load_model(tmp_path / "plain", role="target"))
    whole = load_model(tmp_path / "plain", role="assistant", packed=False)
    assert not kinds(whole)
    model = load_model(tmp_path / "plain", role="assistant")
    assert Int8Weight in kinds(model)
    for (name, wanted), (same, found) in zip(plain.named_parameters(), plain_parameters(model), strict=True):
        assert name == same
        assert torch.equal(found, wanted), name
    model.save_pretrained(tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    ids = torch.randint(0, 512, (1, 7))
    with torch.inference_mode():
        told, wanted = model(ids).logits.float(), whole(ids).logits.float()
        assert torch.equal(copy.deepcopy(model)(ids).logits.float(), wanted)
        assert 0 < float((told - wanted).norm() / wanted.norm()) < 0.05
        unpack(model)
        assert torch.equal(model(ids).logits.float(), wanted)


def test_a_rounded_model_is_no_target(tmp_path: Path) -> None:
    wide_model().save_pretrained(tmp_path)
    model = load_model(tmp_path, role="assistant")
    with pytest.raises(UnsupportedModel, match="rounded"):
        anydraft.load(model, None)
    pack(model)
    assert Int8Weight not in kinds(model)
    ids = torch.randint(0, 512, (1, 7))
    torch.testing.assert_close(model(ids).logits, wide_model()(ids).logits, atol=1e-3, rtol=1e-3)
    assert anydraft.load(model, None).generate([5, 6], max_new_tokens=2).finish_reason == "length"


@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_other_trained_drafters_say_nearly_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(kind, wide_model())
    hidden, tokens = torch.randn(3, 256), torch.randint(0, 512, (3, 2))

    def made() -> Any:
        return network.copied(torch.device("cpu"), torch.float32).attach(wide_model()).eval().prepare()

    @torch.no_grad()
    def logits(of: Any) -> torch.Tensor:
        if kind == "medusa":
            found: torch.Tensor = of.logits(hidden, 2)
        else:
            found = of.logits(of(tokens, hidden[:, None].expand(3, 2, 256), torch.tensor([[4, 5]] * 3)))
        return found

    small = made()
    assert Int8Weight in kinds(small)
    assert isinstance(small.heads[0].laid if kind == "medusa" else small.laid, Int8Weight)
    monkeypatch.setattr(int8, "MEASURED", ())
    whole = made()
    assert Int8Weight not in kinds(whole)
    wanted = logits(whole)
    assert 0 < float((logits(small) - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["redrafter", "assistant"])
def test_the_tokens_are_the_targets(kind: str, temperature: float, tmp_path: Path) -> None:
    """As with any drafter."""
    network: Any = network_of(recalling=True)
    if kind == "assistant":
        wide_model().save_pretrained(tmp_path)
        network = LanguageModel(load_model(tmp_path, role="assistant"))
        assert Int8Weight in kinds(network.model)
        network = AssistantDrafter(network, vocab_size=512, eos_token_ids=frozenset())
    plain = anydraft.load(wide_model(), None)
    drafted = anydraft.load(wide_model(), network, draft_tokens=3)
    options = {"max_new_tokens": 40, "temperature": temperature, "seed": 3, "ignore_eos": True}
    found = drafted.generate([5, 6, 7], **options)
    assert found.tokens == plain.generate([5, 6, 7], **options).tokens
    assert found.stats.num_draft_tokens > 20
    if kind == "assistant":  # the same model, rounded: nearly always right
        assert found.stats.acceptance_rate > 0.5
