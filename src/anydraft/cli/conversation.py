"""A conversation: messages in, the prompts of both sides out, each in the form of its own chat template.

The target reads token ids, so that the start token which its template writes is not written twice; the drafter
reads a string of its own. Only the text after the prompt has to line up.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from anydraft.decoder import Decoder
from anydraft.errors import ContextOverflow, OptionConflict, TokenizerMismatch
from anydraft.generation import Step
from anydraft.sampling import SamplingParams

Message = dict[str, str]
ROOM = 64
"""Tokens that an answer gets at least; older messages are dropped for it."""


class Conversation:
    """Messages so far, and how to go on.

    Args:
        decoder: with the tokenizers of both sides.
        params: of every answer.
        system: system prompt.
        template: Jinja text that replaces the target's chat template.

    Raises:
        TokenizerMismatch: the target has no chat template.
    """

    def __init__(
        self, decoder: Decoder, params: SamplingParams, *, system: str | None = None, template: str | None = None
    ) -> None:
        if template is None and not getattr(decoder.tokenizer, "chat_template", None):
            raise TokenizerMismatch(
                "the target's tokenizer has no chat template, so nobody knows how its turns are marked; give one with "
                "--chat-template FILE, choose a chat model, or use 'anydraft generate' for a model that only "
                "continues text"
            )
        self.decoder = decoder
        self.params = params
        self.dropped = 0
        self._template = template
        self._opening: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[Message] = list(self._opening)

    def clear(self) -> None:
        """Forget all but the system prompt."""
        self.messages = list(self._opening)
        self.dropped = 0

    def answer(self, turn: str) -> Generator[Step]:
        """Stream the answer to one user turn; what was said, even if cut short, becomes part of the messages."""
        self.messages.append({"role": "user", "content": turn})
        try:
            ids = self._fitting()
        except Exception:
            self.messages.pop()
            raise
        room = self.decoder.target.context_length - len(ids)
        params = replace(self.params, max_new_tokens=min(self.params.max_new_tokens, room))
        steps = self.decoder.stream(ids, params, draft_prompt=self._draft_prompt())
        pieces: list[str] = []
        try:
            for step in steps:
                pieces.append(step.text)
                yield step
        finally:
            self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _fitting(self) -> list[int]:
        """Token ids of the prompt, after dropping the oldest exchanges that do not fit."""
        limit = self.decoder.target.context_length - min(ROOM, self.params.max_new_tokens)
        first = len(self._opening)
        while len(ids := self._ids()) > limit:
            if len(self.messages) - first < 3:
                raise ContextOverflow(
                    f"this turn takes {len(ids)} tokens, and the target's context of "
                    f"{self.decoder.target.context_length} has to hold it and an answer; shorten it"
                )
            del self.messages[first : first + 2]
            self.dropped += 2
        return ids

    def _ids(self) -> list[int]:
        options = {} if self._template is None else {"chat_template": self._template}
        try:
            encoded = self.decoder.tokenizer.apply_chat_template(
                self.messages, add_generation_prompt=True, tokenize=True, return_dict=True, **options
            )
        except Exception as problem:  # templates raise what they like
            raise OptionConflict(
                f"the target's chat template refuses these messages: {problem}"
                + (" (does it know system prompts? try without --system)" if self._opening else "")
            ) from problem
        return [int(token) for token in encoded["input_ids"]]

    def _draft_prompt(self) -> str | None:
        """The conversation as the drafter's own template writes it, else as a plain transcript; None: no need."""
        tokenizers: Any = (getattr(drafter, "tokenizer", None) for drafter in self.decoder.drafters)
        tokenizer = next((one for one in tokenizers if one is not None), None)
        if tokenizer is None:  # ids pass as they are
            return None
        if getattr(tokenizer, "chat_template", None):
            try:
                text = tokenizer.apply_chat_template(self.messages, add_generation_prompt=True, tokenize=False)
                return str(text)
            except Exception:  # a template without system prompts, say; a worse prompt only costs acceptance
                pass
        lines = [f"{message['role'].capitalize()}: {message['content']}\n" for message in self.messages]
        return "".join(lines) + "Assistant:"
