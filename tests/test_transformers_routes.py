"""Both ways into `generate`, real tokenizers, and what is left untouched."""

from __future__ import annotations

import copy
import gc
import hashlib
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_transformers import NEW, PROMPT, drafting, padded, target
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.generation import LogitsProcessor, StopStringCriteria

import anydraft
from anydraft.errors import ContextOverflow, TokenizerMismatch
from anydraft.integrations.batch import prompt_text
from anydraft.integrations.pool import shared_pool

TOKENIZERS = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"
real = pytest.mark.skipif(not TOKENIZERS.is_dir(), reason="the real tokenizers are not here")


@cache
def announcement() -> dict[str, Any]:
    """A Gemma-2 with Mistral's tokenizer, a Llama with GPT-2's: tiny, but the vocabularies are real."""
    return {
        "model": tiny.make("gemma2", 32000, bos_token_id=1, eos_token_id=2, pad_token_id=0),
        "assistant_model": tiny.make("llama", 50257, bos_token_id=50256, eos_token_id=50256, pad_token_id=50256),
        "tokenizer": _real("mistral-v1", "<s>", "</s>"),
        "assistant_tokenizer": _real("gpt-2", "<|endoftext|>", "<|endoftext|>"),
    }


def _real(name: str, bos: str, eos: str) -> PreTrainedTokenizerFast:
    file = str(TOKENIZERS / name / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=file, bos_token=bos, eos_token=eos)


@real
@pytest.mark.parametrize("do_sample", [False, True])
def test_the_announcement_with_one_word_changed(do_sample: bool) -> None:
    pair = dict(announcement())
    model, tokenizer = pair.pop("model"), pair["tokenizer"]
    inputs = tokenizer("Alice and Bob", return_tensors="pt")
    outputs = anydraft.generate(model, **inputs, **pair, do_sample=do_sample, max_new_tokens=12, seed=4)
    if do_sample:
        plain = anydraft.generate(model, **inputs, do_sample=True, max_new_tokens=12, seed=4)
    else:
        plain = model.generate(**inputs, max_new_tokens=12)
    assert outputs.tolist() == plain.tolist()
    assert tokenizer.decode(outputs[0]).startswith("Alice and Bob")


@real
def test_stop_strings_of_a_real_tokenizer() -> None:
    pair = dict(announcement())
    model, tokenizer = pair.pop("model"), pair["tokenizer"]
    inputs = tokenizer("Alice and Bob", return_tensors="pt")
    text = tokenizer.decode(model.generate(**inputs, max_new_tokens=12)[0, 6:8])
    stop = {"stop_strings": [text.strip()[1:4]], "max_new_tokens": 12}
    expected = model.generate(**inputs, **stop, tokenizer=tokenizer)
    assert expected.shape[1] < inputs.input_ids.shape[1] + 12
    assert anydraft.generate(model, **inputs, **stop, **pair).tolist() == expected.tolist()


def test_stop_strings_wherever_they_are_set() -> None:
    same = drafting("same tokenizer")
    tokenizer = same["tokenizer"]
    stop = tokenizer.decode(target().generate(PROMPT, max_new_tokens=NEW)[0, 13:15])
    expected = target().generate(PROMPT, max_new_tokens=NEW, stop_strings=stop, tokenizer=tokenizer).tolist()
    assert len(expected[0]) < 9 + NEW
    assert anydraft.generate(target(), PROMPT, max_new_tokens=NEW, stop_strings=stop, **same).tolist() == expected
    config = GenerationConfig(stop_strings=stop, max_new_tokens=NEW)
    assert anydraft.generate(target(), PROMPT, generation_config=config, **same).tolist() == expected
    assert config.stop_strings == stop
    owner = copy.deepcopy(target())
    owner.generation_config.stop_strings = stop
    assert anydraft.generate(owner, PROMPT, max_new_tokens=NEW, **same).tolist() == expected
    assert owner.generation_config.stop_strings == stop
    bound = anydraft.assisted(**same, stop_strings=stop)
    assert target().generate(PROMPT, max_new_tokens=NEW, custom_generate=bound).tolist() == expected
    criterion = [StopStringCriteria(tokenizer, stop)]
    bound = anydraft.assisted(**same)
    found = target().generate(PROMPT, max_new_tokens=NEW, stopping_criteria=criterion, custom_generate=bound)
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", ["plain", "same tokenizer", "other tokenizer"])
def test_custom_generate(kind: str) -> None:
    bound = anydraft.assisted(**drafting(kind))
    for options in ({}, {"repetition_penalty": 1.2, "eos_token_id": [20, 21, 22]}):
        expected = target().generate(**padded(), **options, max_new_tokens=NEW)
        found = target().generate(**padded(), **options, max_new_tokens=NEW, custom_generate=bound)
        assert found.tolist() == expected.tolist()
    asked = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": NEW}
    found = target().generate(PROMPT, **asked, custom_generate=bound)
    assert len(found.scores) == found.sequences.shape[1] - 9
    torch.manual_seed(8)
    sampled = target().generate(PROMPT, do_sample=True, max_new_tokens=NEW, custom_generate=bound)
    torch.manual_seed(8)
    assert sampled.tolist() == anydraft.generate(target(), PROMPT, do_sample=True, max_new_tokens=NEW).tolist()


