"""What `anydraft demo` shows: the answers beside or below each other, and the figures."""

from __future__ import annotations

from rich.box import ROUNDED
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from anydraft.cli.fates import coloured, legend
from anydraft.cli.printing import SHOWN
from anydraft.cli.race import Heat, Lap, Race
from anydraft.text.token_bytes import TokenBytes

LINES, LINES_BELOW = 22, 14
"""Lines of an answer that are shown: beside each other, below each other."""
NARROWEST = 50
"""Columns of a panel, where there are more than two."""
TITLES = {"universal": "UAG", "assistant": "assistant", "redrafter": "ReDrafter", "medusa": "Medusa", "eagle": "EAGLE"}
LONG = {"UAG": "UAG: universal assisted generation", "assistant": "assisted generation"}


def title_of(name: str) -> str:
    """How a drafter is called in tables and pictures ("universal" is universal assisted generation)."""
    kind, _, number = name.partition(" ")
    return f"{TITLES.get(kind, kind)} {number}".strip()


def show_heat(heat: Heat, table: TokenBytes, console: Console | None = None) -> None:
    """All answers to one prompt, the drafted ones coloured by fate; below each other where the console is narrow."""
    console = console or Console(highlight=False)
    laps = {"plain decoding": heat.plain} | {title_of(name): lap for name, lap in heat.drafted.items()}
    beside = len(laps) == 2 or console.width >= NARROWEST * len(laps)
    prompt = Text(heat.prompt.translate(SHOWN), "dim")
    panels = []
    for title, lap in laps.items():
        answer = coloured(lap.steps, table.bytes_of)
        if lap is heat.plain:
            answer = Text(answer.plain)
        text = _cut(Text.assemble(prompt, answer), LINES if beside else LINES_BELOW)
        panels.append((text, _panel(text, LONG.get(title, title), lap)))
    name = f"temperature {heat.temperature:g}" + ("" if heat.seed is None else f", seed {heat.seed}")
    console.print(Text(name, "bold"), "·", legend())
    if beside:
        grid = Table.grid(expand=True, padding=(0, 1))
        inside = max(10, console.width // len(panels) - 5)
        height = 2 + max(len(text.wrap(console, inside)) for text, _ in panels)
        for _, panel in panels:
            grid.add_column(ratio=1)
            panel.height = height
        grid.add_row(*(panel for _, panel in panels))
        console.print(grid)
    else:
        for _, panel in panels:
            console.print(panel)
    console.print()


def _panel(text: Text, title: str, lap: Lap) -> Panel:
    stats = lap.stats
    figures = f"{stats.num_tokens} tokens, {stats.num_passes} passes, {stats.tokens_per_second:.0f} tokens/s"
    return Panel(text, title=title, subtitle=figures, box=ROUNDED, title_align="left")


def _cut(text: Text, most: int) -> Text:
    """The first lines, so that all panels fit a screen."""
    lines = text.split("\n", allow_blank=True)
    if len(lines) <= most:
        return text
    return Text("\n").join([*lines[:most], Text("…", "dim")])


def summary(races: list[Race], console: Console | None = None) -> None:
    """The figures of all heats, a row per temperature and drafter; of speed the median ratio."""
    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("")
    for name in ("tokens per pass", "acceptance", "speed ratio", "identical"):
        table.add_column(name, justify="right")
    for race in races:
        for score in race.scores:
            stats = score.stats
            table.add_row(
                f"temperature {race.temperature:g}",
                title_of(score.name),
                f"{stats.tokens_per_pass:.2f}",
                f"{stats.acceptance_rate:.0%}",
                f"{score.ratio:.2f}",
                _yes_or_no(score.identical),
            )
    console.print(table)
    console.print(Text("identical: ") + _yes_or_no(all(race.identical for race in races)))


def _yes_or_no(same: bool) -> Text:
    return Text("yes", "bold green") if same else Text("no", "bold red")
