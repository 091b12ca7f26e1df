"""What cannot be done is refused with a ValueError that names the value and the option to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as tf
from drafters_for_tests import Fixed
from tiny import VOCAB

import anydraft
from anydraft import (
    ContextOverflow,
    Decoder,
    DraftTree,
    Generation,
    OptionConflict,
    SamplingParams,
    TokenizerMismatch,
    UnsupportedModel,
    pacing,
)
from anydraft.errors import DrafterWarning
from anydraft.target import Target

MODEL = tiny.model("llama")
BYTES = tiny.byte_level()


def refused(error: type[ValueError], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)


# Prompts. ----------------------------------------------------------------------------------------

PROMPTS: dict[str, tuple[Any, str]] = {
    "no tokens": ([], "the prompt is empty; give text or token ids"),
    "no text": ("", "the prompt is empty and the tokenizer adds no start token"),
    "an empty row": ([[], [3]], "the prompt is empty"),
    "an empty text in a batch": (["a", ""], "the prompt is empty"),
    "an empty tensor": (torch.zeros(0, 3, dtype=torch.long), "the prompt is empty"),
    "ids and text": (["a", [3]], "either all strings or all lists of token ids"),
    "too large an id": ([5, VOCAB], f"token id {VOCAB} of the prompt is outside the target's vocabulary of {VOCAB}"),
    "a negative id": ([-1], "token id -1 of the prompt is outside"),
    "floats": ([1.5, 2.0], "either all strings or all lists of token ids"),
    "rows of floats": ([[1.5, 2.0]], r"token ids of a prompt are integers, got \[1.5, 2.0\]"),
    "truth values": ([True], "either all strings or all lists"),
    "a tensor of floats": (torch.ones(1, 2), r"a prompt tensor holds token ids.*got torch.float32 of shape \(1, 2\)"),
    "a tensor of rows of rows": (torch.ones(1, 1, 2, dtype=torch.long), r"got torch.int64 of shape \(1, 1, 2\)"),
    "a tensor of one number": (torch.tensor(3), r"of shape \(\)"),
    "nothing": (None, "a prompt is text, token ids, .*got NoneType"),
    "a number": (5, "a prompt is text, token ids, .*got int"),
    "bytes": (b"abc", "a prompt is text, token ids, .*got bytes"),
    "a tokenizer's output": (BYTES(["hi"]), "a prompt is text, token ids, .*got BatchEncoding"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(name: str) -> None:
    prompt, message = PROMPTS[name]
    decoder = tiny.decoder("llama")
    refused(OptionConflict, message, lambda: decoder.generate(prompt, max_new_tokens=3))
    refused(OptionConflict, message, lambda: decoder.stream(prompt, max_new_tokens=3))


def test_prompts_of_every_kind_are_the_same() -> None:
    decoder = tiny.decoder("llama")
    ids = BYTES("Hello bear")["input_ids"]
    expected = decoder.generate(ids, max_new_tokens=5)
    assert not isinstance(expected, list)
    assert decoder.generate("Hello bear", max_new_tokens=5).tokens == expected.tokens  # type: ignore[union-attr]
    assert decoder.generate(torch.tensor(ids), max_new_tokens=5).tokens == expected.tokens  # type: ignore[union-attr]
    for batch in (["Hello bear"], [ids], [tuple(ids)], torch.tensor([ids]), [torch.tensor(ids)]):
        results = decoder.generate(batch, max_new_tokens=5)  # type: ignore[arg-type]
        assert isinstance(results, list)
        assert [r.tokens for r in results] == [expected.tokens]


def test_context() -> None:
    decoder = tiny.decoder("llama")
    refused(
        ContextOverflow, "the prompt has 256 tokens, the model's context holds 256", lambda: decoder.generate([5] * 256)
    )
    refused(
        ContextOverflow,
        "250 prompt tokens and max_new_tokens=7 exceed .* context of 256; max_new_tokens may be at most 6 here",
        lambda: decoder.generate([5] * 250, max_new_tokens=7),
    )
    result = decoder.generate([5] * 250, max_new_tokens=6, ignore_eos=True)
    assert not isinstance(result, list)
    assert len(result.tokens) == 6


def test_drafts_up_to_the_end_of_the_context() -> None:
    """A draft never runs over the target's context, whatever was proposed."""
    tree = DraftTree.chain([7] * 30)
    plain = tiny.decoder("gpt2").generate([5] * 246, max_new_tokens=10, ignore_eos=True)
    drafted = tiny.decoder("gpt2", Fixed(tree)).generate([5] * 246, max_new_tokens=10, ignore_eos=True)
    assert drafted.tokens == plain.tokens  # type: ignore[union-attr]


