"""The drafting figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from anydraft.bench.aims import aims
from anydraft.bench.drafting_report import DraftRow
from anydraft.bench.statistics import Interval

DEPTHS = 5  # of acceptance that are shown
COLUMNS = (
    "drafter",
    "nodes",
    "verified",
    "tokens/s",
    "x plain",
    "tau",
    "c",
    "own pass",
    "step cost",
    "draft",
    "kept at depth 1, 2, ...",
    "saved",
    "parameters",
    "MB/level",
    "MB/token",
    "MB/pass",
    "same text",
)


def markdown(rows: Sequence[DraftRow], title: str) -> str:
    """One table per set of prompts and temperature, then the aims."""
    parts = [f"# {title}", ""]
    for source, temperature in dict.fromkeys((row.source, row.temperature) for row in rows):
        chosen = [row for row in rows if (row.source, row.temperature) == (source, temperature)]
        prompts = max(row.row.prompts for row in chosen)
        parts += [f"## {source}, temperature {temperature:g}, {prompts} prompts", ""]
        parts += [_line(COLUMNS), _line(["---"] + ["--:"] * (len(COLUMNS) - 1))]
        parts += [_line(_cells(row)) for row in chosen]
        parts += ["", *(f"- {row.row.contender}: {error}" for row in chosen for error in sorted(set(row.row.errors)))]
        for row in chosen:
            for other, ratio in row.tau_over.items():
                parts.append(f"- {row.drafter}, {row.nodes} nodes: {ratio:.3f} times the tokens per pass of {other}")
        parts.append("")
    found = aims(rows)
    if found:
        parts += ["## Aims", "", _line(["aim", "found", "holds"]), _line(["---"] * 3)]
        parts += [_line([aim.aim, aim.found, "yes" if aim.holds else "no"]) for aim in found]
    return "\n".join(parts).rstrip() + "\n"


def _cells(row: DraftRow) -> list[str]:
    figures = row.row
    same = figures.identical.get("anydraft")
    return [
        row.drafter,
        row.nodes,
        "-" if row.nodes_per_pass is None else f"{row.nodes_per_pass:.1f}",
        _interval(figures.tokens_per_second, ".1f"),
        _interval(row.speedup),
        _interval(figures.tokens_per_pass),
        _interval(figures.cost),
        _interval(row.own_pass),
        _interval(row.step_cost, ".3f"),
        "-" if row.draft_cost is None else f"{row.draft_cost.value:.3f}",
        " ".join(f"{share:.2f}" for share in row.acceptance[:DEPTHS]) or "-",
        "-" if row.saved is None else f"{row.saved.value:.0%}",
        f"{row.parameters / 1e6:.2f} M" if row.parameters else "-",
        _megabytes(row.bytes_per_level),
        _megabytes(row.bytes_per_token),
        _megabytes(row.bytes_per_pass),
        "-" if same is None else f"{same[0]}/{same[1]}",
    ]


def _interval(interval: Interval | None, spec: str = ".2f") -> str:
    return "-" if interval is None else f"{interval:{spec}}"


def _megabytes(count: float | None) -> str:
    return f"{count / 1e6:.2f}" if count else "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
