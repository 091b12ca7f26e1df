"""Intake: from what a user gives as prompts to rows that can be decoded, or to an error that says what to change."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch

from anydraft.errors import ContextOverflow, OptionConflict, TokenizerMismatch
from anydraft.noise import Noise, mix64
from anydraft.processors import Processors
from anydraft.row import Row, StopRule
from anydraft.sampling import SamplingParams
from anydraft.target import Target
from anydraft.text.stream import StopStrings
from anydraft.text.token_bytes import TokenBytes

Prompt = str | Sequence[int]
Prompts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | torch.Tensor


class Intake:
    """Makes rows for a target.

    Args:
        token_bytes: bytes of the target's tokens; None without a tokenizer.
    """

    def __init__(self, target: Target, token_bytes: TokenBytes | None) -> None:
        self.target = target
        self._bytes = token_bytes

    def _bytes_of(self, token: int) -> bytes | None:
        return self._bytes.bytes_of(token) if self._bytes is not None else None

    def rows(
        self, prompt: Prompts, params: SamplingParams, draft_prompt: str | Sequence[str] | None
    ) -> tuple[list[Row], bool]:
        """Rows of a request, and whether it asked for a single answer.

        Args:
            draft_prompt: what drafters read instead; one text, or one for each prompt.
        """
        prompts, single = _as_list(prompt)
        drafts: list[str | None]
        if draft_prompt is None:
            drafts = [None] * len(prompts)
        else:
            given = [draft_prompt] if isinstance(draft_prompt, str) else draft_prompt
            if not isinstance(given, Sequence) or any(not isinstance(draft, str) for draft in given):
                raise OptionConflict(f"draft_prompt is a text, or one per prompt, got {draft_prompt!r}")
            drafts = list(given)
        if len(drafts) != len(prompts):
            raise OptionConflict(f"{len(prompts)} prompts need as many draft prompts, got {len(drafts)}")
        rows: list[Row] = []
        for text_or_ids, draft in zip(prompts, drafts, strict=True):
            rows += self.of_prompt(text_or_ids, draft, params, first=len(rows))
        return rows, single and params.n == 1

    def of_prompt(self, prompt: Prompt, draft: str | None, params: SamplingParams, *, first: int) -> list[Row]:
        """A row for each of the `params.n` answers to a prompt, the first of them at a place in the request."""
        ids = self._encode(prompt)
        self._check_length(len(ids), params)
        return [self._row(first + sample, prompt, ids, draft, params, sample) for sample in range(params.n)]

    def _row(
        self, index: int, prompt: Prompt, ids: list[int], draft: str | None, params: SamplingParams, sample: int
    ) -> Row:
        noise = None
        if not params.greedy:
            seed = secrets.randbits(63) if params.seed is None else params.seed
            noise = Noise(mix64(seed, sample) if sample else seed, self.target.vocab_size, self.target.device)
        processors = Processors.of_params(
            params,
            prompt_length=len(ids),
            vocab_size=self.target.vocab_size,
            eos_token_ids=sorted(self.target.eos_token_ids),
            tokenizer=self.target.tokenizer,
            device=self.target.device,
        )
        stops: list[StopRule] = []
        enders = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.target.eos_token_ids)
        if enders:
            stops.append(lambda row: row.tokens[-1] in enders)
        if params.stop:
            if self._bytes is None:
                raise TokenizerMismatch("stop strings need the target's tokenizer; pass tokenizer=, or stop_token_ids")
            strings = StopStrings(params.stop, self._bytes_of)
            stops.append(lambda row: strings.push(row.tokens[-1]))
        return Row(
            index=index,
            prompt=ids,
            params=params,
            processors=processors,
            noise=noise,
            prompt_text=self._plain_text(prompt, ids),
            prompt_string=prompt if isinstance(prompt, str) else None,
            draft_prompt=draft,
            stops=stops,
        )

    def _plain_text(self, prompt: Prompt, ids: Sequence[int]) -> bytes:
        """The prompt without the target's special tokens, which mean nothing to another tokenizer."""
        special = self._bytes.special if self._bytes is not None else frozenset()
        first = next((i for i, token in enumerate(ids) if token not in special), len(ids))
        if isinstance(prompt, str) and not any(token in special for token in ids[first:]):
            return prompt.encode()
        return self._bytes.join(ids) if self._bytes is not None else b""

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            if self.target.tokenizer is None:
                raise TokenizerMismatch(
                    "a prompt of text needs the target's tokenizer; pass tokenizer= to load(), or token ids"
                )
            ids = [int(token) for token in self.target.tokenizer(prompt)["input_ids"]]
        else:
            if any(isinstance(token, bool) or not isinstance(token, Integral) for token in prompt):
                raise OptionConflict(f"token ids of a prompt are integers, got {list(prompt)[:8]!r}")
            ids = [int(token) for token in prompt]
        if not ids:
            raise OptionConflict(
                "the prompt is empty and the tokenizer adds no start token; give at least one token to continue from"
            )
        outside = [token for token in ids if not 0 <= token < self.target.vocab_size]
        if outside:
            raise OptionConflict(
                f"token id {outside[0]} of the prompt is outside the target's vocabulary of {self.target.vocab_size}"
            )
        return ids

    def _check_length(self, length: int, params: SamplingParams) -> None:
        limit = self.target.context_length
        if length >= limit:
            raise ContextOverflow(f"the prompt has {length} tokens, the model's context holds {limit}; shorten it")
        if length + params.max_new_tokens > limit:
            raise ContextOverflow(
                f"{length} prompt tokens and max_new_tokens={params.max_new_tokens} exceed the model's context of "
                f"{limit}; max_new_tokens may be at most {limit - length} here"
            )


def _as_list(prompt: Prompts) -> tuple[list[Prompt], bool]:
    if isinstance(prompt, torch.Tensor):
        if prompt.is_floating_point() or prompt.dim() not in (1, 2):
            raise OptionConflict(
                f"a prompt tensor holds token ids, (length,) or (rows, length), got {prompt.dtype} of shape "
                f"{tuple(prompt.shape)}"
            )
        prompt = prompt.tolist()
    if isinstance(prompt, str):
        return [prompt], True
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise OptionConflict(
            f"a prompt is text, token ids, a tensor of them or a list of prompts, got {type(prompt).__name__}"
        )
    items: list[Any] = list(prompt)
    if not items:
        raise OptionConflict("the prompt is empty; give text or token ids")
    if all(isinstance(item, Integral) and not isinstance(item, bool) for item in items):
        return [items], True
    if all(isinstance(item, str) for item in items):
        return items, False
    items = [item.tolist() if isinstance(item, torch.Tensor) else item for item in items]
    if all(isinstance(item, Sequence) and not isinstance(item, str) for item in items):
        return items, False
    raise OptionConflict("prompts of a batch are either all strings or all lists of token ids")

