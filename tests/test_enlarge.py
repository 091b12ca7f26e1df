"""An enlarged model gives the small one's logits, and nothing else about the small one changes."""

import copy
import math
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from anydraft.bench import enlarge, enlarge_to
from anydraft.bench.shape import Shape

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZES = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama-bias": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 6}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": False}),
}


def tiny(family: str = "llama") -> PreTrainedModel:
    config, model, extra = FAMILIES[family]
    torch.manual_seed(1)
    made = model(config(**SIZES, **extra)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # no weight is left at a value that hides a mistake
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


@torch.no_grad()
def difference(first: PreTrainedModel, second: PreTrainedModel, length: int = 24) -> float:
    ids = torch.randint(1, first.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(3))
    return float((first(ids).logits - second(ids).logits).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_same_logits(family: str) -> None:
    model = tiny(family)
    large = enlarge(model, width=112, layers=5, heads=20, kv_heads=5, intermediate=200)
    assert difference(model, large) < 5e-6
    assert Shape.of(large) == Shape(width=112, layers=5, heads=20, kv_heads=5, head_dim=8, intermediate=200)
    assert large.model.layers[4].mlp.down_proj.weight.shape == (112, 200)


@pytest.mark.parametrize("change", ["norm", "epsilon", "heads", "layer"])
def test_a_wrong_step_shows(change: str) -> None:
    model = tiny()
    large = enlarge(model, width=96, layers=3, heads=16, kv_heads=4)
    with torch.no_grad():
        if change == "norm":
            for layer in large.model.layers:
                layer.input_layernorm.weight.mul_(math.sqrt(2))
        elif change == "epsilon":
            for module in large.modules():
                if hasattr(module, "variance_epsilon"):
                    module.variance_epsilon = 1.0
        elif change == "heads":
            for layer in large.model.layers:
                layer.self_attn.q_proj.weight.copy_(layer.self_attn.q_proj.weight.roll(8, dims=0))
        else:
            large.model.layers[2].mlp.down_proj.weight.normal_(std=0.02)
    assert difference(model, large) > 1e-3


def test_the_epsilon_matters_where_activations_are_small() -> None:
    model = tiny()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1e-3)
    large = enlarge(model, width=192)
    assert difference(model, large) < 5e-6
    for module in large.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = model.config.rms_norm_eps
    assert difference(model, large) > 1e-4


def test_the_given_model_and_the_random_state_stay() -> None:
    model = tiny()
    before, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    random = torch.random.get_rng_state()
    enlarge(model, width=96, layers=4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_seed_decides_the_new_weights() -> None:
    first, same, other = (enlarge(tiny(), width=96, seed=seed).model.layers[0].mlp.up_proj.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_new_weights_cost_time() -> None:
    large = enlarge(tiny(), width=96, layers=4)
    for layer in large.model.layers:
        for name in ("q_proj", "k_proj", "v_proj"):
            assert (getattr(layer.self_attn, name).weight != 0).float().mean() > 0.99
        for reader in (layer.mlp.gate_proj, layer.mlp.up_proj):
            assert (reader.weight != 0).float().mean() > 0.99


def test_generation_and_saving(tmp_path: Path) -> None:
    model = tiny()
    large = enlarge(model, width=96, layers=4)
    large.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert difference(model, again) < 5e-6
    ids = torch.tensor([[5, 9, 11]])
    options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **options), again.generate(ids, **options))


def test_enlarge_to_reaches_the_number_and_not_much_more() -> None:
    large = enlarge_to(tiny(), 2e6)
    count = sum(parameter.numel() for parameter in large.parameters())
    assert 2e6 <= count < 2e6 + 2 * Shape.of(large).layer_parameters
    assert difference(tiny(), large) < 5e-6


def test_the_shape_for_400_million() -> None:
    small = Shape(width=384, layers=6, heads=6, kv_heads=2, head_dim=64, intermediate=1024)
    assert small.reaching(400e6, vocabulary=8192) == Shape(
        width=1536, layers=16, heads=24, kv_heads=8, head_dim=64, intermediate=4096
    )


def test_a_small_step_stays_small() -> None:
    small = Shape(width=384, layers=6, heads=6, kv_heads=2, head_dim=64, intermediate=1024)
    shape = small.reaching(20e6, vocabulary=8192)
    assert 20e6 <= shape.layers * shape.layer_parameters + 8192 * shape.width < 22e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 40}, "width must be >= the model's own 48, got 40"),
        ({"layers": 1}, "layers must be >= the model's own 2, got 1"),
        ({"heads": 7, "kv_heads": 2}, "heads must be a multiple of kv_heads, got 7 and 2"),
        ({"heads": 8, "kv_heads": 4}, "leaves 2 query heads to a kv head"),
        ({"intermediate": 8}, "intermediate must be >="),
    ],
)
def test_impossible_shapes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        enlarge(tiny(), **options)


def test_other_models_are_refused() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32))
    with pytest.raises(ValueError, match="of type 'gpt2'; possible are llama"):
        enlarge(gpt2, width=32)
    with pytest.raises(ValueError, match="parameters already"):
        enlarge_to(tiny(), 10)
    adapted = tiny()
    adapted.model.layers[0].mlp.adapter = torch.nn.Linear(48, 48)
    with pytest.raises(ValueError, match="also has model"):
        enlarge(adapted, width=96)


@pytest.mark.skipif(not (SHARED / "models" / "pycode-12m").is_dir(), reason="needs ../shared/models")
def test_a_trained_model() -> None:
    model = AutoModelForCausalLM.from_pretrained(SHARED / "models" / "pycode-12m", dtype=torch.float32).eval()
    large = enlarge(model, width=768, layers=8)
    assert Shape.of(large).kv_heads == 4
    with torch.no_grad():
        scale = float(model(torch.arange(1, 49)[None]).logits.abs().max())
    assert difference(model, large, length=48) < 5e-6 * max(1.0, scale)
