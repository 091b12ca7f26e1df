"""Packed weights in float32: rows do not depend on each other, and only what is faster is packed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import tiny
import torch

import anydraft
from anydraft import layout, models, onednn, trials
from anydraft.packing import PackedLinear, pack, packed_bytes

pytestmark = pytest.mark.skipif(
    onednn.missing(torch.float32) is not None, reason=str(onednn.missing(torch.float32))
)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    trials._faster.cache_clear()
    yield
    trials._faster.cache_clear()


@pytest.fixture
def repeating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows do not depend on each other, wherever this runs."""
    monkeypatch.setattr(trials, "_repeats", lambda weight, laid: True)


def layers(count: int, size: int = 96) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(size, size) for _ in range(count))).eval()


def clock(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, tuple[float, float]]) -> list[int]:
    """Products take what is said, by rows: from plain weights, and packed. Returns how many layers each call timed."""
    calls: list[int] = []

    def timed(product: Any, rows: torch.Tensor, weights: Sequence[Any]) -> float:
        calls.append(len(weights))
        return seconds[len(rows)][isinstance(weights[0], onednn.LaidOut)]

    monkeypatch.setattr(trials, "_seconds", timed)
    return calls


@pytest.mark.usefixtures("repeating")
@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_the_same_numbers_but_for_rounding(arch: str) -> None:
    sizes: dict[str, Any] = {"gpt2": {"n_embd": 96}, "gpt-bigcode": {"n_embd": 96}}
    plain = tiny.make(arch, **sizes.get(arch, {}))
    packed = copy.deepcopy(plain)
    assert pack(packed, always=True)
    ids = torch.randint(3, 150, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5000), (96, 96), (1024, 384), (384, 1024)])
def test_a_row_gives_the_same_bits_alone_and_among_others(shape: tuple[int, int]) -> None:
    plain = torch.nn.Linear(shape[1], shape[0]).eval()
    packed = copy.deepcopy(plain)
    if not pack(packed, always=True):
        pytest.skip("rows depend on each other on this machine, so nothing is packed")
    states = torch.randn(64, shape[1], generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        all_rows = packed(states)
        torch.testing.assert_close(all_rows, plain(states), rtol=1e-4, atol=1e-4)
        for rows in range(1, 65):
            assert torch.equal(packed(states[:rows]), all_rows[:rows]), rows
        assert torch.equal(packed(states.view(4, 16, -1)[:, 2:5]), all_rows.view(4, 16, -1)[:, 2:5])


@pytest.mark.usefixtures("repeating")
def test_what_is_no_faster_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for single, several, expected in [(1.0, 0.9, 3), (1.04, 0.5, 3), (1.2, 0.5, 0), (0.9, 0.95, 0)]:
        trials._faster.cache_clear()
        clock(monkeypatch, {1: (1.0, single), 8: (2.0, 2 * several)})
        model = layers(3)
        assert pack(model) == expected, (single, several)
        assert pack(layers(3), always=True) == 3


@pytest.mark.usefixtures("repeating")
def test_a_shape_is_timed_once_for_a_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that models of one process compute alike. Of many layers some are timed."""
    calls = clock(monkeypatch, {1: (1.0, 1.0), 8: (1.0, 0.5)})
    assert pack(layers(trials.TIMED_LAYERS + 2)) == trials.TIMED_LAYERS + 2
    assert {*calls} == {trials.TIMED_LAYERS}
    calls.clear()
    assert pack(layers(trials.TIMED_LAYERS)) == trials.TIMED_LAYERS
    assert not calls
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert pack(layers(2)) == 2
    assert {*calls} == {2}


def test_shapes_whose_rows_depend_on_each_other_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = layers(1)[0].weight.detach()
    laid = layout.laid_out(weight, full=True)
    assert laid is not None
    assert not trials._repeats(weight * 1.01, laid)
    product = weight.t().contiguous()
    apart = lambda self, rows: torch.stack([row @ product for row in rows])  # noqa: E731
    monkeypatch.setattr(onednn.LaidOut, "__call__", lambda self, rows: apart(self, rows) * (1 + 1e-6 * len(rows)))
    assert not trials._repeats(weight, laid)
    monkeypatch.setattr(onednn.LaidOut, "__call__", apart)
    assert trials._repeats(weight, laid)
    monkeypatch.setattr(onednn.LaidOut, "__call__", lambda self, rows: rows @ torch.zeros(0))  # a platform without it
    assert pack(layers(1), always=True) == 0


@pytest.mark.usefixtures("repeating")
def test_weights_come_back() -> None:
    plain = tiny.make("qwen2", tie_word_embeddings=False)
    packed = copy.deepcopy(plain)
    assert pack(packed, always=True)
    assert packed_bytes(packed) == 4 * sum(m.weight.numel() for m in packed.modules() if isinstance(m, PackedLinear))
    parameters = dict(plain.named_parameters())
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in packed.state_dict().items())
    half = packed.to(torch.bfloat16)
    assert not any(isinstance(module, PackedLinear) for module in half.modules())
    assert torch.equal(half.lm_head.weight, plain.lm_head.weight.bfloat16())


@pytest.mark.parametrize("drafter", [None, "assistant", "redrafter"])
def test_texts_of_the_embedded_models(drafter: str | None) -> None:
    """The tokens are those of the plain weights, drafted or not."""
    name = str(models.path("target"))
    given = []
    for packed in (True, False):
        drafted_by = None if drafter is None else str(models.path(drafter))
        decoder = anydraft.load(name, drafted_by, dtype="float32", packed=packed)
        assert any(isinstance(module, PackedLinear) for module in decoder.target.model.modules()) == packed
        given.append([
            decoder.generate("def fib(n):\n", max_new_tokens=24, temperature=temperature, seed=1).tokens
            for temperature in (0.0, 1.0)
        ])
    assert given[0] == given[1]


@pytest.mark.usefixtures("repeating")
def test_what_training_asks_for_is_computed_by_torch() -> None:
    """Gradients of a bias, and autocast."""
    plain = layers(1)
    packed = copy.deepcopy(plain)
    assert pack(packed, always=True) == 1
    states = torch.randn(3, 96)
    for model in (plain, packed):
        model(states).square().sum().backward()
    torch.testing.assert_close(packed[0].bias.grad, plain[0].bias.grad)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(packed(states), plain(states))
        assert packed(states).dtype == torch.bfloat16


@pytest.mark.usefixtures("repeating")
def test_layers_elsewhere_are_not_in_the_way() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(96, 96, device="meta"), *layers(1)).eval()
    assert pack(model, always=True) == 1
