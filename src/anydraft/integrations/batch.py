"""The rows of a prepared transformers batch: prompts without padding, rules, limits, noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from anydraft.choice import ScoreLog
from anydraft.errors import ContextOverflow, OptionConflict
from anydraft.integrations import per_row, settings
from anydraft.integrations.pool import shared_pool
from anydraft.noise import Noise, mix64
from anydraft.row import Row, StopRule
from anydraft.target import Target


def make_rows(
    target: Target,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    processors: Sequence[Any],
    criteria: Sequence[Any],
    config: Any,
    seed: int | None,
    text_of: Callable[[Sequence[int]], bytes],
    logs: Sequence[ScoreLog] | None,
) -> list[Row]:
    """One row per prompt (rows, length); masked tokens are not read, wherever they stand.

    `text_of` gives a prompt's bytes, for drafters with another tokenizer.

    Row 0 uses the seed itself, the others seeds derived from it, so that equal prompts get different answers.

    Raises:
        OptionConflict: an empty prompt, ids outside the vocabulary, or no pad token where one is needed.
        ContextOverflow: the model has no positions for what is asked.
    """
    seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.device)
    rest = per_row.beyond_length(criteria)
    if len(input_ids) > 1 and rest and pad_token(config) is None:
        raise OptionConflict("rows that end early are filled with pad_token_id, which is not set; pass pad_token_id=")
    room = max(1, per_row.length_limit(criteria, config) - input_ids.shape[1])
    params = settings.sampling_params(config, room)
    sample = bool(config.do_sample)
    if sample and seed is None:
        # Drawn from torch's generator, so that torch.manual_seed and set_seed reach it.
        seed = int(torch.randint(0, 2**63 - 1, ()).item())
    rows = []
    for i, (ids, mask) in enumerate(zip(input_ids.tolist(), seen.tolist(), strict=True)):
        prompt = [token for token, kept in zip(ids, mask, strict=True) if kept]
        padding = [token for token, kept in zip(ids, mask, strict=True) if not kept]
        _check(target, prompt, room, i)
        noise = None
        if sample and seed is not None:
            noise = Noise(mix64(seed, i) if i else seed, target.vocab_size, target.device)
        log = logs[i] if logs is not None and config.output_scores else None
        chain = per_row.row_processors(
            processors, index=i, rows=len(input_ids), padding=padding, device=input_ids.device, sample=sample
        )
        rows.append(
            Row(
                index=i,
                prompt=prompt,
                params=params,
                processors=chain,
                noise=noise,
                prompt_text=text_of(prompt),
                stops=[
                    *per_row.stop_rules(rest, padding + prompt, input_ids.device, log),
                    *_reminder(target, len(prompt), room),
                ],
            )
        )
    return rows


def prompt_text(tokenizer: Any, prompt: Sequence[int]) -> bytes:
    """What the prompt's tokens write, without a space that the tokenizer put in front; empty without tokenizer."""
    if tokenizer is None:
        return b""
    data = shared_pool().table(tokenizer).join(prompt)
    if data.startswith(b" "):
        text = data[1:].decode(errors="replace")
        if list(tokenizer(text)["input_ids"]) == list(prompt):
            return data[1:]
    return data


def pad_token(config: Any) -> int | None:
    """The token that fills up finished rows: the pad token, else the first end token."""
    for ids in (config.pad_token_id, config.eos_token_id):
        if isinstance(ids, torch.Tensor):
            ids = ids.flatten().tolist()
        if ids is not None:
            return int(ids[0] if isinstance(ids, list | tuple) else ids)
    return None


def _check(target: Target, prompt: list[int], room: int, index: int) -> None:
    if not prompt:
        raise OptionConflict(f"prompt {index} is empty, or all of it is masked; give at least one token")
    outside = [token for token in prompt if not 0 <= token < target.vocab_size]
    if outside:
        raise OptionConflict(
            f"token id {outside[0]} of the prompt is outside the target's vocabulary of {target.vocab_size}"
        )
    limit = target.context_length
    # Rotary positions can be computed for any length; a table of positions ends.
    if len(prompt) + room > limit and not any(name.endswith("inv_freq") for name, _ in target.model.named_buffers()):
        raise ContextOverflow(
            f"{len(prompt)} prompt tokens and {room} new ones exceed the model's {limit} positions; "
            f"max_new_tokens may be at most {max(0, limit - len(prompt))} here"
        )


def _reminder(target: Target, prompt: int, room: int) -> list[StopRule]:
    """A rule that never stops, but warns where the model leaves the lengths it was made for."""
    limit = target.context_length
    if prompt + room <= limit:
        return []

    def remind(row: Row) -> bool:
        if len(row.prompt) + len(row.tokens) == max(limit, prompt) + 1:
            warnings.warn(
                f"the text now exceeds the {limit} tokens that the model was made for; expect worse output",
                UserWarning,
                stacklevel=2,
            )
        return False

    return [remind]
