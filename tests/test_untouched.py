"""Nothing of the user's is modified: parameters, configs, generation configs, tokenizers; and state never leaks."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Noisy
from tiny import RAGGED, VOCAB
from transformers import PreTrainedModel

import anydraft
from anydraft import Decoder
from anydraft.drafters import AssistantDrafter, UniversalDrafter
from anydraft.errors import DrafterWarning
from anydraft.lm import LanguageModel

OPTIONS: list[dict[str, Any]] = [
    {"max_new_tokens": 10},
    {"max_new_tokens": 10, "temperature": 0.8, "top_p": 0.9, "seed": 3},
    {"max_new_tokens": 10, "temperature": 1.0, "top_k": 20, "seed": 4, "repetition_penalty": 1.2, "stop": ["zzz"]},
]


def fingerprint(model: PreTrainedModel) -> str:
    """Everything that a user could find changed in a model."""
    digest = hashlib.sha256()
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tensor.device} {tensor.requires_grad} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().numpy().tobytes())
    digest.update(repr(sorted(vars(model))).encode())
    digest.update(repr([type(module).__name__ for module in model.modules()]).encode())
    digest.update(repr([module.training for module in model.modules()]).encode())
    digest.update(
        repr([len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]).encode()
    )
    for config in (model.config, model.generation_config):
        assert config is not None
        digest.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
        digest.update(repr(sorted(vars(config))).encode())
    return digest.hexdigest()


def spelled(tokenizer: Any) -> str:
    return tokenizer.backend_tokenizer.to_str() + repr(tokenizer.init_kwargs) + repr(sorted(vars(tokenizer)))


def run(decoder: Decoder, prompts: Any = RAGGED, rounds: int = 1) -> list[list[list[int]]]:
    found = []
    for options in OPTIONS * rounds:
        results = decoder.generate(prompts, **options)
        found.append([r.tokens for r in (results if isinstance(results, list) else [results])])
        for step in decoder.stream(prompts, **options):
            if step.tokens:
                break
    return found


@pytest.mark.parametrize("arch", ["llama", "gemma3", "gpt2"])
def test_models_are_as_they_were(arch: str) -> None:
    """Greedy and sampled, an assistant of the same tokenizer and one of another, through `load`."""
    model, same = tiny.make(arch), tiny.make(arch, seed=2)
    other = tiny.make("llama", len(tiny.pieces()), seed=3)
    model.generation_config.temperature = 0.3
    model.generation_config.max_length = 17
    models = [model, same, other]
    tokenizers = [tiny.byte_level(), tiny.pieces()]
    before = [fingerprint(m) for m in models], [spelled(t) for t in tokenizers]
    plain = run(anydraft.load(model, drafter=None, tokenizer=tokenizers[0]))
    for assistant, tokenizer in ((same, tokenizers[0]), (other, tokenizers[1])):
        for exact in (False, True) if assistant is other else (False,):  # fixed shapes take their time
            decoder = anydraft.load(
                model,
                assistant=assistant,
                tokenizer=tokenizers[0],
                assistant_tokenizer=tokenizer,
                exact=exact,
                draft_tokens=4,
            )
            assert run(decoder) == plain
    if arch == "llama":
        run(
            anydraft.load(
                model,
                assistant=same,
                tokenizer=tokenizers[0],
                assistant_tokenizer=tokenizers[0],
                verification="rejection",
            )
        )
    assert ([fingerprint(m) for m in models], [spelled(t) for t in tokenizers]) == before


def test_the_fingerprint_sees_a_change() -> None:
    model = tiny.make("llama")
    before = fingerprint(model)
    model.generation_config.num_assistant_tokens = 7
    assert fingerprint(model) != before
    before = fingerprint(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    assert fingerprint(model) != before


def test_gradients_can_still_flow() -> None:
    """Decoding leaves no inference tensors behind in the model: training goes on afterwards."""
    model = tiny.make("llama")
    run(anydraft.load(model, drafter="lookup", tokenizer=tiny.byte_level()))
    ids = torch.tensor([RAGGED[0]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in model.parameters())


def _universal(target: Any, lm: LanguageModel, kind: str) -> UniversalDrafter:
    return UniversalDrafter(
        lm,
        tiny.tokenizer_of(kind)[0],
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
    )


def test_one_assistant_for_two_targets_and_two_tokenizers() -> None:
    """Interleaved, greedy after sampled: each answer is that of a fresh decoder."""
    lm = LanguageModel(tiny.parrot("pieces"))
    targets = [tiny.parrot_target(kind) for kind in ("byte-level", "whole bytes", "pieces")]
    plain = [run(tiny.decoder(target), tiny.STORIES) for target in targets]
    decoders = [tiny.decoder(target, _universal(target, lm, "pieces")) for target in targets]
    for options in reversed(range(len(OPTIONS))):
        streams = [decoder.stream(tiny.STORIES, **OPTIONS[options]) for decoder in decoders]
        said: list[list[list[int]]] = [[[] for _ in tiny.STORIES] for _ in targets]
        for steps in itertools.zip_longest(*streams):  # the three requests take turns
            for i, step in enumerate(steps):
                if step is not None:
                    said[i][step.row] += step.tokens
        assert said == [tokens[options] for tokens in plain]


def test_one_drafter_serves_two_requests_in_turns() -> None:
    """Rows of two sessions live side by side in one drafter and one cache of the assistant."""
    for drafter in (
        AssistantDrafter(LanguageModel(tiny.relative("qwen2")), vocab_size=VOCAB),
        _universal(tiny.target("qwen2"), LanguageModel(tiny.make("llama", 405, seed=3)), "pieces"),
    ):
        decoder = tiny.decoder("qwen2", drafter)
        plain = run(tiny.decoder("qwen2"))
        streams = [decoder.stream(RAGGED, **options) for options in OPTIONS]
        said: list[list[list[int]]] = [[[] for _ in RAGGED] for _ in OPTIONS]
        for steps in itertools.zip_longest(*streams):
            for i, step in enumerate(steps):
                if step is not None:
                    said[i][step.row] += step.tokens
        assert said == plain
        assert not drafter.model._rows


def test_deep_copies_do_the_same() -> None:
    model, tokenizer = tiny.make("phi"), tiny.byte_level()
    other, other_tokenizer = tiny.make("llama", len(tiny.pieces()), seed=3), tiny.pieces()
    run(anydraft.load(model, assistant=other, tokenizer=tokenizer, assistant_tokenizer=other_tokenizer))
    decoder = anydraft.load(
        copy.deepcopy(model),
        assistant=copy.deepcopy(other),
        tokenizer=copy.deepcopy(tokenizer),
        assistant_tokenizer=copy.deepcopy(other_tokenizer),
    )
    assert run(decoder) == run(anydraft.load(model, drafter=None, tokenizer=tokenizer))
    assert isinstance(decoder.drafter, UniversalDrafter)
    again = anydraft.load(
        model, assistant=other, tokenizer=tokenizer, assistant_tokenizer=copy.deepcopy(tokenizer), draft_tokens=3
    )
    assert isinstance(again.drafter, AssistantDrafter)  # a copy of a tokenizer is the same tokenizer


def test_nothing_stays_behind_after_an_error() -> None:
    """A drafter that fails in the middle: its rows are forgotten, the decoder answers this request and the next."""
    truth = {i: r.tokens for i, r in enumerate(_list(tiny.decoder("llama").generate(RAGGED, max_new_tokens=10)))}

    class Failing(Noisy):
        fails = True

        def propose(self, rows: Any, bounds: Any) -> Any:
            if self.fails and self.calls == 2:
                raise RuntimeError("no more")
            return super().propose(rows, bounds)

    drafter = Failing(VOCAB, truth)
    decoder = tiny.decoder("llama", drafter)
    with pytest.warns(DrafterWarning, match="no more"):
        results = _list(decoder.generate(RAGGED, max_new_tokens=10))
    assert {i: r.tokens for i, r in enumerate(results)} == truth
    assert not drafter.known
    drafter.fails = False
    results = _list(decoder.generate(RAGGED, max_new_tokens=10))
    assert {i: r.tokens for i, r in enumerate(results)} == truth


def _list(results: Any) -> list[Any]:
    return results if isinstance(results, list) else [results]
