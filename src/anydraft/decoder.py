"""Decoder: a target and a drafter, ready to answer prompts."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from anydraft.drafters.protocol import Drafter
from anydraft.errors import OptionConflict
from anydraft.generation import Generation, Step
from anydraft.pacing import Fixed, Measured, Pacing, Steady
from anydraft.prompts import Intake, Prompts
from anydraft.row import Row
from anydraft.sampling import SamplingParams
from anydraft.session import RowStep, Session, listed
from anydraft.target import Target
from anydraft.text.stream import TextStream
from anydraft.text.token_bytes import TokenBytes
from anydraft.verify import Verification


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
        self._intake = Intake(target, self._bytes)

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
        rows, single = self._intake.rows(prompt, SamplingParams.of(params, options), draft_prompt)
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
        rows, _ = self._intake.rows(prompt, SamplingParams.of(params, options), draft_prompt)
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
            rows += self._intake.of_prompt(ids, None, own, first=len(rows))
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
