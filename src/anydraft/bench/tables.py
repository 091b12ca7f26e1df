"""The figures for a terminal: one table for speed, one for where the time went."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from anydraft.bench.report import Row
from anydraft.bench.statistics import Interval


def speed_table(rows: Sequence[Row], title: str) -> Table:
    """Tokens a second, speedups, tau and c, with 95 % intervals over prompts."""
    engines = sorted({name for row in rows for name in row.speedup})
    table = _table(title, ["T", "contender", "tokens/s", *(f"x {name}" for name in engines), "tau", "c", "accepted"])
    for row in rows:
        table.add_row(
            f"{row.temperature:g}",
            row.contender,
            _interval(row.tokens_per_second, ".1f"),
            *(_interval(row.speedup.get(name)) for name in engines),
            _interval(row.tokens_per_pass),
            _interval(row.cost),
            _share(row.acceptance_rate),
        )
    return table


def time_table(rows: Sequence[Row]) -> Table:
    """Shares of the time, the first token, and whether the text is the target's."""
    parts = ("prefill", "draft", "verify", "other")
    headings = ["T", "contender", *parts, "other/pass", "first token", "excess nats", "z", "same text", "errors"]
    table = _table("Time and text", headings)
    for row in rows:
        first = row.seconds_first_token
        table.add_row(
            f"{row.temperature:g}",
            row.contender,
            *(_share(row.shares.get(part)) for part in parts),
            _share(row.other_per_plain_pass),
            "-" if first is None else f"{1000 * first:.0f} ms",
            _interval(row.excess_nats, "+.2f"),
            "-" if row.excess_z is None else f"{row.excess_z:+.1f}",
            ", ".join(f"{same}/{count} {name}" for name, (same, count) in row.identical.items()) or "-",
            str(len(row.errors)) if row.errors else "-",
        )
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "contender" else "right", no_wrap=True)
    return table


def _interval(interval: Interval | None, spec: str = ".2f") -> str:
    return "-" if interval is None else f"{interval:{spec}}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
