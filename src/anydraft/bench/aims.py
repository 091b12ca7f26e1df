"""What the recurrent drafter was to reach, held against the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anydraft.bench.drafting_report import DraftRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One aim: what was found, and whether it holds."""

    aim: str
    found: str
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"aim": self.aim, "found": self.found, "holds": self.holds}


def aims(rows: Sequence[DraftRow], drafter: str = "redrafter") -> list[Aim]:
    """What the recurrent drafter was to reach, by set of prompts; without it there is nothing to say."""
    return [aim for source in dict.fromkeys(row.source for row in rows) for aim in _aims(rows, source, drafter)]


def _aims(rows: Sequence[DraftRow], source: str, drafter: str) -> Iterator[Aim]:
    found = {
        (row.drafter, row.nodes, row.temperature): row
        for row in rows
        if row.source == source and row.row.prompts and row.drafter != "plain"
    }
    mine = {(nodes, at): row for (name, nodes, at), row in found.items() if name == drafter}
    greedy = {nodes: row for (nodes, at), row in mine.items() if at == 0}
    best = max(greedy.values(), key=_speed, default=None)
    if best is not None:
        speed = f"{best.speedup:.2f} at {best.nodes} nodes"
        yield Aim(aim=f"{source}: at least 2.3x at temperature 0", found=speed, holds=_speed(best) >= 2.3)
    for rival in ("medusa", "eagle"):
        pairs = [(row, found[rival, nodes, 0.0]) for nodes, row in greedy.items() if (rival, nodes, 0.0) in found]
        if pairs:
            text = ", ".join(f"{row.nodes}: {_speed(row):.2f} / {_speed(other):.2f}" for row, other in pairs)
            ahead = all(_speed(row) > _speed(other) for row, other in pairs)
            yield Aim(aim=f"{source}: ahead of {rival} at equal nodes, temperature 0", found=text, holds=ahead)
    sampled = {nodes: row for (nodes, at), row in mine.items() if at == 1}
    hot = max(sampled.values(), key=_speed, default=None)
    if best is not None and hot is not None:
        share = _speed(hot) / _speed(best) if _speed(best) else 0.0
        yield Aim(
            aim=f"{source}: best speedup at temperature 1 at least 90 % of that at 0",
            found=f"{share:.0%}",
            holds=share >= 0.9,
        )
    for (nodes, at), row in mine.items():
        for other, ratio in row.tau_over.items():
            yield Aim(
                aim=f"{source}, T={at:g}, {nodes} nodes: 6 % more tokens per pass than {other}",
                found=f"{ratio:.3f}",
                holds=ratio.value >= 1.06,
            )
    for at in sorted({at for _, at in mine}):
        here = {nodes: row for (nodes, t), row in mine.items() if t == at}
        saved = {nodes: row.saved.value for nodes, row in here.items() if row.saved is not None}
        if saved:
            text = ", ".join(f"{nodes}: {share:.0%}" for nodes, share in saved.items())
            most = max(saved, key=lambda nodes: int(nodes) if nodes.isdigit() else 0)  # width comes with many nodes
            yield Aim(
                aim=f"{source}, T={at:g}: 25 % fewer nodes than unmerged beams, at {most} nodes",
                found=text,
                holds=saved[most] >= 0.25,
            )
        costs = {nodes: row.step_cost.value for nodes, row in here.items() if row.step_cost is not None}
        if costs:
            text = ", ".join(f"{nodes}: {cost:.3f}" for nodes, cost in costs.items())
            yield Aim(
                aim=f"{source}, T={at:g}: step cost at most 0.10 plain passes",
                found=text,
                holds=max(costs.values()) <= 0.1,
            )


def _speed(row: DraftRow) -> float:
    return row.speedup.value if row.speedup is not None else 0.0
