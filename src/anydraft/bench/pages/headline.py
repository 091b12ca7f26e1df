"""The top of the page: the result in one sentence, its figures large, and what else must be known to read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.results import Result, number, sequence
from anydraft.bench.pages.words import best, finding, remarks


def headline(rows: Sequence[Result]) -> list[Markup]:
    """Sentence, figures and remarks of one setting."""
    parts = [tag("h1", finding(rows))]
    winner = best(rows, "anydraft") or best(rows)
    if winner is not None:
        parts.append(tag("dl", *_tiles(winner), class_="tiles"))
    said = remarks(rows)
    return (
        [*parts, tag("ul", *(tag("li", tag("b", name), ": ", text) for name, text in said), class_="remarks")]
        if said
        else parts
    )


def _tiles(row: Result) -> list[Markup]:
    tiles = []
    if row.speedup:
        tiles.append(
            _tile("times plain decoding", f"{row.speedup.value:.2f}×", f"{row.speedup.low:.2f}–{row.speedup.high:.2f}")
        )
    if row.tokens_per_second:
        speed = row.tokens_per_second
        tiles.append(_tile("tokens a second", f"{speed.value:,.0f}", f"{speed.low:,.0f}–{speed.high:,.0f}"))
    if row.tau:
        tiles.append(_tile("tokens per pass, tau", f"{row.tau.value:.2f}", f"{row.tau.low:.2f}–{row.tau.high:.2f}"))
    if row.cost:
        tiles.append(_tile("cost of a pass, c", f"{row.cost.value:.2f}", f"{row.cost.low:.2f}–{row.cost.high:.2f}"))
    if row.equal:
        tiles.append(_tile("identical texts", f"{row.equal[0]} of {row.equal[1]}", "to plain decoding’s"))
    return tiles


def _tile(name: str, value: str, below: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", below)))


def subtitle(provenance: Mapping[str, Any]) -> str:
    """Machine, precision and day, as far as known."""
    threads = provenance.get("threads")
    parts = [
        provenance.get("accelerator") or provenance.get("cpu"),
        f"{threads} {'thread' if threads == 1 else 'threads'}" if threads else None,
        provenance.get("dtype"),
        str(provenance.get("date") or "")[:10],
    ]
    return ", ".join(str(part) for part in parts if part)


def caveats(provenance: Mapping[str, Any], measured: object) -> list[Markup]:
    """What a reader has to be told before any figure: a run cut short, a busy machine, an enlarged target."""
    said = []
    counts = [int(count) for value in sequence(measured) if (count := number(value)) is not None]
    if len(counts) == 2 and counts[0] < counts[1]:
        said.append(f"Not finished: {counts[0]} of {counts[1]} runs were measured.")
    load, cores = number(provenance.get("load_average")), number(provenance.get("cores"))
    if load is not None and cores is not None and load > cores:
        said.append(f"The machine was busy: a load of {load:.1f} on {cores:.0f} cores when this began.")
    enlarged = next((value for key, value in provenance.items() if "enlarge" in key and value), None)
    if enlarged is not None:
        how = "" if enlarged is True or isinstance(enlarged, Mapping | list) else f" ({enlarged})"
        said.append(
            f"The target is an enlarged one{how}: a small model padded to a larger one’s real cost,"
            " which says the same as before. Its texts are the small model’s."
        )
    return [tag("p", text, class_="caveat") for text in said]
