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
from anydraft.bench.pages.headline import caveats, headline, subtitle
from anydraft.bench.pages.markup import Markup, tag
from anydraft.bench.pages.panels import controls, panels, section
from anydraft.bench.pages.results import Result, mappings, read


def write_page(summary: Mapping[str, Any], path: Path) -> None:
    """Write the page of a benchmark's summary; what a contender lacks is said, not required."""
    path.write_text(page(summary), encoding="utf-8")


def page(summary: Mapping[str, Any]) -> str:
    """The page as text."""
    rows = read(summary)
    provenance = summary.get("provenance")
    provenance = provenance if isinstance(provenance, Mapping) else {}
    title = str(summary.get("title") or "What drafting gains")
    body = tag(
        "body",
        tag(
            "header",
            tag("p", title, tag("span", subtitle(provenance)), class_="title"),
            *caveats(provenance, summary.get("measured")),
        ),
        controls(row.setting for row in rows),
        tag("main", *_sections(summary, rows, provenance)),
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


def _sections(summary: Mapping[str, Any], rows: Sequence[Result], provenance: Mapping[str, Any]) -> list[Markup]:
    measured = section("origin", "Where this comes from", tag("h2", "How it was measured"), *origin.origin(provenance))
    if not rows:
        nothing = tag("h1", "Nothing was measured"), tag("p", "The benchmark has no results to show.")
        return [section("finding", "The finding", *nothing), measured]
    texts = mappings(summary.get("examples"))
    colours = Colours(rows, example.proposers(texts))
    return [
        section("finding", "The finding", *panels(rows, headline)),
        section("speed", "Speed", *speed.views(rows, colours)),
        section("cost", "Why: tokens per pass, cost of a pass", *cost.views(rows, colours)),
        section("acceptance", "Acceptance by depth", *acceptance.views(rows, colours)),
        section("times", "Where the time of a token goes", *times.views(rows)),
        section("example", "One text, by who proposed it", *example.examples(texts, rows, colours)),
        section(
            "table",
            "All figures",
            tag("h2", "Every figure, with its 95 % interval"),
            *panels(rows, lambda mine: table.table(mine, colours)),
            *table.meanings(rows, summary.get("memory")),
        ),
        measured,
    ]
