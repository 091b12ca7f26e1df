"""Decoder: a target and a drafter, ready to answer prompts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Generator, Iterator, Sequence
from numbers import Integral
from typing import Any

import torch

from anydraft.drafters.protocol import Drafter
from anydraft.errors import ContextOverflow, OptionConflict, TokenizerMismatch
from anydraft.generation import Generation, Step
from anydraft.noise import Noise, mix64
from anydraft.pacing import Fixed, Measured, Pacing, Steady
from anydraft.processors import Processors
from anydraft.row import Row, StopRule
from anydraft.sampling import SamplingParams
from anydraft.session import RowStep, Session, listed
from anydraft.target import Target
from anydraft.text.stream import StopStrings, TextStream
from anydraft.text.token_bytes import TokenBytes
from anydraft.verify import Verification

Prompt = str | Sequence[int]
Prompts = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | torch.Tensor


class Decoder:
    """Generates with a target and a drafter; the tokens are the target's own, whatever the drafter.

    Make one with `anydraft.load`. Threads that share a decoder take turns, pass by pass; several decoders may share a
    model.

    Args:
        target: the model whose words are kept.
        drafter: one, or several of which the pacing chooses; None decodes plainly.
        pacing: who drafts and how much; by default what pays best on this machine, measured while decoding (with
            "rejection" a steady rule, so that a seed gives the same tokens again).
        verification: "exact": same tokens with any drafter and with none. "rejection": the classical rule,
            same distribution only.
    """

    def __init__(
        self,
        target: Target,
        drafter: Drafter | Sequence[Drafter] | None = None,
        *,
        pacing: Pacing | None = None,
        verification: Verification = "exact",
    ) -> None:
        if verification not in ("exact", "rejection"):
            raise OptionConflict(f"verification is 'exact' or 'rejection', got {verification!r}")
        self.target = target
        self.drafters = tuple(listed(drafter))
        if len(self.drafters) > 1 and verification == "rejection":
            raise OptionConflict("several drafters are chosen from with verification='exact' only; give one")
        if len(self.drafters) > 1 and isinstance(pacing, Fixed | Steady):
            raise OptionConflict(f"{type(pacing).__name__} pacing asks one drafter only, got {len(self.drafters)}")
        if pacing is None:
            # Rejection draws anew for other drafts: with drafts that depend on times, a seed would not be repeatable.
            pacing = Measured() if verification == "exact" else Steady()
        self.pacing = pacing
        self.verification: Verification = verification
        self._lock = threading.Lock()
        self.tokenizer = target.tokenizer
        self._bytes = TokenBytes.of(self.tokenizer) if self.tokenizer is not None else None

    @property
    def drafter(self) -> Drafter | None:
        """The first drafter; None for plain decoding."""
        return self.drafters[0] if self.drafters else None

    def generate(
        self,
        prompt: Prompts,
        params: SamplingParams | None = None,
        *,
        draft_prompt: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Answer one prompt, or a batch.

        Args:
            prompt: a string, a list of strings, token ids, a list of token ids, or a (rows, length) tensor.
            params: sampling parameters; `options` are fields of `SamplingParams` that override them.
            draft_prompt: what the drafter reads instead of the prompt (its own chat template, say).

        Returns:
            one `Generation`, or a list for a batch or `n > 1` (answers of one prompt next to each other).

        Raises:
            OptionConflict, ContextOverflow, TokenizerMismatch: see the message.
        """
        rows, single = self._rows(prompt, SamplingParams.of(params, options), draft_prompt)
        for _ in self._steps(rows):
            pass
        answers = [self._generation(row) for row in rows]
        return answers[0] if single else answers

    def stream(
        self,
        prompt: Prompts,
        params: SamplingParams | None = None,
        *,
        draft_prompt: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """Like `generate`, yielding each row's tokens as they are committed.

        Closing the generator, or an exception in the loop around it, stops at once and leaves the decoder
        usable. Bad input raises here, not at the first `next()`.
        """
        rows, _ = self._rows(prompt, SamplingParams.of(params, options), draft_prompt)
        return self._stream(rows)

    def passes(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> Generator[list[RowStep], None, None]:
        """Decode token ids with parameters of each prompt's own, yielding what each pass did, without texts.

        The first pass is of all rows, in order; closing the generator aborts those that have no `finish_reason`.
        """
        rows: list[Row] = []
        for ids, own in zip(prompts, params, strict=True):
            if own.n != 1:
                raise OptionConflict(f"n must be 1 here, got {own.n}; give the prompt as often as it is wanted")
            self._check_length(len(ids), own)
            rows.append(self._row(len(rows), ids, self._encode(ids), None, own, 0))
        return self._steps(rows)

    def _stream(self, rows: list[Row]) -> Iterator[Step]:
        texts = {row: TextStream(self._bytes_of) for row in rows}
        for steps in self._steps(rows):
            for step in steps:
                row = step.row
                text = texts[row].push(step.tokens)
                if row.finish_reason is not None:
                    text += texts[row].finish()
                done = self._generation(row) if row.finish_reason is not None else None
                yield Step(
                    row.index, step.tokens, text, step.proposers, step.draft, step.accepted, row.finish_reason, done
                )

    def _steps(self, rows: list[Row]) -> Generator[list[RowStep], None, None]:
        """Run a session; between its steps other threads have their turn with the drafter."""
        with self._lock:
            session = Session(self.target, self.drafters, self.pacing, rows, verification=self.verification)
        try:
            while session.active:
                with self._lock:
                    steps = session.step()
                yield steps
        finally:
            with self._lock:
                session.close()

    def _bytes_of(self, token: int) -> bytes | None:
        return self._bytes.bytes_of(token) if self._bytes is not None else None

    def _text(self, tokens: Sequence[int]) -> str:
        if self._bytes is not None and not self._bytes.lossless:
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        stream = TextStream(self._bytes_of)
        return stream.push(tokens) + stream.finish()

    def _generation(self, row: Row) -> Generation:
        return Generation(
            prompt=row.prompt_string,
            prompt_tokens=row.prompt,
            tokens=row.tokens,
            text=self._text(row.tokens),
            finish_reason=row.finish_reason or "aborted",
            proposers=row.proposers,
            stats=row.stats,
            seed=row.noise.seed if row.noise is not None else None,
        )

    def _rows(
        self, prompt: Prompts, params: SamplingParams, draft_prompt: str | Sequence[str] | None
    ) -> tuple[list[Row], bool]:
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
            ids = self._encode(text_or_ids)
            self._check_length(len(ids), params)
            for sample in range(params.n):
                rows.append(self._row(len(rows), text_or_ids, ids, draft, params, sample))
        return rows, single and params.n == 1

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
            tokenizer=self.tokenizer,
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
            if self.tokenizer is None:
                raise TokenizerMismatch(
                    "a prompt of text needs the target's tokenizer; pass tokenizer= to load(), or token ids"
                )
            ids = [int(token) for token in self.tokenizer(prompt)["input_ids"]]
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

