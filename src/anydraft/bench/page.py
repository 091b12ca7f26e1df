"""One HTML file that shows what a benchmark found: drawings, an example text, and every figure in a table.

The file needs nothing but itself: no request leaves it (its own policy forbids any), and without scripts everything
is shown. Texts of models and errors are escaped wherever they appear.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from anydraft.bench.pages import acceptance, cost, example, origin, speed, table, times
from anydraft.bench.pages.colours import Colours
from anydraft.bench.pages.figures import Figures, mappings, read
from anydraft.bench.pages.headline import caveats, headline, subtitle
from anydraft.bench.pages.markup import Markup, escape, tag
from anydraft.bench.pages.panels import controls, panels, section, switch, when


def write_page(summary: Mapping[str, Any], path: Path) -> None:
    """Write the page of a benchmark's summary; what a contender lacks is said, not required."""
    path.write_text(page(summary), encoding="utf-8")


def page(summary: Mapping[str, Any]) -> str:
    """The page as text."""
    rows = read(summary)
    colours = Colours(rows)
    provenance = summary.get("provenance")
    provenance = provenance if isinstance(provenance, Mapping) else {}
    title = str(summary.get("title") or "What drafting gains")
    body = tag(
        "body",
        tag("header", tag("p", title, tag("span", subtitle(provenance)), class_="title"), *caveats(provenance)),
        controls(row.setting for row in rows),
        tag("main", *_sections(rows, colours, mappings(summary.get("examples")), provenance)),
        tag("footer", "Written by anydraft bench. This page loads nothing and sends nothing."),
        tag("script", Markup(_asset("page.js"))),
    )
    return "<!doctype html>\n" + tag("html", _head(title), body, lang="en") + "\n"


def _head(title: str) -> Markup:
    script = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; img-src data:"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(_asset("page.css"))),
    )


def _asset(name: str) -> str:
    return files("anydraft.bench.pages").joinpath(name).read_text(encoding="utf-8")


def _sections(
    rows: Sequence[Figures], colours: Colours, texts: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]
) -> list[Markup]:
    if not rows:
        nothing = tag("h1", "Nothing was measured"), tag("p", "The benchmark has no results to show.")
        return [
            section("finding", "The finding", *nothing),
            section("origin", "Where this comes from", tag("h2", "How it was measured"), *origin.origin(provenance)),
        ]
    ends, high = cost.limits(rows), acceptance.highest(rows)
    longest = max((times.total(row) for row in rows), default=0.0) or 1.0
    temperatures = sorted({row.setting.temperature for row in rows})
    return [
        section("finding", "The finding", *panels(rows, headline)),
        section("speed", "Speed", *_speed(rows, colours)),
        section(
            "cost",
            "Why: tokens per pass, cost of a pass",
            *panels(rows, lambda mine: [tag("h2", cost.title(mine)), cost.chart(mine, colours, ends)]),
        ),
        section(
            "acceptance",
            "Acceptance by depth",
            *panels(rows, lambda mine: [tag("h2", acceptance.title(mine)), *acceptance.chart(mine, colours, high)]),
        ),
        section(
            "times",
            "Where the time of a token goes",
            *panels(rows, lambda mine: [tag("h2", times.title(mine)), *times.chart(mine, longest)]),
        ),
        section(
            "example",
            "One text, by who proposed it",
            *(
                example.examples(texts, colours, temperatures=temperatures)
                if texts
                else [tag("p", "No text was kept.", class_="none")]
            ),
        ),
        section(
            "table",
            "All figures",
            tag("h2", "Every figure, with its 95 % interval"),
            *panels(rows, lambda mine: table.table(mine, colours)),
        ),
        section("origin", "Where this comes from", tag("h2", "How it was measured"), *origin.origin(provenance)),
    ]


def _speed(rows: Sequence[Figures], colours: Colours) -> list[Markup]:
    own, others = speed.over_own(rows), speed.over_transformers(rows)
    far_own, far_others = speed.furthest(own), speed.furthest(others)

    def draw(mine: list[Figures]) -> list[Markup]:
        parts = [tag("h2", speed.title(mine))]
        first = speed.chart(speed.over_own(mine), colours, high=far_own, base="plain decoding, same engine")
        if not any(row.speedup_transformers for row in rows):
            return [*parts, first]
        second = speed.chart(speed.over_transformers(mine), colours, high=far_others, base="transformers’ own generate")
        return [
            *parts,
            tag("div", first, data_when=when(base="own")),
            tag("div", second, data_when=when(base="transformers")),
        ]

    chosen = switch(
        "base",
        "Compared with",
        [("own", "plain decoding of the same engine"), ("transformers", "transformers’ generate")],
    )
    several = any(row.speedup_transformers for row in rows)
    note = tag(
        "p",
        escape("Bars: tokens per second over those of plain decoding. Whiskers: 95 % bootstrap interval over prompts;"),
        escape(" pale bars have 1 in it."),
        class_="note",
    )
    return [*([chosen] if several and chosen else []), *panels(rows, draw), note]
