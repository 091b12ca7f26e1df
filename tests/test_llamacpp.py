"""What llama.cpp is given is the model it is compared with, and its times are told as they are. Nothing is timed here.

The last tests need llama-cpp-python, in this environment or in that of the Python named by ANYDRAFT_LLAMA_PYTHON.
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from anydraft.bench import llamacpp
from anydraft.bench.gguf_export import export_gguf, interleaved
from anydraft.bench.llamacpp import LlamaCpp, LlamaCppContender, agreement
from anydraft.bench.llamacpp_report import aims, beside, markdown
from anydraft.bench.measure import Record, Run, Task
from anydraft.bench.statistics import Interval
from anydraft.errors import UnsupportedModel

LLAMA_PYTHON = os.environ.get("ANYDRAFT_LLAMA_PYTHON") or (
    sys.executable if importlib.util.find_spec("llama_cpp") else None
)
needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="the gguf package is not installed")
needs_llama = pytest.mark.skipif(LLAMA_PYTHON is None, reason="llama-cpp-python is not installed")
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
PROMPT = [(7 * place) % 96 for place in range(20)]
FAKE = """
import json, sys
print(json.dumps({"fake": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "ids" not in asked:
        print("not llama.cpp", file=sys.stderr)
        raise SystemExit(3)
    if not asked["ids"]:
        answer = {"error": "no tokens"}
    else:
        answer = {"tokens": [asked["seed"]] * asked["n"], "seconds": 2.0, "seconds_first_token": 0.5}
    print(json.dumps(answer), flush=True)
"""


def llama(dtype: torch.dtype = torch.bfloat16, *, tied: bool = True, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZES, **changes}, tie_word_embeddings=tied)
    return LlamaForCausalLM(config).to(dtype).eval()


@needs_gguf
@pytest.mark.parametrize("tied", [True, False])
def test_the_file_holds_the_weights_bit_by_bit(tied: bool, tmp_path: Path) -> None:
    from gguf import GGUFReader

    model = llama(tied=tied)
    export_gguf(model, tmp_path / "model.gguf")
    reader = GGUFReader(tmp_path / "model.gguf")
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert ("output.weight" in found) is not tied
    assert len(found) == len(list(model.parameters()))
    layer = model.model.layers[1]
    pairs = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "blk.1.attn_v.weight": layer.self_attn.v_proj.weight,
        "blk.1.attn_q.weight": interleaved(layer.self_attn.q_proj.weight, 4),
        "blk.1.attn_k.weight": interleaved(layer.self_attn.k_proj.weight, 2),
        "blk.1.ffn_down.weight": layer.mlp.down_proj.weight,
    }
    for name, weight in pairs.items():
        assert torch.equal(found[name].view(torch.bfloat16), weight), name
    assert torch.equal(found["blk.1.ffn_norm.weight"], layer.post_attention_layernorm.weight.float())
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["llama.attention.key_length"] == fields["llama.rope.dimension_count"] == 32
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(model.config.rms_norm_eps)


def test_reordered_rows_rotate_to_the_same_attention() -> None:
    heads, dim, width, places = 3, 8, 16, 5
    torch.manual_seed(0)
    weights = torch.randn(2, heads * dim, width, dtype=torch.float64)
    x = torch.randn(places, width, dtype=torch.float64)
    angles = torch.arange(places)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)  # (places, dim / 2)
    cos, sin = angles.cos().double(), angles.sin().double()

    def by_halves(weight: torch.Tensor) -> torch.Tensor:  # as transformers rotates
        states = (x @ weight.T).view(places, heads, dim).transpose(0, 1)
        return apply_rotary_pos_emb(states, states, cos.repeat(1, 2), sin.repeat(1, 2), unsqueeze_dim=0)[0]

    def by_pairs(weight: torch.Tensor) -> torch.Tensor:  # as llama.cpp rotates
        states = (x @ interleaved(weight, heads).T).view(places, heads, dim).transpose(0, 1)
        even, odd = states[..., ::2], states[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    scores = [rotate(weights[0]) @ rotate(weights[1]).mT for rotate in (by_halves, by_pairs)]
    assert torch.allclose(*scores)


@needs_gguf
def test_models_that_would_become_others_are_refused(tmp_path: Path) -> None:
    other = Qwen2ForCausalLM(Qwen2Config(**{**SIZES, "use_sliding_window": False}))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    for model, word in (
        (other, "qwen2"),
        (llama(attention_bias=True), "biases"),
        (llama(rope_parameters=scaled), "linear"),
    ):
        with pytest.raises(UnsupportedModel, match=word):
            export_gguf(model, tmp_path / "model.gguf")
        assert not (tmp_path / "model.gguf").exists()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaCpp]:
    (tmp_path / "worker.py").write_text(FAKE, "utf-8")
    monkeypatch.setattr(llamacpp, "WORKER", tmp_path / "worker.py")
    with LlamaCpp(sys.executable, tmp_path / "none.gguf", threads=1, context=64) as engine:
        yield engine


def test_a_run_tells_the_times_of_the_process(fake: LlamaCpp) -> None:
    assert fake.about == {"fake": True}
    run = LlamaCppContender("llamacpp", fake, flash=False).run([1, 2], Task(temperature=0.0, max_new_tokens=3, seed=9))
    assert run == Run(
        tokens=[9, 9, 9],
        seconds=2.0,
        passes=3,
        seconds_first_token=0.5,
        seconds_prefill=0.5,
        seconds_verify=1.5,
    )


def test_what_goes_wrong_there_is_said_here(fake: LlamaCpp, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        fake.ask(ids=[], n=1)
    assert fake.ask(ids=[1], n=1, seed=4)["tokens"] == [4]  # it lives on
    with pytest.raises(ValueError, match=r"ended \(3\): not llama.cpp"):
        fake.ask(n=1)
    with pytest.raises(ValueError, match="cannot run"):
        LlamaCpp(str(tmp_path / "no-python"), tmp_path / "none.gguf", threads=1, context=64)


def test_speed_is_given_with_the_prompt_and_without() -> None:
    task = Task(temperature=0.0, max_new_tokens=5, seed=0)
    records = [
        Record(
            prompt_id=prompt,
            contender=name,
            task=task,
            run=Run(tokens=[0] * 5, seconds=seconds, passes=5, seconds_prefill=prefill),
        )
        for prompt in ("a", "b")
        for name, seconds, prefill in (("llamacpp", 4.0, 2.0), ("anydraft", 4.0, 1.0), ("anydraft-uag", 2.0, 1.0))
    ]
    found = {of.row.contender: of for of in beside(records)}
    assert found["llamacpp"].over is None
    assert found["anydraft"].row.speedup["llamacpp"].value == 1.0
    rate, over = found["anydraft"].rate, found["anydraft"].over
    assert rate is not None
    assert over is not None
    # llama.cpp's pass over the prompt gives a token, so 4 are left for 2 seconds; anydraft's gives none.
    assert (rate.value, over.value) == (pytest.approx(5 / 3), pytest.approx(5 / 6))
    assert [aim.holds for aim in aims(list(found.values()))] == [True, True]
    slower = [dataclasses.replace(found["anydraft"], over=Interval(0.7, 0.6, 0.8))]
    assert [aim.holds for aim in aims(slower)] == [False]  # with the prompt 1.0, which is not enough
    logits = {"llamacpp": {"positions": 8.0, "same_choice": 1.0, "mean": 0.001, "largest": 0.01}}
    assert "| anydraft-uag | " in markdown(list(found.values()), "Title", logits)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    export_gguf(llama(), path)
    with LlamaCpp(str(LLAMA_PYTHON), path, threads=1, context=256) as made:
        yield made


@needs_gguf
@needs_llama
@pytest.mark.parametrize("flash", [False, True])
def test_llamacpp_computes_the_same_logits(engine: LlamaCpp, flash: bool) -> None:
    exact = llama().float()
    found = agreement({"llamacpp": [engine.logits(PROMPT, flash=flash)]}, exact, [PROMPT])["llamacpp"]
    wrong = agreement({"llamacpp": [engine.logits(PROMPT[::-1], flash=flash)]}, exact, [PROMPT])["llamacpp"]
    assert found["same_choice"] >= 0.95
    assert found["mean"] < 0.05 < wrong["mean"]


@needs_gguf
@needs_llama
def test_llamacpp_decodes_as_often_as_asked(engine: LlamaCpp) -> None:
    contender = LlamaCppContender("llamacpp", engine, flash=False)
    greedy = contender.run(PROMPT, Task(temperature=0.0, max_new_tokens=12, seed=0))
    with torch.inference_mode():
        scores = llama().float()(torch.tensor([PROMPT + greedy.tokens])).logits[0, len(PROMPT) - 1 : -1]
    chosen = scores.gather(-1, torch.tensor(greedy.tokens)[:, None])[:, 0]
    assert torch.all(scores.max(-1).values - chosen < 0.1)  # the likeliest token, or one as good as that
    sampled = [contender.run(PROMPT, Task(temperature=1.0, max_new_tokens=12, seed=seed)).tokens for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    with pytest.raises(ValueError, match="context of 256"):
        engine.ask(ids=PROMPT, n=250)
