"""`load`: names, paths or loaded models in, a ready `Decoder` out."""

from __future__ import annotations

from typing import Any

import torch

from anydraft.decoder import Decoder
from anydraft.drafters.named import Wanted
from anydraft.errors import OptionConflict
from anydraft.pacing import Fixed, Pacing, Steady
from anydraft.pretrained import ModelLike, load_model, load_tokenizer
from anydraft.target import Target
from anydraft.verify import Verification


def load(
    target: ModelLike,
    drafter: Any = "auto",
    *,
    assistant: ModelLike | None = None,
    tokenizer: Any = None,
    assistant_tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    exact: bool = False,
    verification: Verification = "exact",
    draft_tokens: int | None = None,
    pacing: Pacing | None = None,
    any_target: bool = False,
    packed: bool | None = None,
    trust_remote_code: bool = False,
) -> Decoder:
    """Make a decoder.

    Args:
        target: hub name, path or loaded causal language model.
        drafter: None (plain decoding), "lookup", "auto", "assistant", "universal", a `Drafter`, or the name, path or
            model of an assistant (short for drafter="auto", assistant=...). "auto" picks "assistant" or "universal" by
            comparing the tokenizers' byte maps, and "lookup" when no assistant is given. The name, path or loaded
            network of a trained drafter (ReDrafter, Medusa, EAGLE) is told by its config. A list of these: at every
            step the one that pays best drafts, or none.
        assistant: the assistant's name, path or model.
        tokenizer, assistant_tokenizer: needed beside loaded models, unless both share one.
        dtype, device: for models loaded here (default: the checkpoint's dtype, on GPU if there is one).
        exact: one shape for all passes, so that the promise holds in bfloat16 too (chains of at most 7 tokens).
        verification: "exact" or "rejection" (see `Decoder`).
        draft_tokens: fixed draft length, in the drafter's tokens; default: what pays best, measured while decoding.
        pacing: another rule for who drafts and how much.
        any_target: let a trained drafter serve another target of the same sizes (a fine-tune of its own).
        packed: lay out the weights of models loaded here once for this CPU (`packing.py`), for faster passes: in
            bfloat16 with the same numbers, in float32 with other last digits, where trials say that it is faster, and
            for drafters rounded to int8 on some CPUs (`int8.py`). By default where that helps.
        trust_remote_code: passed on to transformers.

    Raises:
        UnsupportedModel, TokenizerMismatch, OptionConflict, WrongTarget, BrokenCheckpoint: see the message.
    """
    if draft_tokens is not None and (not isinstance(draft_tokens, int) or draft_tokens < 1):
        raise OptionConflict(
            f"draft_tokens must be an integer >= 1, got {draft_tokens!r}; use drafter=None for plain decoding"
        )
    if draft_tokens is not None and pacing is not None:
        raise OptionConflict("draft_tokens fixes the draft length and pacing decides it; give one of them")
    if verification not in ("exact", "rejection"):
        raise OptionConflict(f"verification is 'exact' or 'rejection', got {verification!r}")
    several = list(drafter) if isinstance(drafter, list | tuple) else None
    if several is not None and (assistant is not None or not several or None in several):
        raise OptionConflict(
            "a list of drafters holds names, paths, models or drafters, at least one, and takes no assistant= beside it"
        )
    if several is not None and {"auto", "assistant", "universal"} & {one for one in several if isinstance(one, str)}:
        raise OptionConflict("in a list of drafters an assistant is given by its name, path or model")
    wanted = [Wanted.of(one, assistant, verification) for one in ([drafter] if several is None else several)]
    assistants = [one for one in wanted if one.assistant is not None]
    if drafter is None and draft_tokens is not None:
        raise OptionConflict(f"draft_tokens={draft_tokens} has no effect without a drafter; leave it out")
    if len(wanted) > 1 and (draft_tokens is not None or isinstance(pacing, Fixed | Steady)):
        raise OptionConflict("a fixed draft length is for one drafter; of several the best is chosen, so leave it out")
    if assistant_tokenizer is not None and len(assistants) != 1:
        if not assistants:
            raise OptionConflict("assistant_tokenizer= was given without an assistant; pass assistant= too")
        raise OptionConflict("assistant_tokenizer= is for one assistant; give the others as names, or as drafters")
    if any_target and not any(one.network for one in wanted):
        raise OptionConflict("any_target=True concerns trained drafters only; leave it out")
    options: dict[str, Any] = {"dtype": dtype, "device": device, "packed": packed}
    options["trust_remote_code"] = trust_remote_code
    model = load_model(target, role="target", **options)
    tokenizer = tokenizer if tokenizer is not None else load_tokenizer(target, trust_remote_code)
    decoder_target = Target(model, tokenizer, exact=exact)
    made = [
        one.made(
            decoder_target,
            assistant_tokenizer=assistant_tokenizer,
            verification=verification,
            any_target=any_target,
            **options,
        )
        for one in wanted
    ]
    if pacing is None and draft_tokens is not None:
        pacing = Fixed.chain(draft_tokens)
    drafters = [one for one in made if one is not None]
    return Decoder(decoder_target, drafters, pacing=pacing, verification=verification)