def test_parameters() -> None:
    decoder = tiny.decoder("llama")
    refused(OptionConflict, "params must be SamplingParams, got dict", lambda: decoder.generate([5], {"n": 3}))  # type: ignore[arg-type]
    refused(OptionConflict, "max_new_tokens must be >= 1, got 0", lambda: decoder.generate([5], max_new_tokens=0))
    refused(OptionConflict, "temperature must be >= 0", lambda: decoder.stream([5], temperature=-1))
    refused(
        OptionConflict,
        "2 prompts need as many draft prompts, got 1",
        lambda: decoder.generate(["a", "b"], draft_prompt=["x"]),
    )
    refused(
        OptionConflict,
        "draft_prompt is a text, or one per prompt, got 5",
        lambda: decoder.generate("a", draft_prompt=5),  # type: ignore[arg-type]
    )
    params = SamplingParams(max_new_tokens=4)
    refused(OptionConflict, "unknown option 'temprature'", lambda: decoder.generate([5], params, temprature=1.0))


def test_without_a_tokenizer() -> None:
    decoder = tiny.decoder(tiny.target("llama", 97))
    refused(
        TokenizerMismatch,
        r"a prompt of text needs the target's tokenizer; pass tokenizer= to load\(\)",
        lambda: decoder.generate("hello"),
    )
    refused(TokenizerMismatch, "stop strings need the target's tokenizer", lambda: decoder.generate([5], stop=["x"]))
    refused(
        TokenizerMismatch, "bad word 'x' is a string; give a tokenizer", lambda: decoder.generate([5], bad_words=["x"])
    )
    result = decoder.generate([5], max_new_tokens=3)
    assert (len(result.tokens), result.text) == (3, "")  # type: ignore[union-attr]


# Loading. ----------------------------------------------------------------------------------------


def other() -> tf.PreTrainedModel:
    return tiny.model("llama", len(tiny.pieces()))


