"""What a pair of models promises before anything is generated: the logic behind `anydraft inspect`.

Vocabularies side by side, what the target can verify, memory, ends of text, measured times, and the gain to be
expected: tokens per pass (tau) over the cost of a pass (c). What is measured here is small and short; for
numbers to publish there is the bench.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from anydraft.checks.timing import Timing
from anydraft.decoder import Decoder
from anydraft.drafters.assistant import AssistantDrafter
from anydraft.drafters.universal import UniversalDrafter
from anydraft.errors import OptionConflict
from anydraft.lm import LanguageModel, chain
from anydraft.text.encoder import PlainEncoder
from anydraft.text.token_bytes import TokenBytes
from anydraft.text.vocabulary import VocabularyReport, report

__all__ = ["PROBE", "Inspection", "Side", "inspect", "kv_bytes"]

PROBE = '''It was a bright cold day in April, and the clocks were striking thirteen. "You don't say!" she
replied; the price had risen by 12.5% to $1,234.50 since 2019. Über den Straßen lag ein naïver Schein.

def mean(values: list[float], *, default: float = 0.0) -> float:
    """Arithmetic mean of `values`; `default` if there are none."""
    if not values:
        return default
    total = 0.0
    for index, value in enumerate(values):
        total += float(value)  # no compensation
    return total / (index + 1)

{"id": 42, "tags": ["a", "b"], "url": "https://example.org/path?q=1", "ok": true}
'''
"""Prose, code and data, for the overlap by use."""


@dataclass(frozen=True)
class Side:
    """One model of the pair. Sizes in bytes; `tokens` counts those that write something.

    Attributes:
        ends: special or other tokens that end a text, as id and name.
        lossless: whether text survives the tokenizer; `reason`: why not.
    """

    model_type: str
    parameters: int
    dtype: str
    weight_bytes: int
    kv_bytes_per_1000_tokens: int
    context_length: int
    vocab_size: int
    tokens: int
    ends: dict[int, str]
    chat_template: bool
    lossless: bool
    reason: str | None


@dataclass(frozen=True)
class Inspection:
    """All that was found about a pair.

    Attributes:
        kind: the drafter that is chosen, "assistant" (same tokenizer) or "universal".
        structure: what the target can verify, "tree" or "chain".
        timing: None when nothing was measured.
    """

    target: Side
    assistant: Side
    kind: str
    structure: str
    overlap: VocabularyReport
    timing: Timing | None
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """What to expect, in plain words."""
        if self.timing is None:
            return "nothing was measured; leave out --no-measure for an expected gain"
        gain, tau, cost = self.timing.gain, self.timing.tokens_per_pass, self.timing.cost
        figures = f"{tau:.2f} tokens per pass at {cost:.2f} times the cost of a plain pass"
        if gain >= 1.1:
            return f"worth it: about {gain:.1f} times as fast as plain decoding ({figures})"
        if gain >= 0.95:
            return f"about even with plain decoding ({figures})"
        return f"not worth it on this machine and text: {gain:.2f} times the speed of plain decoding ({figures})"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = asdict(self)
        if self.timing is not None:
            plain["timing"] = self.timing.to_dict()
        return plain | {"verdict": self.verdict}


def inspect(decoder: Decoder, *, text: str = PROBE, timing: Timing | None = None) -> Inspection:
    """Look at a decoder whose drafter is a model.

    Args:
        decoder: made by `anydraft.load(target, assistant)`.
        text: for the overlap by use.
        timing: from `measure`, if wanted.

    Raises:
        OptionConflict: the drafter is no model, or a tokenizer is missing.
    """
    drafter = decoder.drafter
    if not isinstance(drafter, AssistantDrafter | UniversalDrafter) or decoder.tokenizer is None:
        raise OptionConflict("inspect compares two models with tokenizers; name an assistant")
    mine = PlainEncoder(decoder.tokenizer)
    theirs, tokenizer, enders = mine, decoder.tokenizer, drafter.eos_token_ids
    if isinstance(drafter, UniversalDrafter):
        theirs, tokenizer, enders = drafter.encoder, drafter.tokenizer, drafter.enders
    target = _side(decoder.target, decoder.tokenizer, mine.table, decoder.target.eos_token_ids)
    assistant = _side(drafter.lm, tokenizer, theirs.table, enders)
    overlap = report(theirs, mine, text)
    warnings = _warnings(decoder, target, assistant, overlap, timing)
    return Inspection(target, assistant, drafter.name, decoder.target.structure, overlap, timing, warnings)


def _side(lm: LanguageModel, tokenizer: Any, table: TokenBytes, ends: frozenset[int]) -> Side:
    return Side(
        model_type=str(lm.model.config.model_type),
        parameters=lm.num_parameters,
        dtype=str(lm.dtype).removeprefix("torch."),
        weight_bytes=sum(p.numel() * p.element_size() for p in lm.model.parameters()),
        kv_bytes_per_1000_tokens=kv_bytes(lm),
        context_length=lm.context_length,
        vocab_size=lm.vocab_size,
        tokens=sum(piece is not None for piece in table.table),
        ends={token: str(tokenizer.convert_ids_to_tokens(token)) for token in sorted(ends)},
        chat_template=bool(getattr(tokenizer, "chat_template", None)),
        lossless=table.lossless,
        reason=table.reason,
    )


@torch.inference_mode()
def kv_bytes(lm: LanguageModel, tokens: int = 1000) -> int:
    """Bytes of keys and values for so many tokens of one row, as this engine keeps them."""
    cache = lm.new_cache(1)
    lm.score(cache, [chain([0])])
    stored = (t for layer in cache.layers for t in (layer.keys, layer.values))
    return int(sum(t.numel() * t.element_size() for t in stored) * tokens // cache.capacity)


def _warnings(
    decoder: Decoder, target: Side, assistant: Side, overlap: VocabularyReport, timing: Timing | None
) -> list[str]:
    """What may disappoint, and what to do about it."""
    found: list[str] = []
    share = assistant.parameters / target.parameters
    if timing is not None and timing.draft_step_seconds > timing.pass_seconds[1] / 3:
        step = timing.draft_step_seconds / timing.pass_seconds[1]
        found.append(f"one step of the assistant takes {step:.0%} of a target pass; over a third it rarely pays")
    elif timing is None and share > 1 / 3:
        found.append(f"the assistant has {share:.0%} of the target's parameters; over a third it rarely pays")
    if assistant.context_length < target.context_length:
        found.append(
            f"the assistant reads {assistant.context_length} tokens, the target {target.context_length}: on longer "
            "texts it sees only their end"
        )
    for name, side in (("target", target), ("assistant", assistant)):
        if not side.lossless:
            found.append(f"the {name}'s tokenizer changes text ({side.reason}): few drafts will fit")
        if not side.ends:
            found.append(f"the {name} has no token that ends a text")
    share_used = overlap.target_token_share
    if not overlap.same and share_used is not None and share_used < 0.5:
        found.append(
            f"only {share_used:.0%} of the target's tokens in use have a counterpart: verification='rejection' would "
            "draft little; 'exact' drafts by text and does not need them"
        )
    if decoder.target.dtype != torch.float32 and not decoder.target.exact:
        found.append(
            f"in {target.dtype} nearly equal scores may change places between passes of different width; --exact "
            "keeps the tokens the same"
        )
    if decoder.target.structure == "chain":
        found.append("the target verifies chains only, so drafts have no alternatives")
    return found
