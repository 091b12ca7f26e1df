"""Models and tokenizers from hub names, folders or loaded objects."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from anydraft.errors import OptionConflict, TokenizerMismatch, UnsupportedModel
from anydraft.grouped import group_queries
from anydraft.packing import obstacle, pack

ModelLike: TypeAlias = str | os.PathLike[str] | PreTrainedModel


def load_model(
    model: ModelLike,
    *,
    role: str,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    packed: bool | None = None,
) -> PreTrainedModel:
    """A causal language model from a hub name or path; a loaded model is returned as it is.

    Args:
        role: "target", or "assistant", whose weights may be rounded when they are packed.
        packed: pack the weights (`packing.py`), for decoding only; by default where that helps. True packs
            layers in float32 untimed. A model that is given as such is never packed.

    Raises:
        UnsupportedModel: nothing loadable under that name.
        OptionConflict: options that a loaded model contradicts, or packed=True where nothing can be packed.
    """
    dtype, device = _dtype(dtype), _device(device)
    if isinstance(model, PreTrainedModel):
        if device is not None and model.device.type != device.type:
            raise OptionConflict(
                f"the {role} is on {model.device}, but device={str(device)!r} was asked for; move it before loading"
            )
        if packed:
            raise OptionConflict(
                f"packed=True would change the {role}, which was given as a loaded model; give its name, or pack it "
                "yourself with anydraft.packing.pack(model) and leave packed out"
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
    placed.eval()
    drafter = role == "assistant"
    if packed is not False and not pack(placed, always=bool(packed), drafter=drafter) and packed:
        reason = obstacle(placed, drafter=drafter)
        reason = reason or "its layers are too small, or packed they would give other results here"
        raise OptionConflict(f"packed=True cannot be had for the {role}: {reason}; leave packed out")
    if packed is not False:
        group_queries(placed)
    return placed


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
