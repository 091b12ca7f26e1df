"""What `anydraft demo` shows: two texts side by side, and the figures."""

from __future__ import annotations

from rich.box import ROUNDED
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from anydraft.cli.fates import coloured, legend
from anydraft.cli.printing import SHOWN
from anydraft.cli.race import Heat, Lap, Race
from anydraft.decoder import Decoder
from anydraft.text.token_bytes import TokenBytes

LINES = 22
"""Lines of an answer that are shown."""


def side_by_side(decoder: Decoder, heat: Heat, console: Console | None = None) -> None:
    """Both answers to one prompt; the drafted one coloured by fate."""
    console = console or Console(highlight=False)
    bytes_of = TokenBytes.of(decoder.tokenizer).bytes_of
    prompt = Text(heat.prompt.translate(SHOWN), "dim")
    plain = Text(coloured(heat.plain.steps, bytes_of).plain)
    drafted = coloured(heat.drafted.steps, bytes_of)
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    texts = [_cut(Text.assemble(prompt, answer)) for answer in (plain, drafted)]
    inside = max(10, console.width // 2 - 5)
    height = 2 + max(len(text.wrap(console, inside)) for text in texts)
    grid.add_row(
        _panel(texts[0], "plain decoding", heat.plain, height),
        _panel(texts[1], title_of(decoder), heat.drafted, height),
    )
    name = f"temperature {heat.temperature:g}" + ("" if heat.seed is None else f", seed {heat.seed}")
    console.print(Text(name, "bold"), "·", legend())
    console.print(grid)
    console.print()


def title_of(decoder: Decoder) -> str:
    """The method's name: universal where the tokenizers differ."""
    name = decoder.drafter.name if decoder.drafter is not None else "target"
    return "universal assisted generation" if name == "universal" else "assisted generation"


def _panel(text: Text, title: str, lap: Lap, height: int) -> Panel:
    stats = lap.stats
    figures = f"{stats.num_tokens} tokens, {stats.num_passes} passes, {stats.tokens_per_second:.0f} tokens/s"
    return Panel(text, title=title, subtitle=figures, box=ROUNDED, title_align="left", height=height)


def _cut(text: Text) -> Text:
    """The first lines, so that both panels fit a screen."""
    lines = text.split("\n", allow_blank=True)
    if len(lines) <= LINES:
        return text
    return Text("\n").join([*lines[:LINES], Text("…", "dim")])


def summary(races: list[Race], console: Console | None = None) -> None:
    """The figures of all heats; of speed the median ratio."""
    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("tokens per pass", "acceptance", "speed ratio", "identical"):
        table.add_column(name, justify="right")
    for race in races:
        answer = Text("yes", "bold green") if race.identical else Text("no", "bold red")
        table.add_row(
            f"temperature {race.temperature:g}",
            f"{race.stats.tokens_per_pass:.2f}",
            f"{race.stats.acceptance_rate:.0%}",
            f"{race.ratio:.2f}",
            answer,
        )
    console.print(table)
    every = all(race.identical for race in races)
    console.print(Text.assemble("identical: ", ("yes", "bold green") if every else ("no", "bold red")))
