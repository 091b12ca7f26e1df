"""The report of `anydraft verify` for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anydraft.checks import Difference, LawTest, Report


def show(report: Report, console: Console | None = None) -> None:
    """Print the outcomes as a table, then what was found in words."""
    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check")
    table.add_column("outcome", justify="right")
    table.add_column("tokens per pass", justify="right")
    table.add_column("acceptance", justify="right")
    table.add_column("")
    for outcome in report.equalities:
        table.add_row(
            f"same tokens, {outcome.mode}",
            f"{outcome.identical} of {outcome.compared}",
            f"{outcome.stats.tokens_per_pass:.2f}",
            f"{outcome.stats.acceptance_rate:.0%}",
            _mark(outcome.kept),
        )
    if report.law is not None:
        law = report.law
        table.add_row(f"law of {law.samples} draws, {law.cells} cells", f"p = {law.p:.3g}", "", "", _mark(law.kept))
    console.print(table)
    for outcome in report.equalities:
        if outcome.first is not None:
            console.print(_difference(outcome.first))
    if report.law is not None and not report.law.kept:
        console.print(_law(report.law))
    for hint in report.hints:
        console.print(Text(f"hint: {hint}", style="yellow"))
    words = "kept" if report.kept else "broken"
    console.print(Text(f"promise: {words}", style="bold green" if report.kept else "bold red"))


def _mark(kept: bool) -> Text:
    return Text("✓", style="green") if kept else Text("✗ broken", style="red")


def _difference(found: Difference) -> Text:
    return Text.assemble(
        ("first difference", "bold"),
        f" ({found.mode}): prompt {found.prompt} {found.text!r}, new token {found.position}: plain decoding says "
        f"{found.plain_text!r} ({found.plain}), with the drafter it was {found.drafted_text!r} ({found.drafted}); "
        f"the two best scores there differ by {found.margin.gap:.3g}",
    )


def _law(law: LawTest) -> Text:
    text = Text.assemble(("law", "bold"), f": chi-square {law.statistic:.1f} with {law.dof} degrees of freedom")
    if law.largest is not None:
        name, share, probability = law.largest
        text.append(f"; most of it from {name}: share {share:.4f}, probability {probability:.4f}")
    return text
