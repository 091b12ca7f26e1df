"""`load`: names, paths or loaded models in, a ready `Decoder` out."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from transformers import PreTrainedModel

from anydraft.decoder import Decoder
from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.lookup import LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.drafters.trained import trained_drafter
from anydraft.drafters.universal import UniversalDrafter
from anydraft.errors import OptionConflict, TokenizerMismatch, UnsupportedModel
from anydraft.lm import LanguageModel
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.registry import load_if_network
from anydraft.pacing import Fixed, Pacing, Steady
from anydraft.pretrained import ModelLike, load_model, load_tokenizer
from anydraft.target import Target
from anydraft.text.token_bytes import TokenBytes
from anydraft.tree import Bounds
from anydraft.verify import Verification

logger = logging.getLogger(__name__)

KINDS = ("auto", "assistant", "universal", "lookup")


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
    trust_remote_code: bool = False,
) -> Decoder:
    """Make a decoder.

    Args:
        target: hub name, path or loaded causal language model.
        drafter: None (plain decoding), "lookup", "auto", "assistant", "universal", a `Drafter`, or the name,
            path or model of an assistant (short for drafter="auto", assistant=...). "auto" picks "assistant" or
            "universal" by comparing the tokenizers' byte maps, and "lookup" when no assistant is given. The name, path
            or loaded network of a trained drafter (ReDrafter, Medusa, EAGLE) is told by its config.
        assistant: the assistant's name, path or model.
        tokenizer, assistant_tokenizer: needed beside loaded models, unless both share one.
        dtype, device: for models loaded here (default: the checkpoint's dtype, on GPU if there is one).
        exact: one shape for all passes, so that the promise holds in bfloat16 too (chains of at most 7 tokens).
        verification: "exact" or "rejection" (see `Decoder`).
        draft_tokens: fixed draft length, in the drafter's tokens; default: adaptive.
        pacing: another rule for the draft length.
        any_target: let a trained drafter serve another target of the same sizes (a fine-tune of its own).
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
    kind: str | None = None
    network = _network(drafter if assistant is None else assistant)
    if network is not None:
        if assistant is not None and drafter != "auto":
            raise OptionConflict(
                f"drafter={drafter!r} contradicts a trained drafter as assistant=; give the latter as drafter="
            )
        kind, assistant = "trained", None
    elif isinstance(drafter, str) and drafter in KINDS:
        kind = drafter
    elif isinstance(drafter, str | os.PathLike | PreTrainedModel):
        if assistant is not None:
            raise OptionConflict("the assistant was given twice, as drafter= and as assistant=; give it once")
        kind, assistant = "auto", drafter
    elif drafter is not None and not all(hasattr(drafter, name) for name in ("start", "propose", "stop")):
        raise OptionConflict(
            f"drafter must be None, one of {', '.join(map(repr, KINDS))}, an assistant, or an object with start, "
            f"propose and stop, got {type(drafter).__name__}"
        )
    if drafter is None and draft_tokens is not None:
        raise OptionConflict(f"draft_tokens={draft_tokens} has no effect without a drafter; leave it out")
    if assistant is None and assistant_tokenizer is not None:
        raise OptionConflict("assistant_tokenizer= was given without an assistant; pass assistant= too")
    if kind in ("assistant", "universal") and assistant is None:
        raise OptionConflict(f"drafter={kind!r} needs an assistant model; pass assistant=")
    if kind in (None, "lookup") and assistant is not None:
        raise OptionConflict(f"drafter={drafter!r} uses no assistant; leave assistant= out or choose drafter='auto'")
    if any_target and network is None:
        raise OptionConflict("any_target=True concerns trained drafters only; leave it out")
    if kind not in (None, "trained") and assistant is None and verification == "rejection":
        raise OptionConflict("lookup drafts have no probabilities to reject with; use verification='exact'")
    model = load_model(target, role="target", dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    tokenizer = tokenizer if tokenizer is not None else load_tokenizer(target, trust_remote_code)
    decoder_target = Target(model, tokenizer, exact=exact)
    made: Drafter | None
    if kind is None:
        made = drafter
    elif network is not None:
        made = trained_drafter(decoder_target, network, verification=verification, any_target=any_target)
    elif assistant is None:
        if kind == "auto":
            logger.info("no assistant was given: drafting by lookup")
        made = LookupDrafter()
    else:
        loaded = load_model(
            assistant,
            role="assistant",
            dtype=dtype if dtype is not None else model.dtype,
            device=device if device is not None else decoder_target.device,
            trust_remote_code=trust_remote_code,
        )
        if assistant_tokenizer is None:
            assistant_tokenizer = load_tokenizer(assistant, trust_remote_code)
        made = model_drafter(decoder_target, loaded, assistant_tokenizer, kind=kind, verification=verification)
    if pacing is None:
        pacing = Steady() if draft_tokens is None else Fixed(Bounds(draft_tokens, 1, draft_tokens, branch=1))
    return Decoder(decoder_target, made, pacing=pacing, verification=verification)


def _network(name: Any) -> DrafterNetwork | None:
    """The trained network that was given, loaded or by name; None when something else was."""
    if isinstance(name, DrafterNetwork):
        return name
    if isinstance(name, os.PathLike) or (isinstance(name, str) and name not in KINDS):
        return load_if_network(name)
    return None


def model_drafter(
    target: Target,
    assistant: PreTrainedModel,
    assistant_tokenizer: Any,
    *,
    kind: str = "auto",
    verification: Verification = "exact",
) -> AssistantDrafter | UniversalDrafter:
    """A drafter from an assistant model: by token ids if the tokenizers are the same, else by text.

    Raises:
        TokenizerMismatch: kind "assistant" with different tokenizers, or a tokenizer that is missing.
        UnsupportedModel: the assistant sits on another device than the target.
    """
    lm = LanguageModel(assistant)
    if lm.device != target.device:
        raise UnsupportedModel(
            f"the assistant is on {lm.device}, the target on {target.device}; move one, for example with "
            f"assistant.to({str(target.device)!r})"
        )
    if target.tokenizer is None or assistant_tokenizer is None:
        if kind == "assistant" and target.tokenizer is None and assistant_tokenizer is None:
            return _assistant(lm, target, verification)
        missing = "tokenizer=" if target.tokenizer is None else "assistant_tokenizer="
        raise TokenizerMismatch(
            f"an assistant given as a loaded model comes without its tokenizer; pass {missing}"
        )
    mine, theirs = TokenBytes.of(target.tokenizer), TokenBytes.of(assistant_tokenizer)
    same = mine.same_as(theirs)
    if kind == "assistant" and not same:
        raise TokenizerMismatch(
            "drafter='assistant' needs the same tokenizer on both sides, and these differ; use drafter='universal' "
            "or 'auto'"
        )
    if same and kind != "universal":
        return _assistant(lm, target, verification)
    return UniversalDrafter(
        lm,
        assistant_tokenizer,
        target_tokenizer=target.tokenizer,
        vocab_size=target.vocab_size,
        eos_token_ids=target.eos_token_ids,
        verification=verification,
    )


def _assistant(lm: LanguageModel, target: Target, verification: Verification) -> AssistantDrafter:
    return AssistantDrafter(
        lm, vocab_size=target.vocab_size, eos_token_ids=target.eos_token_ids, verification=verification
    )
