"""`load`: names, paths or loaded models in, a ready `Decoder` out."""

from __future__ import annotations

import logging
import os
from typing import Any, TypeAlias

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from anydraft.decoder import Decoder
from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.lookup import LookupDrafter
from anydraft.drafters.protocol import Drafter
from anydraft.drafters.trained import trained_drafter
from anydraft.drafters.universal import UniversalDrafter
from anydraft.errors import OptionConflict, TokenizerMismatch, UnsupportedModel
from anydraft.lm import LanguageModel
from anydraft.networks.network import DrafterNetwork
from anydraft.networks.registry import load_network, network_class
from anydraft.pacing import Fixed, Pacing, Steady
from anydraft.target import Target
from anydraft.text.token_bytes import TokenBytes
from anydraft.tree import Bounds
from anydraft.verify import Verification

logger = logging.getLogger(__name__)

KINDS = ("auto", "assistant", "universal", "lookup")
ModelLike: TypeAlias = str | os.PathLike[str] | PreTrainedModel


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
        return load_network(name) if network_class(name) is not None else None
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


def load_model(
    model: ModelLike,
    *,
    role: str,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal language model from a hub name or path; a loaded model is returned as it is.

    Raises:
        UnsupportedModel: nothing loadable under that name, or options that a loaded model contradicts.
    """
    dtype, device = _dtype(dtype), _device(device)
    if isinstance(model, PreTrainedModel):
        if device is not None and model.device.type != device.type:
            raise OptionConflict(
                f"the {role} is on {model.device}, but device={str(device)!r} was asked for; move it before loading"
            )
        if role == "target" and dtype not in (None, model.dtype):
            raise OptionConflict(f"the {role} is in {model.dtype}, but dtype={dtype} was asked for; convert it before")
        return model
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not isinstance(model, str):
        hint = "; pass model.get_base_model(), which keeps its adapters" if hasattr(model, "get_base_model") else ""
        raise UnsupportedModel(
            f"{role} must be a name, a path or a transformers model, got {type(model).__name__}{hint}"
        )
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype if dtype is not None else "auto", trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise UnsupportedModel(
            f"cannot load the {role} {model!r}: {_first_line(failure)}. Give a hub name, a folder written by "
            "save_pretrained, or a loaded model."
        ) from failure
    # A quantized checkpoint places itself and refuses to be moved.
    placed = loaded if getattr(loaded, "hf_quantizer", None) is not None else loaded.to(device)
    return placed.eval()


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype) and dtype != "auto":
            raise OptionConflict(f"dtype must be a torch dtype such as 'bfloat16' or 'float32', got {dtype!r}")
        dtype = named if isinstance(named, torch.dtype) else None
    if dtype is not None and not dtype.is_floating_point:
        raise OptionConflict(f"dtype must be a floating point type, got {dtype}")
    return dtype


def _device(device: str | torch.device | None) -> torch.device | None:
    try:
        return torch.device(device) if device is not None else None
    except RuntimeError as failure:
        raise OptionConflict(f"device must be one of torch's, such as 'cpu' or 'cuda:0', got {device!r}") from failure


def load_tokenizer(model: ModelLike, trust_remote_code: bool = False) -> Any:
    """The tokenizer beside a model's name or path; None for a loaded model without a source or when absent."""
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    source = model if isinstance(model, str) else getattr(model.config, "_name_or_path", "")
    if not source:
        return None
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as failure:
        if isinstance(model, str):
            raise TokenizerMismatch(
                f"{model!r} has no tokenizer that can be loaded ({_first_line(failure)}); pass tokenizer="
            ) from failure
        return None


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]
