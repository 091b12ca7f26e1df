"""Are the tokens with a drafter those of plain decoding by the same engine?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anydraft.checks.margin import Margin, margin
from anydraft.decoder import Decoder
from anydraft.sampling import SamplingParams
from anydraft.stats import Stats


@dataclass(frozen=True)
class Mode:
    """A way of decoding to be checked; the seed of prompt i is `params.seed + i`."""

    name: str
    params: SamplingParams


@dataclass(frozen=True)
class Difference:
    """Where one text left plain decoding's.

    Attributes:
        prompt: index of the prompt; text: its beginning.
        position: index of the first new token that differs.
        plain, drafted: the tokens there (None: the answer had ended); *_text: what they write.
        margin: the two best scores there.
    """

    mode: str
    prompt: int
    text: str
    position: int
    plain: int | None
    drafted: int | None
    plain_text: str
    drafted_text: str
    margin: Margin

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass
class Equality:
    """Outcome of one mode: prompts compared, those that were identical, and the first difference."""

    mode: str
    compared: int = 0
    identical: int = 0
    first: Difference | None = None
    stats: Stats = field(default_factory=Stats)

    @property
    def kept(self) -> bool:
        """Whether all were identical."""
        return self.identical == self.compared

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "mode": self.mode,
            "compared": self.compared,
            "identical": self.identical,
            "first_difference": None if self.first is None else self.first.to_dict(),
            "tokens_per_pass": self.stats.tokens_per_pass,
            "acceptance_rate": self.stats.acceptance_rate,
        }


def compare(decoder: Decoder, prompts: Sequence[str], modes: Sequence[Mode]) -> Iterator[Equality]:
    """Compare every prompt in every mode; yields the outcome so far of a mode after each of its prompts."""
    plain = Decoder(decoder.target)
    for mode in modes:
        outcome = Equality(mode.name)
        for index, prompt in enumerate(prompts):
            params = mode.params
            if params.seed is not None:
                params = replace(params, seed=params.seed + index)
            one, other = plain.generate(prompt, params), decoder.generate(prompt, params)
            assert not isinstance(one, list)
            assert not isinstance(other, list)
            outcome.compared += 1
            outcome.stats = outcome.stats + other.stats
            if one.tokens == other.tokens:
                outcome.identical += 1
            elif outcome.first is None:
                place = _first(one.tokens, other.tokens)
                outcome.first = _difference(decoder, mode.name, index, prompt, one.tokens, other.tokens, place, params)
            yield outcome


def _first(one: Sequence[int], other: Sequence[int]) -> int:
    """Index of the first difference; the shorter one's length if it is a prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _difference(
    decoder: Decoder,
    mode: str,
    index: int,
    prompt: str,
    one: Sequence[int],
    other: Sequence[int],
    place: int,
    params: SamplingParams,
) -> Difference:
    plain = one[place] if place < len(one) else None
    drafted = other[place] if place < len(other) else None
    ids = [int(token) for token in decoder.tokenizer(prompt)["input_ids"]]
    return Difference(
        mode=mode,
        prompt=index,
        text=prompt[:60],
        position=place,
        plain=plain,
        drafted=drafted,
        plain_text=_written(decoder, plain),
        drafted_text=_written(decoder, drafted),
        margin=margin(decoder.target, ids, one[:place], params),
    )


def _written(decoder: Decoder, token: int | None) -> str:
    if token is None:
        return "<end of the answer>"
    return str(decoder.tokenizer.decode([token], skip_special_tokens=False))
