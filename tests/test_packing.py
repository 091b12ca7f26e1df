"""Packed weights give the same numbers, bit by bit, and can be had back whenever somebody needs them."""

from __future__ import annotations

import copy
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_networks import MAKERS
from transformers import PreTrainedModel

import anydraft
from anydraft import layout, models, onednn, packing, trials
from anydraft.bench.enlarge import enlarge
from anydraft.checks.margin import float_logits
from anydraft.errors import OptionConflict
from anydraft.hidden import OutputHead
from anydraft.networks.eagle import EagleNetwork
from anydraft.networks.identity import TargetIdentity
from anydraft.networks.medusa import MedusaNetwork
from anydraft.networks.recurrent import RecurrentNetwork
from anydraft.packing import PackedLinear, pack, packed_bytes, plain_parameters, unpack
from anydraft.pretrained import load_model
from anydraft.target import Target

pytestmark = pytest.mark.skipif(onednn.missing() is not None, reason=str(onednn.missing()))

WIDE = {"hidden_size": 96, "intermediate_size": 160, "head_dim": 24}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 96},
    "gpt-bigcode": {"n_embd": 96},
    "opt": {"hidden_size": 96, "word_embed_proj_dim": 96, "ffn_dim": 160},
    "qwen2": {"hidden_size": 96, "intermediate_size": 160},
    "phi": {"hidden_size": 96, "intermediate_size": 160},
    "gpt-neox": {"hidden_size": 96, "intermediate_size": 160},
    "starcoder2": {"hidden_size": 96, "intermediate_size": 160},
    "cohere": {"hidden_size": 96, "intermediate_size": 160},
    "olmo2": {"hidden_size": 96, "intermediate_size": 160},
}
TRAINED = str(models.path("redrafter"))


def wide(arch: str, **changes: Any) -> PreTrainedModel:
    """A model in bfloat16 whose layers are large enough to be packed, with biases that are not zero."""
    model = tiny.make(arch, **SIZES.get(arch, WIDE), **changes)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.bfloat16()


def packed_copy(model: PreTrainedModel) -> PreTrainedModel:
    twin = copy.deepcopy(model)
    assert pack(twin)
    return twin


def logits(model: PreTrainedModel, rows: int, width: int, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 100 + width)
    ids = torch.randint(3, 150, (rows, width), generator=generator)
    with torch.inference_mode():
        return model(ids, **options).logits  # type: ignore[no-any-return]


WIDTHS = (1, 2, 5, 6, 8, 12, 17, 33, 64)
ROWS = (1, 2, 3, 5, 8)


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_the_same_numbers(arch: str) -> None:
    plain = wide(arch)
    packed = packed_copy(plain)
    for rows, width in itertools.product(ROWS, WIDTHS):
        assert torch.equal(logits(packed, rows, width), logits(plain, rows, width)), (rows, width)
    assert torch.equal(logits(packed, 3, 9, logits_to_keep=1), logits(plain, 3, 9, logits_to_keep=1))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(2, 5000), (96, 96), (128, 384), (160, 96), (1024, 384), (384, 1024)])
def test_every_number_of_rows(shape: tuple[int, int], biased: bool) -> None:
    plain = torch.nn.Linear(shape[1], shape[0], bias=biased).bfloat16().eval()
    packed = copy.deepcopy(plain)
    assert pack(packed) == 1
    with torch.inference_mode():
        for rows in [0, *range(1, 65), *range(72, 513, 40)]:
            states = torch.randn(rows, shape[1]).bfloat16()
            assert torch.equal(packed(states), plain(states)), rows
        states = torch.randn(3, 7, shape[1]).bfloat16()
        for view in (states, states[:, 2:5], states.transpose(0, 1), states[0, 0], states[None, :, 1:]):
            assert torch.equal(packed(view), plain(view)), (view.shape, view.stride())


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_packed_and_what_is_kept(tied: bool) -> None:
    packed = packed_copy(wide("llama", tie_word_embeddings=tied))
    layer, head = packed.model.layers[0], packed.lm_head
    assert type(layer.mlp.up_proj) is type(head) is PackedLinear
    assert layer.mlp.up_proj._parameters["weight"].is_meta
    assert head._parameters["weight"].is_meta == (not tied)
    assert (head.weight is packed.model.embed_tokens.weight) == tied
    names = [name for name, module in packed.named_modules() if isinstance(module, PackedLinear)]
    assert len(names) == pack(packed)
    plain_bytes = 2 * sum(packed.get_submodule(name).weight.numel() for name in names)
    assert plain_bytes <= packed_bytes(packed) < 1.05 * plain_bytes  # a layout may fill up its last block