LOADS: dict[str, tuple[type[ValueError], str, Callable[[], Any]]] = {
    "unknown model": (
        UnsupportedModel,
        "cannot load the target 'nobody/none'.*Give a hub name",
        lambda: anydraft.load("nobody/none"),
    ),
    "unknown assistant": (
        UnsupportedModel,
        "cannot load the assistant 'nobody/none'",
        lambda: anydraft.load(MODEL, "nobody/none", tokenizer=BYTES),
    ),
    "not a model": (
        UnsupportedModel,
        "target must be a name, a path or a transformers model, got int",
        lambda: anydraft.load(5),
    ),  # type: ignore[arg-type]
    "a module": (UnsupportedModel, "got Linear", lambda: anydraft.load(torch.nn.Linear(2, 2), None)),  # type: ignore[arg-type]
    "assistant twice": (
        OptionConflict,
        "given twice, as drafter= and as assistant=",
        lambda: anydraft.load(MODEL, MODEL, assistant=MODEL),
    ),
    "no assistant": (
        OptionConflict,
        "drafter='universal' needs an assistant model; pass assistant=",
        lambda: anydraft.load(MODEL, "universal"),
    ),
    "lookup with assistant": (
        OptionConflict,
        "drafter='lookup' uses no assistant; leave assistant= out",
        lambda: anydraft.load(MODEL, "lookup", assistant=MODEL),
    ),
    "none with assistant": (
        OptionConflict,
        "drafter=None uses no assistant",
        lambda: anydraft.load(MODEL, None, assistant=MODEL),
    ),
    "drafter of no kind": (
        OptionConflict,
        "drafter must be None, one of 'auto', .*got int",
        lambda: anydraft.load(MODEL, 42),
    ),
    "a tokenizer too many": (
        OptionConflict,
        "assistant_tokenizer= was given without an assistant",
        lambda: anydraft.load(MODEL, "lookup", assistant_tokenizer=BYTES),
    ),
    "no draft": (
        OptionConflict,
        "draft_tokens must be an integer >= 1, got 0; use drafter=None",
        lambda: anydraft.load(MODEL, "lookup", draft_tokens=0),
    ),
    "half a draft": (
        OptionConflict,
        "draft_tokens must be an integer >= 1, got 2.5",
        lambda: anydraft.load(MODEL, "lookup", draft_tokens=2.5),  # type: ignore[arg-type]
    ),
    "a draft of none": (
        OptionConflict,
        "draft_tokens=3 has no effect without a drafter",
        lambda: anydraft.load(MODEL, None, draft_tokens=3),
    ),
    "two lengths": (
        OptionConflict,
        "draft_tokens fixes the draft length and pacing decides it",
        lambda: anydraft.load(MODEL, "lookup", draft_tokens=3, pacing=pacing.Steady()),
    ),
    "lookup with rejection": (
        OptionConflict,
        "lookup drafts have no probabilities to reject with; use verification='exact'",
        lambda: anydraft.load(MODEL, "lookup", verification="rejection"),
    ),
    "verification": (
        OptionConflict,
        "verification is 'exact' or 'rejection', got 'typical'",
        lambda: anydraft.load(MODEL, None, verification="typical"),  # type: ignore[arg-type]
    ),
    "no tokenizer": (
        TokenizerMismatch,
        "comes without its tokenizer; pass tokenizer=",
        lambda: anydraft.load(MODEL, assistant=MODEL),
    ),
    "no assistant_tokenizer": (
        TokenizerMismatch,
        "comes without its tokenizer; pass assistant_tokenizer=",
        lambda: anydraft.load(MODEL, assistant=MODEL, tokenizer=BYTES),
    ),
    "different tokenizers": (
        TokenizerMismatch,
        "drafter='assistant' needs the same tokenizer.*use drafter='universal'",
        lambda: anydraft.load(
            MODEL, "assistant", assistant=other(), tokenizer=BYTES, assistant_tokenizer=tiny.pieces()
        ),
    ),
    "no such tokenizer": (
        TokenizerMismatch,
        "int cannot be read as a table of bytes.*pass a fast tokenizer",
        lambda: anydraft.load(MODEL, None, tokenizer=42),
    ),
    "training mode": (
        UnsupportedModel,
        r"LlamaForCausalLM is in training mode.*call model.eval\(\) first",
        lambda: anydraft.load(tiny.make("llama").train(), None),
    ),
    "assistant in training mode": (
        UnsupportedModel,
        "in training mode",
        lambda: anydraft.load(MODEL, assistant=tiny.make("llama").train(), tokenizer=BYTES, assistant_tokenizer=BYTES),
    ),
    "no language model": (
        UnsupportedModel,
        "LlamaModel cannot score",
        lambda: anydraft.load(tf.LlamaModel(MODEL.config).eval(), None),
    ),
    "dtype that is none": (
        OptionConflict,
        "dtype must be a torch dtype such as .*got 'float12'",
        lambda: anydraft.load("x", dtype="float12"),
    ),
    "dtype of integers": (
        OptionConflict,
        "dtype must be a floating point type, got torch.int8",
        lambda: anydraft.load("x", dtype=torch.int8),
    ),
    "dtype of a loaded model": (
        OptionConflict,
        "the target is in torch.float32, but dtype=torch.bfloat16",
        lambda: anydraft.load(MODEL, None, dtype="bfloat16"),
    ),
    "device of a loaded model": (
        OptionConflict,
        "the target is on cpu, but device='meta'",
        lambda: anydraft.load(MODEL, None, device="meta"),
    ),
    "device that is none": (
        OptionConflict,
        "device must be one of torch's.*got 'gpu'",
        lambda: anydraft.load(MODEL, None, device="gpu"),
    ),
    "assistant elsewhere": (
        ValueError,
        "the assistant is on meta, .*cpu",
        lambda: anydraft.load(
            MODEL, assistant=tiny.make("llama").to("meta"), tokenizer=BYTES, assistant_tokenizer=BYTES
        ),
    ),
}


