"""What `verify` found, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from anydraft.checks.equality import Equality, Mode
from anydraft.checks.law import LawTest
from anydraft.sampling import SamplingParams
from anydraft.verify import Verification


@dataclass
class Report:
    """Outcomes of all checks.

    Attributes:
        equalities: one per mode, in order.
        law: the test of the law; None when it was left out.
        verification: under "rejection" only the law is promised when sampling, not the tokens.
        hints: what a user may do about it.
    """

    equalities: list[Equality] = field(default_factory=list)
    law: LawTest | None = None
    verification: Verification = "exact"
    hints: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept in every check."""
        return all(outcome.kept for outcome in self.equalities) and (self.law is None or self.law.kept)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "kept": self.kept,
            "verification": self.verification,
            "equality": [outcome.to_dict() for outcome in self.equalities],
            "law": None if self.law is None else self.law.to_dict(),
            "hints": self.hints,
        }


def modes_of(
    *, max_new_tokens: int, seed: int, own: SamplingParams | None = None, verification: Verification = "exact"
) -> list[Mode]:
    """What is checked: greedy, and sampling as the user asked or else at two settings."""
    greedy = Mode("greedy", SamplingParams(max_new_tokens=max_new_tokens))
    if verification == "rejection":
        return [greedy]
    if own is not None:
        return [greedy] if own.greedy else [greedy, Mode(_name(own), replace(own, seed=seed))]
    base = SamplingParams(max_new_tokens=max_new_tokens, temperature=1.0, seed=seed)
    narrow = replace(base, temperature=0.7, top_p=0.9)
    return [greedy, Mode(_name(base), base), Mode(_name(narrow), narrow)]


def _name(params: SamplingParams) -> str:
    parts = [f"temperature {params.temperature:g}"]
    for name, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
        value = getattr(params, name)
        if value != off:
            parts.append(f"{name.replace('_', '-')} {value:g}")
    return ", ".join(parts)