def test_layers_of_other_kinds_and_small_ones_stay() -> None:
    packed = packed_copy(wide("gpt2"))
    kinds = {name.rsplit(".")[-1]: type(module).__name__ for name, module in packed.named_modules()}
    assert kinds["c_fc"] == "Conv1D"
    assert kinds["lm_head"] == "PackedLinear"
    small = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 65), torch.nn.Linear(65, 1))
    small.append(torch.nn.Linear(5000, 1)).bfloat16().eval()
    assert pack(small) == 1
    assert [type(layer) is torch.nn.Linear for layer in small] == [True, False, True, True]


@pytest.mark.parametrize("name", ["target", "assistant"])
def test_the_embedded_models(name: str) -> None:
    plain = load_model(str(models.path(name)), role="target", packed=False)
    packed = load_model(str(models.path(name)), role="target")
    assert not any(isinstance(module, PackedLinear) for module in plain.modules())
    assert not any(type(module) is torch.nn.Linear for module in packed.modules())
    for rows, width in [(1, 1), (1, 2), (1, 7), (1, 32), (1, 64), (1, 512), (4, 1), (8, 9)]:
        assert torch.equal(logits(packed, rows, width), logits(plain, rows, width)), (rows, width)


def test_all_weights_can_be_had(tmp_path: Path) -> None:
    plain = wide("qwen2", tie_word_embeddings=False)
    packed = packed_copy(plain)
    parameters = dict(plain.named_parameters())
    assert list(packed.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in packed.state_dict().items())
    assert [name for name, _ in plain_parameters(packed)] == [name for name, _ in packed.named_parameters()]
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in plain_parameters(packed))
    packed.save_pretrained(tmp_path)
    saved = load_model(str(tmp_path), role="target", packed=False)
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in saved.named_parameters())
    assert packed.num_parameters() == plain.num_parameters()
    assert TargetIdentity.of(packed).fingerprint == TargetIdentity.of(plain).fingerprint
    head, other = OutputHead(packed), OutputHead(plain)
    assert torch.equal(head.weight, other.weight)
    assert head.weight is packed.lm_head.weight  # who asks while somebody holds it is given the same


def test_identity_of_a_tied_head() -> None:
    plain = wide("llama")
    assert TargetIdentity.of(packed_copy(plain)) == TargetIdentity.of(plain)


@pytest.mark.parametrize(
    "change", [unpack, copy.deepcopy, lambda model: model.to(torch.bfloat16), lambda model: model.train().eval()]
)
def test_it_becomes_plain_again(change: Any) -> None:
    plain = wide("starcoder2")
    again = packed_copy(plain)
    again = change(again) or again
    assert not any(isinstance(module, PackedLinear) for module in again.modules())
    parameters = dict(plain.named_parameters())
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in again.named_parameters())
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in plain.parameters()]
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_other_weights_are_used_once_they_are_there() -> None:
    packed, other = packed_copy(wide("llama")), wide("llama", seed=9)
    weights = {name: parameter.float() for name, parameter in other.named_parameters()}
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        output = torch.func.functional_call(packed, weights, (ids,)).logits
        assert torch.equal(output, copy.deepcopy(other).float()(ids).logits)
    packed.lm_head.weight = other.lm_head.weight
    states = torch.randn(3, 96).bfloat16()
    assert torch.equal(packed.lm_head(states), torch.nn.functional.linear(states, other.lm_head.weight))
    packed.load_state_dict(other.state_dict())
    assert torch.equal(logits(packed, 2, 5), logits(other, 2, 5))


def test_gradients_pass_through() -> None:
    plain = wide("phi", tie_word_embeddings=False)
    packed = packed_copy(plain)
    found = []
    for model in (plain, packed):
        states = torch.ones(4, 96).bfloat16().requires_grad_()
        model.lm_head(states).float().square().sum().backward()
        found.append(states.grad)
    assert found[0] is not None
    assert torch.equal(found[0], found[1])


def test_nothing_happens_where_it_does_not_apply(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "anydraft.packing")
    assert pack(tiny.make("llama", **WIDE).half()) == 0
    assert "float16 on cpu" in caplog.text
    assert pack(wide("llama").train()) == 0
    assert "training mode" in caplog.text
    model = wide("llama")
    monkeypatch.setattr(trials, "_agrees", lambda weight, laid: False)
    assert pack(model) == 0
    assert all(type(module) is not PackedLinear for module in model.modules())
    monkeypatch.setattr(packing, "missing", lambda dtype: "no such thing here")
    assert pack(model) == 0
    assert "no such thing here" in caplog.text


