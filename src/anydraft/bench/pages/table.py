"""All figures in one table per setting, and below it what went wrong or differed, in full."""

from collections.abc import Mapping, Sequence
from typing import Any

from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.figures import Figures, number
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.statistics import Interval

COLUMNS = (
    "contender",
    "tokens/s",
    "speedup",
    "over transformers",
    "tau",
    "c",
    "first token",
    "peak memory",
    "same tokens",
)
MISSING = "–"


def table(rows: Sequence[Figures], colours: Colours) -> list[Markup]:
    """The table, and the notes that its rows need."""
    head = tag("tr", *(tag("th", name, scope="col") for name in COLUMNS))
    body = (
        tag(
            "tr",
            tag(
                "th",
                tag("i", class_=f"chip {colours.of(row.contender)}"),
                row.contender,
                tag("small", _prompts(row)),
                scope="row",
            ),
            *(tag("td", *cell) for cell in _cells(row)),
            class_=None if row.measured else "failed",
        )
        for row in rows
    )
    parts = [tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll", tabindex="0")]
    notes = [note for row in rows for note in _notes(row)]
    return [*parts, tag("ul", *notes, class_="notes")] if notes else parts


def _cells(row: Figures) -> list[list[object]]:
    if not row.measured:
        return [["failed"] if place == 0 else [MISSING] for place in range(len(COLUMNS) - 1)]
    return [
        _interval(row.tokens_per_second, ".1f"),
        _interval(row.speedup),
        _interval(row.speedup_transformers),
        _interval(row.tau),
        _interval(row.cost),
        [MISSING if row.first_token is None else f"{row.first_token * 1000:,.0f} ms"],
        [MISSING if row.peak_memory is None else memory(row.peak_memory)],
        [MISSING if row.equal is None else f"{row.equal[0]} of {row.equal[1]}"],
    ]


def _prompts(row: Figures) -> str:
    return f"{row.prompts} {'prompt' if row.prompts == 1 else 'prompts'}"


def _interval(figure: Interval | None, spec: str = ".2f") -> list[object]:
    if figure is None:
        return [MISSING]
    return [f"{figure.value:{spec}}", tag("small", f"{figure.low:{spec}}–{figure.high:{spec}}")]


def memory(size: float) -> str:
    """Bytes in units of 1024: `1.2 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, {"bytes": "KiB", "KiB": "MiB", "MiB": "GiB"}.get(unit, "TiB")
    return f"{size:.0f} {unit}" if size >= 100 or unit == "bytes" else f"{size:.1f} {unit}"


def _notes(row: Figures) -> list[Markup]:
    notes = [
        tag("li", tag("b", row.contender), " failed: " if not row.measured else ": ", tag("code", text))
        for text in row.problems
    ]
    if row.first_difference:
        notes.append(
            tag("li", tag("b", row.contender), " first differs from plain decoding: ", difference(row.first_difference))
        )
    return notes


def difference(found: Mapping[str, Any]) -> str:
    """A first difference as `prompt 3, token 17, ...`: whatever was noted of it."""
    return ", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in found.items() if value is not None)


def _said(value: Any) -> str:
    if isinstance(value, str):
        return f"“{value}”"
    return f"{value:.3g}" if isinstance(value, float) and number(value) is not None else str(value)
