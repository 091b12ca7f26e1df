"""All figures in one table per setting, and below it what went wrong or differed, in full."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.results import Result, number
from anydraft.bench.statistics import Interval

MISSING = "–"


def table(rows: Sequence[Result], colours: Colours) -> list[Markup]:
    """The table, and the notes that its rows need."""
    columns = [name for name in COLUMNS if name not in OPTIONAL or any(COLUMNS[name](row) != [MISSING] for row in rows)]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("contender", *columns)))
    body = (
        tag(
            "tr",
            tag("th", tag("i", class_=f"chip {colours.of(row.contender)}"), row.contender, _prompts(row), scope="row"),
            *(tag("td", *COLUMNS[name](row)) for name in columns),
            class_=None if row.measured else "failed",
        )
        for row in rows
    )
    parts = [tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll", tabindex="0")]
    notes = [note for row in rows for note in _notes(row)]
    return [*parts, tag("ul", *notes, class_="notes")] if notes else parts


def _prompts(row: Result) -> Markup:
    return tag("small", f"{row.prompts} {'prompt' if row.prompts == 1 else 'prompts'}")


def _interval(figure: Interval | None, spec: str = ".2f") -> list[object]:
    if figure is None:
        return [MISSING]
    return [f"{figure.value:{spec}}", tag("small", f"{figure.low:{spec}}–{figure.high:{spec}}")]


def meanings(rows: Sequence[Result], peak: object) -> list[Markup]:
    """What is not plain from the columns' names."""
    said = ["c = tau / speedup: the cost of a pass, in passes of plain decoding."]
    if peak and any(row.peak_memory is not None for row in rows):
        said.append(f"Peak memory: {peak}.")
    if any(row.excess_z is not None for row in rows):
        said.append("Excess z: how far sampled texts are from what the target would say; chance stays within 2 or 3.")
    return [tag("p", " ".join(said), class_="note")]


def memory(size: float) -> str:
    """Bytes in units of 1024: `1.2 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, {"bytes": "KiB", "KiB": "MiB", "MiB": "GiB"}.get(unit, "TiB")
    return f"{size:.0f} {unit}" if size >= 100 or unit == "bytes" else f"{size:.1f} {unit}"


COLUMNS: dict[str, Callable[[Result], list[object]]] = {
    "tokens/s": lambda row: _interval(row.tokens_per_second, ".1f") if row.measured else ["failed"],
    "speedup": lambda row: _interval(row.speedup),
    "over transformers": lambda row: _interval(row.speedup_transformers),
    "tau": lambda row: _interval(row.tau),
    "c": lambda row: _interval(row.cost),
    "accepted": lambda row: [MISSING if row.acceptance_rate is None else f"{row.acceptance_rate:.0%}"],
    "first token": lambda row: [MISSING if row.first_token is None else f"{row.first_token * 1000:,.0f} ms"],
    "peak memory": lambda row: [MISSING if row.peak_memory is None else memory(row.peak_memory)],
    "same tokens": lambda row: [MISSING if row.equal is None else f"{row.equal[0]} of {row.equal[1]}"],
    "excess z": lambda row: [MISSING if row.excess_z is None else f"{row.excess_z:+.1f}"],
}
OPTIONAL = frozenset({"over transformers", "accepted", "peak memory", "same tokens", "excess z"})


def _notes(row: Result) -> list[Markup]:
    notes = [
        tag("li", tag("b", row.contender), " failed: " if not row.measured else ": ", tag("code", text))
        for text in row.problems
    ]
    if row.first_difference:
        notes.append(
            tag("li", tag("b", row.contender), " first differs from plain decoding ", difference(row.first_difference))
        )
    return notes


def difference(found: Mapping[str, Any]) -> str:
    """A first difference in words: where it was, what either wrote there, and how close the two best scores were."""
    place = found.get("prompt_id", found.get("prompt"))
    row, position, close = number(found.get("row")), number(found.get("position")), found.get("margin")
    gap = number(close.get("gap") if isinstance(close, Mapping) else close)
    where = [
        f"in prompt {place}" if place is not None else "",
        f"row {row:.0f}" if row else "",
        f"at token {position:.0f}" if position is not None else "",
    ]
    said = ", ".join(filter(None, where))
    if found.get("plain_text") is not None and found.get("drafted_text") is not None:
        said += f": {found['drafted_text']!r} for {found['plain_text']!r}"
    return said + (f"; the two best scores were {gap:.2g} apart there" if gap is not None else "")