def test_one_object_for_several_models_and_threads() -> None:
    bound = anydraft.assisted(**drafting("same tokenizer"))
    models = [target(), tiny.model("llama")] * 2
    expected = [model.generate(**padded(), max_new_tokens=NEW).tolist() for model in models]
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        found[i] = models[i].generate(**padded(), max_new_tokens=NEW, custom_generate=bound).tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(models))] == expected


def test_a_drafter_is_made_once_and_holds_no_model() -> None:
    pair = drafting("same tokenizer")
    assistant = copy.deepcopy(pair.pop("assistant_model"))
    model = copy.deepcopy(target())
    for _ in range(2):
        anydraft.generate(model, PROMPT, assistant_model=assistant, max_new_tokens=4, **pair)
    idle = shared_pool()._idle[assistant]
    assert len(idle) == 1
    assert idle[0][1].lm.model is None
    gone = weakref.ref(assistant), weakref.ref(model)
    del assistant, model, idle
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_after_an_error_the_next_call_is_right() -> None:
    class Broken(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if input_ids.shape[1] > 13:
                raise RuntimeError("broken")
            return scores

    pair = drafting("same tokenizer")
    with pytest.raises(RuntimeError, match="broken"):
        anydraft.generate(target(), PROMPT, max_new_tokens=NEW, logits_processor=[Broken()], **pair)
    found = anydraft.generate(target(), PROMPT, max_new_tokens=NEW, **pair)
    assert found.tolist() == target().generate(PROMPT, max_new_tokens=NEW).tolist()


def fingerprint(model: Any) -> tuple[Any, ...]:
    """Weights, configs and attributes of a model."""
    weights = hashlib.sha256()
    for name, value in model.state_dict().items():
        weights.update(name.encode() + value.numpy().tobytes())
    return (
        weights.hexdigest(),
        model.config.to_dict(),
        model.generation_config.to_dict(),
        sorted(vars(model)),
        model.training,
        [type(module) for module in model.modules()],
    )


def test_nothing_of_the_users_is_modified() -> None:
    pair = drafting("other tokenizer")
    config = GenerationConfig(do_sample=True, repetition_penalty=1.3, max_new_tokens=6, top_p=0.9)
    inputs = padded()
    given = {name: value.clone() for name, value in inputs.items()}
    before = fingerprint(target()), fingerprint(pair["assistant_model"]), config.to_dict()
    bound = anydraft.assisted(**pair)
    for _ in range(2):
        anydraft.generate(target(), **inputs, generation_config=config, **pair)
        target().generate(**inputs, generation_config=config, custom_generate=bound)
        anydraft.generate(target(), PROMPT, max_new_tokens=6, **pair)
    assert (fingerprint(target()), fingerprint(pair["assistant_model"]), config.to_dict()) == before
    assert all(torch.equal(inputs[name], given[name]) for name in inputs)


def test_tokenizers_decide_not_sizes() -> None:
    expected = target().generate(PROMPT, max_new_tokens=NEW).tolist()
    one, other = tiny.byte_level(), tiny.byte_level(140)
    twin = tiny.model("llama")  # as many tokens as the target has
    with pytest.raises(TokenizerMismatch, match="assistant_tokenizer="):
        anydraft.generate(target(), PROMPT, assistant_model=twin)
    for sizes in ({"tokenizer": one, "assistant_tokenizer": other}, {"drafter": "assistant"}):
        assert (
            anydraft.generate(target(), PROMPT, max_new_tokens=NEW, assistant_model=twin, **sizes).tolist() == expected
        )
    wider = tiny.model("llama", tiny.VOCAB + 32)
    both = {"tokenizer": one, "assistant_tokenizer": one}
    assert anydraft.generate(target(), PROMPT, max_new_tokens=NEW, assistant_model=wider, **both).tolist() == expected


def test_default_length_and_prompt() -> None:
    with pytest.warns(UserWarning, match="max_new_tokens"):
        assert anydraft.generate(target()).tolist() == target().generate().tolist()
    assert anydraft.generate(target(), PROMPT, max_length=12).shape == (1, 12)
    with pytest.raises(ValueError, match="max_length"):
        anydraft.generate(target(), PROMPT, max_length=9)


def test_beyond_the_context() -> None:
    short = tiny.make("llama", max_position_embeddings=12)
    expected = short.generate(PROMPT, max_new_tokens=8)
    with pytest.warns(UserWarning, match="12 tokens"):
        assert anydraft.generate(short, PROMPT, max_new_tokens=8).tolist() == expected.tolist()
    learned = tiny.make("gpt2", n_positions=12)
    assert anydraft.generate(learned, PROMPT, max_new_tokens=3).shape == (1, 12)
    with pytest.raises(ContextOverflow, match="at most 3"):
        anydraft.generate(learned, PROMPT, max_new_tokens=4)


@real
def test_the_drafter_reads_the_prompt_as_it_was_typed() -> None:
    tokenizer = announcement()["tokenizer"]
    for text in ("Alice and Bob", " Alice", "", "naïve\n  café"):
        ids = tokenizer(text)["input_ids"]
        assert prompt_text(tokenizer, ids) == text.encode()
    assert prompt_text(None, [5]) == b""
