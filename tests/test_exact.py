"""`exact=True`: one shape for all passes, so that the promise holds in bfloat16 too."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from drafters_for_tests import Fixed, Noisy, Oracle, Scripted
from tiny import RAGGED, VOCAB

import anydraft
from anydraft import Decoder, Generation, UnsupportedModel, models
from anydraft.drafters import AssistantDrafter, LookupDrafter
from anydraft.growth import Bounds
from anydraft.lm import LanguageModel
from anydraft.pacing import Steady
from anydraft.row import Row
from anydraft.target import Target
from anydraft.tree import DraftTree

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"


def pair() -> tuple[Path, Path] | None:
    """The package's own pair, or the one it was developed with."""
    try:
        return models.path("target"), models.path("assistant")
    except UnsupportedModel:
        found = SHARED / "pycode-12m", SHARED / "pycode-1m"
        return found if all(folder.exists() for folder in found) else None


PAIR = pair()
SETTINGS: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 3}]


class Chains(Noisy):
    """Chains of random length that are right up to a random place."""

    def draft(self, row: Row, bound: Bounds) -> DraftTree:
        right = [t for ahead in range(self.rng.randrange(12)) if (t := self.next(row, ahead)) is not None]
        cut = self.rng.randrange(len(right) + 1)
        return DraftTree.chain(right[:cut] + [self.rng.randrange(self.vocab) for _ in right[cut:]])


@cache
def half(arch: str) -> Target:
    return Target(tiny.make(arch).bfloat16(), tiny.byte_level(), exact=True)


def answers(decoder: Decoder, prompts: Any = RAGGED, **options: Any) -> list[Generation]:
    results = decoder.generate(prompts, **{"max_new_tokens": 40, "ignore_eos": True, **options})
    return results if isinstance(results, list) else [results]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("arch", ["llama", "gemma3", "mistral-window", "gpt2", "qwen3"])
def test_bfloat16_keeps_the_promise(arch: str, options: dict[str, Any]) -> None:
    target = half(arch)
    plain = [r.tokens for r in answers(tiny.decoder(target), **options)]
    truth = dict(enumerate(plain))
    drafters: list[Any] = [
        Chains(VOCAB, truth, seed=1),
        Oracle(VOCAB, truth, depth=7),
        LookupDrafter(min_ngram=1),
        AssistantDrafter(LanguageModel(tiny.relative(arch)), vocab_size=VOCAB),
    ]
    for drafter in drafters:
        results = answers(tiny.decoder(target, drafter), **options)
        assert [r.tokens for r in results] == plain
        if isinstance(drafter, Oracle):
            assert all(r.stats.tokens_per_pass > 4 for r in results)


def test_neighbours_do_not_matter() -> None:
    """With one shape a row's tokens depend neither on when others finish nor on what they draft."""
    target = half("llama")
    plain = [r.tokens for r in answers(tiny.decoder(target))]
    stops = [plain[1][4], plain[3][11]]
    expected = [t[: min((t.index(s) for s in stops if s in t), default=39) + 1] for t in plain]
    for drafter in (None, Chains(VOCAB, dict(enumerate(plain)))):
        results = answers(tiny.decoder(target, drafter), stop_token_ids=stops)
        assert [r.tokens for r in results] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 170])
def test_every_pass_has_one_shape(length: int, dtype: torch.dtype) -> None:
    """After the prompt; and where spans would be padded further in the middle of a text, were they not fixed."""
    target = Target(tiny.make("llama").to(dtype), tiny.byte_level(), exact=True)
    widths: list[tuple[int, int]] = []
    inner = target.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        widths.append((kwargs["input_ids"].shape[1], kwargs["attention_mask"].shape[-1]))
        return inner(*args, **kwargs)

    drafter: Scripted
    for drafter in (Fixed(DraftTree.EMPTY), Fixed(DraftTree.chain([7] * 30))):
        decoder = tiny.decoder(target, drafter)
        widths.clear()
        target.model.forward = watched  # type: ignore[method-assign]
        try:
            answers(decoder, tiny.prompt(length), max_new_tokens=20)
        finally:
            target.model.forward = inner  # type: ignore[method-assign]
        assert set(widths[length > 1 :]) == {(Target.EXACT_WIDTH, 256)}


def test_exact_in_float32_says_the_same() -> None:
    plain = [r.tokens for r in answers(tiny.decoder("qwen3"))]
    assert [r.tokens for r in answers(tiny.decoder(tiny.target("qwen3", exact=True)))] == plain


OPENINGS = [
    'def read_lines(path):\n    """Return the lines of a file."""\n',
    "import os\nimport sys\n\n\nclass Stack:\n    def __init__(self):\n",
]


@pytest.mark.skipif(PAIR is None, reason="the embedded pair is not here")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_embedded_pair_in_bfloat16(temperature: float) -> None:
    """`benchmarks/exactness.py` does the same for fifty texts of thrice the length, which would take too long here."""
    assert PAIR is not None
    options: dict[str, Any] = {"max_new_tokens": 24, "temperature": temperature}
    if temperature:
        options["seed"] = 1
    target, assistant = map(str, PAIR)
    shared: dict[str, Any] = {"dtype": torch.bfloat16, "device": "cpu", "exact": True}
    plain = anydraft.load(target, None, **shared)
    drafted = anydraft.load(target, assistant=assistant, pacing=Steady(), **shared)
    tau = []
    for opening in OPENINGS:
        expected, result = plain.generate(opening, **options), drafted.generate(opening, **options)
        assert isinstance(expected, Generation)
        assert isinstance(result, Generation)
        assert result.tokens == expected.tokens
        tau.append(result.stats.tokens_per_pass)
    assert sum(tau) / len(tau) > 1.2
