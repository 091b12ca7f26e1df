"""PacingReport: what was chosen for a row, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class PacingReport:
    """Who drafted in how many steps, and what is expected of it; seconds are of this machine.

    Attributes:
        steps: target passes by whose draft they verified; "plain" verified none, drafted or not.
        probes: steps in which a drafter was asked about the row to find out.
        nodes: tokens verified, by drafter.
        seconds_plain: of a pass of one node, as last estimated.
        seconds_pass: of passes by width (nodes, root included), where seen; as padded.
        seconds_draft_step: of one more level, by drafter.
        expected_tokens: committed by a pass with a draft, by drafter, as last estimated for this row.
        expected_speedup: of drafting over plain decoding, by drafter, as last estimated for this row, without deciding
            and reading prompts; of a free drafter, that of drafts which were verified.
    """

    steps: dict[str, int] = field(default_factory=dict)
    probes: int = 0
    nodes: dict[str, int] = field(default_factory=dict)
    seconds_plain: float | None = None
    seconds_pass: dict[int, float] = field(default_factory=dict)
    seconds_draft_step: dict[str, float] = field(default_factory=dict)
    expected_tokens: dict[str, float] = field(default_factory=dict)
    expected_speedup: dict[str, float] = field(default_factory=dict)

    def count(self, name: str, nodes: int = 0, *, probe: bool = False, steps: int = 1) -> None:
        """Count one step, or several."""
        self.steps[name] = self.steps.get(name, 0) + steps
        self.probes += probe
        if nodes:
            self.nodes[name] = self.nodes.get(name, 0) + nodes

    @property
    def chosen(self) -> str:
        """Who drafted most often, or "plain"."""
        return max(self.steps, key=lambda name: self.steps[name], default="plain")

    def __str__(self) -> str:
        total = max(1, sum(self.steps.values()))
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in _descending(self.steps))
        reasons = [
            f"{name}: {self.expected_tokens.get(name, 1.0):.1f} tokens a pass, {speedup:.2f}x plain"
            for name, speedup in _descending(self.expected_speedup)
        ]
        return f"{shares or 'nothing drafted'} (expected: {'; '.join(reasons) or 'nothing known'})"

    def __add__(self, other: PacingReport) -> PacingReport:
        """Counts added up; of the figures the later ones."""
        return PacingReport(
            steps=_summed(self.steps, other.steps),
            probes=self.probes + other.probes,
            nodes=_summed(self.nodes, other.nodes),
            seconds_plain=self.seconds_plain if other.seconds_plain is None else other.seconds_plain,
            seconds_pass=self.seconds_pass | other.seconds_pass,
            seconds_draft_step=self.seconds_draft_step | other.seconds_draft_step,
            expected_tokens=self.expected_tokens | other.expected_tokens,
            expected_speedup=self.expected_speedup | other.expected_speedup,
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"chosen": self.chosen, "text": str(self)}


def _summed(mine: dict[str, int], theirs: dict[str, int]) -> dict[str, int]:
    return {name: mine.get(name, 0) + theirs.get(name, 0) for name in [*mine, *(n for n in theirs if n not in mine)]}


def _descending(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(figures.items(), key=lambda pair: -pair[1])
