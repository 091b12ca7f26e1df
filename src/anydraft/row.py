"""Row: the state of one sequence, from its prompt to its last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from anydraft.noise import Noise
from anydraft.processors import Processors
from anydraft.sampling import SamplingParams
from anydraft.stats import Stats

FinishReason = Literal["stop", "length", "aborted"]
StopRule = Callable[["Row"], bool]
"""Asked after every appended token, as plain decoding would: is the row finished?"""


@dataclass(eq=False)
class Row:
    """One sequence of a batch; everything else about it is derived.

    Attributes:
        index: place in the request (stable while other rows come and go).
        prompt: token ids of the prompt, at least one.
        params: what was asked for.
        processors: the chain from logits to scores.
        noise: shared noise when sampling, None when greedy.
        prompt_text: the prompt as bytes, for drafters with another tokenizer.
        prompt_string: the prompt as the user gave it, None for token ids.
        draft_prompt: the text that the drafter reads as its prompt, when it is not `prompt_text`.
        stops: rules beyond length, each exact at the token where it fires.
        tokens: committed tokens after the prompt.
        proposers: who proposed each committed token ("target" or a drafter's name).
    """

    index: int
    prompt: list[int]
    params: SamplingParams
    processors: Processors
    noise: Noise | None = None
    prompt_text: bytes = b""
    prompt_string: str | None = None
    draft_prompt: str | None = None
    stops: Sequence[StopRule] = ()
    tokens: list[int] = field(default_factory=list)
    proposers: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stats: Stats = field(default_factory=Stats)

    @property
    def position(self) -> int:
        """Index of the next new token; shared noise is keyed by it."""
        return len(self.tokens)

    @property
    def remaining(self) -> int:
        """New tokens still wanted."""
        return self.params.max_new_tokens - len(self.tokens)

    @property
    def root(self) -> int:
        """The last committed token; its keys and values are not yet cached."""
        return self.tokens[-1] if self.tokens else self.prompt[-1]

    def append(self, token: int, proposer: str) -> bool:
        """Commit one token; True when the row is finished with it."""
        self.tokens.append(token)
        self.proposers.append(proposer)
        fired = [rule(self) for rule in self.stops]  # every rule sees every token: some keep state
        if any(fired):
            self.finish_reason = "stop"
        elif self.remaining <= 0:
            self.finish_reason = "length"
        return self.finish_reason is not None
