"""What decoding returns: finished answers, and the steps on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anydraft.row import FinishReason
from anydraft.stats import Stats
from anydraft.tree import DraftTree


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        prompt: the prompt's text, None when token ids were given.
        prompt_tokens: token ids of the prompt.
        tokens: token ids generated, including the one that ended the answer.
        text: their text, special tokens left out; a stop string is part of it.
        finish_reason: "stop" (end of sequence, stop token or stop string), "length", or "aborted".
        proposers: for each token "target" or the name of the drafter that proposed it.
        stats: counters and times; times of a batch are shared out equally over its rows.
        seed: seed of the noise; with it the answer can be had again. None when greedy.
    """

    prompt: str | None
    prompt_tokens: list[int]
    tokens: list[int]
    text: str
    finish_reason: FinishReason
    proposers: list[str]
    stats: Stats
    seed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "prompt": self.prompt,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "proposers": self.proposers,
            "seed": self.seed,
            "stats": self.stats.to_dict(),
        }


@dataclass(frozen=True)
class Step:
    """What one target pass did for one row.

    Attributes:
        row: index of the answer (prompts in order, `n` answers each).
        tokens: committed in this step.
        text: new text, never half a character.
        proposers: who proposed each token.
        draft: what was proposed.
        accepted: draft nodes that were kept, root to leaf.
        finish_reason: set in the row's last step.
        generation: the whole answer with its stats and seed, in the row's last step.
    """

    row: int
    tokens: list[int]
    text: str
    proposers: list[str]
    draft: DraftTree
    accepted: list[int]
    finish_reason: FinishReason | None
    generation: Generation | None = None