@pytest.mark.parametrize("name", LOADS)
def test_loading(name: str) -> None:
    refused(*LOADS[name])


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    refused(
        UnsupportedModel, "cannot load the target .*Give a hub name, a folder", lambda: anydraft.load(str(tmp_path))
    )
    MODEL.save_pretrained(tmp_path)
    refused(
        TokenizerMismatch,
        "has no tokenizer that can be loaded.*pass tokenizer=",
        lambda: anydraft.load(str(tmp_path), None),
    )
    decoder = anydraft.load(tmp_path, tmp_path, tokenizer=BYTES, assistant_tokenizer=BYTES, device="cpu")
    assert (
        decoder.generate([5, 6], max_new_tokens=4).tokens
        == tiny.decoder("llama").generate([5, 6], max_new_tokens=4).tokens
    )  # type: ignore[union-attr]


def test_encoder_decoders() -> None:
    config = tf.T5Config(vocab_size=50, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    refused(UnsupportedModel, "is an encoder-decoder", lambda: Target(tf.T5ForConditionalGeneration(config).eval()))


def test_models_of_two_dtypes_work_together() -> None:
    """The assistant's dtype is its own affair."""
    assistant = tiny.make("llama").bfloat16()
    decoder = anydraft.load(MODEL, assistant=assistant, tokenizer=BYTES, assistant_tokenizer=BYTES)
    plain = tiny.decoder("llama").generate(tiny.RAGGED, max_new_tokens=10)
    drafted = decoder.generate(tiny.RAGGED, max_new_tokens=10)
    assert isinstance(plain, list)
    assert isinstance(drafted, list)
    assert [r.tokens for r in drafted] == [r.tokens for r in plain]


# Drafters. ---------------------------------------------------------------------------------------


class Returning(Fixed):
    """Returns whatever it was given."""

    def __init__(self, trees: list[Any]) -> None:
        super().__init__(DraftTree.EMPTY)
        self.trees = trees

    def propose(self, rows: Any, bounds: Any) -> list[Any]:
        return self.trees


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        ([DraftTree.chain([VOCAB])], f"drafter 'fixed' proposed token ids outside the target's vocabulary of {VOCAB}"),
        ([DraftTree((3, -1), (-1, -1))], "token ids outside"),
        ([], "returned 0 drafts for 1 rows"),
        ([DraftTree.EMPTY] * 2, "returned 2 drafts for 1 rows"),
        ([None], "returned NoneType instead of a DraftTree"),
        ([[3, 4]], "returned list instead of a DraftTree"),
    ],
    ids=str,
)
def test_drafters_that_return_garbage(trees: list[Any], message: str) -> None:
    """They are left out with a warning; the tokens are those of plain decoding."""
    drafter = Returning(trees)
    decoder = tiny.decoder("llama", drafter)
    expected = tiny.decoder("llama").generate([5], max_new_tokens=5)
    assert isinstance(expected, Generation)
    with pytest.warns(DrafterWarning, match="going on without it, the tokens are the same") as warned:
        result = decoder.generate([5], max_new_tokens=5)
    assert isinstance(result, Generation)
    assert message in str(warned[0].message)
    assert len(result.stats.drafter_failures) == 1
    assert message in result.stats.drafter_failures[0]
    assert result.tokens == expected.tokens
    assert not drafter.known
    with pytest.warns(DrafterWarning):
        list(decoder.stream([5], max_new_tokens=5))
    assert not drafter.known


def test_drafters_without_probabilities_cannot_be_rejected() -> None:
    decoder = tiny.decoder("llama", Fixed(DraftTree.chain([3])), verification="rejection")
    message = "'fixed' gave no probabilities of its proposals to reject with; use verification='exact'"
    with pytest.warns(DrafterWarning, match=message):
        decoder.generate([5], max_new_tokens=5, temperature=1.0, seed=0)
    assert len(decoder.generate([5], max_new_tokens=5).tokens) == 5  # type: ignore[union-attr]


def test_trees_where_only_chains_can_be_verified() -> None:
    tree = DraftTree((3, 4), (-1, -1))
    for target in (tiny.target("llama", exact=True), Target(MODEL, structure="chain")):
        decoder = tiny.decoder(target, Fixed(tree))
        with pytest.warns(DrafterWarning, match="proposed a tree where only chains"):
            decoder.generate([5], max_new_tokens=5)


def test_decoders() -> None:
    target = tiny.target("llama")
    refused(OptionConflict, "verification is 'exact' or", lambda: Decoder(target, verification="none"))  # type: ignore[arg-type]
