"""Settings of a transformers generation that cannot be served are refused here by name, never ignored.

Also: what of them a drafter should follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import generation as hf

from anydraft.errors import OptionConflict
from anydraft.sampling import SamplingParams

_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_beams": (lambda v: v > 1, "beam search is not speculative; set num_beams=1"),
    "constraints": (bool, "constraints need beam search"),
    "force_words_ids": (bool, "constraints need beam search"),
    "penalty_alpha": (bool, "contrastive search is not greedy or sampled decoding"),
    "dola_layers": (lambda v: v is not None, "DoLa reads the layers of every pass; leave it out"),
    "guidance_scale": (
        lambda v: v != 1,
        "guidance keeps a cache of its own, which cannot follow a draft; leave it out",
    ),
    "token_healing": (bool, "heal the prompt with model.heal_tokens first"),
    "use_mtp": (bool, "drafting heads of the model are not used here; leave it out"),
    "assistant_early_exit": (lambda v: v is not None, "early exit is not used as a drafter here; leave it out"),
    "assistant_ensemble_weight": (lambda v: v is not None, "it changes what is generated; leave it out"),
    "use_cache": (lambda v: v is False, "drafts are verified with a cache; pass use_cache=True"),
    "cache_implementation": (
        lambda v: v not in (None, "dynamic"),
        "anydraft brings its own cache; pass cache_implementation=None",
    ),
    "output_attentions": (bool, "attentions of drafted tokens are not kept; leave it out"),
    "output_hidden_states": (bool, "hidden states of drafted tokens are not kept; leave it out"),
}
_EXPECTED = {"attention_mask", "position_ids", "cache_position", "past_key_values", "use_cache", "logits_to_keep"}
_STATEFUL = (hf.UnbatchedClassifierFreeGuidanceLogitsProcessor, hf.SynthIDTextWatermarkLogitsProcessor)


def refuse(config: Any, model_inputs: Mapping[str, Any], processors: Sequence[Any]) -> None:
    """Raise OptionConflict for the first setting that cannot be served."""
    for name, (bad, why) in _REFUSED.items():
        value = getattr(config, name, None)
        if value is not None and bad(value):
            raise OptionConflict(f"{name}={value!r} cannot be combined with anydraft: {why}")
    for name, value in model_inputs.items():
        if value is not None and name not in _EXPECTED:
            raise OptionConflict(
                f"the model input {name!r} cannot be combined with anydraft, which reads token ids only"
            )
    cache = model_inputs.get("past_key_values")
    if cache is not None and (getattr(cache, "_is_user_defined", False) or cache.get_seq_length() > 0):
        raise OptionConflict("past_key_values cannot be continued; pass the whole prompt as input_ids without a cache")
    for processor in processors:
        if isinstance(processor, _STATEFUL):
            raise OptionConflict(
                f"{type(processor).__name__} keeps a state between tokens, which cannot follow a draft"
            )


def check_positions(positions: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
    """Refuse position ids other than those that follow from the attention mask (rows, length)."""
    if not isinstance(positions, torch.Tensor):
        return
    seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    seen = seen.to(positions.device) != 0
    expected = seen.long().cumsum(-1) - 1
    if positions.shape[-1] != expected.shape[-1] or ((positions != expected) & seen).any():
        raise OptionConflict(
            "position_ids of your own are not supported; leave them out, they follow from attention_mask"
        )


def sampling_params(config: Any, max_new_tokens: int) -> SamplingParams:
    """The settings that a drafter follows, so that it draws as the target does; they decide nothing."""
    if not config.do_sample:
        return SamplingParams(max_new_tokens=max_new_tokens)
    top_p, typical_p = config.top_p, config.typical_p
    return SamplingParams(
        max_new_tokens=max_new_tokens,
        temperature=float(config.temperature or 1.0),
        top_k=config.top_k or 0,
        top_p=1.0 if top_p is None else max(float(top_p), 1e-9),
        min_p=float(config.min_p or 0.0),
        typical_p=1.0 if typical_p is None else float(typical_p),
    )
