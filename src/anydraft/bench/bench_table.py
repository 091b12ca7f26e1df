"""The figures of `anydraft bench` for a terminal: speed, where time goes, and what is to be said in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anydraft.bench.figures import PARTS, Figures
from anydraft.bench.statistics import Interval

FASTER, SLOWER = 1.02, 0.98
FOREIGN = 4.5
"""Standard deviations from chance at which sampled texts are called another's: once in 150 000 for the target's own."""
FULL_WIDTH = 190
"""Columns that the table with all intervals takes."""


def show(rows: Sequence[Figures], title: str, console: Console) -> None:
    """Print everything; narrow terminals get no intervals but those of the speed-up."""
    if not console.is_terminal:
        console = Console(width=FULL_WIDTH)  # a file has no width
    full = console.width >= FULL_WIDTH
    if not rows:
        return  # interrupted before anything was complete
    console.print(Text(title, style="bold"))
    console.print(speed_table(rows, full=full), time_table(rows, full=full))
    for line in remarks(rows):
        console.print(line)


def speed_table(rows: Sequence[Figures], *, full: bool = True) -> Table:
    """Speed, speed-ups, tau, c, acceptance, equality."""
    peers = any(row.speedup_transformers is not None for row in rows)
    headings = ["T", "batch", "contender", "tokens/s", "x plain"]
    headings += ["x transformers"] if peers else []
    table = _table([*headings, "tau", "c", "accepted", "same text", ""])
    for row, last in _with_ends(rows):
        cells: list[str | Text] = [number(row.tokens_per_second, ".1f", full), _speedup(row.speedup)]
        if peers:
            cells.append(number(row.speedup_transformers, ".2f", full))
        table.add_row(
            f"{row.temperature:g}",
            str(row.batch),
            row.contender,
            *cells,
            number(row.tau, ".2f", full),
            number(row.cost, ".2f", full),
            "-" if row.acceptance_rate is None else f"{row.acceptance_rate:.0%}",
            "-" if row.equal is None else f"{row.equal[0]}/{row.equal[1]}",
            Text("broken", style="bold red") if row.broken else "",
            end_section=last,
        )
    return table


def time_table(rows: Sequence[Figures], *, full: bool = True) -> Table:
    """Milliseconds a token by part, the first token, memory, and acceptance at the first depths."""
    depths = ["kept at depth 1, 2, ..."] if full else []
    table = _table(["T", "batch", "contender", *PARTS, "first token", "memory", *depths])
    for row, last in _with_ends(rows):
        table.add_row(
            f"{row.temperature:g}",
            str(row.batch),
            row.contender,
            *(_milliseconds(row.seconds_per_token.get(part)) for part in PARTS),
            "-" if row.first_token is None else f"{1000 * row.first_token:.0f} ms",
            "-" if row.peak_memory is None else f"{row.peak_memory / 2**20:.0f} MiB",
            *([" ".join(f"{share:.2f}" for share in row.acceptance[:5]) or "-"] if full else []),
            end_section=last,
        )
    table.caption = "prefill to other: milliseconds a token"
    table.caption_justify = "left"
    return table


def remarks(rows: Sequence[Figures]) -> Iterator[Text]:
    """What broke, and where texts left plain decoding's."""
    broke: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for what, messages in (("failed", row.errors), ("lost its drafter, which broke", row.failures)):
            for message in messages:
                text, _, count = message.rpartition(" (")
                place = f"T={row.temperature:g}, batch {row.batch}: {count.rstrip(')')}"
                broke.setdefault((f"{row.contender} {what}: ", text), []).append(place)
    for (who, message), places in broke.items():
        yield Text.assemble((who, "red"), message, (f" ({'; '.join(places)})", "dim"))
    for row in rows:
        if row.excess_z is not None and abs(row.excess_z) > FOREIGN:
            yield Text.assemble(
                (f"{row.contender} at T={row.temperature:g}, batch {row.batch}: ", "yellow"),
                f"its sampled texts are not what the target would say; what they cost it is {abs(row.excess_z):.1f} "
                f"standard deviations {'above' if row.excess_z > 0 else 'below'} chance",
            )
        if row.first_difference is not None:
            found = row.first_difference
            yield Text.assemble(
                (f"{row.contender} at T={row.temperature:g}, batch {row.batch}, first difference: ", "yellow"),
                f"{found['prompt_id']}, new token {found['position']}: plain decoding says {found['plain_text']!r}, "
                f"here it was {found['drafted_text']!r}; the two best scores there differ by "
                f"{found['margin']['gap']:.3g}",
            )


def _with_ends(rows: Sequence[Figures]) -> Iterator[tuple[Figures, bool]]:
    """Every row, and whether it is the last one of its temperature and batch size."""
    for row, following in zip_longest(rows, rows[1:]):
        settings = None if following is None else (following.temperature, following.batch)
        yield row, settings != (row.temperature, row.batch)


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        left = heading in ("contender", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    return table


def number(interval: Interval | None, spec: str = ".2f", full: bool = True) -> str:
    """A figure, with its interval where that is wanted and known."""
    if interval is None:
        return "-"
    return f"{interval:{spec}}" if full and not math.isnan(interval.low) else f"{interval.value:{spec}}"


def _speedup(interval: Interval | None) -> Text:
    style = ""
    if interval is not None:
        style = "green" if interval.low > FASTER else "red" if interval.high < SLOWER else ""
    return Text(number(interval), style=style)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f}"