def test_shapes_that_give_other_results_are_found() -> None:
    weight = torch.randn(96, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    other = weight.clone()
    other[40, 50] *= 1 + 2**-7  # one step of one number
    laid = layout.laid_out(weight)
    assert laid is not None
    assert trials._agrees(weight, laid)
    assert not trials._agrees(other, laid)


def test_a_model_given_as_such_is_never_packed() -> None:
    model = wide("llama", vocab=160)
    assert load_model(model, role="target") is model
    decoder = anydraft.load(model, "lookup", tokenizer=tiny.byte_level())
    decoder.generate("Once upon", max_new_tokens=4)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    with pytest.raises(OptionConflict, match="given as a loaded model"):
        load_model(model, role="target", packed=True)


def test_packing_that_was_asked_for_and_cannot_be_had() -> None:
    with pytest.raises(OptionConflict, match="float16 on cpu"):
        load_model(str(models.path("assistant")), role="target", dtype="float16", packed=True)


@pytest.mark.parametrize("drafter", [None, str(models.path("assistant")), TRAINED], ids=["plain", "uag", "redrafter"])
def test_texts_of_the_embedded_models(drafter: str | None) -> None:
    """Same tokens, same drafts, same acceptance: with models that were packed, and without."""
    name = str(models.path("target"))
    packed = anydraft.load(name, drafter)
    target = load_model(name, role="target", packed=False)
    assistant: Any = drafter
    if drafter not in (None, TRAINED):
        assistant = load_model(str(drafter), role="assistant", packed=False)
    elif drafter is not None:
        assistant = RecurrentNetwork.from_pretrained(drafter)
    plain = anydraft.load(target, assistant)
    assert any(isinstance(module, PackedLinear) for module in packed.target.model.modules())
    assert not any(isinstance(module, PackedLinear) for module in plain.target.model.modules())
    for decoder in (packed, plain):
        decoder.pacing = anydraft.load(target, "lookup", draft_tokens=5).pacing
    for temperature in (0.0, 1.0):
        a, b = (
            decoder.generate("def fib(n):\n", max_new_tokens=24, temperature=temperature, seed=1)
            for decoder in (packed, plain)
        )
        assert a.tokens == b.tokens
        assert a.stats.num_accepted_tokens == b.stats.num_accepted_tokens
        assert a.stats.num_draft_tokens == b.stats.num_draft_tokens


def test_margins_and_larger_models_read_the_plain_weights() -> None:
    plain = load_model(str(models.path("target")), role="target", packed=False)
    packed = packed_copy(plain)
    ids = [5, 6, 7, 8]
    given = [float_logits(Target(model, structure="tree"), ids) for model in (plain, packed)]
    assert torch.equal(given[0], given[1])
    large = [enlarge(model, 2 * model.config.hidden_size, 7) for model in (plain, packed)]
    assert torch.equal(logits(large[0], 1, 4), logits(large[1], 1, 4))


@pytest.mark.parametrize("kind", ["redrafter", "sums", "lean", "medusa", "eagle", "eagle, reduced"])
def test_prepared_drafters_give_the_same_numbers(kind: str) -> None:
    model = wide("llama", tie_word_embeddings=False)
    packed = packed_copy(model)
    network = MAKERS[kind](model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    cpu, half = torch.device("cpu"), torch.bfloat16
    plain = network.copied(cpu, half).attach(model).eval()
    ready = network.copied(cpu, half).attach(packed).eval().prepare()
    assert any(isinstance(module, PackedLinear) for module in ready.modules())
    assert not any(isinstance(module, PackedLinear) for module in network.modules())
    again = copy.deepcopy(ready)
    hidden = torch.randn(3, 96, generator=torch.Generator().manual_seed(6)).bfloat16()
    tokens = torch.tensor([[5, 6], [7, 8], [9, 10]])
    positions = torch.tensor([[4, 5]] * 3)

    def numbers(of: Any) -> torch.Tensor:
        if isinstance(of, MedusaNetwork):
            return of.logits(hidden, 4)
        if isinstance(of, EagleNetwork):
            return of.logits(of(tokens, hidden[:, None].expand(3, 2, 96), positions))
        steps = of.fold()
        return steps.step(steps.start(hidden), tokens)[0]

    with torch.inference_mode():
        wanted = numbers(plain)
        assert torch.equal(numbers(ready), wanted)
        assert torch.equal(numbers(again), wanted)
    assert sum(p.numel() for p in ready.parameters()) == plain.num_parameters
    assert ready.bytes_per_step() == plain.bytes_per_step()
